"""Several ranks: together they deliver each row once, in equally many batches, in an order that all of them know."""

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tests.support.orders import epoch_plan
from tests.support.toys import flat, rows_of

from annfeed import AnnDataset, Transform, WindowLoader
from annfeed.errors import AnnfeedWarning
from annfeed.process import ranks
from annfeed.process.ranks import draw_seed, rank_and_world


def on_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))


def of_all_ranks(
    monkeypatch: pytest.MonkeyPatch, path: Path, world: int, n_rows: int = 40, **settings: Any
) -> list[list[list[int]]]:
    """The batches of each rank, in one process after another; each as long as it says."""
    found = []
    for rank in range(world):
        on_rank(monkeypatch, rank, world)
        dataset = AnnDataset(path, obs_subset=range(n_rows), window=8)
        loader = dataset.get_optimized_dataloader(**{"batch_size": 4, "seed": 3, **settings})
        rows = rows_of(loader)
        assert len(loader) == len(rows)
        assert len(loader.sampler) == len(flat(rows))
        assert (loader.sampler.rank, loader.sampler.num_replicas) == (rank, world)
        found.append(rows)
    return found


# --- who is who ------------------------------------------------------------------------------------------------------

PLACES = [
    ({}, (0, 1)),
    ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1)),
    ({"RANK": "2", "WORLD_SIZE": "3"}, (2, 3)),
    ({"LOCAL_RANK": "1"}, (0, 1)),
    ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, (0, 1)),
    ({"LOCAL_RANK": "1", "RANK": "5", "WORLD_SIZE": "8"}, (5, 8)),
    # Lightning sets WORLD_SIZE in the processes that it starts, before they have a group.
    ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, (0, 1)),
    ({"RANK": "1"}, (0, 1)),
]
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.mark.parametrize(("environment", "expected"), PLACES)
def test_rank_and_world(environment: dict, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank_and_world() == expected


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "many"), ("0", "0")])
def test_rank_that_is_none(rank: str, world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ValueError, match=f"RANK is '{rank}' and WORLD_SIZE '{world}'"):
        rank_and_world()


