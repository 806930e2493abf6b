"""Generated files in every layout of HDF5 that annfeed decodes itself: delivered is what h5py and scipy read.

No test here may fall back to h5py: AnnfeedWarning is an error, but where a test says otherwise.
"""

import itertools
import warnings
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.h5ad_files import PIPELINES, Layout, Storage, Stored, dense, dense_matrix, put, put_frame, write_h5ad

from annfeed import AnnDataset, AnnfeedWarning

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")

COUNTS = sp.random(60, 41, 0.2, "csr", random_state=0, data_rvs=lambda n: np.arange(1, n + 1)).astype(np.float32)
FORMATS = {"csr": Stored.of(COUNTS), "csc": Stored.of(COUNTS.tocsc()), "dense": COUNTS.toarray()}
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


def check(path, whole=None):
    """Compare what annfeed delivers of X, in many ways, with ``whole``, or with what h5py and scipy read."""
    whole = (dense_matrix(path) if whole is None else whole).astype(np.float32)
    n_rows, n_cols = whole.shape
    columns = np.random.default_rng(n_cols).permutation(n_cols)[: n_cols // 2]
    patterns = row_patterns(n_rows)
    for wanted, subset, threads in ((slice(None), None, (1, 3)), (columns, columns, (3, 1))):
        with AnnDataset(path, obs_columns=[], cache="1GiB", threads=threads[0], var_subset=subset) as dataset:
            for dataset.threads, dataset.output in itertools.product(threads, ("dense", "csr")):
                for rows in patterns:
                    delivered = dense(dataset.__getitems__(rows).batch["X"])
                    np.testing.assert_array_equal(delivered, whole[rows][:, wanted])
                # What was read is forgotten, and the matrix opened again: each way decodes it itself.
                dataset._matrices["X"].source.set_aside()


def same(storage, form, chunks):
    """Return the layout that keeps all arrays like ``storage``, in chunks of about ``chunks`` elements."""
    if form == "dense":
        side = max(1, round(chunks**0.5))
        return Layout(replace(storage, chunks=(min(side, 60), min(side + 3, 41))))
    # data and indices are cut differently, as they are where their types differ.
    indptr = Storage((7,), storage.filters)
    return Layout(replace(storage, chunks=(chunks,)), replace(storage, chunks=(chunks + 3,)), indptr)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_filters(tmp_path, pipeline, form):
    layout = same(Storage(filters=PIPELINES[pipeline]), form, 64)
    check(write_h5ad(tmp_path / "x.h5ad", FORMATS[form], layout), COUNTS.toarray())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("pipeline", ["none", "gzip4", "shuffle, zstd"])
@pytest.mark.parametrize("chunks", [1, 7, 492, 9999], ids="chunks of {}".format)
def test_chunk_lengths(tmp_path, chunks, pipeline, form):
    assert COUNTS.nnz == 492
    layout = same(Storage(filters=PIPELINES[pipeline], resizable=1), form, chunks)
    check(write_h5ad(tmp_path / "x.h5ad", FORMATS[form], layout), COUNTS.toarray())


@pytest.mark.parametrize("tile", [(1, 1), (1, 41), (60, 1), (7, 11), (60, 41), (13, 40), (59, 2)])
@pytest.mark.parametrize("pipeline", ["none", "gzip4"])
def test_tiles_of_dense_matrices(tmp_path, pipeline, tile):
    layout = Layout(Storage(tile, PIPELINES[pipeline]))
    check(write_h5ad(tmp_path / "x.h5ad", FORMATS["dense"], layout), COUNTS.toarray())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("userblock", [0, 512, 1024])
@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
@pytest.mark.parametrize("chunked", [True, False])
def test_file_versions_and_user_blocks(tmp_path, chunked, libver, userblock, form):
    layout = same(Storage(filters=PIPELINES["gzip4"]), form, 50) if chunked else Layout()
    layout = replace(layout, libver=libver, userblock=userblock)
    check(write_h5ad(tmp_path / "x.h5ad", FORMATS[form], layout), COUNTS.toarray())


# What HDF5 chooses as the index of the chunks; "many" goes beyond the first level of each index.
INDEX_KINDS = {
    "version 1 B-tree": ("earliest", {"resizable": 1}),
    "single chunk": ("latest", {"chunks": "all"}),
    "single chunk, filtered": ("latest", {"chunks": "all", "filters": PIPELINES["gzip4"]}),
    "implicit": ("latest", {"alloc": "early"}),
    "fixed array": ("latest", {}),
    "fixed array, filtered": ("latest", {"filters": PIPELINES["gzip4"]}),
    "extensible array": ("latest", {"resizable": 1}),
    "extensible array, filtered": ("latest", {"resizable": 1, "filters": PIPELINES["gzip4"]}),
    "version 2 B-tree": ("latest", {"resizable": 2}),
    "version 2 B-tree, filtered": ("latest", {"resizable": 2, "filters": PIPELINES["gzip4"]}),
}


@pytest.mark.parametrize("form", ["csr", "dense"])
@pytest.mark.parametrize("many", [False, True], ids=["few chunks", "many chunks"])
@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_chunk_index_kinds(tmp_path, kind, many, form):
    libver, options = INDEX_KINDS[kind]
    matrix = sp.random(90, 70, 0.7, "csr", random_state=1).astype(np.float32)
    chunks = options.get("chunks")
    if form == "dense":
        matrix, shape = matrix.toarray(), (90, 70) if chunks else ((2, 1) if many else (40, 33))
        layout = Layout(Storage(**{**options, "chunks": shape}))
    else:
        options = {**options, "resizable": min(1, options.get("resizable", 0))}
        shape = (matrix.nnz,) if chunks else ((2,) if many else (1500,))
        storage = Storage(**{**options, "chunks": shape})
        layout, matrix = Layout(storage, storage, replace(storage, chunks=(91,))), Stored.of(matrix)
    check(write_h5ad(tmp_path / "x.h5ad", matrix, replace(layout, libver=libver)))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("chunked", "alloc"), [(True, "early"), (True, "late"), (True, "incr"), (False, "early"), (False, "late")]
)
def test_allocation_times(tmp_path, chunked, alloc, form):
    layout = same(Storage(alloc=alloc), form, 50) if chunked else Layout(*[Storage(alloc=alloc)] * 3)
    check(write_h5ad(tmp_path / "x.h5ad", FORMATS[form], layout), COUNTS.toarray())


