"""Real files, as people wrote them: the rows that h5py and scipy read are the rows that annfeed delivers."""

import json
import warnings
import zlib
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from tests.support.corpus import FILES as ALL_FILES
from tests.support.h5ad_files import dense, dense_matrix

from annfeed import AnnDataset, AnnfeedWarning, FormatError, UnknownNameError

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:Transforming to str index")

#: No matrix X, or none that is read.
WITHOUT_X = {"edge/empty_obs_0cells", "edge/h5mu_disguised_as_h5ad", "edge/pbmc2638_X_missing"}
FILES = [name for name in ALL_FILES if name not in WITHOUT_X]
NESTED = {"derived/csr_nested_group": "experiments/rna/X"}
# Big-endian and float16 are more than scipy holds, "csc" is an encoding that anndata does not know.
ANNDATA_CANNOT = {
    "derived/csr_bigendian", "derived/csr_f16", "derived/csr_nested_group", "edge/nonstandard_encoding_csc",
}  # fmt: skip
ELEMS = {
    "anndataR_example_all_encodings": [
        "layers/counts", "layers/csc_counts", "layers/dense_X", "layers/dense_counts", "obsm/X_pca", "obsm/X_umap",
    ],
    "bmmc_cite_rna600_csc_f8_gzip": ["layers/counts"],
    "cxg_schema_valid_csr_int64idx": ["raw/X", "obsm/X_pca", "obsm/X_umap"],
    "dentategyrus100_layers_csr_gzip": [
        "layers/Ms", "layers/Mu", "layers/ambiguous", "layers/spliced", "layers/unspliced", "obsm/X_pca",
    ],
    "edge/archive070_csr_lzf": ["layers/array", "layers/sparse", "raw/X", "obsm/array", "obsm/sparse"],
    "edge/boolean_obs": ["raw/X", "obsm/X_tsne", "obsm/spatial"],
    "julia_pbmc7480_userblock512_dense_gzip9": ["layers/counts"],
    "legacy05_pbmc68k_dense_gzip": ["raw/X"],
    "legacy_spatial6k_h5sparse_csr_gzip": ["obsm/X_spatial", "obsm/X_tsne", "obsm/X_umap"],
    "pbmc5k_protein200_dense_lzf": ["obsm/protein_expression"],
    "wu2020_200_csr_gzip_46obs": ["obsm/X_umap_orig"],
}  # fmt: skip
COMPOUND_OBSM = {
    "legacy05_pbmc68k_dense_gzip": ["X_pca", "X_umap"],
    "legacy_nan_dense_gzip": ["X_pca", "X_tsne", "X_umap"],
}
ERRORS = {
    # Without rows, but also without X: what is to be delivered is as unknown as with 2,638 rows.
    "edge/empty_obs_0cells": (UnknownNameError, "'X' does not exist", "There is no matrix in this file"),
    "edge/pbmc2638_X_missing": (UnknownNameError, "'X' does not exist", "There is no matrix in this file"),
    "edge/h5mu_disguised_as_h5ad": (UnknownNameError, "MuData", "pass elem='mod/<modality>/X'"),
    "edge/truncated_file": (FormatError, "the file is truncated", "Copy or download the file again"),
}


@pytest.fixture(scope="session")
def manifest(corpus):
    """Return the corpus's oracle: what the manifest says of each file."""
    return {entry["file"].removesuffix(".h5ad"): entry for entry in json.loads((corpus / "manifest.json").read_text())}


def path_of(corpus: Path, name: str) -> Path:
    return corpus / f"{name}.h5ad"


@contextmanager
def opened(corpus: Path, name: str, elem: str = "X", **options):
    """Open a file of the corpus, with the one warning that it owes where h5py has to read it."""
    elem = NESTED.get(name, elem)
    foreign = name in COMPOUND_OBSM and elem.startswith("obsm/")
    with pytest.warns(AnnfeedWarning, match="through h5py") if foreign else warnings.catch_warnings():
        dataset = AnnDataset(path_of(corpus, name), elem=elem, **options)
    with dataset:
        yield dataset


def crc32(row: np.ndarray) -> int:
    return zlib.crc32(row.astype("<f4").tobytes())


