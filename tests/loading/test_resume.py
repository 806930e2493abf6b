"""A loader goes on where it stopped: the rest of the epoch is what would have come, or the state is refused."""

import io
import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from tests.support.toys import FORMS, hand_over, rows_of, toy
from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler, SequentialSampler

from annfeed import AnnDataset, WindowLoader
from annfeed.order.epoch import EpochPlan


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hand_over(toy(), "path", tmp_path_factory.mktemp("shelf"))


def loader_on(data: Any, chunk_size: int = 8, subset: Any = range(39), **settings: Any) -> WindowLoader:
    """39 rows: the last batch is short."""
    dataset = AnnDataset(data, chunk_size=chunk_size, obs_subset=subset)
    return dataset.get_optimized_dataloader(**{"batch_size": 4, "seed": 3, **settings})


def stop_after(loader: WindowLoader, n: int) -> tuple[list[list[int]], dict]:
    """The first ``n`` batches of an epoch, and the state then, through the disk's form and back."""
    batches = iter(loader)
    rows = rows_of(next(batches) for _ in range(n))
    return rows, through_a_file(loader.state_dict())


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    assert len(file.getvalue()) < 5000
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded == state == json.loads(json.dumps(state))
    return loaded


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
    load = AnnDataset.load
    monkeypatch.setattr(AnnDataset, "load", lambda self, rows: read.append(rows.tolist()) or load(self, rows))
    rows_of(loader)
    whole = [row for window in planned().windows() for row in window.rows.tolist()]
    assert [row for rows in read for row in rows] == whole[12:]
    assert len(read) == planned().n_windows - planned().window_of(3)


def planned(**fields: Any) -> EpochPlan:
    return EpochPlan(**{"n_rows": 39, "batch_size": 4, "window": 8, "seed": 3, **fields})


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


# --- what does not fit -----------------------------------------------------------------------------------------------

DIFFERENT = [
    ({"batch_size": 5}, "batch_size is 5, the state has 4"),
    ({"seed": 4}, "seed is 4, the state has 3"),
    ({"seed": None}, "seed is None, the state has 3"),
    ({"shuffle": False}, "shuffle is False, the state has True"),
    ({"block_size": 3}, "block_size is 3, the state has 1; chunk_size is 8, the state has None"),
    ({"drop_last": True}, "drop_last is True, the state has False"),
    ({"subset": None}, "n_rows is 40, the state has 39"),
    ({"subset": range(1, 40)}, "obs_subset is '"),
    ({"sampler": SequentialSampler(range(39))}, "sampler is 'SequentialSampler', the state has None"),
    ({"batch_size": 5, "seed": 4}, r"batch_size is 5, the state has 4.*seed is 4, the state has 3"),
]


@pytest.mark.parametrize(("settings", "message"), DIFFERENT, ids=lambda value: str(value)[:40])
def test_a_state_of_another_order_is_refused(path: Path, settings: dict, message: str) -> None:
    _, state = stop_after(loader_on(path), 2)
    loader = loader_on(path, **settings)
    with pytest.raises(ValueError, match=f"{path}.*does not fit: .*{message}.*begin anew"):
        loader.load_state_dict(state)
    # And it is as it was.
    if "sampler" not in settings:
        assert rows_of(loader) == rows_of(loader_on(path, **settings)) or settings.get("seed", 3) is None


def test_the_window_counts_where_rows_are_shuffled_in_it(path: Path) -> None:
    for settings in ({}, {"shuffle": False}):
        before, state = stop_after(loader_on(path, **settings), 3)
        loader = loader_on(path, chunk_size=16, **settings)
        loader.load_state_dict(state)
        assert before + rows_of(loader) == rows_of(loader_on(path, **settings))
    _, state = stop_after(loader_on(path, block_size=3), 3)
    with pytest.raises(ValueError, match="chunk_size is 16, the state has 8"):
        loader_on(path, chunk_size=16, block_size=3).load_state_dict(state)


