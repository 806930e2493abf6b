"""Fits, validates, tests and predicts with two processes and writes down who saw which rows. Run by test_lightning.py.

python lightning_script.py FILE FOLDER STRATEGY
"""

import json
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, ModelCheckpoint

from annfeed.lightning import AnnDataModule


class Rows(pl.LightningModule):
    """Notes the rows of each batch, by what it is used for. It has buffers, which DDP keeps alike on all ranks."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.layer = torch.nn.Sequential(torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 1))

    def note(self, use: str, batch: dict) -> torch.Tensor:
        rows = batch["obs_row"].tolist()
        assert batch["X"][:, 0].tolist() == rows
        epoch = self.current_epoch if self.trainer.state.fn == "fit" else 0
        line = {"use": use, "epoch": epoch, "rows": rows}
        if "index" in batch:
            assert batch["index"].tolist() == rows
        if "is_padding" in batch:
            line["padding"] = batch["is_padding"].tolist()
        with (self.folder / f"{self.global_rank}.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        return self.layer(batch["X"] / 40).mean()

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        return self.note("resumed" if self.trainer.ckpt_path else "train", batch)

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        if not self.trainer.ckpt_path:
            self.note("val" if self.trainer.state.fn == "fit" else "validate", batch)

    def test_step(self, batch: dict, batch_idx: int) -> None:
        self.note("test", batch)

    def predict_step(self, batch: dict, batch_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        use = "predict" if "index" in batch else "predict with the training loader"
        self.note(use, batch)
        return batch["obs_row"], batch["X"].sum(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Indices(BasePredictionWriter):
    """What Lightning itself believes of the rows that it predicts."""

    def __init__(self) -> None:
        super().__init__("batch")

    def write_on_batch_end(self, trainer, pl_module, prediction, batch_indices, batch, *_) -> None:  # type: ignore[no-untyped-def]
        assert batch_indices == batch["obs_row"].tolist(), (batch_indices, batch["obs_row"])


def main(path: str, folder: Path, strategy: str) -> None:
    warnings.simplefilter("ignore")
    rows = {"train": range(23), "val": range(23, 30), "test": range(30, 40)}
    data = AnnDataModule(path, splits=rows, batch_size=3, seed=4, dataset_options={"window": 6})
    settings = {"accelerator": "cpu", "devices": 2, "strategy": strategy, "logger": False, "max_epochs": 2}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    model = Rows(folder)
    # 12 rows a rank, one of them once more: 4 batches. Checkpoints in mid-epoch and at the end.
    keep = ModelCheckpoint(folder, save_top_k=-1, filename="{step}", every_n_train_steps=3)
    trainer = pl.Trainer(**settings, callbacks=[keep])
    trainer.fit(model, data)
    if strategy == "ddp_spawn":  # each call starts its processes anew
        return
    trainer.validate(model, data)
    trainer.test(model, data)
    trainer = pl.Trainer(**settings, callbacks=[Indices()], enable_checkpointing=False)
    trainer.predict(model, data, return_predictions=False)
    training = data.parts["train"].get_optimized_dataloader(batch_size=3, seed=1, drop_last=True)
    trainer.predict(model, training, return_predictions=False)
    trainer = pl.Trainer(**settings, enable_checkpointing=False)
    trainer.fit(Rows(folder), data, ckpt_path=folder / "step=3.ckpt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
