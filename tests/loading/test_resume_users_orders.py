"""The rest of an order that a user's sampler, function or weights give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.loading.stops import loader_on, stop_after
from tests.support.toys import rows_of
from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler, SequentialSampler

from annfeed import WindowLoader

# --- users' samplers -------------------------------------------------------------------------------------------------


def seeded(n: int = 39) -> RandomSampler:
    return RandomSampler(range(n), generator=torch.Generator().manual_seed(5))


SAMPLERS = [
    lambda: {"sampler": SequentialSampler(range(39))},
    lambda: {"sampler": seeded()},
    lambda: {"sampler": [5, 3, 3, 0, 9, 12, 38, 2, 2]},
    lambda: {"batch_sampler": BatchSampler(seeded(), 5, False), "batch_size": 1},
    lambda: {"sampler": DistributedSampler(range(39), num_replicas=2, rank=1, seed=4)},
]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("make", SAMPLERS)
def test_the_rest_of_a_users_order(path: Path, make: Any, num_workers: int) -> None:
    expected = rows_of(loader_on(path, **make()))
    for stop in (1, 2, len(expected)):
        before, state = stop_after(loader_on(path, **make(), num_workers=num_workers), stop)
        loader = loader_on(path, **make())
        loader.load_state_dict(state)
        if stop < len(expected):
            assert before + rows_of(loader) == expected
        else:
            assert before == expected
            assert len(rows_of(loader)) == len(expected)


def test_the_epoch_of_a_users_distributed_sampler(path: Path) -> None:
    def make() -> WindowLoader:
        return loader_on(path, sampler=DistributedSampler(range(39), num_replicas=2, rank=1, seed=4))

    epochs = []
    for epoch in range(3):
        loader = make()
        loader.sampler.set_epoch(epoch)
        epochs.append(rows_of(loader))
    first = make()
    first.sampler.set_epoch(1)
    before, state = stop_after(first, 2)
    second = make()
    second.load_state_dict(state)
    assert before + rows_of(second) == epochs[1]
    second = make()
    second.load_state_dict(state)
    second.sampler.set_epoch(2)
    assert rows_of(second) == epochs[2]


def test_a_users_order_that_does_not_come_again_is_refused(path: Path) -> None:
    # pitfall 6: an order is never silently another one.
    _, state = stop_after(loader_on(path, sampler=RandomSampler(range(39))), 2)
    loader = loader_on(path, sampler=RandomSampler(range(39)))
    loader.load_state_dict(state)
    with pytest.raises(ValueError, match="RandomSampler does not give the 2 batches again"):
        next(iter(loader))
    short = loader_on(path, sampler=[0, 1, 2])
    state["order"].update(sampler="list")
    short.load_state_dict(state)
    with pytest.raises(ValueError, match="list does not give the 2 batches again"):
        next(iter(short))


def test_the_rest_of_an_order_by_epoch(path: Path) -> None:
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng(epoch).permutation(39)[: 30 - 8 * epoch]

    whole = loader_on(path, order=order)
    epochs = [rows_of(whole) for _ in range(3)]
    assert [len(epoch) for epoch in epochs] == [8, 6, 4]
    first = loader_on(path, order=order)
    rows_of(first)
    for stop in range(1, 7):
        first.sampler.set_epoch(1)
        before, state = stop_after(first, stop)
        for num_workers in (0, 2) if stop == 3 else (0,):
            again = loader_on(path, order=order, num_workers=num_workers)
            again.load_state_dict(state)
            if stop < 6:
                assert before + rows_of(again) == epochs[1]
            assert rows_of(again) == epochs[2]
    first.sampler.set_epoch(1)
    _, state = stop_after(first, 2)
    other = loader_on(path, order=lambda epoch: order(epoch)[::-1])
    state["order"]["order"] = "<lambda>"
    other.load_state_dict(state)
    with pytest.raises(ValueError, match=r"order\(1\) gives other positions"):
        next(iter(other))


@pytest.mark.parametrize(
    "settings",
    [
        {"balance": "label"},
        {"weights": np.arange(39.0), "replacement": False, "n_samples": 30},
        {"weights": np.arange(39.0), "block_size": 2, "n_samples": 90},
    ],
    ids=str,
)
def test_the_rest_of_draws_by_weight(path: Path, settings: dict) -> None:
    whole = loader_on(path, **settings)
    epochs = [rows_of(whole) for _ in range(2)]
    for stop in (1, 4, len(whole) - 1):
        before, state = stop_after(loader_on(path, **settings), stop)
        again = loader_on(path, **settings)
        again.load_state_dict(state)
        assert before + rows_of(again) == epochs[0]
        assert rows_of(again) == epochs[1]
        for other in ({**settings, "n_samples": 17}, {"weights": np.arange(39.0)[::-1]}, {}):
            with pytest.raises(ValueError, match="does not fit"):
                loader_on(path, **other).load_state_dict(state)
