"""What annfeed does not decode itself is read through h5py: the same rows, one warning, or an error where strict."""

import pickle
import re
import warnings

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tests.support.h5ad_files import (
    FOREIGN,
    PIPELINES,
    Layout,
    Storage,
    Stored,
    dense,
    dense_matrix,
    encoding,
    put_frame,
    write_h5ad,
)
from tests.support.processes import run

from annfeed import AnnDataset, AnnfeedWarning, FormatError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")

COUNTS = sp.random(60, 41, 0.2, "csr", random_state=0, data_rvs=lambda n: np.arange(1, n + 1)).astype(np.int32)
FORMATS = {"csr": Stored.of(COUNTS), "csc": Stored.of(COUNTS.tocsc()), "dense": COUNTS.toarray()}
ROWS = [3, 59, 3, 0, 17, 18, 19, 59]


def opened_with_one_warning(path, *parts, rows=ROWS, **options):
    """Open and read a file; the one warning that it gives holds all of ``parts``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AnnfeedWarning)
        dataset = AnnDataset(path, obs_columns=[], cache="1GiB", **options)
        dataset.__getitems__(rows)
        dataset.__getitems__([])
        list(dataset.get_optimized_dataloader(batch_size=50))
    (message,) = (str(w.message) for w in caught if w.category is AnnfeedWarning)
    for part in (str(path), "through h5py", "strict=True", *parts):
        assert part in message
    return dataset


def check(path, *parts, whole=None):
    """Compare what is delivered through h5py with ``whole``, or with what h5py and scipy read."""
    whole = (dense_matrix(path) if whole is None else whole).astype(np.float32)
    columns = np.random.default_rng(0).permutation(whole.shape[1])[:9]
    for output in ("dense", "csr"):
        for wanted, subset in ((slice(None), None), (columns, columns)):
            with opened_with_one_warning(path, *parts, output=output, var_subset=subset) as dataset:
                delivered = dense(dataset.__getitems__(ROWS).batch["X"])
                np.testing.assert_array_equal(delivered, whole[ROWS][:, wanted])
                loader = dataset.get_optimized_dataloader(batch_size=7, shuffle=False)
                loaded = np.concatenate([dense(batch["X"]) for batch in loader])
                np.testing.assert_array_equal(loaded, whole[:, wanted])
    with pytest.raises(UnsupportedError) as caught:
        AnnDataset(path, strict=True)
    for part in (str(path), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_filters(tmp_path, name, form):
    storage = Storage((16, 8) if form == "dense" else (64,), FOREIGN[name])
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS[form], Layout(storage, storage))
    place = "'X'" if form == "dense" else "'X/data'"
    check(path, place, f"filter {FOREIGN[name][0][0]}", name, whole=COUNTS.toarray())


@pytest.mark.parametrize("array", ["data", "indices", "indptr"])
def test_one_foreign_array_is_enough(tmp_path, array):
    layout = Layout(**{array: Storage((16,), FOREIGN["blosc2"])})
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"], layout)
    check(path, f"'X/{array}'", "filter 32026", "Blosc2", whole=COUNTS.toarray())


def test_a_foreign_filter_among_ours(tmp_path):
    storage = Storage((64,), (*PIPELINES["shuffle"], *FOREIGN["bzip2"], *PIPELINES["fletcher32"]))
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"], Layout(storage, storage))
    check(path, "'X/data'", "filter 307", whole=COUNTS.toarray())


@pytest.mark.parametrize("form", FORMATS)
def test_compact_arrays(tmp_path, form):
    storage = Storage(compact=True)
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS[form], Layout(storage, storage, storage))
    check(path, "compact", whole=COUNTS.toarray())


def test_a_virtual_array(tmp_path):
    for i in range(3):
        with h5py.File(tmp_path / f"part{i}.h5", "w") as part:
            part["rows"] = COUNTS.toarray()[20 * i : 20 * (i + 1)]
    layout = h5py.VirtualLayout((60, 41), "i4")
    for i in range(3):
        layout[20 * i : 20 * (i + 1)] = h5py.VirtualSource(tmp_path / f"part{i}.h5", "rows", (20, 41))
    with h5py.File(tmp_path / "x.h5ad", "w", libver="latest") as file:
        file.create_virtual_dataset("X", layout).attrs.update(encoding("array", "0.2.0"))
        put_frame(file, "obs", 60)
        put_frame(file, "var", 41)
    check(tmp_path / "x.h5ad", "'X'", "virtual", whole=COUNTS.toarray())


@pytest.mark.parametrize("form", ["csr", "dense"])
def test_external_links(tmp_path, form):
    # The two files must differ in their addresses, or data of the wrong one could go unnoticed.
    write_h5ad(tmp_path / "elsewhere.h5ad", FORMATS[form], Layout(userblock=4096))
    path = write_h5ad(tmp_path / "x.h5ad", np.full((60, 41), 7, np.int32))
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink("elsewhere.h5ad", "/X")
    check(path, "another file", whole=COUNTS.toarray())


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
def test_an_external_link_to_one_array(tmp_path, name):
    write_h5ad(tmp_path / "elsewhere.h5ad", FORMATS["csr"], Layout(userblock=4096))
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"])
    with h5py.File(path, "r+") as file:
        del file["X"][name]
        file["X"][name] = h5py.ExternalLink("elsewhere.h5ad", f"/X/{name}")
    check(path, f"'X/{name}'", "another file", whole=COUNTS.toarray())


def test_an_external_link_to_nowhere(tmp_path):
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"])
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink("nowhere.h5ad", "/X")
    with pytest.raises(FormatError, match=r"x\.h5ad: 'X'.*link"):
        AnnDataset(path)


def test_external_storage(tmp_path):
    (tmp_path / "values.bin").write_bytes(COUNTS.toarray().tobytes())
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        size = COUNTS.toarray().nbytes
        array = file.create_dataset("X", (60, 41), "i4", external=[(tmp_path / "values.bin", 0, size)])
        array.attrs.update(encoding("array", "0.2.0"))
        put_frame(file, "obs", 60)
        put_frame(file, "var", 41)
    check(tmp_path / "x.h5ad", "'X'", "external file", whole=COUNTS.toarray())


def test_links_within_the_file_need_no_h5py(tmp_path):
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"], elem="layers/counts")
    with h5py.File(path, "r+") as file:
        file["X"] = h5py.SoftLink("/layers/counts")
        file["raw/X"] = file["layers/counts"]
        put_frame(file, "raw/var", 41)
    for elem in ("X", "raw/X", "layers/counts"):
        with AnnDataset(path, elem=elem, strict=True) as dataset:
            np.testing.assert_array_equal(dense(dataset.__getitems__(ROWS).batch["X"]), COUNTS.toarray()[ROWS])


def with_type(path, build, values):
    """Write a dense X of a type that numpy has no name for."""
    datatype = build()
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(values.shape)
        h5py.Dataset(h5py.h5d.create(file.id, b"X", datatype, space))[...] = values
        put_frame(file, "obs", values.shape[0])
        put_frame(file, "var", values.shape[1])
    return path


def three_bytes():
    datatype = h5py.h5t.STD_I32LE.copy()
    datatype.set_precision(24)
    return datatype


def shifted():
    datatype = h5py.h5t.STD_U32LE.copy()
    datatype.set_precision(16)
    datatype.set_offset(8)
    return datatype


@pytest.mark.parametrize("build", [three_bytes, shifted])
def test_numbers_of_odd_widths(tmp_path, build):
    values = np.arange(60 * 5).reshape(60, 5) % 250
    path = with_type(tmp_path / "x.h5ad", build, values)
    check(path, "'X'", whole=values)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.ones((60, 3), np.longdouble), "float128"),
        (np.ones((60, 3), np.complex64), "complex64"),
        (np.full((60, 3), b"text"), "S4"),
        (np.full((60, 3), "text", object), "object"),
        (np.zeros((60, 3), [("a", "f4")]), "a"),
    ],
    ids=["long double", "complex", "fixed text", "text", "compound"],
)
def test_what_is_no_number_for_h5py_either(tmp_path, values, found):
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        file.create_dataset("X", data=values, dtype=h5py.string_dtype() if values.dtype == object else None)
        put_frame(file, "obs", 60)
        put_frame(file, "var", 3)
    for strict in (False, True):
        with pytest.raises(UnsupportedError, match=r"x\.h5ad: 'X'") as caught:
            AnnDataset(tmp_path / "x.h5ad", strict=strict)
        assert strict or (found in str(caught.value) and "expected" in str(caught.value))


@pytest.mark.parametrize("shape", [(), (60,), (60, 2, 2)])
def test_arrays_that_are_no_matrix(tmp_path, shape):
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        file["X"] = np.ones(shape, np.complex64)
        put_frame(file, "obs", 60)
    with pytest.raises(FormatError, match=r"x\.h5ad: 'X'"):
        AnnDataset(tmp_path / "x.h5ad")


def test_an_encoding_in_bytes(tmp_path):
    """As Julia writes it."""
    storage = Storage((64,), FOREIGN["blosc2"])
    for form in ("csr", "csc"):
        path = write_h5ad(tmp_path / f"{form}.h5ad", FORMATS[form], Layout(storage, storage))
        with h5py.File(path, "r+") as file:
            file["X"].attrs["encoding-type"] = np.bytes_(f"{form}_matrix")
        check(path, "filter 32026", whole=COUNTS.toarray())


def test_rows_that_scipy_would_clean_up(tmp_path):
    storage = Storage((2,), FOREIGN["blosc2"])
    indices, indptr = np.array([5, 0, 5, 5, 9, 3, 3, 99]), np.array([0, 4, 4, 7])
    for data in (np.float32([1, 2, 4, 8, 16, 32, 64, 128]), np.float64([0.5, 0, -0.5, 0, 1e-9, 0, 0, 1])):
        path = write_h5ad(tmp_path / "x.h5ad", Stored("csr", (3, 10), data, indices, indptr), Layout(storage, storage))
        expected = dense_matrix(path).astype(np.float32)
        for output in ("dense", "csr"):
            with opened_with_one_warning(path, rows=[2, 1], output=output) as dataset:
                np.testing.assert_array_equal(
                    dense(dataset.__getitems__([2, 1, 0, 0]).batch["X"]), expected[[2, 1, 0, 0]]
                )


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_through_h5py(tmp_path, dtype):
    layout = Layout(Storage((64,), FOREIGN["blosc2"]))
    matrix = COUNTS.minimum(COUNTS.sign() * 200).astype(np.float32)
    for order in "<>":
        for kind in ("i2", "u4", "f2", "f8"):
            path = tmp_path / f"{order}{kind}.h5ad"
            write_h5ad(path, Stored.of(matrix, order + "i8", order + "u4", order + kind), layout)
            with opened_with_one_warning(path, dtype=dtype) as dataset:
                batch = dataset.__getitems__(ROWS).batch["X"]
            assert batch.dtype is dtype
            np.testing.assert_array_equal(batch.to(torch.float32), matrix.toarray()[ROWS])


def test_a_copy_in_another_process_warns_no_more(tmp_path):
    storage = Storage((64,), FOREIGN["blosc2"])
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"], Layout(storage, storage))
    with opened_with_one_warning(path) as dataset:
        expected = COUNTS.toarray()[ROWS]
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset)).__getitems__(ROWS).batch["X"], expected)
        for context in ("fork", "forkserver"):
            loader = dataset.get_optimized_dataloader(
                batch_size=30, shuffle=False, num_workers=1, multiprocessing_context=context
            )
            np.testing.assert_array_equal(torch.cat([batch["X"] for batch in loader]), COUNTS.toarray())


def test_the_user_has_the_file_open_too(tmp_path):
    storage = Storage((64,), FOREIGN["blosc2"])
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"], Layout(storage, storage))
    for locking in (None, False, True):
        with h5py.File(path, "r", locking=locking) as file, opened_with_one_warning(path) as dataset:
            np.testing.assert_array_equal(dataset[5]["X"], COUNTS.toarray()[5])
            assert file["X/indptr"][0] == 0


WITHOUT_PLUGINS = """
import sys, warnings
warnings.simplefilter("ignore")
assert "hdf5plugin" not in sys.modules
sys.modules["hdf5plugin"] = None
from annfeed import AnnDataset, UnsupportedError
for path in sys.argv[2:]:
    print(float(AnnDataset(path)[5]["X"].sum()))
