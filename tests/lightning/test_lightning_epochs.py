"""Epochs under Lightning, alone and with DDP: each has its own order, with workers of any kind, shared by ranks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.orders import planned
from tests.support.places import SCRIPTS
from tests.support.processes import run_ranks
from tests.support.toys import flat

from annfeed.order.weights import Weighting

pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
from tests.scripts.ddp_epochs_script import LOADERS, fit

SCRIPT = SCRIPTS / "ddp_epochs_script.py"


@pytest.mark.parametrize("name", LOADERS)
def test_every_epoch_has_an_order_of_its_own_without_a_strategy(path: Path, name: str) -> None:
    """Pitfall 1: under Lightning on one device, with no workers, persistent ones, and new ones in each epoch."""
    epochs = fit(str(path), LOADERS[name], devices=1).seen
    assert len({tuple(flat(rows)) for rows in epochs}) == 3
    if name in ("rows", "workers", "fresh workers"):
        assert epochs == [planned(seed=3, epoch=epoch) for epoch in range(3)]
    if "order" not in name and name != "weights":
        assert all(sorted(flat(rows)) == list(range(40)) for rows in epochs)


@pytest.fixture(scope="module")
def ranks(path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ddp")
    for done in run_ranks(2, SCRIPT, path, folder, launcher="lightning"):
        assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", LOADERS)
def test_every_epoch_has_an_order_of_its_own_under_ddp(ranks: list[dict[str, Any]], name: str) -> None:
    """Pitfall 1: Lightning calls set_epoch on our sampler only; pitfall 4: both ranks reach the end of each epoch."""
    for rank in ranks:
        assert len({tuple(flat(rows)) for rows in rank[name]["epochs"]}) == 3
    for one, other in zip(*(rank[name]["epochs"] for rank in ranks), strict=True):
        assert [len(rows) for rows in one][:-1] == [len(rows) for rows in other][:-1]
        assert len(one) == len(other)


@pytest.mark.parametrize("name", ["rows", "workers", "fresh workers", "no seed", "blocks"])
def test_ranks_of_ddp_deliver_each_row_once(ranks: list[dict[str, Any]], name: str) -> None:
    """Pitfall 2, under Lightning: one order, agreed upon where there is no seed."""
    for epoch in range(3):
        assert sorted(flat([flat(rank[name]["epochs"][epoch]) for rank in ranks])) == list(range(40))
    assert not any(mark for rank in ranks for marks in rank[name]["marked"] for mark in marks)


def test_orders_of_ddp_are_the_plans(ranks: list[dict[str, Any]]) -> None:
    weighting = Weighting(np.arange(40), n_samples=30)
    cases = {"rows": {}, "workers": {}, "blocks": {"block_size": 3}, "weights": {"weighting": weighting}}
    for name, fields in cases.items():
        for rank, found in enumerate(ranks):
            wanted = [planned(**{"seed": 3, "rank": rank, "world": 2, "epoch": epoch, **fields}) for epoch in range(3)]
            assert found[name]["epochs"] == wanted


def test_a_users_order_under_ddp(ranks: list[dict[str, Any]]) -> None:
    for epoch in range(3):
        wanted = ((np.arange(13) + epoch) % 40).tolist()
        shares = [flat(rank["order"]["epochs"][epoch]) for rank in ranks]
        assert shares == [wanted[:7], wanted[7:]]
