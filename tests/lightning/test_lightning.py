"""`AnnDataModule`, and our loaders in Lightning's hands: alone, and in two processes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from tests.support.places import SCRIPTS
from tests.support.processes import run, run_ranks
from tests.support.toys import flat, rows_of

from annfeed import AnnDataset, CellSets, Controls, write_obsm

pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
from annfeed.lightning import AnnDataModule  # noqa: E402

SCRIPT = SCRIPTS / "lightning_script.py"
FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}


class Model(pl.LightningModule):
    """Notes what it sees, by use and epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(7, 1)
        self.seen: list[tuple[str, int, list[int]]] = []

    def note(self, use: str, batch: dict) -> None:
        self.seen.append((use, self.current_epoch, rows_of([batch])[0]))

    def rows(self, use: str, epoch: int = 0) -> list[int]:
        return [row for u, e, rows in self.seen for row in rows if (u, e) == (use, epoch)]

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        self.note("train", batch)
        return self.layer(batch["X"] / 40).mean()

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        self.note("val", batch)

    def test_step(self, batch: dict, batch_idx: int) -> None:
        self.note("test", batch)

    def predict_step(self, batch: dict, batch_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.note("predict", batch)
        return batch["index"], batch["X"].sum(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **settings: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return pl.Trainer(default_root_dir=folder, accelerator="cpu", **{"max_epochs": 2, **quiet, **settings})


# --- one process -----------------------------------------------------------------------------------------------------


def test_sets_in_all_uses_but_prediction(path: Path, tmp_path: Path) -> None:
    sets = CellSets(by="label", size=4, controls=Controls(where={"flag": True}))
    data = AnnDataModule(path, splits=FRACTIONS, stratify="flag", batch_size=2, seed=1, sets=sets)
    model = Model()
    trainer(tmp_path, enable_checkpointing=False).fit(model, data)
    for part, use in ((data.parts["train"], "train"), (data.parts["val"], "val")):
        flags = part.obs_column("flag").to_numpy()
        cells = part.rows_at(np.flatnonzero(~flags)).tolist()
        epochs = [model.rows(use, epoch) for epoch in (0, 1)]
        assert [set(rows) for rows in epochs] == [set(cells)] * 2
        assert (epochs[0] == epochs[1]) == (use == "val")
    assert sorted(flat(rows_of(data.predict_dataloader()))) == list(range(40))
    assert "control_X" in next(iter(data.test_dataloader()))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_uses(path: Path, tmp_path: Path, num_workers: int) -> None:
    data = AnnDataModule(path, splits=FRACTIONS, stratify="label", batch_size=5, seed=1, num_workers=num_workers)
    model = Model()
    runs = trainer(tmp_path, enable_checkpointing=False)
    runs.fit(model, data)
    runs.test(model, data)
    predictions = runs.predict(model, data)
    # pitfall 12: these rows and no others.
    parts = {name: part.rows_at(np.arange(len(part))).tolist() for name, part in data.parts.items()}
    assert sorted(flat(list(parts.values()))) == list(range(40))
    assert [len(rows) for rows in parts.values()] == [24, 8, 8]
    # pitfall 1: a new order in each epoch, under Lightning too.
    assert sorted(model.rows("train")) == sorted(model.rows("train", 1)) == parts["train"]
    assert len({tuple(model.rows("train", epoch)) for epoch in (0, 1)} | {tuple(parts["train"])}) == 3
    assert model.rows("val") == model.rows("val", 1) == parts["val"]
    assert [row for use, _, rows in model.seen if use == "test" for row in rows] == parts["test"]
    assert [row for use, _, rows in model.seen if use == "predict" for row in rows] == list(range(40))
    # What Trainer.predict returns goes straight back.
    adata = anndata.read_h5ad(path)
    write_obsm(adata, "X_sum", predictions)
    np.testing.assert_allclose(adata.obsm["X_sum"][:, 0], np.asarray(adata.X.sum(axis=1)).ravel())


def test_a_new_trainer_and_the_same_seed_give_the_same_run(path: Path, tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        model = Model()
        data = AnnDataModule(path, splits=FRACTIONS, batch_size=5, seed=1, split_seed=3)
        trainer(tmp_path, enable_checkpointing=False).fit(model, data)
        seen.append(model.seen)
    assert seen[0] == seen[1]
    other = AnnDataModule(path, splits=FRACTIONS, batch_size=5, seed=1, split_seed=4)
    assert other.state_dict() != data.state_dict()


def test_predicting_makes_the_loader_anew_with_all_its_options(path: Path, tmp_path: Path) -> None:
    dataset = AnnDataset(path, obs_subset=[17, 3, 39, 0, 21, 38, 1], window=4)
    loader = dataset.predict_loader(batch_size=2, prefetch_batches=2)
    runs, model = trainer(tmp_path, enable_checkpointing=False), Model()
    predictions = runs.predict(model, loader)
    made = runs.predict_dataloaders
    assert made is not loader
    assert (type(made), made.return_index, made.prefetch_batches) == (type(loader), True, 2)
    assert flat([index.tolist() for index, _ in predictions]) == [17, 3, 39, 0, 21, 38, 1]
    # A loader that would leave out the tail does not in prediction, as torch's does not under Lightning.
    tail = dataset.get_optimized_dataloader(batch_size=2, shuffle=False, drop_last=True, return_index=True)
    predictions = runs.predict(model, tail)
    assert flat([index.tolist() for index, _ in predictions]) == [17, 3, 39, 0, 21, 38, 1]
    assert len(tail) == 3
    assert flat([batch["index"].tolist() for batch in tail]) == [17, 3, 39, 0, 21, 38]


def test_predict_part_and_parts_that_are_not_there(path: Path, tmp_path: Path) -> None:
    mask = np.arange(40) % 4 == 0
    data = AnnDataModule(path, splits={"train": range(9), "predict": mask}, batch_size=4)
    model = Model()
    runs = trainer(tmp_path, enable_checkpointing=False, max_epochs=1)
    runs.fit(model, data)
    runs.predict(model, data)
    assert sorted(model.rows("train")) == list(range(9))
    assert model.rows("val") == []
    assert [row for use, _, rows in model.seen if use == "predict" for row in rows] == list(range(0, 40, 4))


def test_overfit_batches(path: Path, tmp_path: Path) -> None:
    # Lightning puts a SequentialSampler into the loader.
    model = Model()
    data = AnnDataModule(path, splits={"train": range(9)}, batch_size=4, seed=0)
    trainer(tmp_path, enable_checkpointing=False, overfit_batches=1).fit(model, data)
    assert model.rows("train") == model.rows("train", 1) == list(range(4))


def test_groups_are_never_divided(path: Path) -> None:
    data = AnnDataModule(path, splits={"train": 0.7, "val": 0.3}, group_by="label")
    labels = {name: set(part.obs["label"]) for name, part in data.parts.items()}
    assert labels["train"]
    assert labels["val"]
    assert not labels["train"] & labels["val"]


REFUSED = [
    ({"splits": {"val": 1.0}}, ValueError, r"the parts \['val'\]; expected 'train'"),
    ({"splits": {"train": 0.5, "valid": 0.5}}, ValueError, "'valid'"),
    ({"splits": {"train": 0.5, "val": 0.4}}, ValueError, "sum"),
    ({"splits": {"train": [0, 1, 2], "val": [2, 3]}}, ValueError, "1 rows are both in 'train' and in 'val'.* row 2"),
    ({"splits": {"train": [0], "test": [40]}}, IndexError, "40"),
    ({"splits": {"train": [0]}, "group_by": "label"}, ValueError, "group_by"),
    ({"splits": {"train": [0]}, "shufle": True}, TypeError, "shufle"),
    ({"splits": {"train": [0]}, "batch_size": 0}, ValueError, "batch_size"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused(path: Path, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        AnnDataModule(path, **options)


def test_options_for_a_dataset_that_has_its_own(path: Path) -> None:
    with pytest.raises(TypeError, match=r"dataset_options \['window'\]"):
        AnnDataModule(AnnDataset(path), splits={"train": [0]}, dataset_options={"window": 3})


def test_a_checkpoint_of_another_split_is_refused(path: Path, tmp_path: Path) -> None:
    # pitfall 2: nobody validates on what was trained on.
    def data(**options: Any) -> AnnDataModule:
        return AnnDataModule(path, **{"splits": FRACTIONS, "batch_size": 5, "seed": 1, **options})

    runs = trainer(tmp_path, max_epochs=1)
    runs.fit(Model(), data())
    checkpoint = runs.checkpoint_callback.best_model_path
    for other in ({"split_seed": 1}, {"splits": {"train": 0.5, "val": 0.3, "test": 0.2}}):
        with pytest.raises(ValueError, match=r"the parts \['train', .*are not those of the checkpoint"):
            trainer(tmp_path).fit(Model(), data(**other), ckpt_path=checkpoint, weights_only=True)
    model = Model()
    trainer(tmp_path).fit(model, data(), ckpt_path=checkpoint, weights_only=True)
    assert {epoch for _, epoch, _ in model.seen} == {1}


CHOICE = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "lightning"]:
    del sys.modules[name]  # as if it had never been loaded
import {first}
import annfeed.lightning as ours
assert issubclass(ours.AnnDataModule, {first}.LightningDataModule), ours.AnnDataModule.__mro__
"""


def test_the_lightning_that_is_loaded_is_the_one_that_is_used(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")
    (tmp_path / "choice.py").write_text(CHOICE.format(first="pytorch_lightning"))
    done = run(tmp_path / "choice.py")
    assert done.returncode == 0, done.stderr
    assert issubclass(AnnDataModule, pl.LightningDataModule)


# --- two processes ---------------------------------------------------------------------------------------------------


def rows_by_use(folder: Path) -> list[dict[tuple[str, int], list[list[int]]]]:
    """By rank, use and epoch: the batches."""
    found: list[dict[tuple[str, int], list[list[int]]]] = []
    for rank in range(2):
        uses: dict[tuple[str, int], list[list[int]]] = {}
        for line in map(json.loads, (folder / f"{rank}.jsonl").read_text().splitlines()):
            uses.setdefault((line["use"], line["epoch"]), []).append(line["rows"])
        found.append(uses)
    return found


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without torch.distributed")
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_two_processes(path: Path, tmp_path: Path, strategy: str) -> None:
    arguments = (SCRIPT, path, tmp_path, strategy)
    # "ddp" finds the two processes that it would start; in test_examples.py it starts one.
    for done in run_ranks(2, *arguments, launcher="lightning") if strategy == "ddp" else [run(*arguments)]:
        assert done.returncode == 0, done.stderr
    ranks = rows_by_use(tmp_path)

    def together(use: str, epoch: int = 0) -> Counter[int]:
        return Counter(row for rank in ranks for row in flat(rank[use, epoch]))

    def n_batches(use: str, epoch: int) -> list[int]:
        return [len(rank[use, epoch]) for rank in ranks]

    def n_padding(use: str, epoch: int) -> int:
        lines = [json.loads(line) for rank in "01" for line in (tmp_path / f"{rank}.jsonl").read_text().splitlines()]
        return sum(sum(line["padding"]) for line in lines if (line["use"], line["epoch"]) == (use, epoch))

    for epoch in (0, 1):
        # pitfall 4: as many batches on each rank, or DDP would wait for ever.
        assert n_batches("train", epoch) == [4, 4]
        assert n_batches("val", epoch) == [2, 2]
        for use, rows in (("train", range(23)), ("val", range(23, 30))):
            found = together(use, epoch)
            assert set(found) == set(rows)
            # A row that comes twice for it, as one does where 7 rows are dealt out in threes, is marked.
            assert found.total() - len(rows) == n_padding(use, epoch) == (use == "val")
    assert ranks[0]["train", 0] != ranks[0]["train", 1]
    if strategy == "ddp_spawn":
        return
    assert set(together("validate")) == set(range(23, 30))
    assert together("test") == Counter(range(30, 40))
    # pitfall 5: prediction repeats nothing and drops nothing, whatever loader it is given.
    assert together("predict") == Counter(range(40))
    assert [flat(rank["predict", 0]) for rank in ranks] == [list(range(20)), list(range(20, 40))]
    assert together("predict with the training loader") == Counter(range(23))
    # The checkpoint was of rank 0 after 3 of 4 batches; each rank goes on with its own fourth.
    for rank in ranks:
        assert rank["resumed", 0] == rank["train", 0][3:]
        assert rank["resumed", 1] == rank["train", 1]
