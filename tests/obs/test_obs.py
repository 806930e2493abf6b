"""obs as tensors and strings: compared with what anndata reads, value by value, by a few lines of plain pandas."""

import pickle
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy
import torch
from anndata.io import read_elem
from hypothesis import given
from hypothesis import strategies as st

from annfeed.errors import FormatError, StaleFileError, UnknownNameError
from annfeed.obs.sources import FileSource
from annfeed.obs.table import ObsTable

SCANPY_DEMO = Path(scanpy.__file__).parent / "datasets" / "10x_pbmc68k_reduced.h5ad"
NAN = float("nan")

CORPUS_FILES = [
    "anndataR_example_all_encodings", "bmmc_cite_rna600_csc_f8_gzip", "conv_pbmc3k_2638x13714_csr_f4_gzip",
    "cxg_schema_valid_csr_int64idx", "dentategyrus100_layers_csr_gzip", "guides10k_csr_int64data_gzip",
    "julia_pbmc7480_userblock512_dense_gzip9", "legacy05_pbmc68k_dense_gzip", "legacy_10x100x32k_h5sparse_csr_gzip",
    "legacy_nan_dense_gzip", "legacy_spatial6k_h5sparse_csr_gzip", "nawijn2021_1500_csr_44obs_nonascii",
    "pbmc5k_protein200_dense_lzf", "sim200x15k_csc_unsorted_none", "smfish4840_dense_contig",
    "wu2020_200_csr_gzip_46obs", "derived/base", "derived/csc_lzf", "derived/csr_bigendian",
    "derived/csr_blosc_zstd_shuffle", "derived/csr_contiguous", "derived/csr_empty_rows", "derived/csr_f16",
    "derived/csr_gzip_shuffle_fletcher32", "derived/csr_i4indices_i8indptr", "derived/csr_libver_latest_extarray",
    "derived/csr_libver_latest_fixedarray", "derived/csr_lz4", "derived/csr_lzf", "derived/csr_one_chunk_gzip",
    "derived/csr_tiny_chunks64_gzip", "derived/csr_u2data", "derived/csr_userblock1024", "derived/csr_zstd3",
    "derived/dense_libver_latest_btree2", "derived/dense_rowchunk_gzip",
    "derived/obs_nullable_string_ordered_nonascii", "edge/archive070_csr_lzf", "edge/boolean_obs",
    "edge/categorical_int_nan", "edge/empty_obs_0cells", "edge/h5mu_disguised_as_h5ad",
    "edge/int32_codes_no_root_encoding", "edge/nonstandard_encoding_csc", "edge/nullable_int_bool",
    "edge/pbmc2638_X_missing", "edge/pbmc2638_X_nnz0", "edge/pbmcsmall80_dense_f8_contig", "edge/unicode_names",
    "edge/zero_vars_85obs",
]  # fmt: skip
ELSEWHERE = {"derived/csr_nested_group": "experiments/rna/obs", "edge/truncated_file": None}
# anndata cannot read these as a whole, for reasons outside obs; it reads their obs alone.
ONLY_OBS_READS = {
    "derived/csr_bigendian", "derived/csr_blosc_zstd_shuffle", "derived/csr_f16", "derived/csr_lz4",
    "derived/csr_zstd3", "edge/h5mu_disguised_as_h5ad", "edge/nonstandard_encoding_csc",
}  # fmt: skip


def expected(series, rows):
    """Return what `take` has to give for these rows: (dtype, values), with dtype `str` for a list of str."""
    missing, values, dtype = list(series.isna()), list(series), series.dtype
    if isinstance(dtype, pd.CategoricalDtype) or dtype.kind not in "biuf":
        return str, ["nan" if missing[r] else str(values[r]) for r in rows]
    if dtype.kind == "f" or any(missing):
        kind = torch.get_default_dtype() if dtype.kind == "f" else torch.float64
        return kind, [NAN if missing[r] else float(values[r]) for r in rows]
    if dtype.kind == "b":
        return torch.bool, [bool(values[r]) for r in rows]
    return torch.int64, [int(values[r]) for r in rows]


def assert_is(found, dtype, values):
    if dtype is str:
        assert found == values
        assert {type(v) for v in found} <= {str}
    else:
        torch.testing.assert_close(found, torch.tensor(values, dtype=dtype), rtol=0, atol=0, equal_nan=True)