@pytest.mark.parametrize("kind", [order + kind for kind in ("i2", "f4", "f8", "u1") for order in "<>"] + ["?"])
@pytest.mark.parametrize("fill", [None, 0, 1])
@pytest.mark.parametrize("pipeline", ["contiguous", "none", "gzip4"])
def test_what_was_never_written_reads_as_the_fill_value(tmp_path, pipeline, fill, kind):
    values = COUNTS.toarray().astype(kind)
    chunked = pipeline != "contiguous"
    filters = PIPELINES[pipeline] if chunked else ()
    # Two bands of tiles, one tile of a third, and nothing else; or nothing at all.
    parts = [np.s_[10:30], np.s_[40:45, 10:15]] if chunked else []
    path = tmp_path / "x.h5ad"
    with h5py.File(path, "w") as file:
        tiles = Storage((10, 11) if chunked else None, filters, fill=fill)
        put(file, "X", values, tiles, written=parts)
        put_frame(file, "obs", 60)
        put_frame(file, "var", 41)
    check(path)

    path = tmp_path / "sparse.h5ad"
    write_h5ad(path, FORMATS["csr"])
    with h5py.File(path, "r+") as file:
        del file["X/data"]
        storage = Storage((25,) if chunked else None, filters, fill=fill)
        parts = [np.s_[130:140], np.s_[490:]] if chunked else []
        put(file["X"], "data", COUNTS.data.astype(kind), storage, written=parts)
    check(path)


