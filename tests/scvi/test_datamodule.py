"""`SCVIDataModule`: from a path to a trained model, against scvi-tools' own setup of the same AnnData in memory."""

from __future__ import annotations

import copy
import inspect
import os
import re
from itertools import chain
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from tests.support.places import ROOT
from torch.utils.data import DataLoader

pytest.importorskip("scvi.model", reason="scvi-tools is not installed")

import scvi
from lightning.pytorch import Callback, LightningDataModule
from scvi.dataloaders import AnnDataLoader as Stock
from scvi.dataloaders import DataSplitter
from scvi.model._utils import get_max_epochs_heuristic
from tests.support.scvi_toys import SETUP, assert_same, cells, manager, toy

from annfeed.errors import UnsupportedError
from annfeed.scvi import SCVIDataModule

N = 120
V15 = tuple(map(int, scvi.__version__.split(".")[:2])) >= (1, 5)
TRAIN: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 2}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Lightning and scvi-tools write their logs where they are
    scvi.settings.seed = 0  # the split


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 120 cells."""
    toy(N).write_h5ad(tmp_path / "toy.h5ad", compression="gzip")
    return tmp_path / "toy.h5ad"


def flat(loader: Any) -> list[int]:
    return list(chain(*map(cells, loader)))


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


COVARIATES = {
    "size_factor_key": "depth",
    "categorical_covariate_keys": ["sex", "assay"],
    "continuous_covariate_keys": ["age", "mito"],
}
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "SCVI": ("SCVI", {"batch_key": "donor"}),
    "SCVI with covariates": ("SCVI", {"batch_key": "donor", **COVARIATES}),
    "SCANVI": ("SCANVI", {"batch_key": "donor", "labels_key": "type", "unlabeled_category": "unknown"}),
}


@pytest.mark.parametrize("case", TRAINED)
def test_train_infer_save_and_load(path: Path, case: str, tmp_path: Path) -> None:
    name, setup = TRAINED[case]
    kind = getattr(scvi.model, name)
    data = SCVIDataModule(path, **setup, model_name=name, batch_size=32, window=64, cache="1MiB")
    with_data = {"datamodule": data} if name == "SCANVI" else {}
    model = kind(registry=data.registry, **with_data)
    model.train(datamodule=data, check_val_every_n_epoch=1, **TRAIN)
    with pytest.raises(ValueError, match="`dataloader` must be provided"):
        model.get_latent_representation()
    assert {"elbo_train", "elbo_validation"} <= model.history.keys()
    assert len(model.history["elbo_train"]) == 2
    np.testing.assert_array_equal(model.train_indices, data.train_idx)

    # The same weights in a model made from an AnnData.
    adata = anndata.read_h5ad(path)
    kind.setup_anndata(adata, **setup)
    twin = kind(adata)
    twin.module.load_state_dict(model.module.state_dict())
    twin.module.eval()
    twin.is_trained_ = True
    expected = twin.get_latent_representation()
    latent = model.get_latent_representation(dataloader=data.inference_dataloader())
    np.testing.assert_allclose(latent, expected, atol=1e-5)
    unsorted = [77, 3, 3, 50]
    part = model.get_latent_representation(dataloader=data.inference_dataloader(unsorted))
    np.testing.assert_allclose(part, expected[unsorted], atol=1e-5)
    if name == "SCANVI":
        np.testing.assert_array_equal(model.predict(dataloader=data.inference_dataloader()), twin.predict())

    def elbo(of: Any, **where: Any) -> float:
        torch.manual_seed(0)
        return float(of.get_elbo(batch_size=32, **where))

    through_data = elbo(model, dataloader=data.inference_dataloader())
    assert through_data == pytest.approx(elbo(twin), abs=1e-3)

    model.save(str(tmp_path / "model"), datamodule=data)
    assert b"annfeed" not in (tmp_path / "model" / "model.pt").read_bytes()
    loaded = kind.load(str(tmp_path / "model"), adata=False, accelerator="cpu", **with_data)
    again = loaded.get_latent_representation(dataloader=data.inference_dataloader())
    np.testing.assert_allclose(again, latent, atol=1e-5)
    assert elbo(loaded, dataloader=data.inference_dataloader()) == pytest.approx(through_data, abs=1e-3)
    if name == "SCVI":
        loaded = kind.load(str(tmp_path / "model"), adata=anndata.read_h5ad(path), accelerator="cpu")
        np.testing.assert_allclose(loaded.get_latent_representation(), latent, atol=1e-5)
        assert elbo(loaded) == pytest.approx(through_data, abs=1e-3)


@pytest.mark.parametrize("covariates", ["none", "all"])
def test_scanvi_is_loaded(path: Path, tmp_path: Path, covariates: str) -> None:
    setup: dict[str, Any] = {"labels_key": "type", "unlabeled_category": "unknown"}
    setup |= COVARIATES if covariates == "all" else {}
    data = SCVIDataModule(path, **setup, model_name="SCANVI")
    model = scvi.model.SCANVI(registry=data.registry, datamodule=data)
    model.train(datamodule=data, **TRAIN)
    model.save(str(tmp_path / "model"), datamodule=data)
    expected = model.get_latent_representation(dataloader=data.inference_dataloader())
    labels = model.predict(dataloader=data.inference_dataloader())
    where: dict[str, Any] = {"dir_path": str(tmp_path / "model"), "accelerator": "cpu"}
    adata = anndata.read_h5ad(path)
    if covariates == "none":
        loaded = scvi.model.SCANVI.load(adata=False, datamodule=data, **where)
    elif V15:
        loaded = scvi.model.SCANVI.load(adata=False, **where)
    else:  # without an AnnData scvi-tools 1.4 would guess a wrong module (see `Registry`), so there it is an error
        with pytest.raises(AttributeError, match="_source_registry"):
            scvi.model.SCANVI.load(adata=False, datamodule=data, **where)
        loaded = scvi.model.SCANVI.load(adata=adata, datamodule=data, **where)
    np.testing.assert_allclose(
        loaded.get_latent_representation(dataloader=data.inference_dataloader()), expected, atol=1e-5
    )
    np.testing.assert_array_equal(loaded.predict(dataloader=data.inference_dataloader()), labels)
    if V15 and covariates == "all":
        scvi.model.SCANVI.setup_anndata(adata, **data.registry["setup_args"])
        loaded = scvi.model.SCANVI.load(adata=adata, **where)
        np.testing.assert_allclose(loaded.get_latent_representation(), expected, atol=1e-5)


#: What scvi-tools trains without an AnnData from 1.5 on.
NEW: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "PEAKVI": (scvi.model, {"batch_key": "donor"}, {"n_hidden": 8, "n_latent": 3}),
    "PEAKVI with covariates": (
        scvi.model,
        {"batch_key": "donor", "categorical_covariate_keys": ["sex", "assay"], "continuous_covariate_keys": ["age"]},
        {"n_hidden": 8, "n_latent": 3},
    ),
    # Without it, scvi-tools takes the prior of the library size from the AnnData, where there is one.
    "LinearSCVI": (scvi.model, {"batch_key": "donor"}, {"n_latent": 3, "use_observed_lib_size": True}),
    "MRVI": (scvi.external, {"batch_key": "assay", "sample_key": "donor"}, {"n_latent": 4}),
}


class Reseed(Callback):
    """The same noise in two trainings, whatever their loaders draw from torch's generator."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
        torch.manual_seed(1000 * trainer.current_epoch + i)

    def on_validation_batch_start(self, trainer: Any, module: Any, batch: Any, i: int, j: int = 0) -> None:
        torch.manual_seed(500 + i)


