"""`SCVIDataModule`: registry, batches, splits, orders, several files, and what is refused."""

from __future__ import annotations

import copy
import inspect
import os
import re
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy
import torch
from tests.support.places import ROOT

pytest.importorskip("scvi.model", reason="scvi-tools is not installed")

import scvi
from lightning.pytorch import Callback
from scvi.dataloaders import AnnDataLoader as Stock
from scvi.dataloaders import DataSplitter
from scvi.model._utils import get_max_epochs_heuristic
from tests.scvi.module_toys import TRAIN, V15, N
from tests.support.scvi_toys import SETUP, assert_same, cells, flat, manager, toy
from tests.support.tenx_files import counts, features_of, write_tenx_3

from annfeed.errors import UnsupportedError
from annfeed.scvi import SCVIDataModule

pytestmark = pytest.mark.filterwarnings("ignore")


def assert_equal(a: Any, b: Any) -> None:
    """Two registries are the same, whatever containers they are in."""
    if isinstance(b, dict):
        assert a.keys() == b.keys()
        for key in b:
            assert_equal(a[key], b[key])
    elif isinstance(b, np.ndarray | list):
        assert list(a) == list(b)
    else:
        assert a == b


@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("setup", [SETUP, {"batch_key": "donor"}, {}], ids=["all keys", "batch", "no keys"])
def test_registry_and_batches_are_those_of_an_anndata_in_memory(path: Path, setup: Any, layer: Any) -> None:
    data = SCVIDataModule(path, layer=layer, **setup, batch_size=16, window=32)
    registered = manager(anndata.read_h5ad(path), layer=layer, **{key: setup.get(key) for key in SETUP})
    mine = copy.deepcopy(dict(data.registry["field_registries"]))
    covariates = mine["extra_categorical_covs"]["state_registry"]
    if covariates:  # a second name for it, see `Registration`
        assert_equal(covariates.pop("mapping"), covariates["mappings"])
    assert_equal(mine, dict(registered.registry["field_registries"]))
    assert data.registry["setup_args"] == registered.registry["setup_args"]
    assert data.registry["setup_method_name"] == "setup_datamodule"
    batches = list(data.inference_dataloader())
    for mine, theirs in zip(batches, Stock(registered, batch_size=16), strict=True):
        assert_same(mine, theirs)
    stats = registered.summary_stats
    assert (data.n_obs, data.n_vars, data.n_batch, data.n_labels) == (N, 6, stats.n_batch, stats.n_labels)
    assert list(data.var_names) == list(registered.adata.var_names)
    assert list(data.obs_names) == list(registered.adata.obs_names)


@pytest.mark.parametrize("n_obs", [120, 143])
@pytest.mark.parametrize(
    "split", [{}, {"train_size": 0.7}, {"train_size": 0.5, "validation_size": 0.2}, {"shuffle_set_split": False}]
)
def test_split_is_that_of_scvi(tmp_path: Path, n_obs: int, split: dict[str, Any]) -> None:
    adata = toy(n_obs)
    adata.write_h5ad(tmp_path / "toy.h5ad")
    data = SCVIDataModule(tmp_path / "toy.h5ad", **split)
    stock = DataSplitter(manager(adata), **split)
    stock.setup()
    for name in ("train_idx", "val_idx", "test_idx", "n_train", "n_val"):
        np.testing.assert_array_equal(getattr(data, name), getattr(stock, name))
    assert sorted(flat(data.train_dataloader())) == sorted(data.train_idx)
    assert flat(data.val_dataloader()) == list(data.val_idx)
    assert flat(data.test_dataloader()) == list(data.test_idx)


def test_scvi_1_5_sets_split_and_batch_size(path: Path) -> None:
    data = SCVIDataModule(path)
    data.set_split(train_size=0.5, validation_size=0.25, shuffle_set_split=False, batch_size=8)
    assert list(data.val_idx) == list(range(30))
    assert (data.n_train, len(data.test_idx), data.batch_size) == (60, 30, 8)
    data.set_batch_size(None)
    assert data.batch_size == 8
    assert next(iter(data.train_dataloader()))["X"].shape == (8, 6)
    asked = SCVIDataModule(path, train_size=0.6)
    asked.set_split(0.9, None, True, None)  # what 1.5 passes where the user said nothing
    assert asked.n_train == 72
    asked.set_split(0.8)
    assert asked.n_train == 96


@pytest.mark.parametrize("block_size", [1, 5, "auto"])
def test_training_order(path: Path, block_size: Any) -> None:
    data = SCVIDataModule(path, batch_size=7, block_size=block_size, seed=0, window=20)
    loader = data.train_dataloader()
    first, second = flat(loader), flat(loader)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(data.train_idx)
    assert flat(data.train_dataloader()) == first
    assert loader.block_size == block_size


