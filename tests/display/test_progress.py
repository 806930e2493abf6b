"""Progress bars: of all that takes long, where people look, and nowhere else."""

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem

import annfeed
from annfeed import AnnDataset
from annfeed.batches.reader import RowReader
from annfeed.cli import main
from annfeed.display import progress
from annfeed.display.progress import are_shown, progress_bar, tracked
from annfeed.inspection import inspect_files
from annfeed.loading import readahead
from annfeed.sources.file import _convert

N_ROWS = 50


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANNFEED_PROGRESS", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let stderr be a terminal for the rest of a test (pytest sets its own when the test begins)."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with X by rows and by columns, and a column of text."""
    x = sp.random(N_ROWS, 20, 0.25, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    obs = pd.DataFrame(index=[f"c{i}" for i in range(N_ROWS)])
    anndata.AnnData(x, obs=obs, layers={"columns": x.tocsc()}).write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        write_elem(file["obs"], "name", np.array(["x", "y"] * 25, dtype=object))
        file["obs"].attrs["column-order"] = np.array(["name"], dtype=object)
    return tmp_path / "a.h5ad"


def opening(path: Path) -> None:
    AnnDataset([path] * 3, obs_columns=[])


def inspecting(path: Path) -> None:
    inspect_files([(str(path), "X")] * 3)


def converting(path: Path) -> None:
    AnnDataset(path, elem="layers/columns", obs_columns=[])[0]


def reading_text(path: Path) -> None:
    AnnDataset(path, obs_columns=["name"]).categories  # noqa: B018


def rewriting(path: Path) -> None:
    annfeed.rewrite(path, path.with_name("b.h5ad"), codec="gzip")


def writing_obsm(path: Path) -> None:
    annfeed.write_obsm(path, "X_new", (([i], np.ones((1, 2))) for i in range(N_ROWS)))


def writing_obs(path: Path) -> None:
    annfeed.write_obs(path, "new", np.arange(N_ROWS))


def measuring(path: Path) -> None:
    assert main(["bench", str(path), "--seconds", "60"]) == 0  # to the end of the epoch


#: What may take long, what its bar says, and the total of it; None where it is not known.
LONG: list[tuple[Callable[[Path], None], str, int | None]] = [
    (opening, "annfeed: opening", 3),
    (inspecting, "annfeed: inspecting", 3),
    (converting, "annfeed: columns (CSC) into rows", 250),
    (reading_text, "annfeed: reading obs/name", N_ROWS),
    (rewriting, "annfeed: rewriting", 2 * 2 * 250 * 8),
    (writing_obsm, "annfeed: results", N_ROWS),
    (writing_obsm, "annfeed: writing obsm", 1),
    (writing_obs, "annfeed: results", N_ROWS),
    (measuring, "annfeed: exact random", None),
]


class Bar:
    """Stands in for tqdm's class."""

    made: list["Bar"]

    def __init__(self, _items: None, what: str, total: int | None, **options: Any) -> None:
        self.what, self.total, self.options, self.done = what, total, options, options["initial"]
        Bar.made.append(self)

    def update(self, n: int) -> None:
        self.done += n

    count = update

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("work", "what", "total"), LONG)
def test_what_takes_long_has_a_bar(
    work: Callable[[Path], None],
    what: str,
    total: int | None,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_terminal(monkeypatch)
    Bar.made = []
    monkeypatch.setattr(progress, "_bar_class", lambda: Bar)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    if work is converting:  # which tells now and then, and too little here for that
        monkeypatch.setattr(
            progress, "_LateBar", lambda what, total, _unit: Bar(None, f"annfeed: {what}", total, initial=0)
        )
    work(path)
    (bar,) = [bar for bar in Bar.made if bar.what == what]
    assert bar.total == total and bar.closed
    if work is not converting:
        assert bar.options["leave"] is False
        assert total is None or bar.done == total
    Bar.made = []
    monkeypatch.setenv("ANNFEED_PROGRESS", "0")
    for file in path.parent.glob("b.h5ad"):
        file.unlink()
    annfeed.rewrite(path, path.with_name("c.h5ad"), codec="gzip")
    assert not Bar.made


def test_the_wait_for_the_first_batch_has_a_bar(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_terminal(monkeypatch)
    Bar.made = []
    monkeypatch.setattr(progress, "_bar_class", lambda: Bar)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(readahead, "_LOOKS_A_TELL", 1)
    load = RowReader.load

    def load_slowly(reader: RowReader, positions: Any) -> Any:
        time.sleep(5 * readahead._LOOK)
        loaded = load(reader, positions)
        time.sleep(5 * readahead._LOOK)
        return loaded

    monkeypatch.setattr(RowReader, "load", load_slowly)
    with AnnDataset(path, obs_columns=[], window=20) as dataset:
        for _ in dataset.get_optimized_dataloader(batch_size=10, shuffle=False):
            (bar,) = Bar.made  # that the second window is waited for, too, is not told
            assert bar.closed and bar.what == "annfeed: reading the first rows" and bar.total is None
            assert 0 < bar.done <= dataset.stats()["bytes_read"]
        monkeypatch.setenv("ANNFEED_PROGRESS", "0")
        monkeypatch.setattr(RowReader, "read_stats", None)  # nor are bytes counted where no bar is shown
        assert len(list(dataset.get_optimized_dataloader(batch_size=10))) == 5
    assert len(Bar.made) == 1


@pytest.mark.parametrize("work", [opening, converting, reading_text, rewriting])
def test_no_bar_is_made_of_what_takes_no_time(
    work: Callable[[Path], None], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_terminal(monkeypatch)
    Bar.made = []
    monkeypatch.setattr(progress, "_bar_class", lambda: Bar)
    work(path)
    assert Bar.made == []  # tqdm's would start a thread, and make a widget in a notebook


def test_a_late_bar_begins_with_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, now = at_terminal(monkeypatch), 100.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    with progress_bar("counting", 10, "sheep") as count:
        for done, shown in ((3, ""), (4, "7/10")):
            count(done)
            assert shown in terminal.getvalue() and bool(shown) is bool(terminal.getvalue())
            now += 2.0
        count(3)


class OnlyWrites:
    """What some programs put in the place of stderr."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [OnlyWrites(), None, closed()])
def test_a_stderr_that_is_no_file_is_no_terminal(stream: object, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert not are_shown()
    opening(path)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setenv("ANNFEED_PROGRESS", "1")
    opening(path)


def test_a_stdout_that_is_no_file_is_no_terminal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", OnlyWrites())
    assert main(["inspect", str(path)]) == 0


def test_what_a_conversion_tells_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    at_terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    Bar.made = []
    monkeypatch.setattr(progress, "_bar_class", lambda: Bar)
    tell: Any = SimpleNamespace(unconverted=250, convert=lambda threads, cancel, told: [told(n) for n in (0, 90, 200)])
    _convert(tell, 1)
    assert [bar.done for bar in Bar.made] == [200]


def test_a_bar_of_tqdm_appears_and_goes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    opening(path)
    assert terminal.getvalue() == ""  # it took no two seconds
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    opening(path)
    text = terminal.getvalue()
    assert "annfeed: opening" in text and "/3" in text
    assert text.endswith("\r")  # nothing is left of it


def test_no_bar_in_a_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    log = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", log)
        opening(path)
        assert log.getvalue() == ""
        patch.setenv("ANNFEED_PROGRESS", "1")  # asked for
        opening(path)
    assert "annfeed: opening" in log.getvalue()


@pytest.mark.parametrize("said", ["0", "off", "False", " no "])
def test_one_setting_turns_all_off(said: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setenv("ANNFEED_PROGRESS", said)
    for work in (opening, converting, rewriting, writing_obsm):
        work(path)
    assert terminal.getvalue() == ""


def test_rewrite_can_be_told_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    annfeed.rewrite(path, path.with_name("b.h5ad"), codec="gzip", progress=False)
    assert terminal.getvalue() == ""


def test_of_several_ranks_and_workers_the_first_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    at_terminal(monkeypatch)
    import torch.utils.data

    assert are_shown()
    for rank, shown in (("0", True), ("1", False)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert are_shown() is shown
    monkeypatch.delenv("LOCAL_RANK")
    for worker, shown in ((0, True), (1, False)):
        monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda worker=worker: SimpleNamespace(id=worker))
        assert are_shown() is shown


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["ZMQInteractiveShell", "Shell"])  # Shell: Colab's
def test_in_a_notebook_there_are_bars_though_stderr_is_no_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = type("ZMQInteractiveShell", (), {})
    shell = type(name, (kernels,), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert are_shown()
    from tqdm import notebook, std

    monkeypatch.setattr(notebook, "IProgress", None)  # without ipywidgets
    assert progress._bar_class() is std.tqdm
    monkeypatch.setattr(notebook, "IProgress", object)
    assert progress._bar_class() is notebook.tqdm


def test_names_do_not_command_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with progress_bar("reading obs/\x1b[2J", 2, "rows") as count:
        count(2)
    assert "\x1b[2J" not in terminal.getvalue() and "\\x1b[2J" in terminal.getvalue()


def test_errors_pass_and_the_bar_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    items = tracked("abc", "reading", 3, "letters")
    next(items), next(items)
    with pytest.raises(KeyError):
        items.throw(KeyError)
    assert terminal.getvalue().endswith("\r")
