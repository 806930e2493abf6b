"""Several ranks: together they deliver each row once, in equally many batches, in an order that all of them know."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from toys import flat, hand_over, rows_of, toy

from annfeed import AnnDataset, WindowLoader
from annfeed.epoch import EpochPlan
from annfeed.ranks import draw_seed, rank_and_world


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hand_over(toy(), "path", tmp_path_factory.mktemp("shelf"))


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
        dataset = AnnDataset(path, obs_subset=range(n_rows), chunk_size=8)
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


def test_local_rank_alone_takes_no_share(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    found = of_all_ranks(monkeypatch, path, world, num_workers=num_workers, **settings)
    assert sorted(row for rows in found for row in flat(rows)) == list(range(40))
    assert len({len(rows) for rows in found}) == 1
    assert all(len(batch) == 4 for rows in found for batch in rows[:-1])
    plans = [
        EpochPlan(**{"n_rows": 40, "batch_size": 4, "window": 8, "seed": 3, "rank": rank, "world": world, **settings})
        for rank in range(world)
    ]
    assert [flat(rows) for rows in found] == [flat([w.rows.tolist() for w in plan.windows()]) for plan in plans]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_deliver_equally_many_batches(
    path: Path, world: int, drop_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    loader: WindowLoader = AnnDataset(path, chunk_size=8).get_optimized_dataloader(batch_size=4)
    epochs = [rows_of(loader) for _ in range(2)]
    drawn = torch.rand(3).tolist()
    seeded = rows_of(AnnDataset(path).get_optimized_dataloader(batch_size=4, seed=7))
    report = {"place": rank_and_world(), "n": len(loader), "epochs": epochs, "drawn": drawn, "seeded": seeded}
    (folder / f"{rank}.json").write_text(json.dumps(report))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch is built without torch.distributed")
def test_rank_0s_draw_is_every_ranks(path: Path, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(in_group, (path, tmp_path), nprocs=2)
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [report["place"] for report in reports] == [[0, 2], [1, 2]]
    # The oracle: what a process alone draws after the same manual_seed.
    torch.manual_seed(100)
    seeds = [draw_seed(None, 1) for _ in range(2)]
    for epoch, seed in enumerate(seeds):
        for rank, report in enumerate(reports):
            plan = EpochPlan(n_rows=40, batch_size=4, window=8, seed=seed, epoch=epoch, rank=rank, world=2)
            assert flat(report["epochs"][epoch]) == [row for window in plan.windows() for row in window.rows.tolist()]
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
