"""Checkpoints of Lightning, taken in mid-epoch and at an epoch's end: training goes on with what would have come."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.toys import rows_of

from annfeed import AnnDataset

pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402


class Rows(pl.LightningModule):
    """Learns nothing much and notes the rows of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(7, 1)
        self.seen: list[tuple[int, list[int]]] = []
        self.validated: list[int] = []

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, *rows_of([batch])))
        return self.layer(batch["X"] / 40).mean()

    def validation_step(self, batch: dict, _: int) -> None:
        self.validated += rows_of([batch])[0]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    path: Path,
    folder: Path,
    *callbacks: Any,
    ckpt: Path | None = None,
    val: bool = False,
    loader: Any = (),
    **settings: Any,
) -> Rows:
    model = Rows()
    options = {"batch_size": 4, "seed": 3, **dict(loader)}
    train = AnnDataset(path, window=8, obs_subset=range(30)).get_optimized_dataloader(**options)
    valid = AnnDataset(path, obs_subset=range(30, 40)).get_optimized_dataloader(batch_size=4, shuffle=False)
    trainer = pl.Trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 3, "enable_checkpointing": bool(callbacks), **settings},
    )
    # Ours: weights_only is how careful people load.
    trainer.fit(model, train, valid if val else None, ckpt_path=ckpt, weights_only=True if ckpt else None)
    return model


def keep_all(folder: Path, **settings: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}-{step}", **settings)


@pytest.mark.parametrize("loader", [{}, {"num_workers": 2}, {"block_size": 3}, {"seed": None}], ids=str)
def test_mid_epoch(path: Path, tmp_path: Path, loader: dict) -> None:
    # 8 batches an epoch: in mid-epoch, after an epoch's first and last batch.
    torch.manual_seed(1)
    whole = fit(path, tmp_path, keep_all(tmp_path, every_n_train_steps=1), loader=loader)
    assert [len(rows) for _, rows in whole.seen] == [4, 4, 4, 4, 4, 4, 4, 2] * 3
    for epoch, step in [(0, 3), (1, 9), (1, 13), (1, 16), (2, 23)]:
        again = fit(path, tmp_path, ckpt=tmp_path / f"epoch={epoch}-step={step}.ckpt", loader=loader)
        if loader == {"seed": None}:  # the epoch's seed is kept; the next epoch's is drawn anew
            n = -step % 8
            assert again.seen[:n] == whole.seen[step : step + n]
            assert [e for e, _ in again.seen] == [e for e, _ in whole.seen[step:]]
        else:
            assert again.seen == whole.seen[step:]
            torch.testing.assert_close(again.layer.weight, whole.layer.weight, rtol=0, atol=0)


@pytest.mark.parametrize(("val", "at_train_end"), [(False, True), (True, True), (True, False)])
def test_at_an_epochs_end(path: Path, tmp_path: Path, val: bool, at_train_end: bool) -> None:
    whole = fit(path, tmp_path, keep_all(tmp_path, save_on_train_epoch_end=at_train_end), val=val)
    for epoch, step in [(0, 8), (1, 16)]:
        again = fit(path, tmp_path, ckpt=tmp_path / f"epoch={epoch}-step={step}.ckpt", val=val)
        assert again.seen == whole.seen[step:]


def test_validation_in_mid_epoch(path: Path, tmp_path: Path) -> None:
    settings = {"val": True, "val_check_interval": 4, "num_sanity_val_steps": 0}
    whole = fit(path, tmp_path, keep_all(tmp_path, save_on_train_epoch_end=False), **settings)
    assert whole.validated == list(range(30, 40)) * 6
    again = fit(path, tmp_path, ckpt=tmp_path / "epoch=1-step=12.ckpt", **settings)
    assert again.seen == whole.seen[12:]


def test_training_by_steps(path: Path, tmp_path: Path) -> None:
    # Lightning loads the loader's state even at an epoch's end then.
    settings = {"max_epochs": -1, "max_steps": 24}
    whole = fit(path, tmp_path, keep_all(tmp_path, every_n_train_steps=4), **settings)
    for epoch, step in [(0, 8), (1, 12), (1, 16)]:
        again = fit(path, tmp_path, ckpt=tmp_path / f"epoch={epoch}-step={step}.ckpt", **settings)
        assert again.seen == whole.seen[step:]


def test_epochs_that_are_cut_short(path: Path, tmp_path: Path) -> None:
    settings = {"limit_train_batches": 5}
    whole = fit(path, tmp_path, keep_all(tmp_path, every_n_train_steps=1), **settings)
    assert len(whole.seen) == 15
    for epoch, step in [(0, 5), (1, 7), (1, 10)]:
        again = fit(path, tmp_path, ckpt=tmp_path / f"epoch={epoch}-step={step}.ckpt", **settings)
        assert again.seen == whole.seen[step:]


def test_a_checkpoint_of_another_order_is_refused(path: Path, tmp_path: Path) -> None:
    fit(path, tmp_path, keep_all(tmp_path, every_n_train_steps=3), max_epochs=1)
    with pytest.raises(ValueError, match="seed is 4, the state has 3"):
        fit(path, tmp_path, ckpt=tmp_path / "epoch=0-step=3.ckpt", loader={"seed": 4})
