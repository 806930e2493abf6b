"""Which of a dataset's transforms are done in Rust while a batch is written, and which are left for Python.

The leading NormalizeTotal, Log1p and Scale, in this order and each at most once, on a float "X" of at most 32 bits:
there the result is the same as that of the transforms themselves (tests hold one against the other).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from annfeed._core import RowOps
from annfeed.transforms.base import Compose, StepOnX, Transform, is_on_x, needs_totals, steps_of
from annfeed.transforms.counts import Log1p, NormalizeTotal, Scale

#: What the core computes in float32 and rounds once.
_IN_RUST = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Fused:
    """What is done to "X", and where."""

    #: The steps for Rust; None for none.
    ops: RowOps | None
    #: In which Rust writes "X": wider than the dataset's where steps that come first are left for Python.
    dtype: torch.dtype
    #: The transform that is left; None for none.
    rest: Transform | None
    #: "X" lacks genes over which rows are added up, in Rust or in the rest; and whether in the rest.
    wants_totals: bool = False
    rest_wants_totals: bool = False


def fuse(
    transform: Transform | None,
    output: str,
    dtype: torch.dtype,
    has_gaps: bool = False,
    is_part: bool = False,
    in_core: bool = True,
) -> Fused:
    """Return what Rust does, and what is left.

    Parameters
    ----------
    transform, output, dtype
        The dataset's. Scale fills rows, so it is not for "csr".
    has_gaps
        Some file lacks some columns: Rust sees only those that a file has, while Scale is of all.
    is_part
        "X" lacks genes that its matrix has.
    in_core
        Rust makes "X". Otherwise all steps are left.

    Examples
    --------
    >>> done = fuse(Compose([NormalizeTotal(), Log1p()]), "dense", torch.float32)
    >>> done.ops is None, done.rest is None
    (False, True)
    """
    steps = steps_of(transform)
    wants_totals = is_part and any(map(needs_totals, steps))
    if wants_totals:
        _check_totals(steps)
    order: list[type[Transform]] = [NormalizeTotal, Log1p, *([Scale] if output == "dense" and not has_gaps else [])]
    taken: dict[type[Transform], Transform] = {}
    if dtype in _IN_RUST and in_core:
        for step in steps:
            # Exactly these classes: a subclass may do more.
            if type(step) not in order:
                break
            order = order[order.index(type(step)) + 1 :]
            taken[type(step)] = step
    rest = steps[len(taken) :]
    # The steps on X that come first are rounded once, wherever they are done.
    goes_on = dtype in _IN_RUST and bool(rest) and is_on_x(rest[0])
    return Fused(
        ops=_ops(taken) if taken else None,
        dtype=torch.float32 if goes_on else dtype,
        # A copy: members may be added to the user's own meanwhile.
        rest=(transform if not taken and type(transform) is not Compose else Compose(rest)) if rest else None,
        wants_totals=wants_totals,
        rest_wants_totals=is_part and any(map(needs_totals, rest)),
    )


def without_x(transform: Transform | None, dtype: torch.dtype, wants_totals: bool = False) -> Fused:
    """Return what is left of a transform for batches of tokens, which have no "X": all of it.

    Raises
    ------
    ValueError
        If a step of it works on "X".

    Examples
    --------
    >>> without_x(None, torch.float32).rest is None
    True
    """
    for step in steps_of(transform):
        if isinstance(step, StepOnX):
            instead = {NormalizeTotal: "normalized", Log1p: "log1p"}.get(type(step))
            raise ValueError(
                f"found the transform {step!r}, which works on X, with output=Tokens; expected transforms of tokens. "
                + (f"Pass Tokens(values={instead!r})" if instead else "Leave it out")
            )
    return Fused(None, dtype, transform, wants_totals)


def _check_totals(steps: list[Transform]) -> None:
    """That nothing of ours changes X before it is normalised; what users' own steps do is seen when they were run."""
    before: Transform | None = None
    for step in steps:
        if needs_totals(step) and before is not None:
            raise ValueError(
                f"{step!r} comes after {before!r}, and genes are left out (var_subset=, join=), so its totals over all "
                "genes are not known. Put NormalizeTotal first, or pass NormalizeTotal(over='delivered')"
            )
        if needs_totals(step) and not is_on_x(step):
            raise ValueError(
                f"{step!r} is a {type(step).__name__} with a __call__ of its own, and genes are left out (var_subset=, "
                "join=), so it cannot be given the totals over all genes. Pass over='delivered' to it, or use "
                "NormalizeTotal itself"
            )
        if isinstance(step, StepOnX):
            before = step


def _ops(taken: dict[type[Transform], Transform]) -> RowOps:
    normalize, scale = taken.get(NormalizeTotal), taken.get(Scale)
    steps: dict[str, Any] = {"log1p": Log1p in taken}
    if isinstance(normalize, NormalizeTotal):
        steps |= {"target_sum": normalize.target_sum, "over_all": normalize.over == "all"}
    if isinstance(scale, Scale):
        mean, std = (vector.numpy().astype(np.float32) for vector in (scale.mean, scale.std))
        steps |= {"mean": mean, "std": std, "max_value": scale.max_value}
    return RowOps(**steps)