def test_another_file_is_refused_and_the_same_cells_elsewhere_are_not(path: Path, tmp_path: Path) -> None:
    _, state = stop_after(loader_on(path), 3)
    rest = rows_of(loader_on(path))[3:]
    adata = toy()
    adata.write_h5ad(tmp_path / "compressed.h5ad", compression="gzip")
    loader = loader_on(tmp_path / "compressed.h5ad")
    loader.load_state_dict(state)
    assert rows_of(loader) == rest
    adata.X = adata.X * 2
    adata.write_h5ad(tmp_path / "doubled.h5ad")
    with pytest.raises(ValueError, match=r"doubled\.h5ad.*values is '\w+', the state has '\w+'"):
        loader_on(tmp_path / "doubled.h5ad").load_state_dict(state)
    with pytest.raises(ValueError, match=r"n_vars is 6, the state has 7; values is"):
        loader_on(toy(n_vars=6)).load_state_dict(state)


def test_many_files(tmp_path: Path) -> None:
    paths = []
    for name in "abc":
        adata = toy(20)
        adata.obs["source"] = name
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        paths.append(tmp_path / f"{name}.h5ad")

    def batches(loader: WindowLoader) -> list[tuple[list[int], list[str]]]:
        return [(batch["obs_row"].tolist(), batch["obs_source"]) for batch in loader]

    whole = batches(loader_on(paths, subset=None))
    loader = loader_on(paths, subset=None)
    running = iter(loader)
    before = batches([next(running) for _ in range(5)])
    again = loader_on(paths, subset=None)
    again.load_state_dict(through_a_file(loader.state_dict()))
    assert before + batches(again) == whole
    other = toy(20)
    other.obs["source"] = "in memory"
    for others in (paths[::-1], paths[:2], [paths[0], other, paths[2]]):
        with pytest.raises(ValueError, match="sources is '"):
            loader_on(others, subset=None).load_state_dict(loader.state_dict())


def test_a_part_is_not_its_whole(path: Path) -> None:
    dataset = AnnDataset(path)
    whole = dataset.get_optimized_dataloader(batch_size=4, seed=1).state_dict()
    part = dataset.subset(range(5, 40)).subset(range(30)).get_optimized_dataloader(batch_size=4, seed=1)
    assert part.state_dict()["data"]["obs_subset"] != whole["data"]["obs_subset"]
    same = AnnDataset(path, obs_subset=range(5, 35)).get_optimized_dataloader(batch_size=4, seed=1)
    assert part.state_dict() == same.state_dict()


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_what_is_delivered_may_change(path: Path, kind: str, tmp_path: Path) -> None:
    # dtype, output and cache are no part of the order; nor is the form in which the file has its matrix.
    _, state = stop_after(loader_on(path), 3)
    data = hand_over(toy(kind=kind), "path", tmp_path)
    options = {"dtype": torch.float64, "output": "csr", "cache": "1MiB", "obs_columns": ["row", "text"]}
    dataset = AnnDataset(data, obs_subset=range(39), chunk_size=8, **options)
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=3)
    loader.load_state_dict(state)
    assert rows_of(loader) == rows_of(loader_on(path))[3:]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"\{\} is no state of a loader"),
        (None, "None is no state of a loader"),
        ([1], r"\[1\] is no state"),
        ({"version": 2}, "version 2 and keys.*version 1 was expected"),
        ({"version": 1, "epoch": 0}, r"keys \['epoch', 'version'\]"),
    ],
)
def test_what_is_no_state(path: Path, state: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader_on(path).load_state_dict(state)


def test_batches_in_no_order_have_no_state(path: Path) -> None:
    loader = loader_on(path, num_workers=2, in_order=False)
    with pytest.raises(ValueError, match="in_order=True"):
        loader.state_dict()
    with pytest.raises(ValueError, match="in_order=True"):
        loader.load_state_dict(loader_on(path).state_dict())


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


def test_random_transforms_of_workers_do_not_repeat_what_they_drew(path: Path) -> None:
    def seeds(loader: WindowLoader) -> set[int]:
        return {seed for batch in loader for seed in batch["seed"].tolist()}

    from annfeed import Transform

    class Seed(Transform):
        def __call__(self, data_dict):
            return {"seed": torch.tensor(torch.initial_seed())}

    dataset = AnnDataset(path, transform=Seed(), chunk_size=8)
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
