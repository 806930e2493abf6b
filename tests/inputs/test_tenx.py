"""Cell Ranger's files: cells, obs and var are those of scanpy's reader, whatever the layout; what is wrong is told."""

import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from tests.support.tenx_files import counts, features_of, write_tenx_2, write_tenx_3
from tests.support.toys import toy

from annfeed import AnnDataset, AnnfeedWarning, FormatError, NormalizeTotal, StaleFileError, UnknownNameError
from annfeed.cli.command import main
from annfeed.h5ad.headers import read_headers
from annfeed.inspection import inspect_file

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:.*names are not unique")

#: CD3E is a gene and an antibody, TBCE is two genes.
SYMBOLS = ["CD3E", "TBCE", "MS4A1", "TBCE", "NKG7", "CD3E", "size"]
TYPES = ["Gene Expression"] * 5 + ["Antibody Capture"] * 2
MATRIX = counts(30, 7)
MANIFEST = Path("10x/manifest.json")


def read(path: Any, genome: str | None = None) -> anndata.AnnData:
    return sc.read_10x_h5(path, genome=genome, gex_only=False)


def assert_as_scanpy(dataset: AnnDataset, expected: anndata.AnnData) -> None:
    """Compare all rows, obs and var, with dtypes."""
    found = dataset.head(len(dataset))["X"]
    np.testing.assert_array_equal(found.numpy(), expected.X.toarray().astype("float32"))
    pd.testing.assert_frame_equal(dataset.var, expected.var)
    # The dtype of no names differs in pandas 3.
    pd.testing.assert_frame_equal(dataset.obs, expected.obs, check_column_type=len(expected.obs.columns) > 0)
    pd.testing.assert_index_equal(dataset.var_names, expected.var_names)
    pd.testing.assert_index_equal(dataset.obs_names, expected.obs_names)


@pytest.fixture(scope="module")
def cite(shelf: Path) -> Path:
    """Return a file of genes and antibodies, some of one symbol."""
    features = features_of(SYMBOLS, TYPES, pattern=[""] * 5 + ["5PNNN(BC)"] * 2)
    return write_tenx_3(shelf / "cite.h5", MATRIX, features)


@pytest.mark.corpus
@pytest.mark.parametrize("number", range(4))
def test_real_files(corpus: Path, number: int) -> None:
    entry = json.loads((corpus / MANIFEST).read_text())["files"][number]
    path = corpus / "10x" / entry["file"]
    with AnnDataset(path, elem=entry["genome"] or "X", strict=True) as dataset:
        assert dataset.shape == tuple(entry["shape"])
        assert list(dataset.var.columns) == entry["var_columns"]
        assert_as_scanpy(dataset, read(path, entry["genome"]))
        for row, facts in entry["rows"].items():
            values = dataset[int(row)]["X"].numpy().astype("<f4")
            assert (float(values.sum()), zlib.crc32(values.tobytes())) == (facts["sum"], facts["crc32_f4"])


