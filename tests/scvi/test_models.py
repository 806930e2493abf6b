"""Models of scvi-tools on a backed AnnData through `annfeed.scvi.use`, against the stock classes in memory."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

pytest.importorskip("scvi.model", reason="scvi-tools is not installed")

import scvi

import annfeed
from annfeed.scvi import AnnDataLoader, use

N, G = 180, 24
UNSORTED = [140, 3, 3, 17, 0, -1, 99]
MODELS = ("SCVI", "LinearSCVI", "PEAKVI", "SCANVI")
#: 163 training cells in 4 batches; so are the 146 labelled ones of SCANVI: one pass in an epoch.
TRAIN: dict[str, Any] = {
    "max_epochs": 2,
    "train_size": 0.9,
    "batch_size": 48,
    "check_val_every_n_epoch": 1,
    "accelerator": "cpu",
    "enable_progress_bar": False,
}

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, logging and such


def data() -> anndata.AnnData:
    rng = np.random.default_rng(1)
    counts = rng.poisson(rng.gamma(1.0, 2.0, G), (N, G)).astype("float32")
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"donor {i % 3}" for i in range(N)]),
            "type": pd.Categorical([["T", "B", "NK"][i % 3] if i % 10 else "unknown" for i in range(N)]),
        },
        index=[f"cell{i}" for i in range(N)],
    )
    adata = anndata.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(G)]))
    adata.layers["twice"] = sp.csr_matrix(2 * counts)
    return adata


def on_disk(adata: anndata.AnnData, path: Path) -> anndata.AnnData:
    adata.write_h5ad(path, compression="gzip")
    return anndata.read_h5ad(path, backed="r")


def make(name: str, adata: anndata.AnnData, **setup: Any) -> Any:
    """An untrained model after the same seed."""
    kind = getattr(scvi.model, name)
    if name == "SCANVI":
        setup |= {"labels_key": "type", "unlabeled_category": "unknown"}
    kind.setup_anndata(adata, batch_key="donor", **setup)
    scvi.settings.seed = 0
    return kind(adata)


def assert_same_history(a: Any, b: Any) -> None:
    assert a.history.keys() == b.history.keys()
    assert {"elbo_train", "elbo_validation"} <= a.history.keys()
    for key, values in a.history.items():
        np.testing.assert_allclose(values.astype(float), b.history[key].astype(float), atol=5e-4, rtol=0, err_msg=key)


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model trained in memory with the stock classes, and one trained from disk through us."""
    folder = tmp_path_factory.mktemp("models")
    adata = data()
    stock = make(request.param, adata)
    stock.train(**TRAIN)
    ours = use(make(request.param, on_disk(adata, folder / "data.h5ad")), window=64, cache="1MiB")
    ours.train(**TRAIN)
    return stock, ours


def test_history_is_that_of_memory(pair: Any) -> None:
    stock, ours = pair
    assert_same_history(ours, stock)
    for name in ("train_indices", "validation_indices", "test_indices"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(stock, name))
    assert ours.adata.isbacked


def test_getters_give_what_memory_gives(pair: Any) -> None:
    stock, ours = pair
    np.testing.assert_allclose(ours.get_latent_representation(), stock.get_latent_representation(), atol=1e-4)
    if hasattr(stock, "predict"):
        np.testing.assert_array_equal(ours.predict(), stock.predict())


