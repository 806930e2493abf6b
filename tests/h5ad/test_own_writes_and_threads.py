"""Writes of annfeed while other threads of the process read the same file, each at a moment that is made to come.

A thread that is to come between two steps of another is given a third of a second: what must wait for the other does
not end in that time, and what need not wait has ended. No test fails because a machine is slow.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.support.toys import toy

from annfeed import AnnDataset, write_obs, write_obsm
from annfeed.batches.reader import RowReader
from annfeed.obs import file as obs_file
from annfeed.results import h5ad as writer
from annfeed.sources import file as file_sources
from annfeed.sources.frame import FrameFileSource
from annfeed.sources.h5py_fallback import H5pyMatrix

N = 40
A_WHILE = 0.3


class Others:
    """Work of other threads, whose errors are those of the test."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        self.results: list[Any] = []

    def start(self, work: Callable[[], Any]) -> None:
        """Begin ``work`` in a thread, and give it a while."""

        def run() -> None:
            try:
                self.results.append(work())
            except BaseException as error:
                self.errors.append(error)

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()
        self.threads[-1].join(A_WHILE)

    def finish(self) -> list[Any]:
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()
        if self.errors:
            raise self.errors[0]
        return self.results


@pytest.fixture
def others() -> Iterator[Others]:
    found = Others()
    yield found
    found.finish()


def before(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, step: Callable[[], None], times: int = 1) -> None:
    """Take ``step`` before the first calls of a function."""
    call, left = getattr(place, name), [step] * times

    def stepped(*args: Any, **options: Any) -> Any:
        if left:
            left.pop()()
        return call(*args, **options)

    monkeypatch.setattr(place, name, stepped)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    adata = toy(kind="dense")
    adata.obsm["protein"] = pd.DataFrame({"CD3": np.arange(N), "CD4": -np.arange(N)}, index=adata.obs_names)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.fixture
def through_h5py(path: Path, tmp_path: Path) -> Path:
    """A file whose X the core does not read: in compact layout."""
    import h5py

    with h5py.File(path, "r+") as file:
        attributes, values = dict(file["X"].attrs), file["X"][()]
        del file["X"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(values.shape)
        array = h5py.Dataset(h5py.h5d.create(file.id, b"X", h5py.h5t.NATIVE_FLOAT, space, plist))
        array[...] = values
        array.attrs.update(attributes)
    return path


def rows_of(dataset: AnnDataset) -> list[float]:
    return [row for batch in dataset.get_optimized_dataloader(8, shuffle=False) for row in batch["X"][:, 0].tolist()]


@pytest.mark.filterwarnings("ignore:.*read through h5py")
@pytest.mark.parametrize("end", ["write", "close"])
def test_a_file_is_not_closed_while_h5py_reads_it(
    through_h5py: Path, monkeypatch: pytest.MonkeyPatch, others: Others, end: str
) -> None:
    dataset = AnnDataset(through_h5py, cache=0)
    assert dataset.inspect().reader == "h5py"
    step = (lambda: write_obsm(through_h5py, "X_model", np.zeros(N))) if end == "write" else dataset.close
    before(monkeypatch, H5pyMatrix, "_read", lambda: others.start(step))
    assert dataset[3]["X"][0] == 3
    others.finish()
    if end == "write":
        assert rows_of(dataset) == list(range(N))
        assert "X_model" in anndata.read_h5ad(through_h5py).obsm


@pytest.mark.filterwarnings("ignore:.*read through h5py")
@pytest.mark.parametrize("reads", ["X", "obs", "frame", "a new dataset"])
def test_a_file_is_not_opened_while_annfeed_writes_to_it(
    through_h5py: Path, monkeypatch: pytest.MonkeyPatch, others: Others, reads: str
) -> None:
    dataset = AnnDataset(through_h5py, elem="obsm/protein" if reads == "frame" else "X", cache=0)
    work = {
        "X": lambda: dataset[3]["X"][0].item(),
        "frame": lambda: dataset[3]["X"][0].item(),
        "obs": lambda: dataset.obs["row"].iloc[3],
        "a new dataset": lambda: AnnDataset(through_h5py)[3]["X"][0].item(),
    }[reads]
    if reads == "X":
        assert work() == 3  # h5py has it open
    before(monkeypatch, writer, "_open", lambda: others.start(work))
    before(monkeypatch, anndata.io, "write_elem", lambda: others.start(work))
    write_obsm(through_h5py, "X_model", np.zeros(N))
    assert others.finish() == [3, 3]


@pytest.mark.parametrize("write", ["obsm", "obs"])
@pytest.mark.parametrize("reads", ["obs", "obs_column", "batch", "frame"])
def test_a_write_waits_for_those_that_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, others: Others, reads: str, write: str
) -> None:
    dataset = AnnDataset(path, elem="obsm/protein" if reads == "frame" else "X", cache=0)

    def step() -> None:
        if write == "obs":
            others.start(lambda: write_obs(path, "kind", np.zeros(N, int)))
        else:
            others.start(lambda: write_obsm(path, "X_model", np.zeros(N)))

    if reads == "frame":
        before(monkeypatch, FrameFileSource, "_load", step)
        assert dataset[3]["X"].tolist() == [3, -3]
    else:
        before(monkeypatch, obs_file, "read_elem", step)
        found = {
            "obs": lambda: dataset.obs["row"].iloc[3],
            "obs_column": lambda: dataset.obs_column("row")[3],
            "batch": lambda: next(iter(dataset.get_optimized_dataloader(4, shuffle=False)))["obs_row"][3],
        }[reads]()
        assert found == 3
    others.finish()
    adata = anndata.read_h5ad(path)
    assert "kind" in adata.obs if write == "obs" else "X_model" in adata.obsm


