"""Cell Ranger's files among several sources: genes are matched by id, as anndata.concat does with ids for names."""

import warnings
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

from annfeed import AnnDataset, AnnfeedWarning, NormalizeTotal, UnknownNameError
from annfeed.rewriting.write import rewrite

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:.*names are not unique")

#: TBCE is two genes; CD3E is an antibody, too.
GENES = {
    "a.h5": (["CD3E", "TBCE", "MS4A1", "TBCE", "NKG7", "CD3E"], 12),
    "b.h5": (["NKG7", "TBCE", "GNLY", "TBCE", "CD3E", "CD3E"], 9),
    "c.h5": (["TBCE", "TBCE", "LYZ", "CD3E", "CD3E", "NKG7"], 7),
}
ANTIBODY = "ENSG_CD3E_2"


def typed(symbols: list[str]) -> dict[str, Any]:
    features = features_of(symbols)
    features["feature_type"] = ["Antibody Capture" if i == ANTIBODY else "Gene Expression" for i in features["id"]]
    return features


@pytest.fixture(scope="module")
def files(shelf: Path) -> list[Path]:
    """Return two files of version 3 and one of version 2, with other genes in other orders."""
    (a, n), (b, m), (c, k) = GENES.values()
    return [
        write_tenx_3(shelf / "a.h5", counts(n, 6, 1), typed(a)),
        write_tenx_3(shelf / "b.h5", counts(m, 6, 2), typed(b)),
        write_tenx_2(shelf / "c.h5", {"GRCh38": (counts(k, 6, 3), features_of(c))}),
    ]


def concat(files: list[Path], join: str, by: str = "gene_ids") -> anndata.AnnData:
    """Return what anndata makes of the files, with ids for names and the symbols in a column."""
    parts, symbols = [], {}
    for path in files:
        part = anndata.read_h5ad(path) if path.suffix == ".h5ad" else sc.read_10x_h5(path, gex_only=False)
        symbols |= dict(zip(part.var[by], part.var_names, strict=True))
        part.var_names = part.var[by].astype(str)
        parts.append(part)
    joined = anndata.concat(parts, join=join, label="lane", keys=[path.stem for path in files])
    joined.var["symbol"] = [symbols[name] for name in joined.var_names]
    return joined


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_genes_are_matched_by_id_and_named_by_symbol(files: list[Path], join: Any) -> None:
    expected = concat(files, join)
    dataset = AnnDataset(files, join=join, label="lane", keys=["a", "b", "c"], categories="code")
    assert list(dataset.var_names) == list(expected.var["symbol"])
    assert list(dataset.var.index) == list(expected.var["symbol"])
    assert list(dataset.var["gene_ids"]) == list(expected.var_names)
    batch = dataset.head(len(dataset))
    np.testing.assert_array_equal(batch["X"], expected.X.toarray())
    assert batch["obs_lane"].tolist() == expected.obs["lane"].cat.codes.tolist()
    assert list(dataset.obs_names) == list(expected.obs_names)
    ids = AnnDataset(files, join=join, var_names="gene_ids")
    assert list(ids.var_names) == list(ids.var.index) == list(expected.var_names)
    assert list(ids.var["gene_symbols"]) == list(expected.var["symbol"])


def test_repeated_symbols_are_told_apart_after_the_join(files: list[Path]) -> None:
    expected = concat(files, "outer")
    expected.var_names = expected.var["symbol"]
    expected.var_names_make_unique()
    dataset = AnnDataset(files, join="outer", make_unique=True, var_subset=["TBCE-1", "NKG7", "CD3E-1"])
    assert list(dataset.var.index) == list(dataset.var_names) == ["TBCE-1", "NKG7", "CD3E-1"]
    chosen = expected[:, ["TBCE-1", "NKG7", "CD3E-1"]].X.toarray()
    np.testing.assert_array_equal(dataset.head(len(dataset))["X"], chosen)
    by_id = r"var_column='gene_ids' with 'ENSG_TBCE_1', 'ENSG_TBCE_2', or make_unique=True"
    with pytest.raises(ValueError, match=rf"the var of 3 sources has several genes named 'TBCE'; .*{by_id}"):
        AnnDataset(files, var_subset=["TBCE"])


def test_genes_are_chosen_by_a_column(files: list[Path]) -> None:
    dataset = AnnDataset(files, var_subset=["ENSG_TBCE_2", "ENSG_NKG7_1"], var_column="gene_ids", label="lane")
    expected = concat(files, "inner")[:, ["ENSG_TBCE_2", "ENSG_NKG7_1"]].X.toarray()
    np.testing.assert_array_equal(dataset.head(len(dataset))["X"], expected)
    assert list(dataset.var_names) == ["TBCE", "NKG7"]


