"""What an epoch's order is, by its plan."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from annfeed.order.epoch import EpochPlan
from annfeed.order.orders import SPREAD, Blocks, FileOrder, Given, Order, Shuffled
from annfeed.order.weighted import Weighted
from annfeed.order.weights import Weighting


def epoch_plan(
    *,
    shuffle: bool = True,
    block_size: int = 1,
    block_starts: npt.ArrayLike | None = None,
    weighting: Weighting | None = None,
    positions: npt.NDArray[Any] | None = None,
    block_order: int = SPREAD,
    **cut: Any,
) -> EpochPlan:
    """Return the plan of an epoch whose order is told by one of these keywords."""
    order: Order = Shuffled(block_size, block_order) if shuffle else FileOrder()
    if positions is not None:
        order = Given(positions)
    elif weighting is not None:
        order = Weighted(weighting, block_size)
    elif block_starts is not None and shuffle:
        order = Blocks(block_starts, block_order)
    return EpochPlan(order=order, **cut)


def planned(n_rows: int = 40, **fields: Any) -> list[list[int]]:
    """Return the batches that the plan of an epoch foresees: 4 rows each, from windows of 8."""
    plan = epoch_plan(**{"n_rows": n_rows, "batch_size": 4, "window": 8, **fields})
    return [batch.tolist() for window in plan.windows() for batch in window.batches]
