"""Files in every layout of HDF5 that annfeed decodes itself: delivered is what h5py and scipy read.

No test here may fall back to h5py: AnnfeedWarning is an error, but where a test says otherwise.
"""

import itertools
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from tests.sources.layouts import COUNTS, FORMATS, deliver, row_patterns, same
from tests.support.h5ad_files import PIPELINES, Layout, Storage, Stored, dense, dense_matrix, put, put_frame, write_h5ad

from annfeed import AnnDataset

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


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
                dataset.reader.matrices["X"].source.set_aside()


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
