"""One matrix in every format, files of it in every layout, and how their rows are checked."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch
from tests.support.h5ad_files import Layout, Storage, Stored, dense

from annfeed import AnnDataset

COUNTS = sp.random(60, 41, 0.2, "csr", random_state=0, data_rvs=lambda n: np.arange(1, n + 1)).astype(np.float32)
FORMATS = {"csr": Stored.of(COUNTS), "csc": Stored.of(COUNTS.tocsc()), "dense": COUNTS.toarray()}
#: All of its rows.
ALL = range(60)

KINDS = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
TORCH = {
    torch.float16: "f2", torch.float32: "f4", torch.float64: "f8", torch.uint8: "u1", torch.int8: "i1",
    torch.int16: "i2", torch.int32: "i4", torch.int64: "i8",
}  # fmt: skip


def row_patterns(n_rows):
    """Return the orders in which rows are asked for: sorted, reversed, random with repeats, single, none."""
    rng = np.random.default_rng(n_rows)
    every = list(range(n_rows))
    return [every, every[::-1], rng.integers(0, n_rows, 2 * n_rows).tolist() if n_rows else [], every[-1:], []]


def deliver(path, rows, **options):
    """Return the rows of X as annfeed delivers them together."""
    with AnnDataset(path, obs_columns=[], cache="1GiB", **options) as dataset:
        return dense(dataset.__getitems__(rows).batch["X"])


def layout_of(form, filters):
    """Return the layout with these filters, in small chunks."""
    storage = Storage((16, 8) if form == "dense" else (64,), filters)
    return Layout(storage, storage, storage)


def same(storage, form, chunks):
    """Return the layout that keeps all arrays like ``storage``, in chunks of about ``chunks`` elements."""
    if form == "dense":
        side = max(1, round(chunks**0.5))
        return Layout(replace(storage, chunks=(min(side, 60), min(side + 3, 41))))
    # data and indices are cut differently, as they are where their types differ.
    indptr = Storage((7,), storage.filters)
    return Layout(replace(storage, chunks=(chunks,)), replace(storage, chunks=(chunks + 3,)), indptr)
