"""Every type of values and indices, to every dtype asked for: exact, rounded with a warning, or an error."""

import warnings

import numpy as np
import pytest
import torch
from tests.sources.layouts import COUNTS, KINDS, TORCH, deliver, same
from tests.support.h5ad_files import Storage, Stored, dense, write_h5ad

from annfeed import AnnDataset, AnnfeedWarning

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


@pytest.mark.parametrize("pointer", ["i2", "i4", "i8", "u2", "u4", "u8"])
@pytest.mark.parametrize("index", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("order", "<>")
def test_index_types(tmp_path, order, index, pointer):
    for form, matrix in (("csr", COUNTS), ("csc", COUNTS.tocsc())):
        stored = Stored.of(matrix, order + index, order + pointer)
        path = write_h5ad(tmp_path / f"{form}.h5ad", stored, same(Storage(), form, 50))
        np.testing.assert_array_equal(deliver(path, [59, 3, 3, 0]), COUNTS.toarray()[[59, 3, 3, 0]])


def test_the_widest_columns_that_two_bytes_hold_and_the_first_that_they_do_not(tmp_path):
    for n_cols in (65_535, 65_536, 65_537, 1_000_000):
        columns = np.array([0, n_cols - 1, n_cols - 2, 5])
        stored = Stored("csr", (3, n_cols), np.float32([1, 2, 3, 4]), columns, np.array([0, 2, 2, 4]))
        path = write_h5ad(tmp_path / f"{n_cols}.h5ad", stored)
        with AnnDataset(path, output="csr") as dataset:
            batch = dataset.__getitems__([2, 1, 0]).batch["X"]
            assert batch.shape == (3, n_cols)
            assert batch.crow_indices().tolist() == [0, 2, 2, 4]
            assert batch.col_indices().tolist() == [5, n_cols - 2, 0, n_cols - 1]
            assert batch.values().tolist() == [4, 3, 1, 2]


def exact_values(kind, asked):
    """Return values that both dtypes hold exactly, at the ends of what they share; 24 of them."""
    values = {0, 1, 2, 100, 127}
    infos = [np.iinfo(np.int8) if np.dtype(k).kind == "b" else np.iinfo(k) if np.dtype(k).kind in "iu" else None
             for k in (kind, asked)]  # fmt: skip
    whole = {"f2": 2**11, "f4": 2**24, "f8": 2**53}
    limits = [info.max if info else whole[k] for k, info in zip((kind, asked), infos, strict=True)]
    lows = [info.min if info else -whole[k] for k, info in zip((kind, asked), infos, strict=True)]
    if np.dtype(kind).kind == "b":
        values, limits, lows = {0, 1}, [1], [0]
    top, bottom = min(limits), max(lows)
    values |= {top, bottom, top // 3}
    if np.dtype(kind).kind == "f" and np.dtype(asked).kind == "f":
        values |= {0.25, -7.5, float("inf"), float("nan"), 2.0**-14}
        return np.resize(np.array([v for v in values if not abs(v) > top or v == float("inf")]), 24)
    return np.resize(np.array([v for v in values if bottom <= v <= top], dtype=object), 24)


@pytest.mark.parametrize("asked", TORCH, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_to_every_other(tmp_path, kind, asked):
    values = exact_values(kind, TORCH[asked]).astype(kind).reshape(4, 6)
    for order in "<>":
        matrix = values.astype(np.dtype(kind).newbyteorder(order))
        columns = np.tile(np.arange(6), 4)
        csr = Stored("csr", (4, 6), matrix.ravel(), columns, np.arange(0, 25, 6))
        for form in (matrix, csr, csr._replace(format="csc", shape=(6, 4), indices=columns)):
            path = write_h5ad(tmp_path / "x.h5ad", form)
            # h5py and numpy, not scipy: it has neither float16 nor the other byte order.
            whole = values.T if isinstance(form, Stored) and form.format == "csc" else values
            for output in ("dense", "csr"):
                delivered = deliver(path, [3, 0, 1, 1], dtype=asked, output=output)
                assert delivered.dtype == np.dtype(TORCH[asked])
                np.testing.assert_array_equal(delivered, whole[[3, 0, 1, 1]].astype(TORCH[asked]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "?"])
def test_bfloat16(tmp_path, kind):
    values = np.arange(0, 48, 2).astype(kind).reshape(4, 6)
    path = write_h5ad(tmp_path / "x.h5ad", values)
    for output in ("dense", "csr"):
        with AnnDataset(path, dtype=torch.bfloat16, output=output) as dataset:
            batch = dataset.__getitems__([3, 3, 0]).batch["X"]
        assert batch.dtype is torch.bfloat16
        np.testing.assert_array_equal(dense(batch.to(torch.float32)), values[[3, 3, 0]].astype(np.float32))


BEYOND = 2**24 + 1
ROUNDED = [
    ("i4", BEYOND, torch.float32, 2**24),
    ("u4", BEYOND, torch.float32, 2**24),
    ("i8", -BEYOND, torch.float32, -(2**24)),
    ("u8", 2**64 - 1, torch.float32, 2.0**64),
    ("f8", BEYOND, torch.float32, 2**24),
    ("i8", 2**53 + 1, torch.float64, 2**53),
    ("i2", 2049, torch.float16, 2048),
    ("u2", 257, torch.bfloat16, 256),
    ("f4", 257, torch.bfloat16, 256),
]


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("form", ["csr", "dense"])
@pytest.mark.parametrize(("kind", "value", "asked", "delivered"), ROUNDED)
def test_whole_numbers_that_a_float_cannot_hold_warn_once(tmp_path, kind, value, asked, delivered, form, output):
    matrix = np.zeros((5, 9), kind)
    matrix[2, 7] = matrix[4, 8] = value
    # scipy is the oracle elsewhere; here the arrays are plain enough to be written down.
    csr = Stored("csr", (5, 9), np.array([value] * 2, kind), np.array([7, 8]), np.array([0, 0, 0, 1, 1, 2]))
    path = write_h5ad(tmp_path / "x.h5ad", matrix if form == "dense" else csr)
    with AnnDataset(path, dtype=asked, output=output) as dataset:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", AnnfeedWarning)
            batches = [dataset.__getitems__(rows).batch["X"] for rows in ([0, 1], [2, 4], [4, 2])]
        messages = [str(w.message) for w in caught if w.category is AnnfeedWarning]
    (message,) = messages
    for part in (f"{path}: 'X'", f"{value}" if kind != "f8" else "16777217", "column 7", f"{asked}", "dtype="):
        assert part in message
    assert [dense(batch.to(torch.float64)).max() for batch in batches] == [0, max(delivered, 0), max(delivered, 0)]
    assert dense(batches[1].to(torch.float64))[0, 7] == delivered


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_fractions_are_rounded_without_a_word(tmp_path, kind):
    matrix = np.full((2, 3), 0.1, kind)
    path = write_h5ad(tmp_path / "x.h5ad", matrix)
    for asked in (torch.float32, torch.float16):
        np.testing.assert_array_equal(deliver(path, [0, 1], dtype=asked), matrix.astype(TORCH[asked]))


IMPOSSIBLE = [
    ("i2", 256, torch.uint8), ("i2", -1, torch.uint8), ("u1", 128, torch.int8), ("u2", 2**15, torch.int16),
    ("i8", 2**31, torch.int32), ("u8", 2**63, torch.int64), ("f4", 0.5, torch.int64), ("f8", float("nan"), torch.int32),
    ("f2", float("inf"), torch.int16), ("f8", 2.0**63, torch.int64), ("f4", -1.0, torch.uint8),
]  # fmt: skip


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("form", ["csr", "dense"])
@pytest.mark.parametrize(("kind", "value", "asked"), IMPOSSIBLE)
def test_values_that_an_integer_cannot_hold_are_errors(tmp_path, kind, value, asked, form, output):
    matrix = np.zeros((3, 9), kind)
    matrix[1, 4] = value
    csr = Stored("csr", (3, 9), np.array([value], kind), np.array([4]), np.array([0, 0, 1, 1]))
    path = write_h5ad(tmp_path / "x.h5ad", matrix if form == "dense" else csr)
    with AnnDataset(path, dtype=asked, output=output) as dataset:
        np.testing.assert_array_equal(dense(dataset.__getitems__([0, 2]).batch["X"]), np.zeros((2, 9)))
        with pytest.raises(ValueError, match=r"column 4 holds the value .*cannot hold.*floating") as caught:
            dataset.__getitems__([0, 1])
        assert f"{path}: 'X'" in str(caught.value)
        assert str(asked).removeprefix("torch.") in str(caught.value)
