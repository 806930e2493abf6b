"""Somebody else's trainers, each with two processes: every row once over both, with all that our loader adds to it.

Plain torch, Lightning Fabric, Lightning and Hugging Face Accelerate are the real packages; of Ray Train, which is not
among the tests' packages, trainers_script.py does what its ``prepare_data_loader`` does.
"""

import json
from typing import Any

import anndata
import numpy as np
import pytest
import torch
import torch.distributed as dist
from tests.scripts.trainers_script import LOADERS
from tests.support.places import SCRIPTS
from tests.support.processes import run_ranks
from tests.support.toys import flat, hand_over, toy

from annfeed import AnnDataset
from annfeed.loading import hf_accelerate

accelerate = pytest.importorskip("accelerate")
pytest.importorskip("lightning")
pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch is built without torch.distributed")

TRAINERS = ("plain", "fabric", "lightning", "ray", "accelerate")
Ranks = list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each of two processes of a trainer found; each trainer runs once."""
    path = hand_over(toy(), "path", tmp_path_factory.mktemp("shelf"))
    known: dict[str, Ranks] = {}

    def ranks_of(trainer: str) -> Ranks:
        if trainer not in known:
            folder = tmp_path_factory.mktemp(trainer)
            script = SCRIPTS / "trainers_script.py"
            for done in run_ranks(2, script, trainer, path, folder):
                assert done.returncode == 0, done.stderr[-5000:]
            known[trainer] = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
        return known[trainer]

    return ranks_of


def rows(batches: list[dict[str, Any]], *, padding: bool = False) -> list[int]:
    """The rows of a rank's epoch, without repeats that are marked."""
    marked = [zip(b["obs_row"], b.get("is_padding", [False] * len(b["obs_row"])), strict=True) for b in batches]
    return [row for batch in marked for row, mark in batch if padding or not mark]


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("name", LOADERS)
def test_every_row_comes_once(run: Any, trainer: str, name: str) -> None:
    ranks = [found[name] for found in run(trainer)]
    for epoch in zip(*ranks, strict=True):
        assert sorted(row for batches in epoch for row in rows(batches)) == list(range(LOADERS[name][0]))
        assert len({len(batches) for batches in epoch}) == 1
        for batches in epoch:
            assert all(batch["mine"] == (name == "collate") for batch in batches)
            if name in ("index", "predict"):
                assert all(batch["index"] == batch["obs_row"] for batch in batches)
            if name != "collate":
                assert all(len(batch["is_padding"]) == len(batch["obs_row"]) for batch in batches)
    if name == "padded":
        assert len(rows(ranks[1][0], padding=True)) == 13 and sum(flat([b["is_padding"] for b in ranks[1][0]])) == 1
    if name not in ("predict", "collate"):  # shuffled anew in each epoch
        assert rows(ranks[0][0]) != rows(ranks[0][1])
    if name == "predict":
        assert [rows(batches) for batches in (ranks[0][0], ranks[1][0])] == [list(range(20)), list(range(20, 40))]


@pytest.mark.parametrize("name", ["torch's loader and sampler", "torch's loader, our sampler"])
def test_plain_loaders_over_the_dataset(run: Any, name: str) -> None:
    assert sorted(row for found in run("plain") for row in rows(found[name][0])) == list(range(40))


def test_accelerate_keeps_the_number_of_the_epoch(run: Any) -> None:
    for found in run("accelerate"):
        assert found["epoch 7, prepared"] == found["epoch 7"]
        assert found["epoch 7"][0] != found["train"][0]


def test_accelerate_goes_on_in_mid_epoch(run: Any) -> None:
    for found in run("accelerate"):
        whole = [batch["obs_row"] for batch in found["epoch 7"][0]]
        assert found["begun"] + found["rest"] == whole
        assert found["rest of the saved state"] == found["rest"]


def test_accelerate_knows_where_the_epoch_ends(run: Any) -> None:
    """Gradients that are accumulated are applied at every third batch and at the last, as with a plain loader."""
    for found in run("accelerate"):
        assert found["known, ours"] == found["known, plain"]
        assert found["known, ours"][-2] == [True, True] and found["known, ours"][-1] is False
        assert found["left"] is False


