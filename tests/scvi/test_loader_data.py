"""scvi-tools' loader over data on disk: what lies on disk, in memory, in a MuData; what changed, what is damaged."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import torch

pytest.importorskip("scvi.dataloaders", reason="scvi-tools is not installed")

from tests.scvi.loader_toys import FORMS, N
from tests.support.scvi_toys import assert_same, backed, cells, flat, manager, toy

from annfeed import AnnDataLoader, AnnfeedWarning, StaleFileError

# --- what lies on disk ------------------------------------------------------------------------------------------------


def test_the_matrix_is_streamed_and_the_anndata_stays_backed(tmp_path: Path) -> None:
    registered = manager(backed(toy(N), tmp_path))
    loader = AnnDataLoader(registered)
    assert loader.dataset.dataset.streamed
    assert flat(loader) == list(range(N))
    assert registered.adata.isbacked
    assert isinstance(registered.adata.X, anndata.abc.CSRDataset)


def test_a_layer_left_on_disk_is_streamed(tmp_path: Path) -> None:
    adata = backed(toy(N), tmp_path)
    with h5py.File(tmp_path / "toy.h5ad") as file:
        adata.layers["counts"] = anndata.io.sparse_dataset(file["layers/counts"])
        loader = AnnDataLoader(manager(adata, layer="counts"), indices=[5, 2])
        assert loader.dataset.dataset.streamed
        assert [cells(batch) for batch in loader] == [[15, 6]]


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_a_layer_edited_in_memory_is_the_one_delivered(kind: str, tmp_path: Path) -> None:
    adata = backed(toy(N, kind=kind), tmp_path)
    assert not AnnDataLoader(manager(adata, layer="counts")).dataset.dataset.streamed, "anndata has loaded it"
    adata.layers["counts"] = adata.layers["counts"] * 10
    adata.layers["new"] = adata.layers["counts"]
    for layer in ("counts", "new"):
        loader = AnnDataLoader(manager(adata, layer=layer), indices=[5, 2])
        assert [cells(batch) for batch in loader] == [[150, 60]]


def test_a_layer_in_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    adata = toy(N)
    adata.write_zarr(tmp_path / "toy.zarr")
    adata.layers["counts"] = anndata.io.sparse_dataset(zarr.open(tmp_path / "toy.zarr", mode="r")["layers/counts"])
    loader = AnnDataLoader(manager(adata, layer="counts"), indices=[5, 2, 5])
    assert loader.dataset.dataset.streamed
    assert [cells(batch) for batch in loader] == [[15, 6, 15]]


@pytest.mark.parametrize("form", FORMS)
def test_modalities_of_a_mudata(form: str, tmp_path: Path) -> None:
    import mudata
    from scvi.dataloaders import AnnDataLoader as Stock
    from scvi.model import TOTALVI

    def setup(mdata: Any) -> Any:
        TOTALVI.setup_mudata(
            mdata,
            rna_layer=None,
            protein_layer=None,
            batch_key="donor",
            modalities={"rna_layer": "rna", "protein_layer": "protein", "batch_key": "rna"},
        )
        return TOTALVI._get_most_recent_anndata_manager(mdata, required=True)

    # From mudata 0.4 on there is no such option: it is how it works.
    options = getattr(mudata, "set_options", nullcontext)
    with options(**{} if options is nullcontext else {"pull_on_update": False}):
        in_memory = mudata.MuData({"rna": toy(N), "protein": toy(N, 4, "dense", seed=1)})
        in_memory.write(tmp_path / "toy.h5mu")
        mdata = in_memory if form == "memory" else mudata.read_h5mu(tmp_path / "toy.h5mu", backed=True)
        registered, expected = setup(mdata), setup(in_memory)
    loader = AnnDataLoader(registered, indices=[9, 2, 30, 2], batch_size=3)
    assert loader.dataset.dataset.streamed == (form == "backed")
    for mine, theirs in zip(loader, Stock(expected, indices=[9, 2, 30, 2], batch_size=3), strict=True):
        assert_same(mine, theirs)


def test_sparse_tensors_hold_torch_s_invariants(registered: Any) -> None:
    with torch.sparse.check_sparse_tensor_invariants():
        for batch in AnnDataLoader(registered, load_sparse_tensor=True, batch_size=8):
            x = batch["X"]
            assert x.layout is torch.sparse_csr
            torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), x.values(), size=x.shape)


def test_unsorted_repeated_columns_in_memory_are_summed() -> None:
    import scipy.sparse as sp

    adata = toy(2, 3)
    adata.X = sp.csr_matrix((np.float32([1, 2, 3, 4]), np.int32([2, 0, 2, 1]), np.int32([0, 3, 4])), shape=(2, 3))
    (batch,) = AnnDataLoader(manager(adata), load_sparse_tensor=True)
    with torch.sparse.check_sparse_tensor_invariants():
        x = torch.sparse_csr_tensor(*(getattr(batch["X"], n)() for n in ("crow_indices", "col_indices", "values")))
    assert x.to_dense().tolist() == [[2, 0, 4], [0, 4, 0]]


def test_a_file_that_changed_is_an_error(tmp_path: Path) -> None:
    loader = AnnDataLoader(manager(backed(toy(N), tmp_path)))
    assert len(list(loader)) == 1
    os.utime(tmp_path / "toy.h5ad", ns=(1, 1))
    with pytest.raises(StaleFileError, match=r"toy\.h5ad"):
        list(loader)


def test_a_damaged_file_is_an_error_where_the_batch_is_asked_for(tmp_path: Path) -> None:
    adata = toy(N)
    path = tmp_path / "toy.h5ad"
    adata.write_h5ad(path, compression="gzip")
    with h5py.File(path) as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    loader = AnnDataLoader(manager(anndata.read_h5ad(path, backed="r")))
    stamp = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    os.utime(path, ns=(stamp, stamp))
    with pytest.raises(ValueError, match=r"toy\.h5ad"):
        next(iter(loader))


def test_a_shuffled_order_that_costs_much_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annfeed.loading.costly_orders._LEAST_BYTES", 1)  # a toy costs little in any order
    toy(N).write_h5ad(tmp_path / "toy.h5ad", compression="gzip")
    registered = manager(anndata.read_h5ad(tmp_path / "toy.h5ad", backed="r"))
    options: dict[str, Any] = {"window": 4, "batch_size": 4, "cache": 0}
    AnnDataLoader(registered, **options)  # as AnnfeedWarnings are errors in tests
    AnnDataLoader(registered, shuffle=True, **{**options, "cache": "1GiB"})
    with pytest.warns(
        AnnfeedWarning, match=r"decodes up to .* Pass a larger window than 4, or, .* cache='1GiB'"
    ) as given:
        loader = AnnDataLoader(registered, shuffle=True, **options)
    assert given[0].filename == __file__
    again = AnnDataLoader(registered, shuffle=True, **options)
    assert sorted(flat(again)) == sorted(flat(loader)) == list(range(N))