def test_types_of_features_of_several_files(files: list[Path]) -> None:
    expected = concat(files[:2], "outer")
    rna = expected[:, expected.var_names != ANTIBODY].copy()
    options: dict[str, Any] = {"join": "outer", "feature_types": "Gene Expression"}
    dataset = AnnDataset(files[:2], **options)
    assert list(dataset.var["gene_ids"]) == list(rna.var_names) and set(dataset.var["feature_types"]) == {
        "Gene Expression"
    }
    np.testing.assert_array_equal(dataset.head(99)["X"], rna.X.toarray())
    both = AnnDataset(files[:2], join="outer", feature_types=["Antibody Capture", "Gene Expression"])
    np.testing.assert_array_equal(both.head(99)["X"], expected.X.toarray())
    sc.pp.normalize_total(rna, target_sum=10)
    some = AnnDataset(files[:2], var_subset=["NKG7", "GNLY"], transform=NormalizeTotal(10), output="csr", **options)
    chosen = rna[:, ["ENSG_NKG7_1", "ENSG_GNLY_1"]].X.toarray()
    np.testing.assert_allclose(some.head(99)["X"].to_dense(), chosen, rtol=1e-6)
    # One file lacks the type, and that is what it delivers; none has it.
    only = AnnDataset(files[:1] + files[:1], feature_types="Antibody Capture")
    assert only.shape == (24, 1)
    with pytest.raises(UnknownNameError, match=r"var of 2 sources has no features of the type 'CRISPR'; .*'Antibody"):
        AnnDataset(files[:2], feature_types=["Gene Expression", "CRISPR"])


def test_genes_of_version_2_are_gene_expression(files: list[Path]) -> None:
    """Of a file that does not tell types; those of version 3 leave out their antibody."""
    parts = [sc.read_10x_h5(path, gex_only=True) for path in files]
    for part in parts:
        part.var_names = part.var["gene_ids"].astype(str)
    dataset = AnnDataset(files, feature_types="Gene Expression", join="outer")
    expected = anndata.concat(parts, join="outer")
    assert list(dataset.var["gene_ids"]) == list(expected.var_names)
    np.testing.assert_array_equal(dataset.head(99)["X"], expected.X.toarray())
    one, alone = sc.read_10x_h5(files[2]), AnnDataset(files[2], feature_types=["Gene Expression"])
    np.testing.assert_array_equal(alone.head(99)["X"], one.X.toarray())
    pd.testing.assert_frame_equal(alone.var, one.var)
    for source in (files[2], files[2:] * 2):
        found = r"no features of the type 'Peaks'; feature_types there are: 'Gene Expression' \(\d+\)"
        with pytest.raises(UnknownNameError, match=found):
            AnnDataset(source, feature_types="Peaks")


def test_one_id_with_two_symbols(files: list[Path], tmp_path: Path) -> None:
    other = features_of(["CD3E", "OTHER"])
    other["id"][1] = "ENSG_MS4A1_1"
    path = write_tenx_3(tmp_path / "other.h5", counts(5, 2), other)
    with pytest.raises(ValueError, match=r"'ENSG_MS4A1_1' is 'MS4A1' in .*a\.h5.*'OTHER' in .*other\.h5.*gene_ids'"):
        AnnDataset([files[0], path])
    assert list(AnnDataset([files[0], path], var_names="gene_ids").var_names) == ["ENSG_CD3E_1", "ENSG_MS4A1_1"]
    strange = write_tenx_3(tmp_path / "mouse.h5", counts(5, 2), features_of(["Cd3e", "Cd4"]))
    with pytest.raises(ValueError, match="no gene is in all 2 files"):
        AnnDataset([files[0], strange])


@pytest.mark.parametrize("kind", ["path", "memory", "backed"])
def test_among_h5ad_files_with_ids(files: list[Path], tmp_path: Path, kind: str) -> None:
    rewrite(files[1], tmp_path / "b.h5ad", codec="gzip")
    path = tmp_path / "b.h5ad"
    other = path if kind == "path" else anndata.read_h5ad(path, backed="r" if kind == "backed" else None)
    expected = concat([files[0], path], "outer")
    dataset = AnnDataset({"x": files[0], "y": other}, join="outer", label="lane")
    assert list(dataset.var_names) == list(expected.var["symbol"])
    assert list(dataset.var["gene_ids"]) == list(expected.var_names)
    np.testing.assert_array_equal(dataset.head(99)["X"], expected.X.toarray())
    assert list(AnnDataset([files[0], other], join="outer", var_names="gene_ids").var_names) == list(expected.var_names)