def test_training_order_follows_the_seed_of_scvi(path: Path) -> None:
    def run(seed: int) -> list[int]:
        scvi.settings.seed = 0  # the split
        data = SCVIDataModule(path)
        torch.manual_seed(seed)
        return flat(data.train_dataloader())

    assert run(1) == run(1) != run(2)


def test_inference_keeps_the_order_asked_for(path: Path) -> None:
    data = SCVIDataModule(path, **SETUP, batch_size=4)
    assert flat(data.inference_dataloader([9, 2, 2, -1])) == [9, 2, 2, 119]
    assert flat(data.inference_dataloader(np.arange(N) % 50 == 3)) == [3, 53, 103]
    assert len(data.inference_dataloader(batch_size=50)) == 3
    for batch in data.inference_dataloader([9, 2, 77]):
        sizes = pd.Series(toy(N).obs["depth"]).iloc[cells(batch)]
        np.testing.assert_allclose(batch["size_factor"].ravel(), sizes, rtol=1e-6)


def test_subsets_of_cells_and_genes(path: Path) -> None:
    chosen = [100, 3, 7, 50, *range(20, 40)]
    genes = ["g3", "g0"]
    data = SCVIDataModule(path, batch_key="donor", obs_subset=chosen, var_subset=genes, batch_size=6)
    adata = anndata.read_h5ad(path)[chosen, genes].copy()
    registered = manager(adata, **{**dict.fromkeys(SETUP), "batch_key": "donor"})
    assert_equal(data.registry["field_registries"], dict(registered.registry["field_registries"]))
    for mine, theirs in zip(data.inference_dataloader(), Stock(registered, batch_size=6), strict=True):
        assert_same(mine, theirs)
    assert (data.n_obs, data.n_vars) == (24, 2)
    trained = {int(x) for batch in data.train_dataloader() for x in batch["X"][:, 1]}
    assert trained == {chosen[i] for i in data.train_idx}


def test_workers(path: Path) -> None:
    alone, data = (SCVIDataModule(path, **SETUP, seed=1, batch_size=16, num_workers=n, window=32) for n in (0, 2))
    torch.multiprocessing.set_sharing_strategy("file_system")
    a = sorted(flat(data.train_dataloader()))
    assert a == sorted(flat(alone.train_dataloader()))
    assert len(list(data.inference_dataloader())) == 8


def test_all_cells_for_training(path: Path) -> None:
    data = SCVIDataModule(path, train_size=1.0)
    model = scvi.model.SCVI(registry=data.registry)

    class AfterTwoEpochs(Callback):
        def on_train_epoch_end(self, trainer: Any, _: Any) -> None:
            trainer.should_stop = trainer.current_epoch == 1

    model.train(datamodule=data, callbacks=[AfterTwoEpochs()], **{**TRAIN, "max_epochs": None})
    # scvi-tools has told from the data module's cells for how long it would train, were it not stopped.
    assert model.trainer.max_epochs == get_max_epochs_heuristic(N)
    assert len(model.history["elbo_train"]) == 2
    assert data.n_val == 0
    assert "elbo_validation" not in model.history


def test_what_cannot_be_meant(path: Path, tmp_path: Path) -> None:
    for error, match, arguments in (
        (KeyError, "donorr", {"batch_key": "donorr"}),
        (KeyError, "nothing", {"layer": "nothing"}),
        (TypeError, "covariate keys", {"categorical_covariate_keys": "sex"}),
        (TypeError, "nonsense", {"nonsense": 1}),
        (ValueError, "unlabeled_category", {"unlabeled_category": "unknown"}),
        (ValueError, "train_size", {"train_size": 1.5}),
        (ValueError, "batch_size", {"batch_size": 0}),
        (TypeError, "batch_size is 12.0; expected a positive integer", {"batch_size": 12.0}),
        (ValueError, "block_size", {"block_size": 0}),
        (ValueError, "window is 0; expected a positive integer", {"window": 0}),
        (TypeError, "window is '9'", {"window": "9"}),
        (TypeError, "threads is 1.5", {"threads": 1.5}),
        (IndexError, "120", {"obs_subset": [120]}),
        (FileNotFoundError, "(?i)no such file", {"path_or_paths": tmp_path / "nothing.h5ad"}),
    ):
        with pytest.raises(error, match=match):
            SCVIDataModule(**{"path_or_paths": path, **arguments})


@pytest.mark.parametrize("wrap", [lambda adata: adata, lambda adata: [adata], lambda adata: (each for each in [adata])])
def test_an_anndata_is_refused(path: Path, wrap: Any) -> None:
    """Its obs may change, and the registry would keep what it was."""
    for adata in (anndata.read_h5ad(path), anndata.read_h5ad(path, backed="r")):
        with pytest.raises(TypeError, match=r"path_or_paths.* of type AnnData; expected a path.*use\(model\)"):
            SCVIDataModule(wrap(adata), batch_key="donor")