def rows_with_repeats(n_rows: int, known: list[int]) -> list[int]:
    """Return the known rows, each several times, among others of the file, in random order."""
    rng = np.random.default_rng(n_rows)
    return rng.permutation([*known * 3, *rng.integers(0, n_rows, 60)]).tolist()


def test_every_file_of_the_corpus_is_in_a_table(manifest):
    assert {name for name, entry in manifest.items() if "rows" in entry} == set(FILES)
    assert manifest.keys() - set(FILES) == set(ERRORS)


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("name", FILES)
def test_rows_have_the_checksums_of_the_manifest(corpus, manifest, name, output):
    entry = manifest[name]
    wanted = {int(row): values["crc32_f4"] for row, values in entry["rows"].items()}
    with opened(corpus, name, output=output) as dataset:
        assert dataset.shape == tuple(entry["shape"])
        for row, checksum in wanted.items():
            assert crc32(dense(dataset[row]["X"])) == checksum
            assert crc32(dense(dataset[row - len(dataset)]["X"])) == checksum

    rows = rows_with_repeats(entry["shape"][0], list(wanted))
    expected = [(place, wanted[row]) for place, row in enumerate(rows) if row in wanted]
    with opened(corpus, name, output=output, obs_columns=[]) as dataset:
        items = dataset.__getitems__(rows)
        batch = dense(items.batch["X"])
        assert [(place, crc32(batch[place])) for place, _ in expected] == expected
        assert [(place, crc32(dense(items[place]["X"]))) for place, _ in expected] == expected

    with opened(corpus, name, output=output, obs_columns=[], obs_subset=rows, window=30) as dataset:
        loader = dataset.get_optimized_dataloader(batch_size=7, shuffle=False)
        loaded = np.concatenate([dense(batch["X"]) for batch in loader])
        assert [(place, crc32(loaded[place])) for place, _ in expected] == expected
        loader = dataset.get_optimized_dataloader(batch_size=7, shuffle=True, seed=3)
        shuffled = [crc32(row) for batch in loader for row in dense(batch["X"])]
        assert Counter(shuffled) == Counter(crc32(row) for row in loaded)
        # Rows without columns are all alike.
        assert shuffled != [crc32(row) for row in loaded] or len(set(shuffled)) == 1


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("name", FILES)
def test_the_whole_matrix_is_what_h5py_reads(corpus, name, output):
    expected = dense_matrix(path_of(corpus, name), NESTED.get(name, "X")).astype(np.float32)
    with opened(corpus, name, output=output, obs_columns=[]) as dataset:
        for start in range(0, len(dataset), 1000):
            part = expected[start : start + 1000]
            delivered = dense(dataset.__getitems__(range(start, start + len(part))).batch["X"])
            np.testing.assert_array_equal(delivered, part)


@pytest.mark.parametrize("name", [name for name in FILES if name not in ANNDATA_CANNOT])
@pytest.mark.filterwarnings("ignore:::anndata", "ignore:Moving element")
def test_the_whole_matrix_is_what_anndata_reads(corpus, name):
    read = anndata.read_h5ad(path_of(corpus, name))
    expected = read.X if isinstance(read.X, np.ndarray) else read.X.toarray()
    with opened(corpus, name, obs_columns=[]) as dataset:
        assert list(dataset.obs_names) == list(read.obs_names)
        assert list(dataset.var_names) == list(read.var_names)
        delivered = dense(dataset.__getitems__(range(len(dataset))).batch["X"])
        np.testing.assert_array_equal(delivered, expected.astype(np.float32))


@pytest.mark.parametrize(("name", "elem"), [(name, elem) for name, elems in ELEMS.items() for elem in elems])
def test_layers_raw_and_obsm_are_what_h5py_reads(corpus, name, elem):
    expected = dense_matrix(path_of(corpus, name), elem).astype(np.float32)
    rows = rows_with_repeats(len(expected), [0, len(expected) - 1])
    for output in ("dense", "csr"):
        with opened(corpus, name, elem, output=output) as dataset:
            assert dataset.shape == expected.shape
            assert len(dataset.var_names) == expected.shape[1]
            np.testing.assert_array_equal(dense(dataset.__getitems__(rows).batch["X"]), expected[rows])


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, fields in COMPOUND_OBSM.items() for field in fields]
)
def test_obsm_from_before_anndata_07_is_what_h5py_reads(corpus, name, field):
    expected = dense_matrix(path_of(corpus, name), "obsm")[field].astype(np.float32)
    with opened(corpus, name, f"obsm/{field}") as dataset:
        np.testing.assert_array_equal(dataset.__getitems__([5, 3, 5]).batch["X"], expected[[5, 3, 5]])


