"""Examples in docstrings that need an optional dependency are skipped, visibly, where it is not installed."""

import importlib.util

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the examples of modules that need scvi-tools."""
    if importlib.util.find_spec("scvi") is None:
        for item in items:
            if item.nodeid.startswith(("python/annfeed/scvi/use.py", "python/annfeed/scvi/datamodule.py")):
                item.add_marker(pytest.mark.skip(reason="scvi-tools is not installed"))
