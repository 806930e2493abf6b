"""The check before timing: the batches of a contender against h5py and scipy, row by row."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (h5py reads rewritten files with it)
import numpy as np
import scipy.sparse as sp
from contender import Contender, n_vars_of
from settings import Settings
from yardsticks import Limit

#: Batches compared.
BATCHES = 4


def check(contender: Contender, settings: Settings, file: Path | None = None) -> int:
    """Compare the contender's first batches with the file, or with another one; return how many rows were compared.

    Raises
    ------
    AssertionError
        If a value is not the file's, a row comes twice, or file order was asked for and is not given.
    """
    if isinstance(contender, Limit):
        return contender.check(settings)
    contender.prepare(settings)
    contender.open(settings, with_rows=True)
    path = file or contender.path(settings)
    columns = contender.columns(n_vars_of(path))
    given: list[np.ndarray] = []
    for x, rows in islice(contender.epoch(), BATCHES):
        assert rows is not None, f"{contender.name}: does not say which rows it gives"
        expected = file_rows(path, rows)
        expected = expected if columns is None else expected[:, columns]
        found = as_scipy(x)
        assert found.shape == expected.shape, f"{contender.name}: {found.shape}, expected {expected.shape}"
        assert (found != expected).nnz == 0, f"{contender.name}: wrong values in batch {len(given)}"
        given.append(rows)
    order = np.concatenate(given)
    if contender.order == "file":
        assert np.array_equal(order, np.arange(len(order))), f"{contender.name}: not in file order"
    else:
        assert len(np.unique(order)) == len(order), f"{contender.name}: a row came twice"
        assert not np.array_equal(order, np.arange(len(order))), f"{contender.name}: not shuffled"
    return len(order)


def file_rows(path: Path, rows: np.ndarray) -> sp.csr_matrix:
    """The rows of X in the order given, read one by one with h5py alone."""
    with h5py.File(path) as file:
        x = file["X"]
        if isinstance(x, h5py.Dataset):
            return sp.csr_matrix(np.stack([x[row] for row in rows]))
        indptr, shape = x["indptr"][:].astype(np.int64), tuple(x.attrs["shape"])
        spans = [slice(indptr[row], indptr[row + 1]) for row in rows]
        data = np.concatenate([x["data"][span] for span in spans])
        indices = np.concatenate([x["indices"][span] for span in spans])
    starts = np.concatenate([[0], np.cumsum(indptr[rows + 1] - indptr[rows])])
    return sp.csr_matrix((data, indices, starts), shape=(len(rows), shape[1]))


def as_scipy(x: Any) -> sp.csr_matrix:
    """A dense or sparse torch tensor as a scipy matrix."""
    import torch

    if x.layout is torch.strided:
        return sp.csr_matrix(x.numpy())
    if x.layout is not torch.sparse_csr:
        x = x.to_sparse_csr()
    parts = (x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy())
    return sp.csr_matrix(parts, shape=tuple(x.shape))
