"""What is at a path is judged by what it is now.

However a file was written over, put back, renamed or replaced: a dataset made after that reads it as it is; one made
before reads the rows that it was made from, or says that the file changed. What is read is compared with h5py, which
knows no past.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from annfeed import AnnDataset, StaleFileError, write_obsm

N = 12


def write(path: Path, first: int, n: int = N) -> None:
    """A file whose rows are numbered from ``first`` on, in X, in obs and by name."""
    rows = np.arange(first, first + n)
    obs = pd.DataFrame({"row": rows}, index=[f"cell{row}" for row in rows])
    var = pd.DataFrame(index=[f"gene{first}", "other"])
    anndata.AnnData(np.stack([rows, rows], axis=1).astype("float32"), obs=obs, var=var).write_h5ad(path)


def put_back(folder: Path) -> None:
    """As after a bad run: what was kept is copied over the file, with its time."""
    shutil.copy2(folder / "kept.h5ad", folder / "cells.h5ad")


def results(folder: Path, key: str = "X_model") -> None:
    write_obsm(folder / "cells.h5ad", key, np.zeros((N, 2)))


def write_and_put_back(folder: Path) -> None:
    results(folder)
    put_back(folder)


def write_twice_and_put_back(folder: Path) -> None:
    results(folder)
    results(folder, "X_more")
    put_back(folder)


def put_back_what_was_written(folder: Path) -> None:
    # The identity after the first write is one that the second wrote over.
    results(folder)
    shutil.copy2(folder / "cells.h5ad", folder / "kept.h5ad")
    shutil.copy2(folder / "kept.h5ad", folder / "cells.h5ad")
    results(folder, "X_more")
    put_back(folder)


def put_back_and_write_again(folder: Path) -> None:
    write_and_put_back(folder)
    results(folder, "X_again")


def write_under_another_name(folder: Path) -> None:
    os.symlink(folder / "cells.h5ad", folder / "alias.h5ad")
    write_obsm(folder / "alias.h5ad", "X_model", np.zeros((N, 2)))


def rename_and_back(folder: Path) -> None:
    os.rename(folder / "cells.h5ad", folder / "away.h5ad")
    os.rename(folder / "away.h5ad", folder / "cells.h5ad")


def delete_and_make_again(folder: Path) -> None:
    os.remove(folder / "cells.h5ad")
    write(folder / "cells.h5ad", 0)


def delete_and_put_back(folder: Path) -> None:
    os.remove(folder / "cells.h5ad")
    put_back(folder)


def replace(folder: Path) -> None:
    write(folder / "new.h5ad", 1000)
    os.replace(folder / "new.h5ad", folder / "cells.h5ad")


def replace_at_the_same_time(folder: Path) -> None:
    write(folder / "new.h5ad", 1000)
    old = os.stat(folder / "cells.h5ad")
    os.utime(folder / "new.h5ad", ns=(old.st_atime_ns, old.st_mtime_ns))
    os.replace(folder / "new.h5ad", folder / "cells.h5ad")


def replace_by_a_shorter_one(folder: Path) -> None:
    write(folder / "new.h5ad", 1000, N - 5)
    os.replace(folder / "new.h5ad", folder / "cells.h5ad")


def overwrite(folder: Path) -> None:
    write(folder / "new.h5ad", 1000)
    shutil.copyfile(folder / "new.h5ad", folder / "cells.h5ad")


def swap(folder: Path) -> None:
    write(folder / "new.h5ad", 1000)
    os.rename(folder / "cells.h5ad", folder / "old.h5ad")
    os.rename(folder / "new.h5ad", folder / "cells.h5ad")


def results_and_replace(folder: Path) -> None:
    results(folder)
    replace(folder)


def replace_and_results(folder: Path) -> None:
    replace(folder)
    results(folder)


def point_elsewhere(folder: Path) -> None:
    os.rename(folder / "cells.h5ad", folder / "first.h5ad")
    write(folder / "second.h5ad", 1000)
    os.symlink("first.h5ad", folder / "cells.h5ad")
    os.remove(folder / "cells.h5ad")
    os.symlink("second.h5ad", folder / "cells.h5ad")


CHANGES: list[Callable[[Path], None]] = [
    results,
    write_and_put_back,
    write_twice_and_put_back,
    put_back_what_was_written,
    put_back_and_write_again,
    write_under_another_name,
    rename_and_back,
    delete_and_make_again,
    delete_and_put_back,
    replace,
    replace_at_the_same_time,
    replace_by_a_shorter_one,
    overwrite,
    swap,
    results_and_replace,
    replace_and_results,
    point_elsewhere,
]
#: After these the file is what a dataset of before was made from: an error would be one too many.
STILL_RIGHT = [results, write_under_another_name, rename_and_back]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "cells.h5ad", 0)
    shutil.copy2(tmp_path / "cells.h5ad", tmp_path / "kept.h5ad")
    put_back(tmp_path)  # whole nanoseconds that a copy can give back
    return tmp_path


def rows_now(path: Path) -> list[int]:
    with h5py.File(path) as file:
        found: list[int] = file["X"][:, 0].astype(int).tolist()
    return found


def rows_of(dataset: AnnDataset, **how: Any) -> list[int]:
    """The rows that a dataset delivers, having looked whether X, obs and the names are of the same ones."""
    batches = list(dataset.predict_loader(5, **how))
    rows = [int(row) for batch in batches for row in batch["X"][:, 0]]
    assert [int(row) for batch in batches for row in batch["obs_row"]] == rows
    assert list(dataset.obs_names) == [f"cell{row}" for row in rows]
    assert dataset.var_names[0] == f"gene{rows[0] // 1000 * 1000}"
    return rows


@pytest.mark.parametrize("sources", ["one", "many"])
@pytest.mark.parametrize("before", ["unread", "read", "open"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_file(folder: Path, change: Callable[[Path], None], before: str, sources: str) -> None:
    path: Any = folder / "cells.h5ad"
    given = path if sources == "one" else [path]
    old = AnnDataset(given, window=5, cache=0)
    batches = iter(old.predict_loader(5))
    if before == "read":
        assert rows_of(old) == list(range(N))
    if before == "open":
        next(batches)
    change(folder)
    for _ in range(2):  # the second time it knows what it did not the first time
        assert rows_of(AnnDataset(given, window=5, cache=0)) == rows_now(path)
        try:
            assert rows_of(old) == rows_now(path) == list(range(N))
        except StaleFileError:
            assert change not in STILL_RIGHT
    if before == "open":
        try:
            assert [int(row) for batch in batches for row in batch["X"][:, 0]] == list(range(5, N))
        except StaleFileError:
            # What reads ahead may have looked while the file was away.
            assert change is rename_and_back or change not in STILL_RIGHT
    batches.close()


@pytest.mark.parametrize("change", [write_and_put_back, replace, rename_and_back], ids=lambda c: c.__name__)
# Either the worker has what this process had open, or it is given paths and opens them itself.
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_changed_file_and_workers(folder: Path, change: Callable[[Path], None], method: str) -> None:
    path = folder / "cells.h5ad"
    how = {"num_workers": 1, "multiprocessing_context": method, "persistent_workers": method == "fork"}
    old = AnnDataset(path, window=5, cache=0)
    loader = old.predict_loader(5, **how)
    if method == "fork":  # its workers live on, the file open
        assert len(list(loader)) == 3
    change(folder)
    for _ in range(2):
        try:
            assert [int(row) for batch in loader for row in batch["X"][:, 0]] == rows_now(path) == list(range(N))
        except StaleFileError:
            assert change not in STILL_RIGHT
    assert rows_of(AnnDataset(path, window=5, cache=0), **how) == rows_now(path)


def test_obs_alone_is_not_read_from_another_file(folder: Path) -> None:
    dataset = AnnDataset(folder / "cells.h5ad")
    replace(folder)
    for read in (lambda: dataset.obs, lambda: dataset.obs_names, lambda: dataset.var_names):
        with pytest.raises(StaleFileError):
            read()
    with pytest.raises(StaleFileError):
        dataset.obs_column("row")


@pytest.mark.parametrize("how", [replace, replace_at_the_same_time, swap, point_elsewhere], ids=lambda c: c.__name__)
def test_a_backed_anndata_whose_file_was_replaced(folder: Path, how: Callable[[Path], None]) -> None:
    # Its obs is the old file's, its path the new one's.
    backed = anndata.read_h5ad(folder / "cells.h5ad", backed="r")
    how(folder)
    with pytest.raises(StaleFileError, match="found another file at the path of a backed AnnData"):
        AnnDataset(backed)
    again = anndata.read_h5ad(folder / "cells.h5ad", backed="r")
    assert rows_of(AnnDataset(again)) == rows_now(folder / "cells.h5ad")
