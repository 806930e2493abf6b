"""Without the corpus of real files, the report's head says how many tests are left out, also if several run them."""

from pathlib import Path
from types import SimpleNamespace as Made

import pytest

from tests import conftest


class Item:
    """A test, as far as it is looked at."""

    def __init__(self, reads_corpus: bool) -> None:
        self.fixturenames = ["tmp_path", "corpus"] if reads_corpus else ["tmp_path"]
        self.markers: list[object] = []

    def add_marker(self, marker: object) -> None:
        self.markers.append(marker)

    def get_closest_marker(self, name: str) -> object | None:
        return next((marker for marker in self.markers if name == getattr(marker, "name", marker)), None)


@pytest.fixture
def items() -> list[Item]:
    return [Item(True), Item(False), Item(True)]


def test_it_is_said_and_each_is_skipped(items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "CORPUS", tmp_path / "none")
    conftest.pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    assert [item.get_closest_marker("skip") is not None for item in items] == [True, False, True]
    said = f"left out: 2 tests that read the corpus of real .h5ad files, not at {tmp_path / 'none'}"
    assert conftest.pytest_report_collectionfinish(items) == said  # type: ignore[arg-type]
    # As pytest-xdist calls them: the process that reports, each of the others, the one that reports.
    nodes = [Made(gateway=Made(id=f"gw{number}"), workerinput={}) for number in range(2)]
    lines: list[str] = []
    for node in nodes:
        node.config = Made(get_terminal_writer=lambda: Made(line=lines.append))
        conftest.pytest_configure_node(node)
        conftest.pytest_collection_finish(Made(config=Made(workerinput=node.workerinput), items=items))  # type: ignore[arg-type]
    for node in nodes:
        conftest.pytest_xdist_node_collection_finished(node)
    assert lines == ["\n" + said]


def test_nothing_is_said_where_it_is(items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "CORPUS", tmp_path)
    conftest.pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    assert [item.get_closest_marker("skip") for item in items] == [None] * 3
    assert conftest.pytest_report_collectionfinish(items) == ""  # type: ignore[arg-type]
