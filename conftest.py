"""Which tests are left out for want of an optional dependency, and in which order the files come.

Several processes share the tests file by file; this is how `make test` starts them:

    python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
"""

import importlib.util

import pytest

_HAS_FILTERS = importlib.util.find_spec("hdf5plugin") is not None

_HAS_SCVI = importlib.util.find_spec("scvi") is not None

_HAS_LIGHTNING = any(importlib.util.find_spec(name) for name in ("lightning", "pytorch_lightning"))

collect_ignore_glob = [] if _HAS_SCVI else ["python/annfeed/scvi/*"]
collect_ignore = ["python/annfeed/_core.py"] + ([] if _HAS_LIGHTNING else ["python/annfeed/lightning.py"])


def pytest_report_header() -> list[str]:
    """Say which extras are absent."""
    extras = {
        "filters": ("the tests that write files with hdf5plugin fail", _HAS_FILTERS),
        "lightning": ("its tests, and the examples in annfeed.lightning, are not run", _HAS_LIGHTNING),
        "scvi": ("its tests, and the examples in annfeed.scvi, are not run", _HAS_SCVI),
    }
    return [f"annfeed[{name}] is not installed: {what}" for name, (what, there) in extras.items() if not there]


#: Files whose tests take longest, most of them in processes that they start.
_LONGEST = (
    "tests/test_examples.py",
    "tests/sources/test_bad_files.py",
    "tests/lightning/test_lightning.py",
    "tests/h5ad/test_changed_files.py",
    "tests/sources/test_any_layout.py",
    "tests/memory/test_handover.py",
    "tests/loading/test_workers.py",
    "tests/scvi/test_loader_workers.py",
    "tests/loading/test_ends.py",
    "tests/scvi/test_datamodule_models.py",
    "tests/loading/test_torchrun.py",
    "tests/dataset/test_life_of_a_file.py",
    "tests/loading/test_dead_workers.py",
    "tests/sources/test_corpus.py",
    "tests/memory/test_cache_tree.py",
    "tests/scvi/test_parity.py",
    "tests/lightning/test_lightning_epochs.py",
    "tests/loading/test_trainers.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that the processes that share the tests end together."""
    place = {name: i for i, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path.relative_to(item.config.rootpath).as_posix(), len(place)))
