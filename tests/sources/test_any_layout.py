"""Layouts drawn at random: delivered is what h5py and scipy read."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.sources.layouts import KINDS, TORCH, deliver, row_patterns
from tests.support.h5ad_files import PIPELINES, Layout, Storage, Stored, dense_matrix, write_h5ad

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


def storages(shape):
    """Return a strategy for the storage of an array of this shape."""

    def build(form, lengths, pipeline, resizable, alloc):
        if form == "contiguous":
            return Storage(alloc="early" if alloc == "incr" else alloc)
        bound = [n if i >= resizable else None for i, n in enumerate(shape)]
        if 0 in bound:
            return Storage()
        chunks = tuple(min(n, b) if b else n for n, b in zip(lengths, bound, strict=True))
        return Storage(chunks, PIPELINES[pipeline], resizable, alloc=alloc)

    lengths = [st.sampled_from([1, 2, 7, 64, max(n, 1), n + 5]) for n in shape]
    return st.builds(
        build,
        st.sampled_from(["chunked", "chunked", "contiguous"]),
        st.tuples(*lengths),
        st.sampled_from(sorted(PIPELINES)),
        st.integers(0, len(shape)),
        st.sampled_from([None, "early", "late", "incr"]),
    )


@st.composite
def files(draw):
    """Draw a matrix as stored, its layout, and whether its values are small whole numbers."""
    form = draw(st.sampled_from(["csr", "csc", "dense"]))
    n_rows, n_cols = draw(st.integers(0, 24)), draw(st.integers(0, 20))
    kind = np.dtype(draw(st.sampled_from(KINDS))).newbyteorder(draw(st.sampled_from("<>")))
    small, repeated = draw(st.booleans()), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # A sum of repeated values must fit the type: scipy lets it wrap, and it makes True of True + True.
    repeated &= kind.kind != "b"
    small |= repeated

    def values(n):
        if kind.kind == "b":
            return rng.integers(0, 2, n).astype(kind)
        if small:
            return rng.integers(0, 4, n).astype(kind)
        if kind.kind == "f":
            odd = [0.0, np.inf, -np.inf, np.nan, 1e-30, 1e30, 65_504.0, 255.0, 65_536.0, 2.0**24 + 1]
            drawn = np.where(rng.random(n) < 0.2, rng.choice(odd, n), rng.normal(0, 100, n))
            with np.errstate(over="ignore"):
                return drawn.astype(kind)
        info = np.iinfo(kind)
        bits = int(rng.integers(1, info.bits + 1))
        low, high = max(info.min, -(2 ** (bits - 1))), min(info.max, 2**bits - 1)
        return rng.integers(low, high, n, kind.newbyteorder("="), endpoint=True).astype(kind)

    layout = {"libver": draw(st.sampled_from(["earliest", "latest"])), "userblock": draw(st.sampled_from([0, 512]))}
    if form == "dense":
        matrix = values(n_rows * n_cols).reshape(n_rows, n_cols)
        return matrix, Layout(draw(storages((n_rows, n_cols))), **layout), small
    n_major, n_minor = (n_rows, n_cols) if form == "csr" else (n_cols, n_rows)
    lengths = rng.integers(0, (30 if repeated else n_minor) + 1, n_major) * (n_minor > 0)
    lengths[rng.random(n_major) < 0.2] = 0
    indices = [rng.choice(n_minor, n, replace=repeated) for n in lengths] + [np.empty(0, int)]
    indices = np.concatenate(indices if draw(st.booleans()) else [np.sort(i) for i in indices])
    nnz, trailing = len(indices), draw(st.sampled_from([0, 0, 3]))
    pointers = [kind for kind in KINDS if np.dtype(kind).kind in "iu" and np.iinfo(kind).max >= nnz]
    stored = Stored(
        form,
        (n_rows, n_cols),
        values(nnz + trailing),
        np.append(indices, [0] * trailing).astype(draw(st.sampled_from("<>")) + draw(st.sampled_from(KINDS[1:9]))),
        np.concatenate([[0], np.cumsum(lengths)]).astype(draw(st.sampled_from(pointers))),
    )
    arrays = [draw(storages((n,))) for n in (nnz + trailing, nnz + trailing, n_major + 1)]
    return stored, Layout(*arrays, **layout), small


@given(file=files(), data=st.data())
@pytest.mark.filterwarnings("ignore::annfeed.errors.AnnfeedWarning")
def test_any_layout_delivers_what_h5py_and_scipy_read(tmp_path_factory, file, data):
    stored, layout, small = file
    path = write_h5ad(tmp_path_factory.getbasetemp() / "any.h5ad", stored, layout)
    whole = dense_matrix(path)
    n_rows, n_cols = whole.shape
    rows = data.draw(
        st.one_of(
            st.sampled_from(row_patterns(n_rows)),
            st.lists(st.integers(0, max(n_rows - 1, 0)), max_size=40 * (n_rows > 0)),
        ),
        label="rows",
    )
    columns = data.draw(st.one_of(st.none(), st.permutations(range(n_cols)).map(lambda p: p[::2])), label="columns")
    asked = data.draw(st.sampled_from(list(TORCH) if small else [torch.float32, torch.float64]), label="dtype")
    options = {
        "output": data.draw(st.sampled_from(["dense", "csr"])), "threads": data.draw(st.sampled_from([1, 3])),
        "dtype": asked, "var_subset": columns, "strict": True,
    }  # fmt: skip
    expected = whole[rows] if columns is None else whole[rows][:, columns]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(deliver(path, rows, **options), expected.astype(TORCH[asked]))
