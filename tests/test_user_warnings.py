"""Each warning points at the line of the user that led to it, whichever thread, worker or package gives it."""

import linecache
import pickle
import threading
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from annfeed import AnnDataset, AnnfeedWarning, NormalizeTotal, user_warnings
from annfeed.user_warnings import Line, on_behalf_of, users_line, warn
from tests.support import h5ad_files as h5ad


@pytest.fixture
def rounded(tmp_path: Path) -> Path:
    """A file with a whole number that float32 does not hold."""
    anndata.AnnData(np.full((4, 2), 2**24 + 1, np.int32)).write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


def check(given: list[warnings.WarningMessage], words: str) -> None:
    (found,) = [one for one in given if issubclass(one.category, AnnfeedWarning)]
    assert words in str(found.message)
    assert found.filename == __file__
    assert linecache.getline(found.filename, found.lineno).strip().endswith("# the user's line")


def noted(act: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        act()
    return given


@pytest.mark.parametrize("prefetch_batches", [0, 4])
def test_of_an_epoch(rounded: Path, prefetch_batches: int) -> None:
    loader = AnnDataset(rounded).get_optimized_dataloader(2, prefetch_batches=prefetch_batches)

    def epoch() -> None:
        for _ in loader:  # the user's line
            pass

    check(noted(epoch), "is rounded in torch.float32")


def test_of_items_and_plain_loaders(rounded: Path) -> None:
    def item() -> None:
        AnnDataset(rounded)[0]  # the user's line

    def loader() -> None:
        list(DataLoader(AnnDataset(rounded), 2))  # the user's line

    for act in (item, loader):
        check(noted(act), "is rounded in torch.float32")


def test_of_opening(tmp_path: Path) -> None:
    layout = h5ad.Layout(h5ad.Storage(compact=True))
    path = h5ad.write_h5ad(tmp_path / "a.h5ad", np.eye(8, dtype=np.float32), layout)
    a, b = (anndata.AnnData(np.eye(2), obs=pd.DataFrame({name: [1, 2]}, index=["a", "b"])) for name in "ab")

    def unsupported() -> None:
        AnnDataset(path)  # the user's line

    def joined() -> None:
        AnnDataset([a, b])  # the user's line

    check(noted(unsupported), "read through h5py")
    check(noted(joined), "obs columns that not all sources have")


def test_of_transforms_and_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    def transform() -> None:
        NormalizeTotal(1e9)({"X": torch.ones(2, dtype=torch.float16)})  # the user's line

    check(noted(transform), "become infinite")
    monkeypatch.setattr("annfeed.process.ranks._warned_of_slurm", False)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    loader = AnnDataset(anndata.AnnData(np.eye(2))).get_optimized_dataloader(2)

    def begin() -> None:
        next(iter(loader))  # the user's line

    check(noted(begin), "each of the 2 tasks reads all rows")


def test_of_a_loader_that_a_trainer_reads(rounded: Path) -> None:
    trainer = types.ModuleType("trainer")
    source = "def fit(loader):\n    for batch in loader:\n        pass\n"
    exec(compile(source, "/opt/venv/lib/python3/site-packages/trainer/fit.py", "exec"), vars(trainer))
    loader = AnnDataset(rounded).get_optimized_dataloader(2)

    def train() -> None:
        trainer.fit(loader)  # the user's line

    check(noted(train), "is rounded in torch.float32")


def test_of_a_worker(rounded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = AnnDataset(rounded).get_optimized_dataloader(2, num_workers=1, multiprocessing_context="fork")

    def show(message: object, category: type, filename: str, lineno: int, *_: object) -> None:
        if category is AnnfeedWarning:
            (tmp_path / "shown").write_text(f"{filename}:{lineno}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show)  # which the forked process has, too
        list(loader)  # the user's line
    filename, line = (tmp_path / "shown").read_text().rsplit(":", 1)
    assert (filename, linecache.getline(filename, int(line)).strip()) == (__file__, "list(loader)  # the user's line")


def test_of_a_spawned_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in one: "<string>" calls the standard library, which calls torch.
    monkeypatch.setattr(user_warnings, "_of_process", [])
    line = pickle.loads(pickle.dumps(users_line()))
    program = compile("import threading\nthread = threading.Thread(target=work)\nthread.run()", "<string>", "exec")
    torchs = {"warn": warn}
    exec(compile("def work():\n    warn('slow')", "/opt/python/site-packages/torch/worker.py", "exec"), torchs)

    def run() -> None:
        thread = threading.Thread(target=exec, args=(program, {"work": torchs["work"]}))
        thread.start()
        thread.join()

    assert noted(run)[0].filename == "<string>"
    user_warnings.is_sent_by(line)
    (found,) = noted(run)
    assert (found.filename, found.lineno) == (__file__, line.number)


def test_a_thread_speaks_for_the_line_that_it_works_for() -> None:
    line = pickle.loads(pickle.dumps(users_line()))
    assert (line.filename, line.module, line.registry) == (__file__, __name__, {})
    other = Line("theirs.py", 7, "theirs", {})

    def work() -> None:
        with on_behalf_of(line), on_behalf_of(other):
            warn("inner")
        with on_behalf_of(line):
            warn("outer")
        warn("nobody's")  # the user's line

    def run() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    given = noted(run)
    assert [(one.filename, one.lineno) for one in given[:2]] == [("theirs.py", 7), (__file__, line.number)]
    check(given[2:], "nobody's")


def test_other_categories_and_errors() -> None:
    def deprecated() -> None:
        warn("old", DeprecationWarning)

    (found,) = noted(deprecated)
    assert (found.category, found.filename) == (DeprecationWarning, __file__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning, match="old"):
            deprecated()