@pytest.mark.parametrize("pipeline", ["shuffle, gzip", "shuffle, gzip, fletcher32"])
@pytest.mark.parametrize("form", ["csr", "dense"])
def test_filters_that_were_skipped_for_single_chunks(tmp_path, form, pipeline):
    filters = PIPELINES[pipeline]
    layout = same(Storage(filters=filters), form, 49)
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS[form], layout)
    masks = set()
    with h5py.File(path, "r+") as file:
        for array in [file["X"]] if form == "dense" else [file["X/data"], file["X/indices"]]:
            values = array[...]
            for i in range(array.id.get_num_chunks()):
                start = array.id.get_chunk_info(i).chunk_offset
                part = values[tuple(slice(a, a + n) for a, n in zip(start, array.chunks, strict=True))]
                padded = np.zeros(array.chunks, array.dtype)
                padded[tuple(slice(n) for n in part.shape)] = part
                # The checksum's own bit is always set: it is skipped.
                mask = i % 4 | (4 if len(filters) == 3 else 0)
                array.id.write_direct_chunk(start, encoded(padded, mask), mask)
                masks.add(mask)
    assert {mask & 3 for mask in masks} == {0, 1, 2, 3}
    check(path, COUNTS.toarray())


def encoded(chunk, mask):
    """Return the bytes of a chunk after shuffle (unless bit 0 of ``mask`` is set) and deflate (unless bit 1 is)."""
    raw = np.frombuffer(chunk.tobytes(), np.uint8)
    if not mask & 1:
        raw = raw.reshape(-1, chunk.itemsize).T
    return raw.tobytes() if mask & 2 else zlib.compress(raw.tobytes())


@pytest.mark.parametrize("form", FORMATS)
def test_lzf_skips_what_it_cannot_compress(tmp_path, form):
    noise = np.random.default_rng(0).integers(0, 2**32, 60 * 41, np.uint32).view(np.float32)
    matrix = FORMATS[form]
    matrix = noise.reshape(60, 41) if form == "dense" else matrix._replace(data=noise[: len(matrix.data)])
    path = write_h5ad(tmp_path / "x.h5ad", matrix, same(Storage(filters=PIPELINES["lzf"]), form, 16))
    with h5py.File(path) as file:
        array = file["X"] if form == "dense" else file["X/data"]
        masks = {array.id.get_chunk_info(i).filter_mask for i in range(array.id.get_num_chunks())}
    assert 1 in masks
    check(path)


@pytest.mark.parametrize("form", FORMATS)
def test_edge_chunks_that_are_stored_without_filters(tmp_path, form):
    layout = replace(same(Storage(filters=PIPELINES["gzip4"], plain_edges=True), form, 50), libver="latest")
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS[form], layout)
    with h5py.File(path) as file:
        array = file["X"] if form == "dense" else file["X/data"]
        last = array.id.get_chunk_info(array.id.get_num_chunks() - 1)
        assert (last.size, last.filter_mask) == (np.prod(array.chunks) * 4, 0)
    check(path, COUNTS.toarray())


@pytest.mark.parametrize("pipeline", ["none", "gzip4"])
def test_arrays_that_grew_and_shrank(tmp_path, pipeline):
    path = tmp_path / "x.h5ad"
    storage = Storage((20,), PIPELINES[pipeline], resizable=1)
    write_h5ad(path, FORMATS["csr"], Layout(storage, storage, storage))
    with h5py.File(path, "r+") as file:
        for name, values in zip(("data", "indices"), (COUNTS.data, COUNTS.indices), strict=True):
            array = file["X"][name]
            array.resize((33,))
            array.resize((700,))
            array[33:492] = values[33:492]
    check(path, COUNTS.toarray())


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


ODD_ROWS = {
    "unsorted": ([5, 0, 3, 9, 1], [0, 3, 5]),
    "reversed": ([9, 8, 7, 1, 0], [0, 5, 5]),
    "repeated": ([3, 3, 3, 3, 3], [0, 2, 5]),
    "repeated, unsorted": ([4, 2, 4, 2, 4], [0, 5, 5]),
    "repeated across a chunk border": ([0, 1, 1, 1, 1], [0, 1, 5]),
    "trailing elements": ([0, 1, 2, 99, -7], [0, 2, 3]),
    "all rows empty": ([0, 1, 2, 99, -7], [0, 0, 0]),
    "first and last row empty": ([7, 6, 2, 1, 1], [0, 0, 3, 5, 5]),
}