class InMemory(LightningDataModule):
    """scvi-tools' own batches of an AnnData in memory, in the order of a data module of ours."""

    def __init__(self, registered: Any, data: SCVIDataModule, n_epochs: int) -> None:
        super().__init__()
        loader = data.train_dataloader()
        orders = [flat(loader) for _ in range(n_epochs)]
        self._epochs = [list(Stock(registered, indices=order, batch_size=data.batch_size)) for order in orders]
        self._validation = list(Stock(registered, indices=data.val_idx, batch_size=data.batch_size))
        for name in ("n_train", "n_val", "train_idx", "val_idx", "test_idx", "n_obs"):
            setattr(self, name, getattr(data, name))

    def train_dataloader(self) -> Any:
        class Loader:
            def __len__(loader) -> int:
                return len(self._epochs[0])

            def __iter__(loader) -> Any:
                yield from self._epochs[self.trainer.current_epoch]

        return Loader()

    def val_dataloader(self) -> Any:
        return DataLoader(self._validation, batch_size=None)


@pytest.mark.parametrize("case", NEW)
def test_models_that_scvi_1_5_trains_without_an_anndata(path: Path, case: str, tmp_path: Path) -> None:
    name = case.split()[0]
    module, setup, options = NEW[case]
    arguments: dict[str, Any] = {"batch_size": 32, "window": 64, "seed": 0, "model_name": name}
    if not V15:
        with pytest.raises(UnsupportedError, match=rf"makes {name} from an AnnData only; expected 1\.5 or later"):
            SCVIDataModule(path, **setup, **arguments)
        return
    data = SCVIDataModule(path, **setup, **arguments)
    kind = getattr(module, name)
    train: dict[str, Any] = {**TRAIN, "check_val_every_n_epoch": 1}
    adata = anndata.read_h5ad(path)
    kind.setup_anndata(adata, **setup)
    scvi.settings.seed = 0
    stock = kind(adata, **options)
    stock.train(datamodule=InMemory(stock.adata_manager, data, TRAIN["max_epochs"]), callbacks=[Reseed()], **train)
    scvi.settings.seed = 0
    model = kind(registry=data.registry, **options)
    model.train(datamodule=data, callbacks=[Reseed()], **train)
    assert {"elbo_train", "elbo_validation"} <= model.history.keys() == stock.history.keys()
    for key, values in stock.history.items():
        np.testing.assert_allclose(model.history[key].astype(float), values.astype(float), rtol=1e-4, err_msg=key)

    expected = stock.get_latent_representation()
    latent = model.get_latent_representation(dataloader=data.inference_dataloader())
    np.testing.assert_allclose(latent, expected, atol=1e-4)
    part = model.get_latent_representation(dataloader=data.inference_dataloader([77, 3, 3]))
    np.testing.assert_allclose(part, expected[[77, 3, 3]], atol=1e-4)
    if name == "PEAKVI":
        whole = model.get_normalized_accessibility(dataloader=data.inference_dataloader(), return_numpy=True)
        np.testing.assert_allclose(whole, stock.get_normalized_accessibility(return_numpy=True), atol=1e-4)
    if name == "MRVI":
        mine = model.get_local_sample_distances(dataloader=data.inference_dataloader())
        theirs = stock.get_local_sample_distances()
        np.testing.assert_allclose(mine["cell"].values, theirs["cell"].values, atol=1e-3)
        assert data.n_samples == 3

    model.save(str(tmp_path / "model"), datamodule=data)
    for form in (False, anndata.read_h5ad(path)):
        loaded = kind.load(str(tmp_path / "model"), adata=form, accelerator="cpu")
        again = {} if form else {"dataloader": data.inference_dataloader()}
        np.testing.assert_allclose(loaded.get_latent_representation(**again), latent, atol=1e-5)


