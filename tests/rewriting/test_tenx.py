"""Cell Ranger's files, rewritten: what anndata reads is what scanpy reads of the original and writes."""

import json
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from tests.support.tenx_files import counts, features_of, write_tenx_2, write_tenx_3

from annfeed import AnnDataset, UnknownNameError, UnsupportedError, rewrite, write_obs, write_obsm
from annfeed.cli.command import main

pytestmark = pytest.mark.filterwarnings("ignore:.*names are not unique")

SYMBOLS = ["CD3E", "TBCE", "MS4A1", "TBCE"]


def written_by_scanpy(path: Path, folder: Path, genome: str | None = None) -> anndata.AnnData:
    """Return what comes back of what scanpy reads and writes."""
    sc.read_10x_h5(path, genome=genome, gex_only=False).write_h5ad(folder / "scanpy.h5ad")
    return anndata.read_h5ad(folder / "scanpy.h5ad")


def assert_equal(found: anndata.AnnData, expected: anndata.AnnData) -> None:
    """Compare all that there is, with dtypes; but for that of X, of which scanpy makes floats."""
    assert type(found.X) is type(expected.X) and found.shape == expected.shape
    assert (found.X != expected.X).nnz == 0
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    pd.testing.assert_frame_equal(found.var, expected.var)
    others = ("obsm", "varm", "obsp", "varp", "uns")
    assert not any(len(getattr(found, name)) for name in others) and found.raw is None
    assert [key for key in found.layers if key is not None] == []


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    types = ["Gene Expression"] * 3 + ["Antibody Capture"]
    return write_tenx_3(tmp_path / "cells.h5", counts(40, 4), features_of(SYMBOLS, types))


@pytest.mark.corpus
@pytest.mark.parametrize("number", range(4))
def test_real_files(corpus: Path, tmp_path: Path, number: int) -> None:
    entry = json.loads((corpus / "10x/manifest.json").read_text())["files"][number]
    path, genome = corpus / "10x" / entry["file"], entry["genome"]
    rewrite(path, tmp_path / "new.h5ad", genome=genome, codec="gzip")
    assert_equal(anndata.read_h5ad(tmp_path / "new.h5ad"), written_by_scanpy(path, tmp_path, genome))
    with h5py.File(path) as old, h5py.File(tmp_path / "new.h5ad") as new:
        group = old[genome or "matrix"]
        for name in ("data", "indices", "indptr"):
            assert new["X"][name].dtype == group[name].dtype
            np.testing.assert_array_equal(new["X"][name], group[name])
            assert not new["X"][name].attrs
        assert sorted(new["X"].attrs) == ["encoding-type", "encoding-version", "shape"]


@pytest.mark.parametrize("rows", ["kept", "shuffled"])
def test_rows_may_be_shuffled(cells: Path, tmp_path: Path, rows: Any) -> None:
    rewrite(cells, tmp_path / "new.h5ad", rows=rows, seed=3)
    expected = written_by_scanpy(cells, tmp_path)
    with AnnDataset(tmp_path / "new.h5ad") as dataset:
        names = dataset.obs_names
        assert (list(names) == list(expected.obs_names)) == (rows == "kept")
        assert sorted(names) == sorted(expected.obs_names)
        np.testing.assert_array_equal(dataset.head(40)["X"], expected[names].X.toarray())


def test_a_file_without_counts(tmp_path: Path) -> None:
    path = write_tenx_3(tmp_path / "none.h5", counts(3, 4) * 0, features_of(SYMBOLS))
    with h5py.File(path, "r+") as file:
        for name in ("data", "indices"):
            del file[f"matrix/{name}"]
            file[f"matrix/{name}"] = np.empty(0, "i4")
        file["matrix/indptr"][...] = 0
    rewrite(path, tmp_path / "new.h5ad")
    assert_equal(anndata.read_h5ad(tmp_path / "new.h5ad"), written_by_scanpy(path, tmp_path))


def test_one_of_several_genomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genomes = {"GRCh38": (counts(9, 4), features_of(SYMBOLS)), "mm10": (counts(9, 2, 1), features_of(["Cd4", "Cd8a"]))}
    path, new = write_tenx_2(tmp_path / "two.h5", genomes), tmp_path / "new.h5ad"
    with pytest.raises(UnknownNameError, match="'GRCh38', 'mm10'"):
        rewrite(path, new)
    assert main(["rewrite", str(path), str(new), "--genome", "mm10", "--codec", "gzip"]) == 0
    assert "each row was compared" in capsys.readouterr().out
    assert_equal(anndata.read_h5ad(new), written_by_scanpy(path, tmp_path, "mm10"))
    with pytest.raises(UnknownNameError, match="'mm10'"):
        rewrite(new, tmp_path / "again.h5ad", genome="mm10")


def test_damage_leaves_no_file(cells: Path, tmp_path: Path) -> None:
    with h5py.File(cells, "r+") as file:
        del file["matrix/features/id"]
    with pytest.raises(ValueError, match=r"cells\.h5: found no array 'matrix/features/id'"):
        rewrite(cells, tmp_path / "new.h5ad")
    assert not list(tmp_path.glob("new*"))


def test_nothing_is_written_to_a_cell_ranger_file(cells: Path, tmp_path: Path) -> None:
    before = cells.read_bytes()
    rewrite(cells, tmp_path / "new.h5ad")
    targets = (cells, AnnDataset(cells), AnnDataset([tmp_path / "new.h5ad", cells], var_names="gene_ids"))
    for target in targets:
        values = np.zeros(len(target) if isinstance(target, AnnDataset) else 40)
        for write in (write_obs, write_obsm):
            with pytest.raises(UnsupportedError, match=r"cells\.h5: found a Cell Ranger file.*annfeed\.rewrite\("):
                write(target, "score", values if write is write_obs else values[:, None])
    assert cells.read_bytes() == before
    write_obs(tmp_path / "new.h5ad", "score", np.arange(40.0))
    assert AnnDataset(tmp_path / "new.h5ad")[39]["obs_score"] == 39