def test_unsorted_cells_are_the_right_ones(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair
    # Without the noise of a sampled latent, so that rows of two runs can be compared.
    monkeypatch.setattr(
        torch.distributions.Normal, "rsample", lambda self, shape=(): self.mean.expand((*shape, *self.mean.shape))
    )
    latent = ours.get_latent_representation()
    np.testing.assert_allclose(ours.get_latent_representation(indices=UNSORTED), latent[UNSORTED], atol=1e-5)
    mask = np.arange(N) % 7 == 2
    np.testing.assert_allclose(ours.get_latent_representation(indices=mask.tolist()), latent[mask], atol=1e-5)
    getter = "get_normalized_accessibility" if isinstance(ours, scvi.model.PEAKVI) else "get_normalized_expression"
    whole, part = getattr(ours, getter)(), getattr(ours, getter)(indices=UNSORTED)
    assert list(part.index) == list(ours.adata.obs_names[UNSORTED])
    np.testing.assert_allclose(part.to_numpy(), whole.to_numpy()[UNSORTED], rtol=1e-4)
    if hasattr(ours, "predict"):
        np.testing.assert_array_equal(ours.predict(indices=UNSORTED), ours.predict()[UNSORTED])


def test_saved_models_are_the_stock_class_s(pair: Any, tmp_path: Path) -> None:
    stock, ours = pair
    ours.save(str(tmp_path / "model"))
    assert b"annfeed" not in (tmp_path / "model" / "model.pt").read_bytes()
    kind = type(ours)
    assert kind is type(stock)
    in_memory = kind.load(str(tmp_path / "model"), adata=data(), accelerator="cpu")
    assert in_memory._data_loader_cls is scvi.dataloaders.AnnDataLoader
    np.testing.assert_allclose(in_memory.get_latent_representation(), ours.get_latent_representation(), atol=1e-5)
    from_disk = use(kind.load(str(tmp_path / "model"), adata=on_disk(data(), tmp_path / "b.h5ad"), accelerator="cpu"))
    expected = ours.get_latent_representation()[UNSORTED]
    np.testing.assert_allclose(from_disk.get_latent_representation(indices=UNSORTED), expected, atol=1e-5)


def test_stock_on_disk_gives_the_wrong_cells(pair: Any, tmp_path: Path) -> None:
    """The reason for `use`; it also shows that the tests above can tell."""
    _, ours = pair
    ours.save(str(tmp_path / "model"))
    stock = type(ours).load(str(tmp_path / "model"), adata=on_disk(data(), tmp_path / "b.h5ad"), accelerator="cpu")
    latent = ours.get_latent_representation()
    wrong = stock.get_latent_representation(indices=[140, 3, 17])
    np.testing.assert_allclose(wrong, latent[[3, 17, 140]], atol=1e-5)
    assert not np.allclose(wrong, latent[[140, 3, 17]], atol=1e-5)


def test_nothing_global_is_patched(pair: Any) -> None:
    _, ours = pair
    kind = type(ours)
    assert "_data_loader_cls" in vars(ours)
    assert kind._data_loader_cls is scvi.dataloaders.AnnDataLoader
    assert kind._data_splitter_cls.__module__ == "scvi.dataloaders._data_splitting"
    assert scvi.dataloaders.DataSplitter.data_loader_cls is scvi.dataloaders.AnnDataLoader
    assert not any(
        name.endswith("_") and not name.endswith("__") for name in ("_data_loader_cls", "_data_splitter_cls")
    )


def test_train_and_inference_go_through_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    init = AnnDataLoader.__init__

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(kwargs)
        init(self, *args, **kwargs)

    monkeypatch.setattr(AnnDataLoader, "__init__", counted)
    for name, n_training in (("SCVI", 2), ("SCANVI", 4)):
        model = use(make(name, on_disk(data(), tmp_path / f"{name}.h5ad")), window=48, cache=0, threads=1)
        assert made == []
        model.train(**{**TRAIN, "max_epochs": 1})
        assert len(made) == n_training
        model.get_latent_representation()
        assert len(made) == n_training + 1
        assert all((kw["window"], kw["cache"], kw["threads"]) == (48, 0, 1) for kw in made)
        made.clear()


def test_a_layer_and_sparse_tensors(tmp_path: Path) -> None:
    adata = data()
    arguments = {**TRAIN, "load_sparse_tensor": True}
    stock = make("SCVI", adata, layer="twice")
    stock.train(**arguments)
    ours = use(make("SCVI", on_disk(adata, tmp_path / "data.h5ad"), layer="twice"), window=64)
    ours.train(**arguments)
    assert_same_history(ours, stock)


def counted(adata: anndata.AnnData, kind: str) -> anndata.AnnData:
    """The same, with the counts in another form."""
    adata.X = adata.X.toarray() if kind == "dense" else adata.X.astype(kind)
    return adata


@pytest.mark.parametrize("kind", ["float32", "int64", "dense"])
def test_differential_expression_is_that_of_memory(kind: str, tmp_path: Path) -> None:
    """Its table has means of raw counts, which scvi-tools takes from the AnnData and not through a loader."""
    tables: list[Any] = []
    for where in ("memory", "disk"):
        adata = counted(data(), kind)
        adata = adata if where == "memory" else on_disk(adata, tmp_path / "data.h5ad")
        model = make("SCVI", adata)
        if where == "disk":
            model = use(model, window=50, cache=0)
        model.is_trained_ = True
        model.module.eval()
        scvi.settings.seed = 1
        by_group = model.differential_expression(groupby="type", silent=True, n_samples_overall=200)
        some = model.differential_expression(
            idx1=np.arange(N) % 3 == 0, idx2=[1, 4, 7, 170], silent=True, n_samples_overall=200
        )
        tables.append((by_group, some))
        assert "raw_normalized_mean1" in some
    for ours, theirs in zip(tables[1], tables[0], strict=True):
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-5)


def test_differential_accessibility_is_that_of_memory(tmp_path: Path) -> None:
    tables = []
    for form in (data(), on_disk(data(), tmp_path / "data.h5ad")):
        model = make("PEAKVI", form)
        if form.isbacked:
            model = use(model, window=50)
        model.is_trained_ = True
        model.module.eval()
        scvi.settings.seed = 1
        tables.append(model.differential_accessibility(groupby="type", group1="T", silent=True, n_samples_overall=200))
    pd.testing.assert_frame_equal(tables[1], tables[0], rtol=1e-4, atol=1e-5)