def assert_takes_as(table, obs, rows):
    taken = table.take(rows)
    assert list(taken) == [f"obs_{name}" for name in obs.columns]
    for name in obs.columns:
        assert_is(taken[f"obs_{name}"], *expected(obs[name], rows))


def expected_codes(series):
    """(codes, categories) with categories="code", or None for a column that stays as it is."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return list(series.cat.codes), list(series.cat.categories)
    dtype, texts = expected(series, range(len(series)))
    if dtype is not str:
        return None
    missing = list(series.isna())
    there = sorted({t for t, m in zip(texts, missing, strict=True) if not m})
    return [-1 if m else there.index(t) for t, m in zip(texts, missing, strict=True)], there


def read_by_anndata(path, whole):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if whole:
            return anndata.read_h5ad(path).obs
        with h5py.File(path) as file:
            return read_elem(file["obs"])


def open_hdf5_files():
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.corpus) for name in CORPUS_FILES), "scanpy"])
def test_obs_of_a_file_is_what_anndata_reads(name, request):
    path = SCANPY_DEMO if name == "scanpy" else request.getfixturevalue("corpus") / f"{name}.h5ad"
    obs = read_by_anndata(path, name not in ONLY_OBS_READS)
    table = ObsTable.from_file(path)
    assert (table.n_rows, table.column_names, table.columns) == (len(obs), list(obs), list(obs))
    pd.testing.assert_index_equal(table.names, obs.index)
    pd.testing.assert_frame_equal(table.frame(), obs)

    rows = np.random.default_rng(0).integers(0, max(len(obs), 1), min(len(obs), 200))
    assert_takes_as(table, obs, rows)
    coded = table.take(rows, categories="code")
    categories = table.categories
    for column in obs:
        if (codes_and_names := expected_codes(obs[column])) is None:
            assert column not in categories
            assert_is(coded[f"obs_{column}"], *expected(obs[column], rows))
        else:
            assert_is(coded[f"obs_{column}"], torch.int64, [codes_and_names[0][r] for r in rows])
            assert list(categories[column]) == codes_and_names[1]


@pytest.mark.parametrize("name", ["anndataR_example_all_encodings", "edge/zero_vars_85obs", "legacy_nan_dense_gzip"])
def test_each_column_alone_is_as_in_the_whole(name, corpus, monkeypatch):
    path = corpus / f"{name}.h5ad"
    obs = read_by_anndata(path, whole=True)
    # Frames of before version 0.2 are read as a whole for the sake of a column; in this test once, not twice a column.
    frames, read_whole = {}, FileSource._read_whole
    monkeypatch.setattr(
        FileSource, "_read_whole", lambda self: frames[0] if frames else frames.setdefault(0, read_whole(self))
    )
    for column in obs:
        table = ObsTable.from_file(path, columns=[column])
        assert_takes_as(table, obs[[column]], [3, 0, 3])
        pd.testing.assert_frame_equal(table.frame(), obs[[column]])


def test_the_list_of_corpus_files_is_complete(corpus):
    there = {str(p.relative_to(corpus).with_suffix("")) for p in corpus.rglob("*.h5ad")}
    assert there == {*CORPUS_FILES, *ELSEWHERE}


def test_obs_of_a_group_inside_the_file(corpus):
    nested, base = corpus / "derived/csr_nested_group.h5ad", corpus / "derived/base.h5ad"
    obs = read_by_anndata(base, whole=True)
    assert_takes_as(ObsTable.from_file(nested, group="experiments/rna/obs"), obs, range(len(obs)))


def test_known_values_of_nullable_columns(corpus):
    taken = ObsTable.from_file(corpus / "edge/nullable_int_bool.h5ad").take([0, 1, 2])
    with h5py.File(corpus / "edge/nullable_int_bool.h5ad") as file:
        for column in ("nullable_int", "nullable_bool"):
            values, mask = file[f"obs/{column}/values"][:], file[f"obs/{column}/mask"][:]
            assert mask.any()
            want = np.where(mask, np.nan, values.astype(float))[:3]
            assert_is(taken[f"obs_{column}"], torch.float64, want.tolist())


@pytest.fixture
def small_file(tmp_path):
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(["B", "T", None, "B"], categories=["T", "NK", "B"]),
            "größe": [1.5, 2.5, NAN, 4.5],
            "kommentar": ["a", "ü", "a", "c"],
            "n": [1, 2, 3, 2**60],
        },
        index=["w", "x", "y", "z"],
    )
    path = tmp_path / "small.h5ad"
    anndata.AnnData(np.zeros((4, 1), np.float32), obs=obs).write_h5ad(path, convert_strings_to_categoricals=False)
    return path


def test_columns_not_asked_for_are_not_read(small_file):
    with h5py.File(small_file, "r+") as file:
        file["obs/kommentar"].attrs["encoding-type"] = "of the future"
    assert ObsTable.from_file(small_file, columns=["n", "cell_type"]).take([3, 0]) == {
        "obs_n": pytest.approx(torch.tensor([2**60, 1])),
        "obs_cell_type": ["B", "B"],
    }
    with pytest.raises(FormatError, match=r"small\.h5ad: obs/kommentar cannot be read.*of the future"):
        ObsTable.from_file(small_file).take([0])


def test_columns_come_in_the_order_asked_for(small_file):
    table = ObsTable.from_file(small_file, columns=["n", "cell_type", "n"])
    assert list(table.take([0])) == ["obs_n", "obs_cell_type"]
    assert list(table.frame()) == table.columns == ["n", "cell_type"]
    assert ObsTable.from_file(small_file, columns=[]).take([0, 1]) == {}


def test_unused_categories_and_missing_values_keep_their_codes(small_file):
    table = ObsTable.from_file(small_file, columns=["cell_type"])
    assert table.take([2, 0])["obs_cell_type"] == ["nan", "B"]
    assert_is(table.take([2, 0, 1], categories="code")["obs_cell_type"], torch.int64, [-1, 2, 0])
    assert list(table.categories["cell_type"]) == ["T", "NK", "B"]


@pytest.mark.parametrize("name", ["derived/base", "bmmc_cite_rna600_csc_f8_gzip", "legacy05_pbmc68k_dense_gzip"])
def test_no_file_stays_open_and_no_warning_escapes(name, corpus):
    before = open_hdf5_files()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        table = ObsTable.from_file(corpus / f"{name}.h5ad")
        _ = table.take([0]), table.names, table.frame(), table.categories
        assert warnings.filters == filters
    assert caught == []
    assert open_hdf5_files() == before


@pytest.mark.parametrize("bad", ["kommentar", "n"])
def test_no_file_stays_open_after_an_error(small_file, bad):
    with h5py.File(small_file, "r+") as file:
        if bad == "n":  # an error in our conversion, the other in anndata's reader
            del file["obs/n"]
            file["obs/n"] = np.full(4, 2**63, np.uint64)
        else:
            file["obs/kommentar"].attrs["encoding-type"] = "of the future"
    before = open_hdf5_files()
    with pytest.raises(ValueError, match=bad) as kept:
        ObsTable.from_file(small_file, columns=[bad, "größe"]).take([0])
    assert kept.value.__traceback__ is not None
    assert open_hdf5_files() == before


@pytest.mark.parametrize("how", [{"mode": "r"}, {"mode": "r", "locking": False}, {"mode": "r+"}])
def test_a_file_that_the_user_has_open_can_be_read(small_file, how):
    with h5py.File(small_file, **how):
        assert ObsTable.from_file(small_file, columns=["kommentar"]).take([1]) == {"obs_kommentar": ["ü"]}


def test_a_relative_path_survives_a_change_of_folder(small_file, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(small_file.parent)
    table = ObsTable.from_file(small_file.name, columns=["kommentar"])
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert table.take([1]) == {"obs_kommentar": ["ü"]}


def test_a_file_without_encoding_of_obs_is_read_as_anndata_does(small_file):
    with h5py.File(small_file, "r+") as file:
        del file["obs"]
        file["obs/n"] = [1, 2, 3, 4]
        file["obs/_index"] = ["a", "b", "c", "d"]
        del file.attrs["encoding-type"], file.attrs["encoding-version"]
    obs = read_by_anndata(small_file, whole=True)
    table = ObsTable.from_file(small_file)
    assert_takes_as(table, obs, [3, 1])
    pd.testing.assert_index_equal(table.names, obs.index)


FILE_ERRORS = [
    ("missing file", lambda file: ObsTable.from_file(file.with_name("no.h5ad")), FileNotFoundError, "no.h5ad"),
    ("no HDF5", lambda file: ObsTable.from_file(__file__), FormatError, r"test_obs\.py: .*the file is not HDF5"),
    ("no group", lambda file: ObsTable.from_file(file, "mod/rna/obs"), FormatError, "no 'mod/rna/obs'; .*obs"),
    ("no frame", lambda file: ObsTable.from_file(file, "obsm"), FormatError, "encoded as 'dict'"),
    ("an array", lambda file: ObsTable.from_file(file, "X"), FormatError, "X .*float32, not a dataframe"),
    ("one str", lambda file: ObsTable.from_file(file, columns="n"), TypeError, r"write \['n'\]"),
]


@pytest.mark.parametrize(("make", "error", "text"), [e[1:] for e in FILE_ERRORS], ids=[e[0] for e in FILE_ERRORS])
def test_errors_of_a_file_name_the_place(small_file, make, error, text):
    with pytest.raises(error, match=text):
        make(small_file)


def test_a_truncated_file_is_an_error_that_names_it(corpus):
    with pytest.raises(FormatError, match=r"truncated_file\.h5ad: .*the file is truncated"):
        ObsTable.from_file(corpus / "edge/truncated_file.h5ad")


def test_a_column_of_another_length_is_an_error(small_file):
    with h5py.File(small_file, "r+") as file:
        del file["obs/n"]
        file["obs/n"] = [1, 2, 3]
    with pytest.raises(FormatError, match=r"obs/n cannot be read"):
        ObsTable.from_file(small_file, columns=["n"]).take([0])


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("celltype", r"small\.h5ad: obs has no column 'celltype'; did you mean 'cell_type'\?$"),
        ("Cell_Type", "did you mean 'cell_type'"),
        ("xyz", "it has cell_type, größe, kommentar, n"),
    ],
)
def test_an_unknown_column_names_file_and_neighbours(small_file, asked, text):
    with pytest.raises(UnknownNameError, match=text) as error:
        ObsTable.from_file(small_file, columns=["n", asked])
    assert isinstance(error.value, KeyError)
    assert not str(error.value).startswith(("'", '"'))


def test_an_unknown_column_of_an_anndata():
    adata = anndata.AnnData(obs=pd.DataFrame({"batch": ["a"]}, index=["x"]))
    with pytest.raises(UnknownNameError, match=r"AnnData in memory has no column 'btch'; did you mean 'batch'\?$"):
        ObsTable.from_anndata(adata, columns=["btch"])


# Rows -----------------------------------------------------------------------------------------------------------------


ROW_ERRORS = [
    ([-1], IndexError, "row -1 is outside 0..2"),
    ([0, 3], IndexError, "row 3 is outside 0..2"),
    ([True, False, True], TypeError, "must be integers"),
    ([[0, 1]], TypeError, r"shape \(1, 2\)"),
    (1, TypeError, r"shape \(\)"),
    ([0.0], TypeError, "float64"),
]


@pytest.mark.parametrize(("rows", "error", "text"), ROW_ERRORS)
def test_rows_that_are_none(rows, error, text):
    with pytest.raises(error, match=text):
        ObsTable.from_frame(pd.DataFrame({"a": [1, 2, 3]})).take(rows)


def test_no_rows_give_empty_columns_of_the_same_dtypes():
    frame = pd.DataFrame({"i": [1], "b": [True], "f": [1.0], "t": ["a"], "m": pd.array([None], "Int8")})
    taken = ObsTable.from_frame(frame).take([])
    for name, dtype in {"i": torch.int64, "b": torch.bool, "f": torch.float32, "t": str, "m": torch.float64}.items():
        assert_is(taken[f"obs_{name}"], dtype, [])


def test_categories_must_be_str_or_code():
    with pytest.raises(ValueError, match='"str" or "code", not \'codes\''):
        ObsTable.from_frame(pd.DataFrame({"a": [1]})).take([0], categories="codes")


# Dtypes ---------------------------------------------------------------------------------------------------------------

MIXED = [1, 1.0, True, "1", None, NAN, [2], b"\xc3\xbc", np.str_("s"), pd.NaT]
DTYPES = [
    # column, dtype in a batch, all its values
    (pd.Series([True, False]), torch.bool, [True, False]),
    (pd.Series([1, -1], dtype="int8"), torch.int64, [1, -1]),
    (pd.Series([0, 255], dtype="uint8"), torch.int64, [0, 255]),
    (pd.Series([0, 2**32 - 1], dtype="uint32"), torch.int64, [0, 2**32 - 1]),
    (pd.Series([0, 2**63 - 1], dtype="uint64"), torch.int64, [0, 2**63 - 1]),
    (pd.Series([2**53 + 1], dtype="int64"), torch.int64, [2**53 + 1]),
    (pd.Series(np.array([1, 2], ">i4")), torch.int64, [1, 2]),
    (pd.Series(np.array([1.5, NAN], ">f8")), torch.float32, [1.5, NAN]),
    (pd.Series([0.1, NAN], dtype="float64"), torch.float32, [np.float32(0.1), NAN]),
    (pd.Series([0.5, NAN], dtype="float16"), torch.float32, [0.5, NAN]),
    (pd.Series(np.array([0.5], np.longdouble)), torch.float32, [0.5]),
    (pd.Series([1, 2], dtype="Int64"), torch.int64, [1, 2]),
    (pd.Series([2**53 + 1], dtype="Int64"), torch.int64, [2**53 + 1]),
    (pd.Series([1, None], dtype="Int16"), torch.float64, [1, NAN]),
    (pd.Series([1, None], dtype="UInt64"), torch.float64, [1, NAN]),
    (pd.Series([True, False], dtype="boolean"), torch.bool, [True, False]),
    (pd.Series([True, None], dtype="boolean"), torch.float64, [1, NAN]),
    (pd.Series([0.5, None], dtype="Float32"), torch.float32, [0.5, NAN]),
    (pd.Series(pd.arrays.SparseArray([0, 0, 3])), torch.int64, [0, 0, 3]),
    (pd.Series(pd.arrays.SparseArray([0.0, NAN])), torch.float32, [0, NAN]),
    (pd.Series(["a", None, NAN, "nan", ""]), str, ["a", "nan", "nan", "nan", ""]),
    (pd.Series([None, None], dtype=object), str, ["nan", "nan"]),
    (pd.Series(["a", None], dtype="string"), str, ["a", "nan"]),
    (pd.Series(["b", None, "a"], dtype=pd.CategoricalDtype(["a", "b"])), str, ["b", "nan", "a"]),
    (pd.Series([2, 1, None], dtype=pd.CategoricalDtype([1, 2])), str, ["2", "1", "nan"]),
    (pd.Series([2.0, 0.5], dtype=pd.CategoricalDtype([0.5, 2.0])), str, ["2.0", "0.5"]),
    (pd.Series([True, False], dtype=pd.CategoricalDtype([True, False])), str, ["True", "False"]),
    (pd.Series([None, None], dtype=pd.CategoricalDtype(["a"])), str, ["nan", "nan"]),
    (pd.Series(pd.to_datetime(["2020-01-02", None])), str, ["2020-01-02 00:00:00", "nan"]),
    (pd.Series(pd.to_timedelta(["1 days", None])), str, ["1 days 00:00:00", "nan"]),
    (pd.Series([1 + 2j]), str, ["(1+2j)"]),
    (pd.Series([pd.Interval(0, 1), None]), str, ["(0.0, 1.0]", "nan"]),
    (pd.Series(MIXED, dtype=object), str, ["1", "1.0", "True", "1", "nan", "nan", "[2]", "ü", "s", "nan"]),
]


@pytest.mark.parametrize(("series", "dtype", "values"), DTYPES, ids=[f"{d[0].dtype}-{i}" for i, d in enumerate(DTYPES)])
def test_table_of_dtypes(series, dtype, values):
    table = ObsTable.from_frame(pd.DataFrame({"c": series}))
    assert_is(table.take(range(len(values)))["obs_c"], dtype, values)
    # A batch has the dtype of the column, not of its rows.
    for row in range(len(values)):
        assert_is(table.take([row, row])["obs_c"], dtype, [values[row]] * 2)


@pytest.mark.parametrize("dtype", ["uint64", "UInt64"])
def test_an_integer_that_int64_cannot_hold_is_an_error(dtype):
    table = ObsTable.from_frame(pd.DataFrame({"big": pd.Series([2**63], dtype=dtype)}))
    with pytest.raises(ValueError, match="column 'big' has values above"):
        table.take([0])


def test_floats_follow_torch_default_dtype_at_the_time_of_the_batch():
    table = ObsTable.from_frame(pd.DataFrame({"f": [0.1]}))
    assert table.take([0])["obs_f"].dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert_is(table.take([0])["obs_f"], torch.float64, [0.1])
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("series", "codes", "categories"),
    [
        (pd.Series(["b", "a", None, "b"]), [1, 0, -1, 1], ["a", "b"]),
        (pd.Series(["b", "nan", None], dtype="string"), [0, 1, -1], ["b", "nan"]),
        (pd.Series(["é", "z", "a"]), [2, 1, 0], ["a", "z", "é"]),
        (pd.Series([3, None, 1], dtype=pd.CategoricalDtype([3, 2, 1])), [0, -1, 2], [3, 2, 1]),
        (pd.Series(pd.to_datetime(["2021", None, "2020"])), [1, -1, 0], ["2020-01-01 00:00:00", "2021-01-01 00:00:00"]),
        (pd.Series([1, "1", True], dtype=object), [0, 0, 1], ["1", "True"]),
        (pd.Series([None], dtype=object), [-1], []),
    ],
)
def test_table_of_codes(series, codes, categories):
    table = ObsTable.from_frame(pd.DataFrame({"c": series, "n": 1}))
    assert_is(table.take(range(len(codes)), categories="code")["obs_c"], torch.int64, codes)
    assert {name: list(index) for name, index in table.categories.items()} == {"c": categories}


def test_many_categories_keep_their_codes():
    names = [f"c{i}" for i in range(40_000)]  # more than int16 holds
    frame = pd.DataFrame({"cat": pd.Categorical(names, categories=names[::-1]), "text": names})
    taken = ObsTable.from_frame(frame).take([0, 39_999], categories="code")
    assert taken["obs_cat"].tolist() == [39_999, 0]
    assert taken["obs_text"].tolist() == [sorted(names).index("c0"), sorted(names).index("c39999")]


def optional(values):
    return st.none() | values


def some_columns(n):
    def column(values, dtype):
        return st.lists(values, min_size=n, max_size=n).map(lambda v: pd.Series(v, dtype=dtype))

    text = st.text(max_size=3)
    integers = [
        (t, np.iinfo(t.lower())) for t in ("int8", "int32", "int64", "uint8", "uint16", "Int8", "Int64", "UInt32")
    ]
    return st.one_of(
        column(st.booleans(), "bool"),
        column(optional(st.booleans()), "boolean"),
        *(
            column((optional if t[0].isupper() else lambda s: s)(st.integers(int(i.min), int(i.max))), t)
            for t, i in integers
        ),
        column(st.floats(width=32), "float32"),
        column(st.floats(width=32), "float64"),
        column(optional(text), object),
        column(optional(text), "string"),
        column(st.sampled_from(["a", "b", None]), pd.CategoricalDtype(["c", "b", "a"])),
        column(st.sampled_from([1, 5, None]), pd.CategoricalDtype([5, 3, 1], ordered=True)),
        column(st.sampled_from([0.5, None]), pd.CategoricalDtype([0.5, 1.5])),
        column(optional(st.datetimes(pd.Timestamp(1990, 1, 1), pd.Timestamp(2050, 1, 1))), "datetime64[ns]"),
        column(st.sampled_from([1, 1.0, True, "x", None, 2.5]), object),
    )


@st.composite
def frames_and_rows(draw):
    n = draw(st.integers(1, 8))
    frame = pd.DataFrame({f"c{i}": draw(some_columns(n)) for i in range(draw(st.integers(1, 4)))})
    return frame, draw(st.lists(st.integers(0, n - 1), max_size=12))


@given(frames_and_rows())
def test_any_frame_any_rows(frame_and_rows):
    frame, rows = frame_and_rows
    table = ObsTable.from_frame(frame)
    assert_takes_as(table, frame, rows)
    coded, categories = table.take(rows, categories="code"), table.categories
    for name in frame:
        if (codes_and_names := expected_codes(frame[name])) is not None:
            assert_is(coded[f"obs_{name}"], torch.int64, [codes_and_names[0][r] for r in rows])
            assert list(categories[name]) == codes_and_names[1]
    again = pickle.loads(pickle.dumps(table))
    assert_takes_as(again, frame, rows)


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "größe", "", " ", "obs_x", "细胞", 3, ("a", 1), 1.5])
def test_odd_column_names(name):
    table = ObsTable.from_frame(pd.DataFrame([[7]], columns=pd.Index([name], tupleize_cols=False)), columns=[name])
    assert table.take([0])[f"obs_{name}"].tolist() == [7]


def test_a_slash_in_a_column_name_of_a_file(tmp_path):
    anndata.AnnData(obs=pd.DataFrame({"ab": [1, 2]}, index=["x", "y"])).write_h5ad(tmp_path / "slash.h5ad")
    # What anndata wrote of a column "a/b" before 0.13, which refuses to.
    with h5py.File(tmp_path / "slash.h5ad", "a") as file:
        file.move("obs/ab", "obs/a/b")
        file["obs"].attrs["column-order"] = ["a/b"]
    assert ObsTable.from_file(tmp_path / "slash.h5ad").take([1])["obs_a/b"].tolist() == [2]


@pytest.mark.parametrize("names", [["a", "a"], [1, "1"]])
def test_two_columns_for_one_key_are_an_error(names):
    frame = pd.DataFrame([[1, 2, 3]], columns=[*names, "other"])
    with pytest.raises(ValueError, match="two columns for 'obs_"):
        ObsTable.from_frame(frame)
    with pytest.raises(ValueError, match="two columns"):
        ObsTable.from_frame(frame, columns=names)
    assert ObsTable.from_frame(frame, columns=["other"]).take([0])["obs_other"].tolist() == [3]


def test_what_is_no_frame_is_refused():
    with pytest.raises(TypeError, match="must be a pandas DataFrame, not a dict"):
        ObsTable.from_frame({"a": [1]})


# Edits and pickles ----------------------------------------------------------------------------------------------------


@pytest.fixture
def adata():
    obs = pd.DataFrame(
        {"n": [1, 2, 3], "t": ["a", "b", "c"], "c": pd.Categorical(["u", "v", "u"])}, index=["x", "y", "z"]
    )
    return anndata.AnnData(np.zeros((3, 2), np.float32), obs=obs)


EDITS = [
    # what the user does; the column it concerns and its value in row 0 afterwards
    ("adata.obs['n'] = [10, 20, 30]", "n", 10),
    ("adata.obs['n'] = [1.5, 2.5, 3.5]", "n", 1.5),
    ("adata.obs['t'] = ['A', 'B', 'C']", "t", "A"),
    ("adata.obs['c'] = adata.obs['c'].cat.rename_categories({'u': 'U'})", "c", "U"),
    ("adata.obs = adata.obs.assign(t=['q', 'r', 's'])", "t", "q"),
    ("adata.obs['new'] = ['i', 'j', 'k']", "new", "i"),
]
EDITS_INSIDE = [
    ("adata.obs.loc['x', 't'] = 'A'", "t", "A"),
    ("writeable(adata.obs['t'])[0] = 'A'", "t", "A"),
    ("writeable(adata.obs['n'])[0] = 11", "n", 11),
    ("adata.obs.loc['x', 'c'] = 'v'", "c", "v"),
]


def writeable(column):
    """The values of a column themselves, which pandas 3 hands out read-only, or (text) as a copy."""
    values = column.array._ndarray
    values.flags.writeable = True
    return values


def value(taken):
    return taken[0] if isinstance(taken, list) else taken[0].item()


@pytest.mark.parametrize(("edit", "column", "want"), EDITS)
def test_a_replaced_column_or_obs_is_seen_by_the_next_take(adata, edit, column, want):
    table = ObsTable.from_anndata(adata)
    table.take([0])
    exec(edit, {"adata": adata, "writeable": writeable})
    assert value(table.take([0])[f"obs_{column}"]) == want


@pytest.mark.parametrize(("edit", "column", "want"), [*EDITS, *EDITS_INSIDE])
@pytest.mark.parametrize("then", ["take", "now", "pickle"])
def test_any_edit_is_seen_by_a_take_in_an_epoch_and_in_a_pickle(adata, edit, column, want, then):
    table = ObsTable.from_anndata(adata)
    table.take([0])
    exec(edit, {"adata": adata, "writeable": writeable})
    if then == "now":
        table = table.now()
    elif then == "pickle":
        table = pickle.loads(pickle.dumps(table))
    assert value(table.take(np.array([0]))[f"obs_{column}"]) == want


def test_a_column_is_converted_once(adata, monkeypatch):
    import annfeed.obs.table

    converted = []
    convert = annfeed.obs.table.convert
    monkeypatch.setattr(annfeed.obs.table, "convert", lambda s, where: converted.append(s.name) or convert(s, where))
    adata.obs["d"] = pd.to_datetime(["2020", "2021", None])
    adata.obs["m"] = pd.array([1, None, 2], dtype="Int64")
    adata.obs["s"] = pd.array(["a", None, "b"], dtype="string")
    table = ObsTable.from_anndata(adata)
    for _ in range(3):
        table.take([0])
    assert converted == ["n", "t", "c", "d", "m", "s"]
    adata.obs["n"] = [4, 5, 6]
    table.take([0])
    assert converted[6:] == ["n"]


def test_a_column_that_was_dropped_is_an_error_that_names_it(adata):
    table = ObsTable.from_anndata(adata, columns=["n"])
    del adata.obs["n"]
    with pytest.raises(UnknownNameError, match="no column 'n'"):
        table.take([0])


def test_a_batch_is_memory_of_its_own(adata):
    table = ObsTable.from_anndata(adata)
    taken = table.take([0, 1])
    taken["obs_n"] += 100
    taken["obs_t"][0] = "changed"
    assert table.take([0])["obs_n"].tolist() == [1]
    assert table.take([0])["obs_t"] == ["a"]
    assert adata.obs["n"].tolist() == [1, 2, 3]


def test_a_frame_is_a_copy(adata):
    table = ObsTable.from_anndata(adata, columns=["t", "n"])
    frame = table.frame()
    frame.loc["x", "n"] = 100
    assert list(frame) == ["t", "n"]
    assert adata.obs.loc["x", "n"] == 1


def test_a_view_gives_its_own_rows(adata):
    table = ObsTable.from_anndata(adata[[2, 0]])
    for t in (table, pickle.loads(pickle.dumps(table))):
        assert t.n_rows == 2
        assert list(t.names) == ["z", "x"]
        assert t.take([0, 1])["obs_t"] == ["c", "a"]
        assert type(t.frame()) is pd.DataFrame


def test_a_file_table_pickles_as_its_path(small_file):
    table = ObsTable.from_file(small_file, columns=["kommentar"])
    unread = pickle.dumps(table)
    _ = table.take([0]), table.names
    assert pickle.dumps(table) == unread
    assert "ü".encode() not in unread
    assert pickle.loads(unread).take([1]) == {"obs_kommentar": ["ü"]}
    small_file.unlink()
    with pytest.raises(StaleFileError, match="small"):
        pickle.loads(unread).take([1])


def test_an_anndata_table_pickles_its_selected_columns_only(adata):
    adata.X = np.zeros((3, 2), np.float32)
    adata.obs["huge"] = ["h" * 100_000] * 3
    table = ObsTable.from_anndata(adata, columns=["t"])
    pickled = pickle.dumps(table)
    assert len(pickled) < 10_000
    again = pickle.loads(pickled)
    assert again.take([2, 0]) == {"obs_t": ["c", "a"]}
    assert list(again.names) == ["x", "y", "z"]


def test_a_backed_anndata_pickles_without_its_file(small_file):
    backed = anndata.read_h5ad(small_file, backed="r")
    backed.obs["mine"] = [1, 2, 3, 4]
    try:
        for source in (backed, backed[1:]):
            again = pickle.loads(pickle.dumps(ObsTable.from_anndata(source, columns=["mine"])))
            assert again.take([0])["obs_mine"].tolist() == [source.obs["mine"].iloc[0]]
    finally:
        backed.file.close()


def test_an_epoch_keeps_the_columns_of_a_file(small_file):
    table = ObsTable.from_file(small_file, columns=["kommentar"])
    table.take([0])
    small_file.unlink()
    table = table.now()
    assert table.take([1]) == {"obs_kommentar": ["ü"]}