try:
    AnnDataset(sys.argv[1])
except UnsupportedError as error:
    print(error)
"""


@pytest.mark.parametrize("form", FORMATS)
def test_without_hdf5plugin_the_error_says_what_to_install(tmp_path, form):
    def written(name, filters):
        storage = Storage((16, 8) if form == "dense" else (64,), filters)
        return write_h5ad(tmp_path / name, FORMATS[form], Layout(storage, storage))

    foreign = written("blosc.h5ad", FOREIGN["blosc2"])
    # zstd and lz4 are decoded by annfeed itself.
    ours = [written("zstd.h5ad", PIPELINES["shuffle, zstd"]), written("lz4.h5ad", PIPELINES["lz4"])]
    (tmp_path / "without_plugins.py").write_text(WITHOUT_PLUGINS)
    done = run(tmp_path / "without_plugins.py", foreign, *ours)
    assert done.returncode == 0, done.stderr
    *sums, message = done.stdout.splitlines()
    assert [float(s) for s in sums] == [COUNTS[5].sum()] * 2, done.stderr
    for part in (str(foreign), "'X", "32026", "pip install 'annfeed[filters]'"):
        assert part in message
    assert not re.search("Traceback", done.stderr)


def test_csc_beyond_the_budget(tmp_path):
    storage = Storage((64,), FOREIGN["blosc2"])
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csc"], Layout(storage, storage))
    with pytest.raises(MemoryError, match=r"x\.h5ad: 'X'.*CSC.*\d+ bytes.*cache=.*CSR"):
        AnnDataset(path, cache=100)