def test_counts_on_disk_are_summed_as_in_memory(tmp_path: Path) -> None:
    model = use(make("SCVI", on_disk(data(), tmp_path / "data.h5ad")), window=7)
    counts, expected = model.get_anndata_manager(model.adata).get_from_registry("X"), data().X
    for axis in (0, 1):
        np.testing.assert_allclose(counts.sum(axis=axis), np.asarray(expected.sum(axis=axis)), rtol=1e-6)
    rows, factors = [5, 170, 5, 0], np.array([[2.0], [1.0], [0.5], [3.0]])
    picked, wanted = counts[rows], expected[rows]
    for mine, theirs in (
        (picked, wanted),
        (picked[:, [3, 1]], wanted[:, [3, 1]]),
        (picked != 0, wanted != 0),
        (picked > 1, wanted > 1),
        (picked * factors, wanted.multiply(factors).tocsr()),
        (picked.multiply(factors)[:, [0]] > 2, wanted.multiply(factors).tocsr()[:, [0]] > 2),
    ):
        np.testing.assert_allclose(mine.mean(axis=0), np.asarray(theirs.mean(axis=0)).ravel(), rtol=1e-6)
    np.testing.assert_array_equal(picked.toarray(), wanted.toarray())
    np.testing.assert_array_equal(picked[1].toarray(), wanted[1].toarray())
    np.testing.assert_allclose(picked.mean(axis=1), wanted.mean(axis=1), rtol=1e-6)
    assert (counts.shape, picked.shape) == (expected.shape, wanted.shape)


@pytest.mark.parametrize("kind", ["dataloader", "use"])
def test_multivi_from_disk(kind: str, tmp_path: Path) -> None:
    """Its getters take a loader from scvi-tools 1.5 on; before, `use` alone serves it."""
    import mudata

    adata = data()
    in_memory = mudata.MuData({"rna": adata[:, :14].copy(), "atac": adata[:, 14:].copy()})
    in_memory.write(tmp_path / "data.h5mu")
    models = []
    for form in (in_memory, mudata.read_h5mu(tmp_path / "data.h5mu", backed=True)):
        scvi.model.MULTIVI.setup_mudata(
            form,
            rna_layer=None,
            atac_layer=None,
            batch_key="donor",
            modalities={"rna_layer": "rna", "atac_layer": "atac", "batch_key": "rna"},
        )
        scvi.settings.seed = 0
        model = scvi.model.MULTIVI(form, n_genes=14, n_regions=10, n_hidden=8, n_latent=3)
        models.append(model if form is in_memory else use(model, window=64))
        models[-1].train(**{**TRAIN, "max_epochs": 1}, adversarial_mixing=False)
    stock, ours = models
    assert_same_history(ours, stock)
    expected = stock.get_latent_representation()
    if kind == "use":
        np.testing.assert_allclose(ours.get_latent_representation(), expected, atol=1e-4)
        return
    arguments = {"dataloader": AnnDataLoader(ours.adata_manager, indices=UNSORTED, window=64)}
    if "dataloader" not in inspect.signature(stock.get_latent_representation).parameters:
        with pytest.raises(TypeError, match="dataloader"):
            ours.get_latent_representation(**arguments)
        return
    np.testing.assert_allclose(ours.get_latent_representation(**arguments), expected[UNSORTED], atol=1e-4)


def test_early_stopping(tmp_path: Path) -> None:
    ours = use(make("SCVI", on_disk(data(), tmp_path / "data.h5ad")))
    ours.train(
        **{**TRAIN, "max_epochs": 30}, early_stopping=True, early_stopping_patience=1, early_stopping_min_delta=1e6
    )
    assert len(ours.history["elbo_train"]) < 30
    with pytest.raises(ValueError, match="no validation set"):
        ours.train(**{**TRAIN, "train_size": 1.0}, early_stopping=True)


def test_scanvi_with_few_labels_is_the_same_from_disk_and_from_memory(tmp_path: Path) -> None:
    """Here the labelled cells are gone through several times an epoch; the stock class repeats its first order then."""
    adata = data()
    adata.obs["type"] = pd.Categorical([t if i % 4 == 0 else "unknown" for i, t in enumerate(adata.obs["type"])])
    models = []
    for form in (adata, on_disk(adata, tmp_path / "data.h5ad")):
        models.append(use(make("SCANVI", form), window=64))
        models[-1].train(**TRAIN, n_samples_per_label=5)
    assert_same_history(*models)


def test_models_that_use_cannot_serve() -> None:
    with pytest.raises(TypeError, match="a model of scvi-tools"):
        use(object())
    adata = data()
    for error, arguments in (
        (ValueError, {"window": 0}),
        (TypeError, {"threads": 1.5}),
        (ValueError, {"cache": "much"}),
    ):
        with pytest.raises(error, match=next(iter(arguments))):
            use(make("SCVI", adata), **arguments)

    class Own(scvi.model.SCVI):
        class _data_splitter_cls(scvi.dataloaders.DataSplitter):
            def train_dataloader(self) -> Any:
                return [1]

    Own.setup_anndata(adata)
    with pytest.raises(TypeError, match="which annfeed does not know"):
        use(Own(adata))


def test_annfeed_does_not_import_scvi() -> None:
    import subprocess
    import sys

    code = "import sys, annfeed, annfeed.scvi; annfeed.scvi.use; assert not {'scvi', 'lightning'} & set(sys.modules)"
    assert annfeed.AnnDataLoader is AnnDataLoader
    subprocess.run([sys.executable, "-c", code], check=True)
