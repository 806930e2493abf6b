"""Blocks for ``block_size="auto"``: cut at chunk borders, long enough to read fast and short enough to mix well."""

from __future__ import annotations

import logging

import numpy as np

from annfeed.arrays import Int64Array

#: Least rows of a block; benches/quality.py measures how well blocks of 16 rows mix.
LEAST_ROWS = 16
#: A window holds at least this many blocks, so that its batches mix rows of many places.
LEAST_BLOCKS = 64

log = logging.getLogger("annfeed")


def auto_blocks(unit_starts: Int64Array, n_rows: int, window: int) -> Int64Array:
    """Return the first row of each block: decode units, with short ones joined and long ones cut.

    Parameters
    ----------
    unit_starts
        int64, first row of each unit: 0, then strictly increasing, below ``n_rows``.
    n_rows
        Number of rows.
    window
        Rows read together.

    Examples
    --------
    >>> auto_blocks(np.array([0, 26, 52, 78]), 100, 16384)
    array([ 0, 26, 52, 78])
    >>> auto_blocks(np.array([0, 50]), 100, 1600)  # a window of 64 blocks has 25 rows for each
    array([ 0, 25, 50, 75])
    """
    if n_rows == 0:
        return np.empty(0, np.int64)
    lengths = np.diff(np.append(unit_starts, n_rows))
    together = max(1, round(LEAST_ROWS / max(1.0, float(np.median(lengths)))))
    starts = unit_starts[::together]
    lengths = np.diff(np.append(starts, n_rows))
    most = max(LEAST_ROWS, window // LEAST_BLOCKS)
    parts = -(-lengths // most)
    within = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    cut: Int64Array = np.repeat(starts, parts) + within * np.repeat(lengths, parts) // np.repeat(parts, parts)
    return cut


def units_of_positions(unit_starts: Int64Array, rows: Int64Array) -> Int64Array:
    """Return the positions at which a list of file rows enters another decode unit.

    Examples
    --------
    >>> units_of_positions(np.array([0, 10, 20]), np.array([3, 4, 12, 25, 26]))
    array([0, 2, 3])
    """
    if len(rows) == 0:
        return np.empty(0, np.int64)
    units = np.searchsorted(unit_starts, rows, side="right")
    return np.append(0, np.flatnonzero(np.diff(units)) + 1).astype(np.int64)


def describe(starts: Int64Array, n_rows: int, rows_per_unit: float) -> str:
    """Return a description of the blocks, for the log and for `PlanSampler.blocks`."""
    lengths = np.diff(np.append(starts, n_rows))
    return (
        f"{len(starts):,} blocks of {np.median(lengths):.0f} rows (median; {lengths.min()} to {lengths.max()}), "
        f"cut at chunk borders that lie about {rows_per_unit:.3g} rows apart"
    )