@pytest.mark.parametrize("n_rows", [25, 39, 40])
def test_accelerate_gathers_each_row_once(run: Any, n_rows: int) -> None:
    for found in run("accelerate"):
        assert sorted(found[f"gathered {n_rows}"]) == list(range(n_rows))


@pytest.mark.parametrize("name", ["refused", "refused, workers", "refused, collate", "refused, skip"])
def test_a_loader_that_accelerate_rebuilds_is_refused(run: Any, name: str) -> None:
    for found in run("accelerate"):
        assert "RuntimeError" in found[name] and "rebuilt as a plain DataLoader" in found[name]
        assert "get_collate_fn()" in found[name]


def test_a_loader_that_ray_rebuilds_is_refused(run: Any) -> None:
    for found in run("ray"):
        assert found["refused"].startswith("RuntimeError: an annfeed loader was rebuilt as a plain DataLoader")


def test_accelerate_prepares_a_plain_loader_over_the_dataset(run: Any) -> None:
    assert sorted(row for found in run("accelerate") for row in flat(found["a plain loader over the dataset"])) == (
        list(range(40))
    )


# --- one process -----------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset() -> Any:
    yield AnnDataset(anndata.AnnData(np.eye(10, dtype="float32")), return_index=True)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def test_batches_go_to_the_accelerators_device(dataset: AnnDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """On "meta", which every machine has: also for transforms' tensors, and not for text."""
    for placement, prepare_placement, expected in ((True, None, "meta"), (False, None, "cpu"), (True, [False], "cpu")):
        accelerator = accelerate.Accelerator(cpu=True, device_placement=placement)
        monkeypatch.setattr(type(accelerator), "device", torch.device("meta"))
        loader = accelerator.prepare(dataset.get_optimized_dataloader(4, seed=0), device_placement=prepare_placement)
        batches = list(loader)
        assert [len(batch["X"]) for batch in batches] == [4, 4, 2]
        assert {batch[key].device.type for batch in batches for key in ("X", "index")} == {expected}


def test_only_what_is_prepared_is_moved(dataset: AnnDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    monkeypatch.setattr(type(accelerator), "device", torch.device("meta"))
    loader = dataset.get_optimized_dataloader(4, seed=0)
    assert loader._is_accelerate_prepared is False  # asked by nobody's accelerator
    assert next(iter(loader))["X"].device.type == "cpu"
    assert accelerator.prepare(loader) is loader
    assert loader._is_accelerate_prepared is True
    assert next(iter(loader))["X"].device.type == "meta"


@pytest.mark.parametrize("option", ["split_batches", "dispatch_batches"])
def test_other_ways_to_share_out_are_refused(dataset: AnnDataset, option: str) -> None:
    config = accelerate.DataLoaderConfiguration(**{option: True})
    accelerator = accelerate.Accelerator(cpu=True, dataloader_config=config)
    with pytest.raises(ValueError, match=f"{option}=True"):
        accelerator.prepare(dataset.get_optimized_dataloader(4))


def test_other_ranks_than_accelerates_are_refused(dataset: AnnDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"process 0 of 1, and .* that it is 1 of 2"):
        accelerator.prepare(dataset.get_optimized_dataloader(4, seed=0))


def test_rows_shared_by_a_group_of_processes_are_refused(dataset: AnnDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    config = type("ParallelismConfig", (), {"tp_size": 2, "cp_size": 1})()
    monkeypatch.setattr(type(accelerator), "parallelism_config", config, raising=False)
    with pytest.raises(ValueError, match="give several processes the same rows"):
        hf_accelerate.Prepared(accelerator, True)


def test_a_version_that_counts_loaders_otherwise_is_refused(
    dataset: AnnDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    monkeypatch.delattr(accelerate.state.GradientState, "_remove_dataloader")
    with pytest.raises(RuntimeError, match=r"accelerate 1\.\d+.* update annfeed"):
        accelerator.prepare(dataset.get_optimized_dataloader(4, seed=0))
