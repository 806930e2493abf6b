"""A warning for an order that decodes far more than another would, with what to set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from annfeed.inspection.costs import Costs, cache_for
from annfeed.loading.description import in_a_line
from annfeed.order.epoch import EpochPlan
from annfeed.order.orders import Blocks, Shuffled
from annfeed.order.sets import Sets
from annfeed.order.weighted import Weighted
from annfeed.user_warnings import warn

if TYPE_CHECKING:
    from annfeed.loading.protocols import Rows
    from annfeed.sources.file import FileSource

#: Bytes that an epoch decodes more than once, of all ranks together, and the cost, from which the warning is given.
_LEAST_BYTES, _LEAST_COST = 2 << 30, 3.0
#: The size of kept rows is an estimate. So many times of it is enough for no warning.
_LEAST_ROOM = 1.1


@dataclass(frozen=True)
class Reading:
    """What is read of a file, and how.

    Parameters
    ----------
    what
        The words for it in messages.
    n_rows, n_vars, share
        Rows and columns of the dataset; the share of the rows that there are.
    n_delivered
        Rows that an epoch delivers.
    window, cache
        Rows read together; memory for decoded rows, as the user wrote it.
    can_choose_blocks
        Whether the loader takes ``block_size``.
    """

    what: str
    n_rows: int
    n_vars: int
    share: float
    n_delivered: int
    window: int
    cache: str | int
    can_choose_blocks: bool = True


def warn_if_costly(dataset: Rows, plan: EpochPlan | None) -> None:
    """Warn, once for a dataset and its parts, if an order costs much that blocks or a larger cache would save."""
    reader = dataset.reader
    source = reader.file_with_headers()
    order = plan.order if plan is not None else None
    if (
        reader.preloaded_bytes is not None
        or source is None
        or plan is None
        or not isinstance(order, Shuffled | Weighted | Blocks | Sets)
    ):
        return
    n_rows, share = len(dataset), len(dataset) / max(1, reader.n_source_rows)
    # The rows of sets are scattered like single rows.
    block_size = None if isinstance(order, Blocks) else 1 if isinstance(order, Sets) else order.block_size
    n_delivered = order.length(n_rows) * plan.rows_per_unit
    reading = Reading(
        in_a_line(dataset),
        n_rows,
        reader.n_vars_of_first,
        share,
        n_delivered,
        plan.window,
        dataset.cache,
        can_choose_blocks=not isinstance(order, Sets),
    )
    warn_of_blocks(source, reading, block_size)


def warn_of_blocks(source: FileSource, reading: Reading, block_size: int | None) -> None:
    """Warn, once for a file, if rows in blocks of ``block_size`` cost much; None for blocks cut at chunk borders."""
    headers = source.headers
    if headers is None or source.told_of_cost:
        return
    n_rows, share = reading.n_rows, min(1.0, reading.share)
    costs = Costs(n_rows, headers.rows_per_chunk * share, reading.window)
    in_blocks = costs.by_order()["block_size='auto'"]
    cost = in_blocks if block_size is None else costs.of_blocks(block_size)
    held = n_rows * headers.held_bytes * min(1.0, reading.n_vars / max(1, source.shape[1]))
    more = (cost - 1) * reading.n_delivered * headers.decoded_bytes
    if cost < _LEAST_COST or more < _LEAST_BYTES or held * _LEAST_ROOM <= source.cache_limit:
        return
    remedies = [f"a larger window than {reading.window:,}"]
    if reading.can_choose_blocks and in_blocks < cost / 1.5:
        remedies.insert(0, f"block_size='auto' to the loader ({_times(in_blocks)} instead of {_times(cost)} times)")
    source.told_of_cost = True
    warn(
        f"{reading.what}: this order decodes up to {_times(cost)} times what it delivers, as its rows lie scattered in "
        f"compressed chunks and cache={reading.cache!r} does not hold them all. Pass {', or '.join(remedies)}, or, if "
        f"there is the memory, cache={cache_for(held)!r} (decodes each row once)"
    )


def _times(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 10 else f"{cost:.1f}"