@pytest.mark.parametrize("name", ["SCVI", "SCANVI", "PEAKVI"])
def test_differential_expression_from_a_data_module(path: Path, name: str) -> None:
    labels = {"unlabeled_category": "unknown"} if name == "SCANVI" else {}
    setup = {"batch_key": "donor", "labels_key": "type", "categorical_covariate_keys": ["sex", "assay"], **labels}
    if name == "PEAKVI" and not V15:
        with pytest.raises(UnsupportedError, match="PEAKVI"):
            SCVIDataModule(path, **setup, model_name=name)
        return
    data = SCVIDataModule(path, **setup, model_name=name, batch_size=32)
    model = getattr(scvi.model, name)(registry=data.registry, **({"datamodule": data} if labels else {}))
    model.train(datamodule=data, **{**TRAIN, "max_epochs": 1})
    if not V15:
        assert "dataloader" not in inspect.signature(model.differential_expression).parameters
        with pytest.raises(AttributeError):
            model.differential_expression(groupby="type", group1="T", group2="B", silent=True)
        return
    table_of = model.differential_accessibility if name == "PEAKVI" else model.differential_expression
    table = table_of(dataloader=data.inference_dataloader(), groupby="type", group1="T", group2="B", silent=True)
    adata = anndata.read_h5ad(path)
    counts, types = adata.X.toarray(), adata.obs["type"].to_numpy()
    assert sorted(table.index) == sorted(adata.var_names)
    table = table.loc[adata.var_names]
    for i, group in enumerate(("T", "B"), 1):
        rows = counts[types == group]
        if name == "PEAKVI":
            np.testing.assert_allclose(table[f"emp_prob{i}"], (rows > 0).mean(axis=0), rtol=1e-5)
        else:
            np.testing.assert_allclose(table[f"raw_mean{i}"], rows.mean(axis=0), rtol=1e-5)
            np.testing.assert_allclose(table[f"non_zeros_proportion{i}"], (rows != 0).mean(axis=0), rtol=1e-5)


def test_a_model_or_key_that_cannot_be_is_told(path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"makes TOTALVI from an AnnData only.*annfeed\.scvi\.use\(model\)"):
        SCVIDataModule(path, model_name="TOTALVI")
    with pytest.raises(ValueError, match="found sample_key='donor' for SCVI"):
        SCVIDataModule(path, sample_key="donor")
    assert SCVIDataModule(path, model_name="SomebodyElse").n_obs == N


#: Of the toy's cells, some of each are unlabelled.
LABELS: dict[str, Any] = {"labels_key": "type", "unlabeled_category": "unknown"}
SCANVI_SETUPS: dict[str, dict[str, Any]] = {
    "no covariates": {},
    "size factor": {"size_factor_key": "depth"},
    # Batches with these keys alone are what scvi-tools 1.4 took for labelled ones, unlabelled cells and all.
    "covariates": {**COVARIATES, "size_factor_key": None},
    "all": COVARIATES,
}