# WORLD_SIZE says that there are others; which of them this process is, nobody says.
UNKNOWN = [
    {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": "2", "LOCAL_RANK": "1"},
    {"WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"},
]


@pytest.mark.parametrize("settings", [{}, {"seed": 1}, {"shuffle": False}, {"num_workers": 1, "seed": 1}])
@pytest.mark.parametrize("environment", UNKNOWN)
def test_a_rank_that_cannot_be_known_is_an_error(
    path: Path, environment: dict, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 29: LOCAL_RANK repeats on every node, so it is no rank; pitfall 2: nobody takes all rows then."""
    for name in (*NAMES, "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    loader = AnnDataset(path).get_optimized_dataloader(batch_size=4, **settings)
    assert len(loader) == 10
    with pytest.raises(ValueError, match=r"WORLD_SIZE is .*neither RANK nor .*torchrun"):
        next(iter(loader))
    # What Lightning's processes have before it makes the group, and a process alone.
    for more in ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, {"WORLD_SIZE": "1"}):
        with monkeypatch.context() as patch:
            for name, value in more.items():
                patch.setenv(name, value)
            assert sorted(flat(rows_of(loader))) == list(range(40))


#: Tasks of srun as Slurm starts them, and what else tells them who they are.
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}


def slurm_warnings(path: Path, environment: dict, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[str]:
    """The warnings of two epochs, with an environment of Slurm's."""
    monkeypatch.setattr(ranks, "_warned_of_slurm", False)
    for name in (*NAMES, "NODE_RANK", *SLURM, "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        loader = AnnDataset(path).get_optimized_dataloader(batch_size=4, seed=0, **options)
        for _ in range(2):
            assert len(flat(rows_of(loader))) == 40 // int(environment.get("WORLD_SIZE", 1))
    return [str(warning.message) for warning in found if issubclass(warning.category, AnnfeedWarning)]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    "environment",
    [SLURM, {**SLURM, "RANK": "2"}, {**SLURM, "LOCAL_RANK": "0"}, {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "4"}],
    ids=str,
)
def test_tasks_of_srun_without_ranks_are_warned_once(
    path: Path, environment: dict, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them delivers all rows, which nobody else would notice."""
    [message] = slurm_warnings(path, environment, monkeypatch, num_workers=num_workers)
    assert "each of the 4 tasks reads all rows" in message
    assert "RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS" in message and "init_process_group" in message


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**SLURM, "RANK": "2", "WORLD_SIZE": "4"},
        {**SLURM, "RANK": "0", "WORLD_SIZE": "1"},
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_NTASKS": "4(x2)"},
    ],
    ids=str,
)
def test_tasks_that_know_their_rank_and_single_ones_are_not_warned(
    path: Path, environment: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slurm_warnings(path, environment, monkeypatch) == []


def test_local_rank_alone_takes_no_share(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 29: without RANK or a group, LOCAL_RANK makes no shares."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    loader = AnnDataset(path).get_optimized_dataloader(batch_size=4)
    assert sorted(flat(rows_of(loader))) == list(range(40))


# --- shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "num_workers"), [({}, 0), ({"shuffle": False}, 0), ({"block_size": 3}, 0), ({"seed": 0}, 0), ({}, 2)]
)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_deliver_each_row_once(
    path: Path, world: int, settings: dict, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 2: the union over ranks and workers is each row exactly once, seed 0 included."""
    found = of_all_ranks(monkeypatch, path, world, num_workers=num_workers, **settings)
    assert sorted(row for rows in found for row in flat(rows)) == list(range(40))
    assert len({len(rows) for rows in found}) == 1
    assert all(len(batch) == 4 for rows in found for batch in rows[:-1])
    plans = [
        epoch_plan(**{"n_rows": 40, "batch_size": 4, "window": 8, "seed": 3, "rank": rank, "world": world, **settings})
        for rank in range(world)
    ]
    assert [flat(rows) for rows in found] == [flat([w.positions.tolist() for w in plan.windows()]) for plan in plans]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_deliver_equally_many_batches(
    path: Path, world: int, drop_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 4, for many numbers of rows, batches and ranks."""
    for n_rows in (1, 7, 8, 40):
        for batch_size in (1, 3, 4):
            settings = {"n_rows": n_rows, "batch_size": batch_size, "drop_last": drop_last}
            found = of_all_ranks(monkeypatch, path, world, **settings)
            assert len({len(rows) for rows in found}) == 1, settings
            counts = Counter(row for rows in found for row in flat(rows))
            if drop_last:
                assert set(counts.values()) <= {1}, settings
            else:
                # A rank repeats one row at most, where it would have a batch less than the others.
                assert set(counts) == set(range(n_rows)), settings
                assert counts.total() - n_rows < world, settings


def test_each_rank_sees_rows_of_the_whole_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 18: blocks are dealt over the whole file before ranks get their share."""
    for settings in ({}, {"block_size": 2}):
        for rows in of_all_ranks(monkeypatch, path, 2, **settings):
            assert min(flat(rows)) < 10
            assert max(flat(rows)) >= 30


def test_shares_change_with_the_epoch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_rank(monkeypatch, 0, 2)
    loader = AnnDataset(path).get_optimized_dataloader(batch_size=4, seed=3)
    assert set(flat(rows_of(loader))) != set(flat(rows_of(loader)))


def test_a_users_sampler_is_the_users(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A DistributedSampler of torch's has this rank's share already.
    on_rank(monkeypatch, 1, 2)
    dataset = AnnDataset(path)
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=2, rank=1, shuffle=False)
    assert rows_of(dataset.get_optimized_dataloader(batch_size=10, sampler=sampler)) == [
        list(range(1, 21, 2)),
        list(range(21, 41, 2)),
    ]


# --- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1])
def test_no_seed_and_no_group_is_an_error(path: Path, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    on_rank(monkeypatch, rank, 2)
    loader = AnnDataset(path).get_optimized_dataloader(batch_size=4)
    assert len(loader) == 5
    iterator = iter(loader)
    with pytest.raises(ValueError, match=r"WORLD_SIZE=2.*seed=.*init_process_group"):
        next(iterator)
    # In file order every rank knows what the others do.
    in_order = AnnDataset(path).get_optimized_dataloader(batch_size=4, shuffle=False)
    assert flat(rows_of(in_order)) == list(range(20 * rank, 20 * rank + 20))


def in_group(rank: int, path: Path, folder: Path) -> None:
    """What each of two real processes does."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    torch.manual_seed(100 + rank)
    loader: WindowLoader = AnnDataset(path, window=8).get_optimized_dataloader(batch_size=4)
    epochs = [rows_of(loader) for _ in range(2)]
    drawn = torch.rand(3).tolist()
    seeded = rows_of(AnnDataset(path).get_optimized_dataloader(batch_size=4, seed=7))
    report = {"place": rank_and_world(), "n": len(loader), "epochs": epochs, "drawn": drawn, "seeded": seeded}
    (folder / f"{rank}.json").write_text(json.dumps(report))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch is built without torch.distributed")
def test_rank_0s_draw_is_every_ranks(path: Path, tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(in_group, (path, tmp_path), nprocs=2, start_method="forkserver")
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [report["place"] for report in reports] == [[0, 2], [1, 2]]
    # The oracle: what a process alone draws after the same manual_seed.
    torch.manual_seed(100)
    seeds = [draw_seed(None, 1) for _ in range(2)]
    for epoch, seed in enumerate(seeds):
        for rank, report in enumerate(reports):
            plan = epoch_plan(n_rows=40, batch_size=4, window=8, seed=seed, epoch=epoch, rank=rank, world=2)
            assert flat(report["epochs"][epoch]) == [
                row for window in plan.windows() for row in window.positions.tolist()
            ]
            assert len(report["epochs"][epoch]) == report["n"] == 5
        assert sorted(row for report in reports for row in flat(report["epochs"][epoch])) == list(range(40))
    assert reports[0]["epochs"][0] != reports[0]["epochs"][1]
    # Each drew as often as the other, so that generators stay in step.
    for rank, report in enumerate(reports):
        torch.manual_seed(100 + rank)
        for _ in range(2):
            draw_seed(None, 1)
        assert report["drawn"] == torch.rand(3).tolist()
    assert sorted(row for report in reports for row in flat(report["seeded"])) == list(range(40))


# --- padding ---------------------------------------------------------------------------------------------------------


class Anew(Transform):
    """Makes a new dict and forgets what else there was."""

    batched = True

    def __call__(self, data_dict):
        return {key: data_dict[key] for key in ("X", "obs_row", "obs_text")}


@pytest.mark.parametrize("settings", [{}, {"num_workers": 2}, {"prefetch_batches": 0}, {"return_index": True}], ids=str)
def test_padding_is_marked(path: Path, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 5: 25 rows on 2 ranks in batches of 4: rank 1 repeats one row of rank 0, and says which it is."""
    marks = []
    for rank in (0, 1):
        on_rank(monkeypatch, rank, 2)
        dataset = AnnDataset(path, obs_subset=range(25), window=8, transform=Anew())
        batches = list(dataset.get_optimized_dataloader(batch_size=4, seed=3, **settings))
        assert all(batch["is_padding"].dtype == torch.bool for batch in batches)
        assert [len(batch["is_padding"]) for batch in batches] == [len(rows) for rows in rows_of(batches)]
        marks.append([batch["is_padding"].tolist() for batch in batches])
    whole = [[False] * 4] * 3
    assert marks == [[*whole, [False]], [*whole, [True]]]


#: 25 rows in batches of 4 on 2 ranks, made so that no row is repeated: one loader by name.
NOTHING_PADDED: dict[str, Any] = {
    "drop": lambda dataset, **options: dataset.get_optimized_dataloader(4, seed=3, uneven="drop", **options),
    "keep": lambda dataset, **options: dataset.get_optimized_dataloader(4, seed=3, uneven="keep", **options),
    "drop_last": lambda dataset, **options: dataset.get_optimized_dataloader(4, seed=3, drop_last=True, **options),
    "predict": lambda dataset, **options: dataset.predict_loader(4, **options),
    "order": lambda dataset, **options: dataset.get_optimized_dataloader(4, order=lambda _: range(24), **options),
    "weights": lambda dataset, **options: dataset.get_optimized_dataloader(
        4, seed=3, weights=np.ones(25), n_samples=24, **options
    ),
    "sampler": lambda dataset, **options: dataset.get_optimized_dataloader(4, sampler=range(7), **options),
    "batch sampler": lambda dataset, **options: dataset.get_optimized_dataloader(
        batch_sampler=[[3, 4], [0]], **options
    ),
}


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}], ids=str)
@pytest.mark.parametrize("name", NOTHING_PADDED)
def test_every_batch_of_several_ranks_has_the_mark(
    path: Path, name: str, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_rank(monkeypatch, 0, 2)
    batches = list(NOTHING_PADDED[name](AnnDataset(path, obs_subset=range(25)), **options))
    assert [batch["is_padding"].tolist() for batch in batches] == [[False] * len(rows) for rows in rows_of(batches)]
    assert all(batch["is_padding"].dtype == torch.bool for batch in batches) and len(batches) > 1


@pytest.mark.parametrize("name", NOTHING_PADDED)
def test_a_process_alone_has_no_mark(path: Path, name: str) -> None:
    assert not any("is_padding" in batch for batch in NOTHING_PADDED[name](AnnDataset(path, obs_subset=range(25))))


def test_a_users_collate_function_sees_the_mark_of_each_item(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_rank(monkeypatch, 1, 2)
    dataset = AnnDataset(path, obs_subset=range(25))
    loader = dataset.get_optimized_dataloader(
        batch_size=4, seed=3, collate_fn=lambda items: [bool(item["is_padding"]) for item in items]
    )
    assert list(loader) == [[False] * 4] * 3 + [[True]]


# --- an order of the user's ------------------------------------------------------------------------------------------


class Orders:
    """Counts how often it is asked."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.asked: list[int] = []

    def __call__(self, epoch: int) -> Any:
        self.asked.append(epoch)
        return self.kind([epoch, 39, 7, 7, 0, 20 + epoch, 1])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, iter, lambda rows: np.array(rows, dtype=np.uint8)])
def test_an_order_is_delivered_as_it_is(path: Path, kind: Any, num_workers: int) -> None:
    """Pitfall 6: the rows come in exactly the order given; pitfall 7: repeated ones come repeatedly."""
    order = Orders(kind)
    loader = AnnDataset(path, window=4).get_optimized_dataloader(batch_size=2, order=order, num_workers=num_workers)
    for epoch in range(3):
        assert rows_of(loader) == [[epoch, 39], [7, 7], [0, 20 + epoch], [1]]
        assert (len(loader), len(loader.sampler)) == (4, 7)
    assert order.asked == [0, 1, 2]
    loader.sampler.set_epoch(9)
    assert flat(rows_of(loader))[0] == 9


def test_an_order_may_have_any_length(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = AnnDataset(path).get_optimized_dataloader(batch_size=2, order=lambda epoch: range(epoch))
    assert len(loader) == 0
    assert [rows_of(loader) for _ in range(4)] == [[], [[0]], [[0, 1]], [[0, 1], [2]]]
    assert len(loader) == 2
    on_rank(monkeypatch, 1, 2)
    loader.sampler.set_epoch(3)
    assert rows_of(loader) == [[2]]


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        (lambda epoch: [0, 40], IndexError, r"order\(0\) gave position 40; the dataset has rows 0..39"),
        (lambda epoch: [-1], IndexError, "position -1"),
        (lambda epoch: [0.5], TypeError, r"order\(0\) gave float64"),
        (lambda epoch: [[1], [2]], TypeError, r"shape \(2, 1\)"),
        ([1, 2], TypeError, "order is a list; expected a function"),
    ],
)
def test_orders_that_are_refused(path: Path, order: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(AnnDataset(path).get_optimized_dataloader(order=order))
    with pytest.raises(ValueError, match="order given with a sampler"):
        AnnDataset(path).get_optimized_dataloader(order=range, sampler=[1])


# --- table of exact orders -------------------------------------------------------------------------------------------


class Worker(Transform):
    """Says who made a batch."""

    batched = True

    def __call__(self, data_dict):
        info = torch.utils.data.get_worker_info()
        return {**data_dict, "worker": [-1 if info is None else info.id] * len(data_dict["X"])}


#: seed, epoch, rank of 2, block_size: the batches of 12 rows in windows of 4 at most; workers take windows in turn.
EXACT: list[tuple[tuple[int, int, int, int], list[list[int]]]] = [
    ((0, 0, 0, 1), [[1, 9], [0, 8], [4, 6]]),
    ((0, 0, 1, 1), [[7, 10], [2, 3], [5, 11]]),
    ((0, 1, 0, 1), [[6, 3], [1, 5], [4, 0]]),
    ((0, 1, 1, 1), [[8, 2], [7, 9], [10, 11]]),
    ((7, 0, 0, 1), [[4, 0], [1, 8], [5, 3]]),
    ((7, 0, 1, 1), [[7, 6], [11, 9], [2, 10]]),
    ((0, 0, 0, 3), [[10, 9], [1, 2], [0, 11]]),
    ((0, 0, 1, 3), [[6, 7], [5, 3], [8, 4]]),
    ((7, 1, 0, 3), [[3, 4], [5, 2], [1, 0]]),
    ((7, 1, 1, 3), [[7, 6], [8, 11], [9, 10]]),
]


def table(path: Path, seed: int, epoch: int, block_size: int, **settings: Any) -> list[list[int]]:
    dataset = AnnDataset(path, obs_subset=range(12), window=4, transform=Worker())
    loader = dataset.get_optimized_dataloader(batch_size=2, seed=seed, block_size=block_size, **settings)
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    n_workers = settings.get("num_workers", 0)
    workers = [set(batch["worker"]) for batch in batches]
    # Windows of blocks are of equal size, to within a batch: a short one is not at the end.
    windows = [0, 0, 1] if block_size == 1 else [0, 1, 1]
    assert workers == [{window % n_workers if n_workers else -1} for window in windows]
    return rows_of(batches)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize(("place", "expected"), EXACT)
def test_exact_orders_per_seed_epoch_rank_and_worker(
    path: Path, place: tuple[int, int, int, int], expected: list[list[int]], num_workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A change here is a change of every user's order."""
    seed, epoch, rank, block_size = place
    on_rank(monkeypatch, rank, 2)
    assert table(path, seed, epoch, block_size, num_workers=num_workers) == expected
