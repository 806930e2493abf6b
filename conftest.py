"""What needs an optional dependency is left out, and said, where it is not installed."""

import importlib.util

_HAS_SCVI = importlib.util.find_spec("scvi") is not None

collect_ignore_glob = [] if _HAS_SCVI else ["python/annfeed/scvi/*"]


def pytest_report_header() -> str | None:
    """Say what is left out."""
    return None if _HAS_SCVI else "scvi-tools is not installed: the examples in annfeed.scvi are not run"
