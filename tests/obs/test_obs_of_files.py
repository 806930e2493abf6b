"""obs of files: compared with what anndata reads, value by value."""

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
from tests.obs.expected import assert_is, assert_takes_as, expected, expected_codes
from tests.support.corpus import FILES

from annfeed.errors import FormatError, UnknownNameError
from annfeed.obs.file import FileObs
from annfeed.obs.table import ObsTable

SCANPY_DEMO = Path(scanpy.__file__).parent / "datasets" / "10x_pbmc68k_reduced.h5ad"
ELSEWHERE = {"derived/csr_nested_group": "experiments/rna/obs", "edge/truncated_file": None}
CORPUS_FILES = [name for name in FILES if name not in ELSEWHERE]
# anndata cannot read these as a whole, for reasons outside obs; it reads their obs alone.
ONLY_OBS_READS = {
    "derived/csr_bigendian", "derived/csr_blosc_zstd_shuffle", "derived/csr_f16", "derived/csr_lz4",
    "derived/csr_zstd3", "edge/h5mu_disguised_as_h5ad", "edge/nonstandard_encoding_csc",
}  # fmt: skip


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
    assert (table.n_rows, table.columns) == (len(obs), list(obs))
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
    frames, read_whole = {}, FileObs._read_whole
    monkeypatch.setattr(
        FileObs, "_read_whole", lambda self: frames[0] if frames else frames.setdefault(0, read_whole(self))
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
    (
        "no HDF5",
        lambda file: ObsTable.from_file(__file__),
        FormatError,
        r"test_obs_of_files\.py: .*the file is not HDF5",
    ),
    ("no group", lambda file: ObsTable.from_file(file, "mod/rna/obs"), FormatError, "no 'mod/rna/obs'; .*obs"),
    ("no frame", lambda file: ObsTable.from_file(file, "obsm"), FormatError, "encoded as 'dict'"),
    ("an array", lambda file: ObsTable.from_file(file, "X"), FormatError, "X .*float32, not a dataframe"),
    (
        "one str",
        lambda file: ObsTable.from_file(file, columns="n"),
        TypeError,
        r"expected a list of names, or None. Pass \['n'\]",
    ),
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
        ("celltype", r"small\.h5ad: obs has no column 'celltype'. Did you mean 'cell_type'\?$"),
        ("Cell_Type", "Did you mean 'cell_type'"),
        ("xyz", "There are [0-9]+: 'cell_type', 'größe', 'kommentar', 'n'"),
    ],
)
def test_an_unknown_column_names_file_and_neighbours(small_file, asked, text):
    with pytest.raises(UnknownNameError, match=text) as error:
        ObsTable.from_file(small_file, columns=["n", asked])
    assert isinstance(error.value, KeyError)
    assert not str(error.value).startswith(("'", '"'))


def test_an_unknown_column_of_an_anndata():
    adata = anndata.AnnData(obs=pd.DataFrame({"batch": ["a"]}, index=["x"]))
    with pytest.raises(UnknownNameError, match=r"AnnData in memory has no column 'btch'. Did you mean 'batch'\?$"):
        ObsTable.from_anndata(adata, columns=["btch"])
