"""Which steps of a transform the core applies to "X" while it writes batches, for the matrices of a dataset."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from annfeed.batches.matrix import Matrix
from annfeed.sources.concat import ConcatSource
from annfeed.transforms.base import Transform
from annfeed.transforms.fuse import Fused, fuse


def steps_on_x(
    matrices: Mapping[str, Matrix], transform: Transform | None, output: str, dtype: torch.dtype, in_core: bool
) -> Fused:
    """Return them, and keep the totals of rows where the steps need them.

    Parameters
    ----------
    matrices, transform, output, dtype
        The dataset's.
    in_core
        Whether the core writes the batches.
    """
    x = matrices.get("X")
    source = None if x is None else x.source
    has_gaps = isinstance(source, ConcatSource) and source.has_gaps
    fused = fuse(transform, output, dtype, has_gaps, source is not None and source.is_part, in_core)
    if x is not None and fused.wants_totals:
        x.keep_totals()
    return fused
