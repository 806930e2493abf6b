"""Which of a dataset's transforms are done in Rust while a batch is written, and which are left for Python.

The leading NormalizeTotal, Log1p and Scale, in this order and each at most once, on a float32 "X": there the result is
the same as that of the transforms themselves (tests hold one against the other).
"""

from __future__ import annotations

import numpy as np
import torch

from annfeed._core import RowOps
from annfeed.transforms import Compose, Log1p, NormalizeTotal, Scale, Transform


def fuse(
    transform: Transform | None, output: str, dtype: torch.dtype, has_gaps: bool = False
) -> tuple[RowOps | None, Transform | None]:
    """Return the steps for Rust (None for none) and the transform that is left (None for none).

    Parameters
    ----------
    transform
        The dataset's.
    output
        "dense" or "csr"; Scale fills rows, so it is not for "csr".
    dtype
        Only float32 batches are fused.
    has_gaps
        Some file lacks some columns: Rust sees only those that a file has, while Scale is of all.

    Examples
    --------
    >>> ops, rest = fuse(Compose([NormalizeTotal(), Log1p()]), "dense", torch.float32)
    >>> ops is None, rest is None
    (False, True)
    """
    steps = _flat(transform)
    order: list[type[Transform]] = [NormalizeTotal, Log1p, *([Scale] if output == "dense" and not has_gaps else [])]
    taken: dict[type[Transform], Transform] = {}
    if dtype == torch.float32:
        for step in steps:
            # Exactly these classes: a subclass may do more.
            if type(step) not in order:
                break
            order = order[order.index(type(step)) + 1 :]
            taken[type(step)] = step
    if not taken:
        return None, transform
    rest = steps[len(taken) :]
    return _ops(taken), Compose(rest) if rest else None


def _flat(transform: Transform | None) -> list[Transform]:
    if transform is None:
        return []
    if type(transform) is Compose:
        return [step for member in transform.transforms for step in _flat(member)]
    return [transform]


def _ops(taken: dict[type[Transform], Transform]) -> RowOps:
    normalize, scale = taken.get(NormalizeTotal), taken.get(Scale)
    target_sum = normalize.target_sum if isinstance(normalize, NormalizeTotal) else None
    if not isinstance(scale, Scale):
        return RowOps(target_sum=target_sum, log1p=Log1p in taken)
    return RowOps(
        target_sum=target_sum,
        log1p=Log1p in taken,
        mean=scale.mean.numpy().astype(np.float32),
        std=scale.std.numpy().astype(np.float32),
        max_value=scale.max_value,
    )
