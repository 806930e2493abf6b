"""Fits for three epochs with two processes and writes down who saw which rows. Run by test_lightning_epochs.py.

python ddp_epochs_script.py FILE FOLDER
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from annfeed import AnnDataset

#: Loaders by name; every rank is seeded differently, so that an order without a seed must be agreed upon.
LOADERS: dict[str, dict[str, Any]] = {
    "rows": {"seed": 3},
    "workers": {"seed": 3, "num_workers": 2},
    "fresh workers": {"seed": 3, "num_workers": 2, "persistent_workers": False},
    "no seed": {},
    "blocks": {"seed": 3, "block_size": 3},
    "weights": {"seed": 3, "weights": np.arange(40), "n_samples": 30},
    "order": {"order": lambda epoch: (np.arange(13) + epoch) % 40},
}


class Rows(pl.LightningModule):
    """Notes the rows of each batch, by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(7, 1)
        self.seen: list[list[list[int]]] = []
        self.marked: list[list[bool]] = []

    def on_train_epoch_start(self) -> None:
        self.seen.append([])

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        rows = batch["obs_row"].tolist()
        assert batch["X"][:, 0].tolist() == rows
        self.seen[-1].append(rows)
        if "is_padding" in batch:
            self.marked.append(batch["is_padding"].tolist())
        return self.layer(batch["X"] / 40).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(path: str, options: dict[str, Any], **settings: Any) -> Rows:
    model = Rows()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=3, enable_checkpointing=False, **quiet, **settings)
    trainer.fit(model, AnnDataset(path, window=8).get_optimized_dataloader(batch_size=4, **options))
    return model


def main(path: str, folder: Path) -> None:
    warnings.simplefilter("ignore")
    found = {}
    for name, options in LOADERS.items():
        torch.manual_seed(torch.initial_seed() % 1000 + 7)
        model = fit(path, options, devices=2, strategy="ddp")
        found[name] = {"epochs": model.seen, "marked": model.marked}
    (folder / f"{model.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