@pytest.mark.parametrize("make", [list, tuple, iter, np.array])
def test_paths_come_in_any_container(path: Path, make: Any) -> None:
    assert SCVIDataModule(make([str(path), str(path)])).n_obs == 2 * N


def test_paths_of_bytes(path: Path, parts: list[Path]) -> None:
    assert SCVIDataModule(os.fsencode(path)).n_obs == N
    assert SCVIDataModule([os.fsencode(part) for part in parts]).n_obs == N


def test_a_missing_category_is_an_error(tmp_path: Path) -> None:
    adata = toy(N)
    adata.obs["donor"] = adata.obs["donor"].where(adata.obs_names != "cell7")
    adata.write_h5ad(tmp_path / "toy.h5ad")
    with pytest.raises(ValueError, match="categorical failed"):
        SCVIDataModule(tmp_path / "toy.h5ad", batch_key="donor")


def test_data_that_are_no_counts_are_told(tmp_path: Path) -> None:
    adata = toy(N)
    adata.X = adata.X.log1p()
    adata.write_h5ad(tmp_path / "toy.h5ad")
    with pytest.warns(UserWarning, match=r"does not hold counts") as given:
        SCVIDataModule(tmp_path / "toy.h5ad")
    assert [one.filename for one in given if "counts" in str(one.message)] == [__file__]


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """The same 120 cells in three files, with genes in another order and other categories in one of them."""
    adata = toy(N)
    paths = [tmp_path / f"{i}.h5ad" for i in range(3)]
    first, second, third = adata[:50].copy(), adata[50:57, ::-1].copy(), adata[57:].copy()
    second.obs["type"] = second.obs["type"].cat.remove_unused_categories()
    for path, part in zip(paths, (first, second, third), strict=True):
        part.write_h5ad(path, compression="gzip")
    return paths


@pytest.mark.parametrize("layer", [None, "counts"])
def test_several_files_are_one_after_the_other(path: Path, parts: list[Path], layer: str | None) -> None:
    one, several = (SCVIDataModule(p, layer=layer, **SETUP, batch_size=16, window=48, seed=0) for p in (path, parts))
    assert_equal(several.registry["field_registries"], one.registry["field_registries"])
    assert list(several.obs_names) == list(one.obs_names)
    for loaders in (
        [m.inference_dataloader() for m in (one, several)],
        [m.inference_dataloader([119, 3, 53, 50, 3, 49, 57]) for m in (one, several)],
        [m.train_dataloader() for m in (one, several)],
        [m.val_dataloader() for m in (one, several)],
    ):
        for a, b in zip(*loaders, strict=True):
            assert_same(a, b)


def test_several_files_with_blocks_workers_and_subsets(parts: list[Path]) -> None:
    chosen = np.r_[100:40:-1]
    data = SCVIDataModule(parts, obs_subset=chosen, block_size="auto", batch_size=8, window=24, num_workers=2)
    assert flat(data.inference_dataloader()) == list(chosen)
    loader = data.train_dataloader()
    for _ in range(2):
        assert sorted(flat(loader)) == sorted(chosen[data.train_idx])


def test_a_model_trains_on_several_files(parts: list[Path]) -> None:
    data = SCVIDataModule(parts, batch_key="donor", batch_size=32)
    model = scvi.model.SCVI(registry=data.registry)
    model.train(datamodule=data, **TRAIN)
    assert model.get_latent_representation(dataloader=data.inference_dataloader()).shape == (N, 10)


def test_files_that_do_not_go_together(path: Path, tmp_path: Path) -> None:
    toy(30)[:, :4].copy().write_h5ad(tmp_path / "fewer.h5ad")
    with pytest.raises(KeyError, match="g4"):
        SCVIDataModule([path, tmp_path / "fewer.h5ad"])
    assert SCVIDataModule([tmp_path / "fewer.h5ad", path]).n_vars == 4
    with pytest.raises(ValueError, match="path_or_paths is empty"):
        SCVIDataModule([])


def test_files_of_the_same_genes_may_have_a_name_twice(tmp_path: Path) -> None:
    adata = toy(N)
    adata.var_names = list("abcabd")
    paths = [tmp_path / f"{i}.h5ad" for i in range(2)]
    for path, part in zip(paths, (adata[:70], adata[70:]), strict=True):
        part.copy().write_h5ad(path)
    for genes in (slice(None), [4, 0, 1]):
        data = SCVIDataModule(paths, var_subset=genes, batch_size=N)
        assert list(data.var_names) == list(adata.var_names[genes])
        (batch,) = data.inference_dataloader()
        np.testing.assert_array_equal(batch["X"], adata.X[:, genes].toarray())


