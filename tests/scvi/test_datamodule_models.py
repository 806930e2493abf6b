"""Models of scvi-tools trained from `SCVIDataModule`, beside the same trained in memory."""

from __future__ import annotations

import inspect
from itertools import chain
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("scvi.model", reason="scvi-tools is not installed")

import scvi
from lightning.pytorch import Callback, LightningDataModule
from scvi.dataloaders import AnnDataLoader as Stock
from tests.scvi.module_toys import TRAIN, V15, N
from tests.support.scvi_toys import cells, flat, toy

from annfeed.errors import UnsupportedError
from annfeed.scvi import SCVIDataModule

pytestmark = pytest.mark.filterwarnings("ignore")
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