@pytest.mark.parametrize("covariates", SCANVI_SETUPS)
def test_scanvi_learns_labels_with_any_covariates(path: Path, covariates: str) -> None:
    data = SCVIDataModule(path, **LABELS, **SCANVI_SETUPS[covariates], model_name="SCANVI", batch_size=16)
    model = scvi.model.SCANVI(registry=data.registry, datamodule=data)
    model.train(datamodule=data, check_val_every_n_epoch=1, **TRAIN)
    for key in ("train_classification_loss", "validation_classification_loss", "train_accuracy"):
        assert np.isfinite(model.history[key].to_numpy(float)).all()
    assert set(model.predict(dataloader=data.inference_dataloader())) <= {"T", "B"}


def test_scanvi_gets_batches_of_all_cells_and_of_labelled_ones(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As scvi-tools' own `SemiSupervisedDataLoader` gives them."""
    seen: dict[str, list[Any]] = {"training_step": [], "validation_step": []}
    for name, steps in seen.items():
        step = getattr(scvi.train.SemiSupervisedTrainingPlan, name)

        def recorded(self: Any, batch: Any, i: int, step: Any = step, steps: list[Any] = steps) -> Any:
            steps.append(batch)
            return step(self, batch, i)

        monkeypatch.setattr(scvi.train.SemiSupervisedTrainingPlan, name, recorded)
    data = SCVIDataModule(path, **LABELS, model_name="SCANVI", batch_size=16, train_size=0.75)
    model = scvi.model.SCANVI(registry=data.registry, datamodule=data)
    model.train(datamodule=data, check_val_every_n_epoch=1, **{**TRAIN, "max_epochs": 1})
    labelled = set(np.flatnonzero(anndata.read_h5ad(path).obs["type"] != "unknown"))
    for steps, those in ((seen["training_step"], data.train_idx), (seen["validation_step"], data.val_idx)):
        assert all(len(pair) == 2 and pair[0].keys() == pair[1].keys() for pair in steps)
        every, second = (list(chain(*(cells(pair[i]) for pair in steps))) for i in (0, 1))
        assert sorted(every) == sorted(those)
        n = len(labelled & set(those))
        assert sorted(second[:n]) == sorted(labelled & set(those)), "each once before any comes again"
        assert set(second) == labelled & set(those)
    assert data.train_dataloader().batch_size == 16, "outside of the trainer, batches are as ever"


def test_scanvi_with_a_validation_set_without_labels(path: Path, tmp_path: Path) -> None:
    adata = toy(N)
    data = SCVIDataModule(path, **LABELS, **COVARIATES, model_name="SCANVI")
    adata.obs["type"] = adata.obs["type"].where(~np.isin(np.arange(N), data.val_idx), "unknown")
    adata.write_h5ad(tmp_path / "few.h5ad")
    few = SCVIDataModule(tmp_path / "few.h5ad", **LABELS, **COVARIATES, model_name="SCANVI")
    np.testing.assert_array_equal(few.val_idx, data.val_idx)
    model = scvi.model.SCANVI(registry=few.registry, datamodule=few)
    model.train(datamodule=few, check_val_every_n_epoch=1, **TRAIN)
    assert "train_classification_loss" in model.history
    assert "validation_classification_loss" not in model.history
    assert "elbo_validation" in model.history


def test_scanvi_from_scvi(path: Path) -> None:
    data = SCVIDataModule(path, labels_key="type", unlabeled_category="unknown", batch_size=32)
    model = scvi.model.SCVI(registry=data.registry)
    model.train(datamodule=data, **TRAIN)
    scanvi = scvi.model.SCANVI.from_scvi_model(model, "unknown", adata=False, datamodule=data)
    scanvi.train(datamodule=data, **TRAIN)
    labels = set(scanvi.predict(dataloader=data.inference_dataloader()))
    assert labels <= {"T", "B"}


def test_normalized_expression(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.distributions.Normal, "rsample", lambda self, shape=(): self.mean.expand((*shape, *self.mean.shape))
    )
    data = SCVIDataModule(path, batch_key="donor", batch_size=32)
    model = scvi.model.SCVI(registry=data.registry)
    model.train(datamodule=data, **{**TRAIN, "max_epochs": 1})
    whole = model.get_normalized_expression(dataloader=data.inference_dataloader(), return_numpy=True)
    part = model.get_normalized_expression(dataloader=data.inference_dataloader([77, 3]), return_numpy=True)
    assert whole.shape == (N, 6)
    np.testing.assert_allclose(part, whole[[77, 3]], rtol=1e-4)


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
        (ValueError, "block_size", {"block_size": 0}),
        (ValueError, "window|chunk_size", {"window": 0}),
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
    with pytest.warns(UserWarning, match=r"does not hold counts"):
        SCVIDataModule(tmp_path / "toy.h5ad")


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