def test_genes_by_symbol(path: Path, tmp_path: Path) -> None:
    for source, name in ((anndata.read_h5ad(path), "a"), (anndata.read_h5ad(path)[:, ::-1].copy(), "b")):
        source.var["symbol"] = [f"symbol of {gene}" for gene in source.var_names]
        source.write_h5ad(tmp_path / f"{name}.h5ad")
    paths, wanted = [tmp_path / "a.h5ad", tmp_path / "b.h5ad"], ["symbol of g2", "symbol of g0"]
    for given in (paths[0], paths):
        data = SCVIDataModule(given, var_subset=wanted, var_column="symbol")
        assert list(data.var_names) == ["g2", "g0"]
    with pytest.raises(KeyError, match=r"no 'g2' in the column 'symbol'\. It is the name of a gene"):
        SCVIDataModule(paths, var_subset=["g2"], var_column="symbol")


def test_genes_by_symbol_are_found_when_the_files_are_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Counted(h5py.File):
        def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
            opened.append(name)
            super().__init__(name, *args, **kwargs)

    adata = anndata.read_h5ad(path)
    adata.var["symbol"] = adata.var_names
    paths = [path.with_name("0.h5ad"), path.with_name("1.h5ad")]
    for one in paths:
        adata.write_h5ad(one)
    monkeypatch.setattr(h5py, "File", Counted)
    SCVIDataModule(paths)
    plain, opened[:] = len(opened), []
    SCVIDataModule(paths, var_subset=["g2", "g0"], var_column="symbol")
    assert len(opened) < plain  # without a column the names of the files are compared first


@pytest.mark.parametrize("genes", [[True, False, True, True, False, False], [3, 0], slice(5, None, -2), ["g2", "g0"]])
def test_genes_chosen_of_the_first_file_go_by_name_in_the_others(path: Path, tmp_path: Path, genes: Any) -> None:
    other = toy(30)[:, ::-1].copy()
    more = anndata.concat([other, anndata.AnnData(np.ones((30, 2), "float32"), other.obs)], axis=1, merge="first")
    more.write_h5ad(tmp_path / "more.h5ad")
    data = SCVIDataModule([path, tmp_path / "more.h5ad"], var_subset=genes, batch_size=N + 30)
    first = anndata.read_h5ad(path)
    chosen = list(first.var_names[genes] if not isinstance(genes, list) or genes[0] != "g2" else genes)
    assert list(data.var_names) == chosen
    (batch,) = data.inference_dataloader()
    x = [part[:, chosen].to_df().to_numpy() for part in (first, more)]
    np.testing.assert_array_equal(batch["X"].to_dense().numpy(), np.vstack(x))


def test_table_of_models_is_what_can_be_made(path: Path) -> None:
    page = (ROOT / "docs" / "scvi.md").read_text()
    rows = re.findall(r"^\| ([A-Za-z]+VI) \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE)
    assert {name for name, _ in rows} >= {"SCVI", "SCANVI", "LinearSCVI", "PEAKVI", "MRVI", "MULTIVI"}
    for name, told in rows:
        if told == "1.4, 1.5" or (told == "from 1.5" and V15):
            assert SCVIDataModule(path, model_name=name).registry["model_name"] == name
        else:
            with pytest.raises(UnsupportedError, match=name):
                SCVIDataModule(path, model_name=name)


def test_table_of_parameters_is_the_signature() -> None:
    page = (ROOT / "docs" / "scvi.md").read_text()
    table = page[page.index("| parameter | default |") :].split("\n\n")[0]
    told = {name: eval(default) for name, default in re.findall(r"^\| `(\w+)` \| `(.+?)` \|", table, re.MULTILINE)}
    parameters = inspect.signature(SCVIDataModule.__init__).parameters.values()
    assert told == {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}


def test_cell_ranger_files_are_read_as_what_scanpy_makes_of_them(tmp_path: Path) -> None:
    path = write_tenx_3(tmp_path / "cells.h5", counts(40, 6), features_of(list("ABCDEF")))
    scanpy.read_10x_h5(path).write_h5ad(tmp_path / "cells.h5ad")
    genes = ["E", "B"]
    tenx, h5ad = (SCVIDataModule(p, var_subset=genes, batch_size=16, seed=0) for p in (path, tmp_path / "cells.h5ad"))
    assert_equal(dict(tenx.registry["field_registries"]), dict(h5ad.registry["field_registries"]))
    assert list(tenx.obs_names) == list(h5ad.obs_names)
    for one, other in zip(tenx.inference_dataloader(), h5ad.inference_dataloader(), strict=True):
        assert_same(one, other)
    with pytest.raises(KeyError, match=r"cells\.h5: matrix/barcodes has no column 'donor'"):
        SCVIDataModule(path, batch_key="donor")
