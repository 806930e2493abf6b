"""What an epoch's order is, by its plan."""

from __future__ import annotations

from typing import Any

from annfeed.order.epoch import EpochPlan


def planned(n_rows: int = 40, **fields: Any) -> list[list[int]]:
    """Return the batches that the plan of an epoch foresees: 4 rows each, from windows of 8."""
    plan = EpochPlan(**{"n_rows": n_rows, "batch_size": 4, "window": 8, **fields})
    return [batch.tolist() for window in plan.windows() for batch in window.batches]
