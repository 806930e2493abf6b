"""`Shard`: one rank's share of an epoch's stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Uneven = Literal["pad", "drop", "keep"]


@dataclass(frozen=True)
class Shard:
    """A contiguous part of the stream.

    Parameters
    ----------
    start
        Its first place in the stream.
    n_delivered
        Rows that the rank delivers, padding included.
    n_padding
        How many of these repeat another rank's rows: 0, or 1 for the last row.
    """

    start: int
    n_delivered: int
    n_padding: int


def cut_shard(n: int, batch_size: int, rank: int, world: int, *, drop_last: bool, uneven: Uneven) -> Shard:
    """Return the shard of a rank; unless ``uneven`` is "keep", every rank gets the same number of batches.

    Parameters
    ----------
    n
        Length of the stream.
    batch_size, rank, world, drop_last, uneven
        As in `annfeed.order.epoch.EpochPlan`.

    Examples
    --------
    >>> cut_shard(7, 3, rank=1, world=2, drop_last=False, uneven="pad")
    Shard(start=4, n_delivered=4, n_padding=1)
    """
    share, extra = divmod(n, world)
    size = share + (rank < extra)
    padding = 0
    if drop_last:
        size = share // batch_size * batch_size
    elif extra and share % batch_size == 0 and uneven != "keep":  # one row more is one batch more
        padding = int(uneven == "pad" and size == share)
        size = share + (uneven == "pad")
    return Shard(rank * share + min(rank, extra), size, padding)
