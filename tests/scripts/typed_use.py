"""A user's script, checked by mypy --strict and pyright (`make types`): what is wrong in it has to be found.

An error that is no longer found is an unused ``type: ignore``, which mypy reports.
"""

from typing import Any

import anndata
import numpy as np
import torch

import annfeed
from annfeed import AnnDataLoader, AnnDataset, PlanSampler, Transform, WindowLoader
from annfeed.lightning import AnnDataModule
from annfeed.scvi import SCVIDataModule


class Binarize(Transform):
    """A transform of batches."""

    batched = True

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        """Return 0 and 1."""
        data_dict["X"] = (data_dict["X"] > 0).float()
        return data_dict


dataset = AnnDataset(anndata.AnnData(np.eye(4, dtype="float32")), transform=Binarize(), var_subset=[0, 2])
loader: WindowLoader = dataset.get_optimized_dataloader(2, seed=0, pin_memory=False, in_order=True)
sampler: PlanSampler = loader.sampler
for epoch in range(2):
    loader.sampler.set_epoch(epoch)
    loader.set_epoch(epoch)
    for batch in loader:
        x: torch.Tensor = batch["X"]
        keys: list[str] = list(batch)
blocks: str = sampler.blocks
state: dict[str, Any] = loader.state_dict()
loader.load_state_dict(state)
indices = [b["index"] for b in dataset.predict_loader(2, num_workers=0)]
first: dict[str, Any] = dataset.head(3)
item: dict[str, Any] = dataset[0]
items: list[dict[str, Any]] = list(dataset[:2])
names: list[str] = dataset.var.index.tolist()
shape: tuple[int, int] = dataset.n_obs, dataset.n_vars
version: str = annfeed.__version__
parts: dict[str, AnnDataset] = dataset.split({"train": 0.5, "test": 0.5})
module = AnnDataModule(dataset, splits={"train": 0.5, "val": 0.5}, num_workers=0)


def wrong() -> None:
    """Hold errors, each of them found."""
    dataset.get_optimized_dataloader(2, nonsense=3)  # type: ignore[call-arg]
    dataset.get_optimized_dataloader(2, block_size="best")  # type: ignore[arg-type]
    dataset.get_optimized_dataloader(2, uneven="repeat")  # type: ignore[arg-type]
    dataset.get_optimized_dataloader(2, pin_memory="yes")  # type: ignore[arg-type]
    dataset.predict_loader(2, shuffle=True)  # type: ignore[call-arg]
    AnnDataModule(dataset, splits={"train": 1.0}, nonsense=3)  # type: ignore[call-arg]
    SCVIDataModule("atlas.h5ad", nonsense=3)  # type: ignore[call-arg]
    AnnDataLoader(None, nonsense=3)  # type: ignore[call-arg]
    AnnDataset("atlas.h5ad", output="sparse")  # type: ignore[arg-type]
    AnnDataset("atlas.h5ad", nonsense=3)  # type: ignore[call-arg]
    loader.sampler.set_epochs(3)  # type: ignore[attr-defined]
    _: int = next(iter(loader))  # type: ignore[assignment]
