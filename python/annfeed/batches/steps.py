"""Which steps of a transform the core applies to "X" while it writes batches, for the matrices of a dataset."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from annfeed.batches.matrix import Matrix
from annfeed.errors import UnknownNameError
from annfeed.sources.concat import ConcatSource
from annfeed.transforms.base import Transform, is_on_x, steps_of
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

    Raises
    ------
    UnknownNameError
        If there is no "X", and the first step works on it.
    """
    x = matrices.get("X")
    first = next(iter(steps_of(transform)), None)
    if x is None and first is not None and is_on_x(first):
        # What a step of a user's puts there is known when batches are made.
        key, matrix = next(iter(matrices.items()))
        raise UnknownNameError(
            f"{type(first).__name__} works on 'X', and the matrices have the keys {', '.join(map(repr, matrices))}; "
            f"expected one with the key 'X'. Name it so in elem=, as {{'X': {matrix.elem!r}}} in place of {key!r}"
        )
    source = None if x is None else x.source
    has_gaps = isinstance(source, ConcatSource) and source.has_gaps
    fused = fuse(transform, output, dtype, has_gaps, source is not None and source.is_part, in_core)
    if x is not None and fused.wants_totals:
        x.keep_totals()
    return fused
