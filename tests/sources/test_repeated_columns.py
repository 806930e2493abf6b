"""A column that a sparse row stores several times: summed as scipy sums it, in the dtype of the file, or an error."""

from pathlib import Path

import anndata
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support import h5ad_files as h5ad

from annfeed import AnnDataset, FormatError


def repeated(values: list[float], dtype: str, format: str = "csr") -> sp.csr_matrix | sp.csc_matrix:
    """Row (of CSC: column) 1 of 3 holds ``values``, all of them in place 2."""
    n = len(values)
    make = {"csr": sp.csr_matrix, "csc": sp.csc_matrix}[format]
    return make((np.array(values, dtype), np.full(n, 2, np.int32), np.array([0, 0, n, n], np.int32)), shape=(3, 3))


@pytest.mark.parametrize("place", ["memory", "file", "h5py"])
@pytest.mark.parametrize("format", ["csr", "csc"])
@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([True, True], "bool"),
        ([False, False], "bool"),
        ([True, False, True], "bool"),
        ([200, 55], "uint8"),
        ([-100, -28], "int8"),
        ([2**31 - 2, 1], "int32"),
        ([2**63, 2**63 - 1], "uint64"),
        ([1.0, 2.0**-26, 2.0**-26], "float32"),  # each is lost in float32 ...
        ([1.0, 2.0**-26, 2.0**-26], "float64"),  # ... and none in float64, though each fits float32
    ],
)
def test_sums_are_those_of_scipy(values: list[float], dtype: str, format: str, place: str, tmp_path: Path) -> None:
    matrix = repeated(values, dtype, format)
    wanted = matrix.toarray().astype(np.float64)
    if place == "memory":
        source = anndata.AnnData(matrix)
    else:
        layout = h5ad.Layout(data=h5ad.Storage(compact=place == "h5py"))
        source = h5ad.write_h5ad(tmp_path / "a.h5ad", h5ad.Stored.of(matrix), layout)
    with pytest.warns(UserWarning, match="rounded|h5py") if place == "h5py" or dtype == "uint64" else no_warning():
        got = AnnDataset(source, dtype=torch.float64).__getitems__(range(3)).batch["X"].numpy()
    assert np.array_equal(got, wanted)


class no_warning:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("output", ["dense", "csr"])
def test_true_twice_is_true_beside_what_is_not_repeated(output: str) -> None:
    # Unsorted, with a repetition across a selection's border.
    indices, indptr = np.array([3, 1, 3, 0, 2, 2]), np.array([0, 4, 6])
    matrix = sp.csr_matrix((np.ones(6, bool), indices, indptr), shape=(2, 4))
    wanted = matrix.toarray().astype(np.float32)
    for columns in (None, [3, 0], [2, 1, 0]):
        dataset = AnnDataset(anndata.AnnData(matrix), var_subset=columns, output=output)
        got = dataset.__getitems__([1, 0]).batch["X"].to_dense().numpy()
        assert np.array_equal(got, wanted[::-1, slice(None) if columns is None else columns])


@given(
    arrays.arrays(bool, st.integers(0, 12)),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_any_bool_rows(values: np.ndarray, n_cols: int, random) -> None:
    columns = np.array([random.randrange(n_cols) for _ in values], np.int32)
    cut = random.randint(0, len(values))
    matrix = sp.csr_matrix((values, columns, np.array([0, cut, len(values)])), shape=(2, n_cols))
    got = AnnDataset(anndata.AnnData(matrix)).__getitems__([0, 1]).batch["X"].numpy()
    assert np.array_equal(got, matrix.toarray().astype(np.float32))


@pytest.mark.parametrize("place", ["memory", "file", "h5py"])
@pytest.mark.parametrize(
    ("values", "dtype", "total"),
    [([200, 100], "uint8", 300), ([100, 28], "int8", 128), ([-(2**15), -1], "int16", -(2**15) - 1)],
)
@pytest.mark.parametrize("format", ["csr", "csc"])
@pytest.mark.filterwarnings("ignore::annfeed.errors.AnnfeedWarning")
def test_a_sum_beyond_the_dtype_is_an_error_where_scipy_wraps(
    values: list[int], dtype: str, total: int, place: str, format: str, tmp_path: Path
) -> None:
    matrix = repeated(values, dtype, format)
    assert matrix.toarray().astype(int).sum() != total  # scipy's number is another one: neither is what the file means
    if place == "memory":
        source = anndata.AnnData(matrix)
        if format == "csc":
            return  # scipy turns it into rows, and does not sum there: the case of "csr"
    else:
        layout = h5ad.Layout(data=h5ad.Storage(compact=place == "h5py"))
        source = h5ad.write_h5ad(tmp_path / "a.h5ad", h5ad.Stored.of(matrix), layout)
    named = "AnnData: 'X'" if place == "memory" else "a.h5ad: 'X"
    with pytest.raises(FormatError, match=f"{named}.*more than once, and the sum {total} is too large for {dtype}"):
        AnnDataset(source).__getitems__(range(3))