LAYOUTS: dict[str, dict[str, Any]] = {
    "as Cell Ranger writes": {},
    "uncompressed": {"storage": {}},
    "int64 data, int32 indices": {"dtypes": ("i8", "i4", "i4")},
    "floats": {"dtypes": ("f4", "u4", "u8")},
    "one chunk": {"chunk": 10_000},
    "lzf": {"storage": {"compression": "lzf"}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_version_3(tmp_path: Path, layout: str) -> None:
    path = write_tenx_3(tmp_path / "a.h5", MATRIX, features_of(SYMBOLS, TYPES), **LAYOUTS[layout])
    with AnnDataset(path, strict=True) as dataset:
        assert_as_scanpy(dataset, read(path))
        found = dataset.inspect()
        assert (found.kind, found.encoding, found.reader, found.elem) == ("10x", "csr", "rust", "matrix")


def test_no_counts_no_cells_no_features(tmp_path: Path) -> None:
    for n_cells, n_features in ((3, 2), (0, 2), (3, 0)):
        empty = counts(3, 2)[:n_cells, :n_features] * 0
        empty.eliminate_zeros()
        path = write_tenx_3(tmp_path / f"{n_cells}{n_features}.h5", empty, features_of(SYMBOLS[:n_features]))
        with AnnDataset(path) as dataset:
            assert dataset.shape == (n_cells, n_features)
            assert dataset.head(3)["X"].shape == (n_cells, n_features)


def test_version_2_has_a_group_for_each_genome(tmp_path: Path) -> None:
    mouse = (counts(30, 3, 5), features_of(["Cd3e", "Ms4a1", "Nkg7"], genome="mm10"))
    one = write_tenx_2(tmp_path / "one.h5", {"GRCh38": (MATRIX, features_of(SYMBOLS))})
    assert_as_scanpy(AnnDataset(one), read(one))
    assert_as_scanpy(AnnDataset(one, elem="GRCh38"), read(one))
    two = write_tenx_2(tmp_path / "two.h5", {"GRCh38": (MATRIX, features_of(SYMBOLS)), "mm10": mouse})
    with pytest.raises(UnknownNameError, match=r"two\.h5: found the matrices of 2 .*'GRCh38', 'mm10'.*elem='GRCh38'"):
        AnnDataset(two)
    assert_as_scanpy(AnnDataset(two, elem="mm10"), read(two, "mm10"))
    both = AnnDataset(two, elem={"human": "GRCh38", "mouse": "mm10"}, var_subset={"mouse": ["Nkg7"]})
    np.testing.assert_array_equal(both.head(30)["mouse"].numpy()[:, 0], read(two, "mm10").X.toarray()[:, 2])
    assert inspect_file(two, "mm10").shape == (30, 3)
    assert AnnDataset(two, elem="mm10").inspect().kind == "10x"


def test_another_place_is_told(cite: Path) -> None:
    for elem in ("layers/counts", "raw/X", "GRCh38"):
        with pytest.raises(UnknownNameError, match=rf"cite\.h5: found no '{elem}' in a Cell Ranger file"):
            AnnDataset(cite, elem=elem)
    with pytest.raises(UnknownNameError, match="elem is 'GRCh38'; expected 'X'"):
        AnnDataset(toy(3), elem="GRCh38")


def test_obs_columns_of_the_matrix(tmp_path: Path) -> None:
    inside = np.arange(30) % 3 == 0
    probes = features_of(
        [f"G{i}|{i}" for i in range(7)], gene_id=["E1", "E1", *"abcde"], filtered_probes=np.ones(7, bool)
    )
    path = write_tenx_3(tmp_path / "probes.h5", MATRIX, probes, obs={"filtered_barcodes": inside})
    with AnnDataset(path) as dataset:
        assert_as_scanpy(dataset, read(path))
        assert dataset[[0, 1]].batch["obs_filtered_barcodes"].tolist() == [True, False]
    assert inspect_file(path).obs_columns == {"filtered_barcodes": "bool"}
    chosen = AnnDataset(path, obs_subset=inside, var_names="gene_ids")
    assert len(chosen) == 10 and list(chosen.var_names[:3]) == ["E1", "E1", "a"]
    assert chosen.var["probe_ids"].is_unique


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_barcodes_that_are_cells_are_bool_however_stored(tmp_path: Path, dtype: str) -> None:
    inside = (np.arange(30) % 3 == 0).astype(dtype)
    path = write_tenx_3(tmp_path / "a.h5", MATRIX, features_of(SYMBOLS), obs={"filtered_barcodes": inside})
    dataset = AnnDataset(path)
    assert_as_scanpy(dataset, read(path))
    assert dataset[[0, 1]].batch["obs_filtered_barcodes"].tolist() == [True, False]
    assert inspect_file(path).obs_columns == {"filtered_barcodes": "bool"}


def test_names_of_features(cite: Path) -> None:
    adata = read(cite)
    ids = AnnDataset(cite, var_names="gene_ids")
    assert list(ids.var_names) == list(adata.var["gene_ids"])
    assert list(ids.var.columns[:2]) == ["gene_symbols", "feature_types"]
    assert list(ids.var["gene_symbols"]) == list(adata.var_names)
    assert list(AnnDataset(cite, var_names="gene_symbols").var_names) == list(adata.var_names)
    by_id = r"var_column='gene_ids' with 'ENSG_TBCE_1', 'ENSG_TBCE_2', or make_unique=True"
    with pytest.raises(ValueError, match=rf"several genes named 'TBCE'; .*{by_id}"):
        AnnDataset(cite, var_subset=["TBCE"])
    adata.var_names_make_unique()
    unique = AnnDataset(cite, make_unique=True, var_subset=["TBCE-1", "CD3E"])
    pd.testing.assert_frame_equal(unique.var, adata.var.loc[["TBCE-1", "CD3E"]])
    np.testing.assert_array_equal(unique.head(30)["X"], adata[:, ["TBCE-1", "CD3E"]].X.toarray())
    by_id = AnnDataset(cite, var_subset=["ENSG_TBCE_2"], var_column="gene_ids")
    assert list(by_id.var_names) == ["TBCE"]
    for other in (toy(3), [toy(3)]):
        for given in ({"var_names": "gene_ids"}, {"make_unique": True}):
            with pytest.raises(ValueError, match=r"(gene_ids'|make_unique=True) is given, and .* no Cell Ranger file"):
                AnnDataset(other, **given)
    for wrong in ({"var_names": "ids"}, {"make_unique": 1}, {"feature_types": 3}, {"feature_types": []}):
        with pytest.raises((ValueError, TypeError), match=f"{next(iter(wrong))} is "):
            AnnDataset(cite, **wrong)


def test_types_of_features(cite: Path, tmp_path: Path) -> None:
    adata = read(cite)
    rna = adata[:, adata.var["feature_types"] == "Gene Expression"].copy()
    assert_as_scanpy(AnnDataset(cite, feature_types="Gene Expression"), rna)
    assert_as_scanpy(AnnDataset(cite, feature_types=["Antibody Capture", "Gene Expression"]), adata)
    protein = AnnDataset(cite, feature_types="Antibody Capture", var_subset=["CD3E"], output="csr")
    np.testing.assert_array_equal(protein.head(30)["X"].to_dense()[:, 0], adata.X.toarray()[:, 5])
    mask = pd.Series(rna.var_names == "NKG7", index=range(5))
    assert list(AnnDataset(cite, feature_types="Gene Expression", var_subset=mask).var_names) == ["NKG7"]
    assert list(AnnDataset(cite, feature_types="Antibody Capture", var_subset=[-1]).var_names) == ["size"]
    with pytest.raises(UnknownNameError, match=r"no features of the type 'Peaks'; .*'Gene Expression' \(5\), 'Ant"):
        AnnDataset(cite, feature_types="Peaks")
    with pytest.raises(ValueError, match=r"feature_types is given, and a source is an AnnData.*view"):
        AnnDataset(adata, feature_types="Gene Expression")
    # Names are told apart among the features of these types.
    unique = AnnDataset(cite, feature_types="Antibody Capture", make_unique=True)
    assert list(unique.var_names) == list(unique.var.index) == ["CD3E", "size"]
    # Rows are summed over the features of these types.
    sc.pp.normalize_total(rna, target_sum=10)
    normalized = AnnDataset(cite, feature_types="Gene Expression", var_subset=[4, 0], transform=NormalizeTotal(10))
    np.testing.assert_allclose(normalized.head(30)["X"], rna.X.toarray()[:, [4, 0]], rtol=1e-6)
    # Of an .h5ad file that has the column, too.
    adata.var_names_make_unique()
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert AnnDataset(tmp_path / "a.h5ad", feature_types="Antibody Capture").n_vars == 2
    toy(3).write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(UnknownNameError, match="no column 'feature_types'"):
        AnnDataset(tmp_path / "b.h5ad", feature_types="Antibody Capture")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loaders_read_them(cite: Path, num_workers: int) -> None:
    dataset = AnnDataset(cite, return_index=True, output="csr", categories="code", window=8)
    dense = read(cite).X.toarray()
    seen = []
    for batch in dataset.get_optimized_dataloader(batch_size=7, seed=1, block_size="auto", num_workers=num_workers):
        np.testing.assert_array_equal(batch["X"].to_dense(), dense[batch["index"]])
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(30))


def test_what_goes_to_another_process(cite: Path) -> None:
    dataset = pickle.loads(pickle.dumps(AnnDataset(cite, feature_types="Gene Expression", make_unique=True)))
    assert list(dataset.var_names) == ["CD3E", "TBCE", "MS4A1", "TBCE-1", "NKG7"]
    assert list(dataset.obs_names[:2]) == ["ACGT0000-1", "ACGT0001-1"]


def test_h5py_reads_what_the_core_does_not(tmp_path: Path) -> None:
    path = write_tenx_3(tmp_path / "a.h5", MATRIX, features_of(SYMBOLS), storage={"scaleoffset": 0})
    with pytest.warns(AnnfeedWarning, match="through h5py"):
        dataset = AnnDataset(path)
    np.testing.assert_array_equal(dataset.head(30)["X"], MATRIX.toarray())
    assert inspect_file(path).reader == "h5py"


def test_names_in_utf_8_and_of_variable_length(tmp_path: Path) -> None:
    # scanpy reads ASCII alone
    path = write_tenx_3(tmp_path / "a.h5", MATRIX, features_of([*SYMBOLS[:6], "größe"]))
    with h5py.File(path, "r+") as file:
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = [f"zelle-{i}-ü" for i in range(30)]
    dataset = AnnDataset(path)
    assert dataset.var_names[6] == "größe" and dataset.obs_names[29] == "zelle-29-ü"


def test_a_file_that_changed(tmp_path: Path) -> None:
    path = write_tenx_3(tmp_path / "a.h5", MATRIX, features_of(SYMBOLS))
    dataset = AnnDataset(path)
    write_tenx_3(path, counts(20, 7), features_of(SYMBOLS))
    for read_it in (lambda: dataset[0], lambda: dataset.var, lambda: dataset.obs_names):
        with pytest.raises(StaleFileError, match=r"(changed|written to) since"):
            read_it()


def test_headers(cite: Path) -> None:
    headers = read_headers(str(cite), "matrix")
    assert headers is not None and headers.rows_per_chunk == pytest.approx(50 / (MATRIX.nnz / 30))


SPOILT: list[tuple[str, Any, str]] = [
    *((name, name, rf"'matrix(/{name})?'") for name in ("data", "indices", "indptr", "shape")),
    ("features", "features", r"no array 'matrix/features/name'"),
    ("names", "features/name", r"no array 'matrix/features/name'"),
    ("ids", "features/id", r"no array 'matrix/features/id'"),
    ("types", "features/feature_type", r"no array 'matrix/features/feature_type'"),
    ("a name too few", ("features/name", np.array([b"a"] * 6)), "matrix/features has 6 rows"),
    ("an id too few", ("features/id", np.array([b"a"] * 6)), r"'matrix/features/id' has 6 values"),
    ("a barcode too few", ("barcodes", np.array([b"a"] * 29)), "30 rows, but obs has 29"),
    ("barcodes are a table", ("barcodes", np.ones((30, 2))), "an array of 2 axes 'matrix/barcodes'"),
    ("a shape of three", ("shape", np.array([7, 30, 1])), "'shape'"),
    ("a shape that is none", ("shape", np.array([7, -1])), "'shape'"),
    ("another shape", ("shape", np.array([7, 31])), "31 rows, but obs has 30|indptr"),
    ("an index too large", ("indices", np.full(MATRIX.nnz, 7)), "'matrix/indices'|column 7"),
    ("pointers that fall", ("indptr", np.arange(31)[::-1].copy()), "indptr"),
    ("names that are no text", ("features/name", np.array([b"\xff\xfe"] * 7)), "features/name' cannot be read"),
]


@pytest.mark.parametrize(("name", "what", "message"), SPOILT, ids=[case[0] for case in SPOILT])
def test_damaged_files(tmp_path: Path, name: str, what: Any, message: str) -> None:
    path = write_tenx_3(tmp_path / "a.h5", MATRIX, features_of(SYMBOLS))
    part, values = what if isinstance(what, tuple) else (what, None)
    with h5py.File(path, "r+") as file:
        del file[f"matrix/{part}"]
        if values is not None:
            file[f"matrix/{part}"] = values

    def read_all(source: Any) -> Any:
        dataset = AnnDataset(source)
        return dataset.var, dataset.head(30)

    for source in (path, [path, path]):
        with pytest.raises((FormatError, UnknownNameError), match=rf"(?s)a\.h5.*({message})"):
            read_all(source)


def test_truncated_files(tmp_path: Path, cite: Path) -> None:
    path = tmp_path / "cut.h5"
    path.write_bytes(cite.read_bytes()[:-300])
    with pytest.raises(FormatError, match=r"cut\.h5.*truncated"):
        AnnDataset(path)


def test_files_that_are_no_10x(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["matrix/barcodes"] = np.array([b"A"])
    with pytest.raises(UnknownNameError, match=r"a\.h5: 'X' does not exist"):
        AnnDataset(tmp_path / "a.h5")
    with h5py.File(tmp_path / "molecules.h5", "w") as file:
        file["umi"], file["barcode_idx"] = [1], [1]
    with pytest.raises(FormatError, match="molecule file"):
        AnnDataset(tmp_path / "molecules.h5")


def test_the_command_line(cite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(cite)]) == 0
    assert "10x Genomics (Cell Ranger)" in capsys.readouterr().out
    write_tenx_3(tmp_path / "b.h5", MATRIX, features_of(SYMBOLS))
    toy(3).write_h5ad(tmp_path / "c.h5ad")
    with h5py.File(tmp_path / "molecule_info.h5", "w") as file:
        file["umi"] = [1]
    assert main(["inspect", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert "2 files" in listed and "molecule_info" not in listed
    assert main(["bench", str(cite), "--seconds", "0.01", "--window", "16"]) == 0
    assert main(["doctor", str(cite)]) == 0
    assert "csr" in capsys.readouterr().out
