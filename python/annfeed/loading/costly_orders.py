"""A warning for an order that decodes far more than another would, with what to set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from annfeed.inspection.costs import Costs
from annfeed.loading.description import in_a_line
from annfeed.order.epoch import EpochPlan
from annfeed.order.orders import Blocks, Shuffled
from annfeed.order.weighted import Weighted
from annfeed.user_warnings import warn

if TYPE_CHECKING:
    from annfeed.loading.protocols import Rows

#: Bytes that an epoch decodes more than once, of all ranks together, and the cost, from which the warning is given.
_LEAST_BYTES, _LEAST_COST = 2 << 30, 3.0
#: Memory of kept rows for the estimate of their size: what they may take, and what is recommended, as in inspections.
_LEAST_ROOM, _ROOM = 1.1, 1.35


def warn_if_costly(dataset: Rows, plan: EpochPlan | None) -> None:
    """Warn, once for a dataset and its parts, if an order costs much that blocks or a larger cache would save."""
    reader = dataset.reader
    source = reader.described_file()
    if source is None or source.headers is None or reader.told_of_cost:
        return
    if plan is None or not isinstance(plan.order, Shuffled | Weighted | Blocks):
        return
    headers = source.headers
    n_rows, share = len(dataset), len(dataset) / max(1, reader.n_source_rows)
    costs = Costs(n_rows, headers.rows_per_chunk * min(1.0, share), plan.window)
    in_blocks = costs.by_order()["block_size='auto'"]
    cost = in_blocks if isinstance(plan.order, Blocks) else costs.of_blocks(plan.order.block_size)
    held = n_rows * headers.held_bytes * min(1.0, reader.first_n_vars / max(1, source.shape[1]))
    more = (cost - 1) * n_rows * headers.decoded_bytes
    if cost < _LEAST_COST or more < _LEAST_BYTES or held * _LEAST_ROOM <= source.cache_limit:
        return
    remedies = [f"a larger window than {plan.window:,}"]
    if in_blocks < cost / 1.5:
        remedies.insert(0, f"block_size='auto' ({in_blocks:.2g} instead of {cost:.2g} times)")
    reader.told_of_cost.append(True)
    room = f"{math.ceil(held * _ROOM / 2**30)}GiB"
    warn(
        f"{in_a_line(dataset)}: this order decodes up to {cost:.2g} times what it delivers, as its rows lie scattered "
        f"in compressed chunks and cache={dataset.cache!r} does not hold them all. Pass {', or '.join(remedies)}, or, "
        f"if there is the memory, cache={room!r} (decodes each row once)"
    )