def test_among_h5ad_files_without_ids_genes_are_matched_by_name(files: list[Path], tmp_path: Path) -> None:
    plain = toy(4)
    plain = anndata.AnnData(np.eye(3, dtype="float32"), var=pd.DataFrame(index=["MS4A1", "TBCE-1", "CD4"]))
    plain.write_h5ad(tmp_path / "plain.h5ad")
    found = (
        r"a\.h5.*several genes of one name: 'TBCE', 'CD3E'.*plain\.h5ad: 'var' a column 'gene_ids'.*make_unique=True"
    )
    with pytest.raises(ValueError, match=found):
        AnnDataset([tmp_path / "plain.h5ad", files[0]])
    with pytest.warns(AnnfeedWarning, match=r"'TBCE-1' \(1 in all\)"):
        dataset = AnnDataset([tmp_path / "plain.h5ad", files[0]], make_unique=True)
    assert list(dataset.var_names) == list(dataset.var.index) == ["MS4A1", "TBCE-1"]
    symbols = sc.read_10x_h5(files[0], gex_only=False)
    symbols.var_names_make_unique()
    np.testing.assert_array_equal(dataset.head(99)["X"][3:], symbols[:, ["MS4A1", "TBCE-1"]].X.toarray())
    assert not (dataset.head(3)["X"] - np.eye(3)[:, :2]).any()


def test_names_that_may_be_of_other_genes(files: list[Path], tmp_path: Path) -> None:
    """A warning names what make_unique cannot tell apart: which of two genes of a symbol another source means."""
    genes = ["TBCE", "NKG7", "CD3E"]
    plain = anndata.AnnData(np.eye(3, dtype="float32"), var=pd.DataFrame(index=genes))
    found = r"matched by name, and 'CD3E', 'TBCE' \(2 in all\).*a\.h5.*Give AnnData '0'.* a column 'gene_ids'"
    with pytest.warns(AnnfeedWarning, match=found) as given:
        AnnDataset([plain, files[0]], make_unique=True)
    assert [one.filename for one in given] == [__file__]
    with pytest.warns(AnnfeedWarning, match=r"'CD3E', 'TBCE' \(2 in all\)"):
        AnnDataset([plain, files[0]], make_unique=True, join="outer")
    # Those of the same id in each, which not all sources have, are known to be the same genes.
    other = anndata.AnnData(np.eye(2, dtype="float32"), var=pd.DataFrame(index=["NKG7", "LYZ"]))
    lanes = [write_tenx_3(tmp_path / f"{i}.h5", counts(5, 3, i), typed(["TBCE", "TBCE", "NKG7"])) for i in (0, 1)]
    reversed_ids = typed(["TBCE", "TBCE", "NKG7"])
    reversed_ids["id"][:2] = reversed_ids["id"][1::-1]
    lanes.append(write_tenx_3(tmp_path / "2.h5", counts(5, 3, 2), reversed_ids))
    with warnings.catch_warnings():
        warnings.simplefilter("error", AnnfeedWarning)
        AnnDataset([plain, files[0]], make_unique=True, var_subset=["NKG7"])
        AnnDataset([other, *lanes[:2]], make_unique=True, join="outer")
        AnnDataset(files, make_unique=True)
    with pytest.warns(AnnfeedWarning, match=r"'TBCE', 'TBCE-1' \(2 in all\)"):
        AnnDataset([other, *lanes[1:]], make_unique=True, join="outer")


def test_probes_are_matched_by_their_own_ids(tmp_path: Path) -> None:
    paths = []
    for number, order in enumerate(([0, 1, 2], [2, 0, 1])):
        probes = features_of(["A|1", "A|2", "B|1"], gene_id=["EA", "EA", "EB"])
        probes = {name: [values[i] for i in order] for name, values in probes.items()}
        paths.append(write_tenx_3(tmp_path / f"{number}.h5", counts(6, 3, number), probes))
    dataset = AnnDataset(paths)
    expected = concat(paths, "inner", by="probe_ids")
    assert list(dataset.var_names) == ["A|1", "A|2", "B|1"]
    assert list(dataset.var["probe_ids"]) == list(expected.var_names)
    np.testing.assert_array_equal(dataset.head(99)["X"], expected.X.toarray())
    assert list(AnnDataset(paths, var_names="gene_ids").var_names) == ["EA", "EA", "EB"]


def test_a_pattern_a_loader_and_damage_in_a_list(files: list[Path], tmp_path: Path) -> None:
    for path in files[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    dataset = AnnDataset(f"{tmp_path}/*.h5", join="outer", return_index=True, label="lane")
    expected = concat(files[:2], "outer").X.toarray()
    for batch in dataset.get_optimized_dataloader(batch_size=5, seed=0):
        np.testing.assert_array_equal(batch["X"], expected[batch["index"].numpy()])
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        del file["matrix/features/id"]
    with pytest.raises(ValueError, match=r"b\.h5: found no array 'matrix/features/id'"):
        AnnDataset(f"{tmp_path}/*.h5", join="outer")
