"""Which tests are left out for want of an optional dependency, and which come first.

Several processes share the tests file by file; this is how `make test` starts them:

    python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
"""

import importlib.util

import pytest

_HAS_FILTERS = importlib.util.find_spec("hdf5plugin") is not None

_HAS_SCVI = importlib.util.find_spec("scvi") is not None

_HAS_LIGHTNING = any(importlib.util.find_spec(name) for name in ("lightning", "pytorch_lightning"))

collect_ignore_glob = [] if _HAS_SCVI else ["python/annfeed/scvi/*"]
collect_ignore = [] if _HAS_LIGHTNING else ["python/annfeed/lightning.py"]


def pytest_report_header() -> list[str]:
    """Say which extras are absent."""
    extras = {
        "filters": ("the tests that write files with hdf5plugin fail", _HAS_FILTERS),
        "lightning": ("its tests, and the examples in annfeed.lightning, are not run", _HAS_LIGHTNING),
        "scvi": ("its tests, and the examples in annfeed.scvi, are not run", _HAS_SCVI),
    }
    return [f"annfeed[{name}] is not installed: {what}" for name, (what, there) in extras.items() if not there]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that start processes of their own: they take longest, and no process waits for them last."""
    first = {item.path for item in items if item.get_closest_marker("processes")}
    items.sort(key=lambda item: item.path not in first)