def test_a_column_is_not_replaced_while_an_epoch_reads_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, others: Others
) -> None:
    dataset = AnnDataset(path, obs_columns=["score", "row"])
    before(
        monkeypatch,
        obs_file,
        "read_elem",
        lambda: others.start(lambda: write_obs(path, "row", np.arange(N) + 100, overwrite=True)),
    )
    rows = [row for batch in dataset.get_optimized_dataloader(8, shuffle=False) for row in batch["obs_row"].tolist()]
    assert rows == list(range(N))
    others.finish()
    assert dataset[3]["obs_row"] == 103


def test_many_writes_between_the_steps_of_a_read(path: Path, monkeypatch: pytest.MonkeyPatch, others: Others) -> None:
    numbers = iter(range(9))

    def step() -> None:
        number = next(numbers)
        others.start(lambda: write_obsm(path, f"X_{number}", np.zeros(N)))

    dataset = AnnDataset(path, elem="layers/counts", cache=0)
    before(monkeypatch, file_sources, "_convert", step, times=3)
    assert dataset[3]["X"][0] == 6
    window = dataset.reader.load(np.arange(N))  # of a dense matrix the rows are left in the file
    write_obsm(path, "X_window", np.zeros(N))
    read = RowReader.read

    def loaded(self: RowReader, rows: Any) -> Any:
        again = read(self, rows)
        step()
        return again

    monkeypatch.setattr(RowReader, "read", loaded)
    assert window.batch(3, 4)["X"][0, 0] == 6


def test_a_process_forked_while_another_thread_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch, others: Others
) -> None:
    dataset = AnnDataset(path, elem="obsm/protein", cache=0)
    written, forked = threading.Event(), threading.Event()
    write_elem = anndata.io.write_elem

    def slow(group: Any, *args: Any) -> None:
        write_elem(group, *args)
        group.file.flush()
        written.set()
        forked.wait(A_WHILE)

    monkeypatch.setattr(anndata.io, "write_elem", slow)
    threading.Thread(target=lambda: others.start(lambda: write_obsm(path, "X_model", np.zeros(N)))).start()
    assert written.wait(30)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # ends a process that hangs
        status = 1
        try:
            monkeypatch.undo()
            right = dataset[3]["X"].tolist() == [3, -3]
            write_obsm(path, "X_of_child", np.zeros(N))
            status = 0 if right else 2
        finally:
            os._exit(status)
    forked.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    others.finish()
    assert {"X_model", "X_of_child"} <= set(anndata.read_h5ad(path).obsm)
