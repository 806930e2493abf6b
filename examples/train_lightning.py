"""Trains a classifier of cells with Lightning, on one process or several, and writes what it thinks into the file.

    python examples/train_lightning.py atlas.h5ad --label cell_type --devices 2

Several files, or a pattern in quotes, are one atlas; each gets the results of its cells. With
``--checkpoints FOLDER`` it keeps checkpoints there, and goes on from the last one when it is run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, ModelCheckpoint
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal, check_writable, write_obsm
from annfeed.lightning import AnnDataModule


class Classifier(pl.LightningModule):
    """Two layers; tells the class of each cell, as a code of the label's categories."""

    def __init__(self, label: str, n_genes: int, n_classes: int, lr: float) -> None:
        super().__init__()
        self.label = f"obs_{label}"
        self.lr = lr
        # It counts over all processes; rows without a label, code -1, do not count.
        self.accuracy = MulticlassAccuracy(n_classes, average="micro", ignore_index=-1)
        self.layers = nn.Sequential(nn.Linear(n_genes, 128), nn.ReLU(), nn.Linear(128, n_classes))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.layers(batch["X"]), batch[self.label], ignore_index=-1)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._measure("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._measure("test", batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        return batch["index"], self.layers(batch["X"]).softmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def _measure(self, name: str, batch: dict[str, Any]) -> None:
        labels = batch[self.label]
        if "is_padding" in batch:  # cells that come twice, so that all processes have as many batches
            labels = labels.masked_fill(batch["is_padding"], -1)
        self.accuracy(self.layers(batch["X"]), labels)
        self.log(f"{name}_accuracy", self.accuracy, on_step=False, on_epoch=True, batch_size=len(labels))


class WriteObsm(BasePredictionWriter):
    """Gathers the predictions of all processes; the first one writes them."""

    def __init__(self, cells: AnnDataset, key: str, overwrite: bool) -> None:
        super().__init__("epoch")
        self.cells, self.key, self.overwrite = cells, key, overwrite

    def write_on_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any] | None,
    ) -> None:
        parts: list[Any] = [predictions]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, predictions)
        if trainer.is_global_zero:
            pairs = (pair for part in parts for pair in part)
            write_obsm(self.cells, self.key, pairs, overwrite=self.overwrite)


def main(options: argparse.Namespace) -> None:
    """Do all of it."""
    pl.seed_everything(options.seed)
    cells = AnnDataset(
        options.file if len(options.file) > 1 else options.file[0],
        obs_columns=[options.label],
        categories="code",
        transform=Compose([NormalizeTotal(1e4), Log1p()]),
    )
    # Now, and not after hours of training.
    check_writable(cells, obsm=options.key, overwrite=options.overwrite)
    data = AnnDataModule(
        cells,
        splits={"train": 0.8, "val": 0.1, "test": 0.1},
        stratify=options.label,
        group_by=options.group,
        split_seed=options.seed,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    model = Classifier(options.label, cells.shape[1], len(cells.categories[options.label]), options.lr)
    callbacks: list[Any] = [WriteObsm(cells, options.key, options.overwrite)]
    if options.checkpoints:
        callbacks.append(ModelCheckpoint(options.checkpoints, save_last=True, every_n_train_steps=options.every))
    last = Path(options.checkpoints, "last.ckpt") if options.checkpoints else None
    trainer = pl.Trainer(
        accelerator="cpu" if options.cpu else "auto",
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        max_epochs=options.epochs,
        callbacks=callbacks,
        enable_checkpointing=bool(options.checkpoints),
        logger=False,
        enable_progress_bar=options.progress,
        enable_model_summary=False,
    )
    trainer.fit(model, data, ckpt_path=last if last is not None and last.exists() else None)
    (measured,) = trainer.test(model, data, verbose=False)
    trainer.predict(model, data, return_predictions=False)
    if trainer.is_global_zero:
        print(f"test accuracy {measured['test_accuracy']:.1%}; probabilities are in obsm[{options.key!r}]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="+", help="an .h5ad file of counts, or several; obsm is written to them")
    parser.add_argument("--label", required=True, help="the obs column with the classes")
    parser.add_argument("--group", help="an obs column, as the donor, whose groups the split does not divide")
    parser.add_argument("--key", default="X_classes", help="name in obsm (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what has that name")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64, help="cells of a batch, on each process")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--devices", type=int, default=1, help="processes")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", metavar="FOLDER")
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--progress", action="store_true", help="show a progress bar")
    main(parser.parse_args())
