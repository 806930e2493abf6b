"""What an order decodes for each byte that it delivers: expected values, without a cache; and the cache to keep it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from annfeed.order.auto_blocks import LEAST_BLOCKS, LEAST_ROWS

#: The size of kept rows is an estimate. So many times of it is recommended.
_ROOM = 1.35


def cache_for(held_bytes: float) -> str:
    """Return the ``cache=`` that is recommended where all rows take about so many bytes in it.

    Examples
    --------
    >>> cache_for(3 << 30)
    '5GiB'
    """
    return f"{math.ceil(held_bytes * _ROOM / 2**30)}GiB"


@dataclass(frozen=True)
class Costs:
    """Of a matrix of ``n_rows``, chunks with values of ``rows_per_chunk``, read in windows of ``window`` rows."""

    n_rows: int
    rows_per_chunk: float
    window: int

    def of_blocks(self, block: float) -> float:
        """Return the expected decoded bytes per delivered byte, for blocks of ``block`` rows.

        A chunk of R rows is touched by about R / block + 1 blocks (a block across a chunk border counts for both). A
        window contains each block with probability f = window / n, so it decodes a chunk with probability
        1 - (1 - f)^(R / block + 1), and delivers the fraction f of the chunk's rows. The cost is the ratio of the two.
        """
        if self.rows_per_chunk == 0 or self.n_rows == 0:
            return 1.0
        share = min(1.0, self.window / self.n_rows)
        return float((1.0 - (1.0 - share) ** (self.rows_per_chunk / block + 1.0)) / share)

    def by_order(self) -> dict[str, float]:
        """Return the cost of each order that users choose from; sets of cells cost what "exact random" does."""
        return {
            "file order": 1.0,
            "block_size='auto'": 1.0 if self._chunks_mix else self.of_blocks(self._auto_rows),
            "block_size=64": self.of_blocks(64),
            "block_size=16": self.of_blocks(16),
            "exact random": self.of_blocks(1),
        }

    @property
    def _auto_rows(self) -> float:
        return min(max(LEAST_ROWS, self.rows_per_chunk), max(LEAST_ROWS, self.window // LEAST_BLOCKS))

    @property
    def _chunks_mix(self) -> bool:
        return self.rows_per_chunk <= self._auto_rows
