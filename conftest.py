"""What needs an optional dependency is left out, and said, where it is not installed."""

import importlib.util

_HAS_SCVI = importlib.util.find_spec("scvi") is not None

_HAS_LIGHTNING = any(importlib.util.find_spec(name) for name in ("lightning", "pytorch_lightning"))

collect_ignore_glob = [] if _HAS_SCVI else ["python/annfeed/scvi/*"]
collect_ignore = [] if _HAS_LIGHTNING else ["python/annfeed/lightning.py"]


def pytest_report_header() -> str | None:
    """Say what is left out."""
    left_out = {"scvi-tools": ("annfeed.scvi", _HAS_SCVI), "Lightning": ("annfeed.lightning", _HAS_LIGHTNING)}
    lines = [
        f"{name} is not installed: the examples in {where} are not run"
        for name, (where, there) in left_out.items()
        if not there
    ]
    return "\n".join(lines) or None
