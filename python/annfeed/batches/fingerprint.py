"""What tells the rows of one dataset from those of another, kept in the state of a loader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annfeed.arrays import Int64Array, digest_of
from annfeed.batches.matrix import Matrix
from annfeed.sources.concat import ConcatSource


def fingerprint(
    matrices: Mapping[str, Matrix], rows: Int64Array | None, n_rows: int, sources: list[str]
) -> dict[str, Any]:
    """Return numbers, and digests of ``rows`` and of a few rows' values.

    Parameters
    ----------
    matrices
        The matrices by key; the first tells the shape.
    rows
        The row at each position; None for all rows in order.
    n_rows
        Number of positions.
    sources
        Path of each source, or a description of an AnnData.
    """
    first = next(iter(matrices.values()))
    return {
        "n_rows": n_rows,
        "n_vars": first.n_vars,
        "sources": first.source.digest(sources) if isinstance(first.source, ConcatSource) else None,
        "obs_subset": None if rows is None else digest_of(rows),
        "values": "-".join(matrix.sample_digest() for matrix in matrices.values()),
    }
