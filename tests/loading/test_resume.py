"""A loader goes on where it stopped: the rest of the epoch is what would have come."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from tests.loading.stops import loader_on, stop_after, through_a_file
from tests.support.orders import epoch_plan
from tests.support.toys import FORMS, hand_over, rows_of, toy

from annfeed import AnnDataset, Transform, WindowLoader
from annfeed.batches.reader import RowReader
from annfeed.order.epoch import EpochPlan

# --- the rest of the epoch -------------------------------------------------------------------------------------------


SETTINGS = [
    {},
    {"shuffle": False},
    {"block_size": 3},
    {"block_size": "auto"},
    {"drop_last": True},
    {"seed": 0},
    {"prefetch_batches": 0},
    {"prefetch_batches": 50},
    {"batch_size": 1},
    {"batch_size": 100},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_rest_is_what_would_have_come_wherever_it_stopped(path: Path, settings: dict) -> None:
    whole = loader_on(path, **settings)
    epochs = [rows_of(whole) for _ in range(3)]
    assert epochs[0] != epochs[1] or settings == {"shuffle": False}
    for stop in range(len(whole) + 1):
        first = loader_on(path, **settings)
        rows_of(first)
        before, state = stop_after(first, stop)
        second = loader_on(path, **settings)
        second.load_state_dict(state)
        assert len(second) == len(whole)
        rest = rows_of(second) if 0 < stop < len(whole) else []
        assert before + rest == (epochs[1] if stop else [])
        assert rows_of(second) == (epochs[2] if stop else epochs[1])


def every_third(epoch: int) -> list[int]:
    return list(range(epoch, 39, 3))


OF_0_1 = {
    "shuffle": True,
    "block_size": 1,
    "weighting": None,
    "positions": None,
    "block_starts": None,
    "chunk_size": None,
}
ORDERS_OF_0_1 = [
    ({}, {}),
    ({"shuffle": False}, {"shuffle": False}),
    ({"shuffle": False, "block_size": 16}, {"shuffle": False, "block_size": 16}),
    ({"block_size": 16}, {"block_size": 16, "chunk_size": 8, "block_order": 2}),
    ({"order": every_third}, {"order": "every_third"}),
    (
        {"order": every_third, "block_size": 16},
        {"order": "every_third", "block_size": 16, "chunk_size": 8, "block_order": 2},
    ),
    ({"order": every_third, "block_size": "auto", "shuffle": False}, {"order": "every_third", "shuffle": False}),
]


@pytest.mark.parametrize(("settings", "said"), ORDERS_OF_0_1, ids=range(len(ORDERS_OF_0_1)))
def test_a_state_says_the_order_as_0_1_did(path: Path, settings: dict, said: dict) -> None:
    cut = {"n_rows": 39, "batch_size": 4, "drop_last": False, "uneven": "pad", "seed": 3, "world": 1}
    assert loader_on(path, **settings).state_dict()["order"] == OF_0_1 | cut | said


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_and_none_go_on_from_each_others_states(path: Path, persistent: bool) -> None:
    epochs = (whole := loader_on(path)) and [rows_of(whole) for _ in range(3)]
    workers = {"num_workers": 2, "persistent_workers": persistent}
    for stop, first, second in [(1, workers, {}), (6, {}, workers), (5, workers, workers), (10, workers, workers)]:
        loader = loader_on(path, **first)
        rows_of(loader)
        before, state = stop_after(loader, stop)
        loader = loader_on(path, **second)
        loader.load_state_dict(state)
        if stop < 10:
            assert before + rows_of(loader) == epochs[1]
        assert rows_of(loader) == epochs[2]


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_data(path: Path, form: str) -> None:
    data = hand_over(toy(), form, path.parent)
    whole = rows_of(loader_on(data, subset=None))
    before, state = stop_after(loader_on(data, subset=None), 3)
    # It is the contents that count: what was stopped on a file can go on in memory.
    for other in FORMS:
        loader = loader_on(hand_over(toy(), other, path.parent), subset=None)
        loader.load_state_dict(state)
        assert before + rows_of(loader) == whole


def test_stop_again_and_again(path: Path) -> None:
    whole = loader_on(path)
    expected = [batch for _ in range(3) for batch in rows_of(whole)]
    found, state = [], loader_on(path).state_dict()
    while len(found) < len(expected):
        loader = loader_on(path)
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        rows, state = stop_after(loader, min(3, len(loader) - state["batch"]))
        found += rows
    assert found == expected


def test_a_state_is_a_copy_and_costs_the_loader_nothing(path: Path) -> None:
    loader, found, states = loader_on(path), [], []
    for batch in loader:
        states.append(loader.state_dict())
        found += rows_of([batch])
    assert [state["batch"] for state in states] == [*range(1, 10), 0]
    assert [state["epoch"] for state in states] == [0] * 9 + [1]
    assert found == rows_of(loader_on(path))


def test_going_on_in_the_same_loader(path: Path) -> None:
    loader = loader_on(path)
    _, state = stop_after(loader, 4)
    rest = rows_of(loader_on(path))[4:]
    running = iter(loader)
    next(running)
    loader.load_state_dict(state)
    next(running)  # an iterator of before does not move the place that was loaded
    assert loader.state_dict() == state
    assert rows_of(loader) == rest
    loader.load_state_dict(state)
    assert rows_of(loader) == rest


def test_nothing_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, state = stop_after(loader_on(path), 3)
    loader = loader_on(path)
    loader.load_state_dict(state)
    read = []
    load = RowReader.load
    monkeypatch.setattr(RowReader, "load", lambda self, rows: read.append(rows.tolist()) or load(self, rows))
    rows_of(loader)
    whole = [row for window in planned().windows() for row in window.positions.tolist()]
    assert [row for rows in read for row in rows] == whole[12:]
    assert len(read) == planned().n_windows - planned().window_of(3)


def planned(**fields: Any) -> EpochPlan:
    return epoch_plan(**{"n_rows": 39, "batch_size": 4, "window": 8, "seed": 3, **fields})


# --- epochs and seeds ------------------------------------------------------------------------------------------------


def test_set_epoch_keeps_a_place_of_its_own_epoch(path: Path) -> None:
    whole = loader_on(path)
    epochs = [rows_of(whole) for _ in range(4)]
    first = loader_on(path)
    first.sampler.set_epoch(2)
    _, state = stop_after(first, 4)
    for epoch, expected in [(2, epochs[2][4:]), (3, epochs[3]), (0, epochs[0])]:
        loader = loader_on(path)
        loader.load_state_dict(state)
        batches = iter(loader)  # Lightning's order of calls
        loader.sampler.set_epoch(epoch)
        assert rows_of(batches) == expected
        assert rows_of(loader) == epochs[epoch + 1] if epoch < 3 else True
    # And a state of between set_epoch and the first batch is of the epoch that was set.
    first.sampler.set_epoch(1)
    again = loader_on(path)
    again.load_state_dict(first.state_dict())
    assert rows_of(again) == epochs[1]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_drawn_seed_is_in_the_state(path: Path, num_workers: int) -> None:
    torch.manual_seed(11)
    whole = rows_of(loader_on(path, seed=None, num_workers=num_workers))
    torch.manual_seed(11)
    before, state = stop_after(loader_on(path, seed=None, num_workers=num_workers), 4)
    torch.manual_seed(12)
    loader = loader_on(path, seed=None, num_workers=num_workers)
    loader.load_state_dict(state)
    drawn_before = torch.get_rng_state()
    assert before + rows_of(loader) == whole
    assert torch.equal(torch.get_rng_state(), drawn_before)
    # The next epoch draws again, as it would have done.
    assert rows_of(loader) != whole
    assert not torch.equal(torch.get_rng_state(), drawn_before)


def test_before_the_first_batch_no_seed_is_drawn(path: Path) -> None:
    state = torch.get_rng_state()
    loader = loader_on(path, seed=None)
    iter(loader)
    assert loader.state_dict()["seed"] is None
    assert torch.equal(torch.get_rng_state(), state)


def test_an_epoch_without_batches(path: Path) -> None:
    loader = loader_on(path, subset=[])
    assert rows_of(loader) == []
    again = loader_on(path, subset=[])
    again.load_state_dict(through_a_file(loader.state_dict()))
    assert rows_of(again) == []


# --- ranks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"block_size": 3}, {"num_workers": 2}], ids=str)
def test_the_state_of_one_rank_is_that_of_all(path: Path, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    # Lightning saves that of rank 0 and loads it on every rank.
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    _, state = stop_after(loader_on(path, **settings), 3)
    found = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        whole = rows_of(loader_on(path, **settings))
        loader = loader_on(path, **settings)
        loader.load_state_dict(state)
        assert rows_of(loader) == whole[3:]
        found += [row for batch in whole for row in batch]
    assert set(found) == set(range(39))
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="world is 3, the state has 2"):
        loader_on(path, **settings).load_state_dict(state)


# --- a loader used again ---------------------------------------------------------------------------------------------


def test_a_loader_is_good_for_any_number_of_epochs_and_breaks(path: Path) -> None:
    # pitfall 31; and a break is a stop like any other.
    whole = loader_on(path)
    epochs = [rows_of(whole) for _ in range(3)]
    loader = loader_on(path)
    for batch in loader:
        assert rows_of([batch]) == epochs[0][:1]
        break
    again = loader_on(path)
    again.load_state_dict(loader.state_dict())
    assert rows_of(again) == epochs[0][1:]
    assert rows_of(loader) == epochs[1]
    assert rows_of(loader) == epochs[2]


class Seed(Transform):
    def __call__(self, data_dict: dict) -> dict:
        return {"seed": torch.tensor(torch.initial_seed())}


def test_random_transforms_of_workers_do_not_repeat_what_they_drew(path: Path) -> None:
    def seeds(loader: WindowLoader) -> set[int]:
        return {seed for batch in loader for seed in batch["seed"].tolist()}

    dataset = AnnDataset(path, transform=Seed(), window=8)
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=3, num_workers=2)
    batches = iter(loader)
    first = {seed for _ in range(2) for seed in next(batches)["seed"].tolist()}
    state = loader.state_dict()
    rest = []
    for _ in range(2):
        again = dataset.get_optimized_dataloader(batch_size=4, seed=3, num_workers=2)
        again.load_state_dict(state)
        rest.append(seeds(again))
    assert rest[0] == rest[1]
    assert not rest[0] & first


def test_a_backed_anndata_edited_meanwhile(path: Path) -> None:
    # obs is the user's to edit; it is not what makes the order.
    _, state = stop_after(loader_on(path, subset=None), 3)
    adata = anndata.read_h5ad(path, backed="r")
    adata.obs["new"] = np.arange(40)
    loader = loader_on(adata, subset=None)
    loader.load_state_dict(state)
    assert rows_of(loader) == rows_of(loader_on(path, subset=None))[3:]