@pytest.mark.parametrize("pipeline", ["none", "gzip4"])
@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("case", ODD_ROWS)
def test_rows_as_scipy_understands_them(tmp_path, case, form, pipeline):
    indices, indptr = map(np.array, ODD_ROWS[case])
    shape = (len(indptr) - 1, 10)[:: 1 if form == "csr" else -1]
    for data in (np.float32([1, 2, 4, 8, 16]), np.int64([1, 0, -1, 0, 2**20]), np.float64([0.5, 0, -0.5, 0, 1e-9])):
        stored = Stored(form, shape, data, indices, indptr)
        layout = same(Storage(filters=PIPELINES[pipeline], resizable=1), form, 2)
        path = write_h5ad(tmp_path / "x.h5ad", stored, layout)
        check(path)


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (3, 4)])
@pytest.mark.parametrize("chunked", [True, False])
def test_matrices_without_rows_columns_or_values(tmp_path, chunked, shape, form):
    storage = Storage((4,), PIPELINES["gzip4"], resizable=1) if chunked else Storage()
    if form == "dense":
        matrix = np.zeros(shape, np.float32)
        storage = replace(storage, chunks=(4, max(1, shape[1])) if chunked else None, resizable=2 * chunked)
    else:
        matrix = Stored.of({"csr": sp.csr_matrix, "csc": sp.csc_matrix}[form](shape, dtype=np.float32))
    path = write_h5ad(tmp_path / "x.h5ad", matrix, Layout(storage, storage, storage))
    check(path, np.zeros(shape))
    with AnnDataset(path) as dataset:
        assert (len(dataset), dataset.shape) == (shape[0], shape)
        batches = list(dataset.get_optimized_dataloader(batch_size=2))
        assert [batch["X"].shape for batch in batches] == [
            (min(2, shape[0] - start), shape[1]) for start in range(0, shape[0], 2)
        ]


def test_an_empty_indptr_of_no_rows(tmp_path):
    empty = np.empty(0, np.int32)
    check(write_h5ad(tmp_path / "x.h5ad", Stored("csr", (0, 7), np.empty(0, "f4"), empty, empty)), np.zeros((0, 7)))


FAR = [("i8", 2**31 + 1000), ("u4", 2**31 + 1000), ("i4", 2**31 - 1), ("i8", 2**33), ("u8", 2**32 + 3), (">i8", 2**34)]


@pytest.mark.parametrize("pipeline", ["none", "shuffle, gzip"])
@pytest.mark.parametrize(("pointer", "total"), FAR)
def test_elements_beyond_what_32_bits_count(tmp_path, pointer, total, pipeline):
    """The first row owns all elements before the last thousand, of which none was ever written."""
    path = tmp_path / "x.h5ad"
    rng = np.random.default_rng(total)
    lengths = rng.integers(0, 50, 20)
    starts = total - 1000 + np.concatenate([[0], np.cumsum(lengths)])
    first = int(starts[0])
    columns = np.concatenate([np.sort(rng.choice(100, n, replace=False)) for n in lengths])
    values = rng.integers(1, 200, len(columns))
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array([21, 100])})
        storage = Storage((2**19,), PIPELINES[pipeline])
        for name, array in (("data", values.astype("u1")), ("indices", columns.astype("u1"))):
            put(group, name, array, storage, shape=(total,), written=[])[first : first + len(array)] = array
        put(group, "indptr", np.array([0, *starts], dtype=pointer))
        put_frame(file, "obs", 21)
        put_frame(file, "var", 100)
    assert path.stat().st_size < 5 * 2**20
    whole = sp.csr_matrix((values, columns, starts - first), shape=(20, 100)).toarray()
    for output, threads in itertools.product(("dense", "csr"), (1, 3)):
        rows = rng.integers(0, 20, 30)
        np.testing.assert_array_equal(deliver(path, rows + 1, output=output, threads=threads), whole[rows])


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