def test_a_field_that_a_compound_obsm_does_not_have(corpus):
    with pytest.raises(UnknownNameError, match=r"'obsm/X_tsne' does not exist.*'obsm/X_pca', 'obsm/X_umap'"):
        AnnDataset(path_of(corpus, "legacy05_pbmc68k_dense_gzip"), elem="obsm/X_tsne")


@pytest.mark.parametrize("name", [name for name in FILES if name not in ANNDATA_CANNOT])
@pytest.mark.filterwarnings("ignore:::anndata", "ignore:Moving element")
def test_obs_is_what_anndata_reads(corpus, name):
    expected = anndata.read_h5ad(path_of(corpus, name)).obs
    rows = rows_with_repeats(len(expected), [0, len(expected) - 1])
    with opened(corpus, name) as dataset:
        pd.testing.assert_frame_equal(dataset.obs, expected, check_names=False)
        batch = dataset.__getitems__(rows).batch
    assert batch.keys() == {"X", *(f"obs_{column}" for column in expected)}
    for column in expected:
        values = expected[column].iloc[rows]
        delivered = batch[f"obs_{column}"]
        if isinstance(delivered, list):
            assert delivered == [
                "nan" if missing else str(value) for value, missing in zip(values, values.isna(), strict=True)
            ]
        else:
            numbers = values.astype("Float64").to_numpy(np.float64, na_value=np.nan)
            if delivered.dtype is torch.float32:
                numbers = numbers.astype(np.float32)
            np.testing.assert_array_equal(delivered, numbers, column)


@pytest.mark.parametrize(
    ("name", "elem", "var", "key"),
    [
        ("legacy05_pbmc68k_dense_gzip", "X", "var", "index"),
        ("legacy05_pbmc68k_dense_gzip", "raw/X", "raw.var", "index"),
        ("cxg_schema_valid_csr_int64idx", "raw/X", "raw/var", "gene_ids-Harvard-Nuclei"),
        ("sim200x15k_csc_unsorted_none", "X", "var", "index"),
        ("edge/archive070_csr_lzf", "layers/sparse", "var", "_index"),
        ("derived/csr_blosc_zstd_shuffle", "X", "var", "_index"),
    ],
)
def test_genes_are_picked_by_name_in_the_order_asked_for(corpus, name, elem, var, key):
    with h5py.File(path_of(corpus, name)) as file:
        names = [gene.decode() for gene in file[var][key]]
    picked = np.random.default_rng(0).permutation(len(names))[:9]
    expected = dense_matrix(path_of(corpus, name), elem).astype(np.float32)[[7, 2]][:, picked]
    for output in ("dense", "csr"):
        with opened(corpus, name, elem, output=output, var_subset=[names[i] for i in picked]) as dataset:
            assert list(dataset.var_names) == [names[i] for i in picked]
            np.testing.assert_array_equal(dense(dataset.__getitems__([7, 2]).batch["X"]), expected)


@pytest.mark.parametrize("name", ERRORS)
def test_files_without_rows_are_named_errors(corpus, name):
    kind, *parts = ERRORS[name]
    with pytest.raises(kind) as caught:
        AnnDataset(path_of(corpus, name))
    for part in (str(path_of(corpus, name)), *parts):
        assert part in str(caught.value)


def test_the_hint_for_a_nested_anndata(corpus):
    with pytest.raises(UnknownNameError, match=r"'X' does not exist.*'experiments/rna/X'.*elem="):
        AnnDataset(path_of(corpus, "derived/csr_nested_group"))


def test_the_modalities_of_a_mudata_file(corpus):
    path = path_of(corpus, "edge/h5mu_disguised_as_h5ad")
    for modality in ("rna", "atac"):
        expected = dense_matrix(path, f"mod/{modality}/X").astype(np.float32)
        with AnnDataset(path, elem=f"mod/{modality}/X", cache="1GiB") as dataset:
            np.testing.assert_array_equal(dataset.__getitems__([3, 0, 3]).batch["X"], expected[[3, 0, 3]])
