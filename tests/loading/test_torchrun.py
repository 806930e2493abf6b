"""Real ranks under torchrun: equally many batches, every row once, one order that all of them know, padding marked."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tests.scripts.cases import EPOCHS, SETS, cases, rotated
from tests.support.orders import planned
from tests.support.places import SCRIPTS
from tests.support.processes import run_ranks
from tests.support.toys import flat

from annfeed import AnnDataset
from annfeed.order.weights import Weighting

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch is built without torch.distributed")

CASES = cases()
UNEVEN = [name for name in CASES if name[0].isdigit()]

#: By rank, epoch, batch: (rows, marks of padding or None).
Found = list[list[list[tuple[list[int], list[bool] | None]]]]


@pytest.fixture(scope="module", params=[2, 3])
def found(request: pytest.FixtureRequest, path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What each of 2 processes of torchrun, or of 3 that are told what torchrun tells, delivered, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    script = SCRIPTS / "ranks_script.py"
    if request.param == 2:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = [subprocess.run([*command, path, folder], env=environment, capture_output=True, text=True, timeout=300)]
    else:
        ended = run_ranks(request.param, script, path, folder)
    for done in ended:
        assert done.returncode == 0, done.stderr
    ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(request.param)]
    return {name: [rank[name] for rank in ranks] for name in CASES}


def rows_of_epoch(found: Found, epoch: int, *, padding: bool = True) -> list[list[int]]:
    """The rows of each rank."""
    return [
        [row for rows, marks in rank[epoch] for row, mark in zip(rows, marks or [False] * len(rows), strict=True)
         if padding or not mark]
        for rank in found
    ]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_rank_has_the_same_number_of_batches(found: dict[str, Found], name: str) -> None:
    """Pitfall 4 (nobody hangs at the last batch), pitfall 23 (one short batch a rank at most, the last)."""
    for epoch in range(EPOCHS):
        assert len({len(rank[epoch]) for rank in found[name]}) == 1
        batch_size = CASES[name]["loader"]["batch_size"] * (4 if name == "sets" else 1)
        for rank in found[name]:
            assert all(len(rows) == batch_size for rows, _ in rank[epoch][:-1])
            assert all(1 <= len(rows) <= batch_size for rows, _ in rank[epoch][-1:])


@pytest.mark.parametrize(
    "name", ["rows", "seed 0", "no seed", "blocks", "workers", "fresh workers", "in order", "split"]
)
def test_ranks_together_deliver_each_row_once(found: dict[str, Found], path: Path, name: str) -> None:
    """Pitfall 2: one order, shared out; rows that are padding say so."""
    dataset = AnnDataset(path)
    if "split" in CASES[name]:
        dataset = dataset.split(**CASES[name]["split"])["train"]
    for epoch in range(EPOCHS):
        assert sorted(flat(rows_of_epoch(found[name], epoch, padding=False))) == sorted(dataset.obs_column("row"))


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("in order", *UNEVEN)])
def test_every_epoch_has_an_order_of_its_own(found: dict[str, Found], name: str) -> None:
    """Pitfall 1, under torchrun, with workers that persist and that do not, without anybody calling set_epoch."""
    for rank in found[name]:
        orders = [tuple(flat([rows for rows, _ in epoch])) for epoch in rank]
        assert len(set(orders)) == EPOCHS


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("rows", {}),
        ("seed 0", {"seed": 0}),
        ("blocks", {"block_size": 3}),
        ("workers", {}),
        ("fresh workers", {}),
        ("in order", {"shuffle": False}),
        ("weights", {"weighting": Weighting(np.arange(40), n_samples=50)}),
    ],
)
def test_the_order_is_the_plans(found: dict[str, Found], name: str, fields: dict[str, Any]) -> None:
    world = len(found[name])
    for rank, epochs in enumerate(found[name]):
        assert [[rows for rows, _ in epoch] for epoch in epochs] == [
            planned(**{"seed": 3, "world": world, "rank": rank, "epoch": epoch, **fields}) for epoch in range(EPOCHS)
        ]


def test_a_users_order_is_shared_out(found: dict[str, Found]) -> None:
    for epoch in range(EPOCHS):
        delivered = rows_of_epoch(found["order"], epoch, padding=False)
        assert flat(delivered) == rotated(epoch).tolist()


def test_sets_are_shared_out(found: dict[str, Found], path: Path) -> None:
    """Those of one process, cells and controls, whole and each on one rank."""
    alone = AnnDataset(path).get_optimized_dataloader(1, sets=SETS, seed=3)
    for epoch in range(EPOCHS):
        expected = [torch.stack([b["obs_row"], b["control_obs_row"]], 1).ravel().tolist() for b in alone]
        delivered = rows_of_epoch(found["sets"], epoch, padding=False)
        sets = [rows[at : at + 4] for rows in delivered for at in range(0, len(rows), 4)]
        assert sorted(sets) == sorted(expected) and len(sets) == 14
        padded = sum(map(len, rows_of_epoch(found["sets"], epoch))) // 4
        assert padded == -(-14 // len(delivered)) * len(delivered)


def test_balanced_draws_without_a_seed_are_one_sample(found: dict[str, Found], path: Path) -> None:
    labels = AnnDataset(path).obs_column("label").to_numpy()
    for epoch in range(EPOCHS):
        shares = Counter(labels[flat(rows_of_epoch(found["balance"], epoch, padding=False))])
        assert shares.total() == 40 and set(shares.values()) <= {12, 13, 14, 15}


@pytest.mark.parametrize("name", UNEVEN)
def test_uneven_shares(found: dict[str, Found], name: str) -> None:
    """Pitfall 5: what is padding is marked, so that an evaluation can leave it out; every batch has the mark."""
    n = int(name.split()[0])
    world = len(found[name])
    for epoch in range(EPOCHS):
        own = flat(rows_of_epoch(found[name], epoch, padding=False))
        everything = flat(rows_of_epoch(found[name], epoch))
        marked = [marks is not None for rank in found[name] for _, marks in rank[epoch]]
        assert all(marked)
        assert len(set(own)) == len(own)
        if "pad" in name:
            assert sorted(own) == list(range(n))
            assert len(everything) - n < world
            # A rank's padding comes last, and is no row of its own.
            for rank in found[name]:
                marks = [mark for _, batch in rank[epoch] for mark in batch]
                assert marks == sorted(marks)
                rows = flat([rows for rows, _ in rank[epoch]])
                assert len(set(rows)) == len(rows)
        else:
            assert own == everything
            lost = n - len(own)
            assert lost < world if "drop_last" not in name else lost < world * 4 + world
