"""`rewrite` with shuffled rows, and of matrices by columns: everything over cells moves together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import h5py
import hdf5plugin  # noqa: F401  (registers its filters with h5py)
import numpy as np
import pytest
import scipy.sparse as sp
from tests.rewriting.test_rewrite import cells
from tests.rewriting.trees import assert_same_part, refused_alike_or_read
from tests.support.corpus import FILES

from annfeed import FormatError, UnsupportedError, rewrite
from annfeed.rewriting import layout, sorting, spool, write


def rows_of(part: Any, order: np.ndarray) -> Any:
    """The rows of a part of an AnnData, dense, as pandas, numpy or scipy index it."""
    if hasattr(part, "iloc"):
        return part.iloc[order]
    return part[order].toarray() if sp.issparse(part) else part[order]


def assert_moved(source: Path, new: Path) -> np.ndarray:
    """Compare a shuffled file with its source, row by row; return where the rows were."""
    old, shuffled = anndata.read_h5ad(source), anndata.read_h5ad(new)
    order, same = old.obs_names.get_indexer(shuffled.obs_names), np.arange(old.n_obs)
    assert sorted(order) == list(range(old.n_obs))
    for part in ("var", "varm", "varp"):
        assert_same_part(getattr(old, part), getattr(shuffled, part), part)
    for key in set(old.uns) - {"neighbors"}:
        assert_same_part(old.uns[key], shuffled.uns[key], f"uns/{key}")
    pairs = [("obs", old.obs, shuffled.obs)]
    if old.X is not None:
        pairs.append(("X", old.X, shuffled.X))
    if old.raw is not None:
        pairs.append(("raw/X", old.raw.X, shuffled.raw.X))
    for group in ("layers", "obsm"):
        assert list(getattr(old, group)) == list(getattr(shuffled, group))
        keys = [key for key in getattr(old, group) if key is not None]
        pairs += [(f"{group}/{key}", getattr(old, group)[key], getattr(shuffled, group)[key]) for key in keys]
    for place, one, two in pairs:
        assert_same_part(rows_of(one, order), rows_of(two, same), place)
    assert list(old.obsp) == list(shuffled.obsp)
    for key in old.obsp:
        found, expected = (rows_of(adata.obsp[key], same) for adata in (shuffled, old))
        np.testing.assert_array_equal(found, expected[order][:, order])
    return order


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("orders") / "cells.h5ad"
    adata = cells()
    adata.obsp["columns"] = adata.obsp["near"].tocsc()
    adata.write_h5ad(path, compression="gzip")
    return path


@pytest.mark.parametrize(("window", "bucket"), [(8 << 20, 32 << 20), (3000, 5000), (200, 700)])
def test_shuffled(window: int, bucket: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "WINDOW", window)
    monkeypatch.setattr(sorting, "BUCKET", bucket)
    monkeypatch.setattr(sorting, "_PIECE", 10)
    rewrite(source, tmp_path / "new.h5ad", rows="shuffled", seed=1, threads=2)
    order = assert_moved(source, tmp_path / "new.h5ad")
    assert (order != np.arange(300)).mean() > 0.9
    with h5py.File(tmp_path / "new.h5ad") as file:
        for place in ("X", "obsp/near", "obsp/columns", "layers/columns"):
            assert file[place].attrs["encoding-type"] == "csr_matrix"
        indptr, indices = file["obsp/near/indptr"][()], file["obsp/near/indices"][()]
        assert all((np.diff(row) > 0).all() for row in np.split(indices, indptr[1:-1]))
    assert list(tmp_path.iterdir()) == [tmp_path / "new.h5ad"]


def test_a_seed_is_an_order(source: Path, tmp_path: Path) -> None:
    names = []
    for i, seed in enumerate((0, 0, 1)):
        rewrite(source, tmp_path / f"{i}.h5ad", rows="shuffled", seed=seed, codec="lz4")
        names.append(list(anndata.read_h5ad(tmp_path / f"{i}.h5ad").obs_names))
    assert names[0] == names[1] != names[2]


@pytest.mark.corpus
@pytest.mark.parametrize("name", FILES)
def test_real_files(name: str, corpus: Path, tmp_path: Path) -> None:
    source, new = corpus / f"{name}.h5ad", tmp_path / "new.h5ad"
    if name in ("edge/h5mu_disguised_as_h5ad", "derived/csr_nested_group"):
        with pytest.raises(UnsupportedError, match=r"MuData|without obs"):
            rewrite(source, new, rows="shuffled")
        return
    rewrite(source, new, rows="shuffled")
    if (both := refused_alike_or_read(source, new)) and both[0].obs_names.is_unique:
        assert_moved(source, new)


@pytest.mark.parametrize("window", [64, 8 << 20])
@pytest.mark.parametrize("dtype", ["float32", "int8", "float64"])
def test_columns_become_rows(dtype: str, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "WINDOW", window)
    monkeypatch.setattr(sorting, "BUCKET", 500)
    monkeypatch.setattr(sorting, "_PIECE", 1)
    rng = np.random.default_rng(0)
    x = sp.random(60, 23, 0.2, "csc", random_state=rng, data_rvs=lambda n: rng.integers(1, 9, n)).astype(dtype)
    anndata.AnnData(x).write_h5ad(tmp_path / "old.h5ad")
    rewrite(tmp_path / "old.h5ad", tmp_path / "new.h5ad")
    found = anndata.read_h5ad(tmp_path / "new.h5ad").X
    assert found.format == "csr"
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, part), getattr(x.tocsr(), part))
    assert found.dtype == dtype


def test_rows_out_of_range_are_told(tmp_path: Path) -> None:
    x = sp.random(60, 23, 0.2, "csc", random_state=0)
    anndata.AnnData(x).write_h5ad(tmp_path / "old.h5ad")
    with h5py.File(tmp_path / "old.h5ad", "r+") as file:
        file["X/indices"][7] = 60
    with pytest.raises(FormatError, match=r"X/indices.*60; expected rows from 0 to 59"):
        rewrite(tmp_path / "old.h5ad", tmp_path / "new.h5ad")


@pytest.mark.parametrize("place", ["X", "layers/columns", "layers/dense"])
def test_what_is_damaged_on_its_way_gets_no_name(
    place: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ordered(self: Any, order: Any) -> Any:
        items = ours(self, order)
        values, size = items.parts["data"]
        values = values.copy()
        values[-1] ^= 1
        return spool.Items(items.keys, items.lengths, {**items.parts, "data": (values, size)})

    ours = spool.Items.ordered
    monkeypatch.setattr(write, "matrices", lambda file: [place])
    monkeypatch.setattr(spool.Items, "ordered", ordered)
    monkeypatch.setattr(write, "cells_beside", lambda file, written: [])
    with pytest.raises(OSError, match="reads otherwise than it was written"):
        rewrite(source, tmp_path / "new.h5ad", rows="shuffled")
    assert not list(tmp_path.iterdir())


def test_what_cannot_go_along_is_told(source: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.h5ad"
    odd.write_bytes(source.read_bytes())
    with h5py.File(odd, "r+") as file:
        group = file.create_group("obsm/ragged")
        group.attrs["encoding-type"] = "awkward-array"
        group["node0-offsets"] = np.arange(4)
    with pytest.raises(UnsupportedError, match=r"obsm/ragged.*awkward-array"):
        rewrite(odd, tmp_path / "new.h5ad", rows="shuffled")
    with pytest.raises(ValueError, match="rows is 'sorted'"):
        rewrite(odd, tmp_path / "new.h5ad", rows="sorted")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [odd]
