"""What all Python tests share: the folder of real .h5ad files, which is not part of the repository, and how many cases
hypothesis draws.

A test that draws its cases draws 100, or as many as its own ``@settings(max_examples=…)`` says.
``--hypothesis-profile=full`` makes the 100 ten times as many, for a run over night: ``make test-python PROFILE=full``.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from tests.support.places import CORPUS
from tests.support.toys import hand_over, toy

# Not a module with examples; and pytest would import it under the name of the other conftest.
collect_ignore = ["conftest.py"]
# Run by tests in processes of their own; some need what may not be installed.
collect_ignore_glob = ["scripts/*", "golden/*"]

# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("usual", max_examples=100, deadline=None)
settings.register_profile("full", max_examples=1000, deadline=None)
settings.load_profile("usual")

# Where several processes run tests, torch has its share of the cores in each: its threads wait by spinning.
n_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, torch.get_num_threads() // n_processes))

# What is started by forkserver, as workers and as the scripts of processes.py, then need not import these.
torch.multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["torch", "torch.distributed", "anndata", "annfeed.dataset", "annfeed.loading.loader", "lightning.pytorch"]
)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Return the folder of real .h5ad files; where it is absent, a test that uses it is skipped (see below)."""
    assert CORPUS.is_dir(), "a test that asks for the corpus by getfixturevalue is marked: pytest.mark.corpus"
    return CORPUS


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for files that many tests read and none writes to."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="module")
def path(shelf: Path) -> Path:
    """Return a file of `toy` that no test writes to; rooms have their own where theirs do."""
    return hand_over(toy(), "path", shelf)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the corpus; skip them where there is none."""
    for item in items:
        if "corpus" in getattr(item, "fixturenames", ()):
            item.add_marker("corpus")
        if item.get_closest_marker("corpus") and not CORPUS.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"the corpus of real .h5ad files is not at {CORPUS}"))


# --- the report's header tells how many tests are left out where the corpus is absent ---------------------------------


def left_out(items: list[pytest.Item]) -> str:
    """Return what the header says of these tests."""
    n = sum(item.get_closest_marker("corpus") is not None for item in items)
    return "" if CORPUS.is_dir() else f"left out: {n} tests that read the corpus of real .h5ad files, not at {CORPUS}"


def pytest_report_collectionfinish(items: list[pytest.Item]) -> str:
    """Say it where one process runs all tests."""
    return left_out(items)


# With pytest-xdist the process that writes the report does not know the tests; each of the others knows them all.


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell the first process where to write how many it is."""
    if node.gateway.id == "gw0" and not CORPUS.is_dir():
        descriptor, node.workerinput["left out"] = tempfile.mkstemp()
        os.close(descriptor)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write it, in the first process."""
    if file := getattr(session.config, "workerinput", {}).get("left out"):
        Path(file).write_text(left_out(session.items))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    """Say it, in the process that writes the report."""
    if file := node.workerinput.pop("left out", None):
        node.config.get_terminal_writer().line("\n" + Path(file).read_text())
        Path(file).unlink()
