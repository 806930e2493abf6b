"""Transforms of items and batches: the base class of users' own, `Compose`, and how steps are run.

A transform is called with a dict and returns one, as in anndata's ``AnnDataset``. batches/items.py applies them; those
that annfeed brings are in transforms/counts.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch

from annfeed.errors import UnknownNameError
from annfeed.user_warnings import warn


class Transform(ABC):
    """A step that is called with the dict of one item, or of one batch if ``batched`` is True, and returns a dict.

    An item is ``{"X": tensor [n_vars], "obs_<column>": 0-d tensor | str}``; a batch is
    ``{"X": tensor [B, n_vars], "obs_<column>": tensor [B] | list[str]}``. Keys may be added, changed or left out, in
    the same way for every item. An instance must pickle to be sent to torch workers that are not forked.

    Examples
    --------
    >>> class Double(Transform):
    ...     def __call__(self, data_dict):
    ...         data_dict["X"] = data_dict["X"] * 2
    ...         return data_dict
    >>> Double()({"X": torch.tensor([1.0, 2.0])})
    {'X': tensor([2., 4.])}
    """

    batched: bool = False
    """Whether ``__call__`` is given whole batches. False is what anndata's ``AnnDataset`` does; True is faster."""

    @abstractmethod
    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        """Return the transformed dict; it may be the same dict, changed in place."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Compose(Transform):
    """Several transforms, called one after another.

    ``batched`` is True if it is for all members. In a dataset, members with and without ``batched`` can be mixed.

    Parameters
    ----------
    transforms
        At least one Transform, in the order in which they are called.

    Raises
    ------
    TypeError
        If a member is not a Transform, or, when called, does not return a dict.
    ValueError
        If there is no member.

    Examples
    --------
    >>> from annfeed import Log1p, NormalizeTotal
    >>> Compose([NormalizeTotal(1e4), Log1p()])
    Compose(
        NormalizeTotal(target_sum=10000.0)
        Log1p()
    )
    """

    def __init__(self, transforms: Iterable[Transform]) -> None:
        if isinstance(transforms, Transform) or not isinstance(transforms, Iterable):
            raise TypeError(f"Compose takes a list of Transforms, not {_kind(transforms)}; write Compose([...])")
        members = list(transforms)
        if not members:
            raise ValueError("Compose needs at least one Transform; for none at all pass transform=None")
        for i, member in enumerate(members):
            if not isinstance(member, Transform):
                raise TypeError(
                    f"Compose: member {i} is {_kind(member)}, not a Transform; make it an instance of a class that "
                    "inherits from annfeed.Transform"
                )
        self.transforms = members
        self.batched = all(member.batched for member in members)

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        """Return what the last member returns; each is given what the one before it returned."""
        return run_steps(steps_of(self) if type(self) is Compose else self.transforms, data_dict)

    def __repr__(self) -> str:
        members = "".join(f"\n    {line}" for t in self.transforms for line in repr(t).splitlines())
        return f"{type(self).__name__}({members}\n)"


class StepOnX(Transform):
    """A step on ``X`` alone, row by row; steps that follow each other are computed together and rounded once."""

    batched = True

    @property
    def needs_totals(self) -> bool:
        """Whether it wants the totals of rows over all genes."""
        return False

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        """Return a new dict with ``X`` after this step."""
        return compute([self], data_dict)

    @abstractmethod
    def on(self, x: torch.Tensor, totals: torch.Tensor | None) -> torch.Tensor:
        """Return a wide float ``x`` after this step; ``totals`` are those of its rows over all genes, where known."""


def check_transform(transform: object) -> Transform | None:
    """Return ``transform`` if it may be a dataset's transform (a Transform or None), else raise TypeError."""
    if transform is None or isinstance(transform, Transform):
        return transform
    raise TypeError(
        f"transform must be a Transform or None, not {_kind(transform)}; make it a class that inherits from "
        "annfeed.Transform and defines __call__(self, data_dict), and pass an instance of it"
    )


def call_transform(transform: Transform, data: dict[str, Any]) -> dict[str, Any]:
    """Return ``transform(data)``, or raise TypeError if that is no dict (a forgotten ``return``, most often)."""
    result = transform(data)
    if not isinstance(result, dict):
        raise TypeError(
            f"transform {transform!r} returned {_kind(result)}, not a dict; end its __call__ with 'return data_dict'"
        )
    return result


def steps_of(transform: Transform | None) -> list[Transform]:
    """Return the steps of a transform, with `Compose` taken apart; a subclass of it may do more, so it stays whole.

    Examples
    --------
    >>> from annfeed import Log1p, NormalizeTotal
    >>> steps_of(Compose([Log1p(), Compose([NormalizeTotal()])]))
    [Log1p(), NormalizeTotal(target_sum=10000.0)]
    """
    if type(transform) is Compose:
        return [step for member in transform.transforms for step in steps_of(member)]
    return [] if transform is None else [transform]


def is_on_x(transform: Transform) -> bool:
    """Whether a transform is a step on X and no more: a subclass with a ``__call__`` of its own may do more."""
    return isinstance(transform, StepOnX) and type(transform).__call__ is StepOnX.__call__ and transform.batched


def needs_totals(transform: Transform) -> bool:
    """Whether a transform wants the totals of rows over all genes.

    Examples
    --------
    >>> from annfeed import NormalizeTotal
    >>> needs_totals(NormalizeTotal()), needs_totals(NormalizeTotal(over="delivered"))
    (True, False)
    """
    return isinstance(transform, StepOnX) and transform.needs_totals


class RowTotals:
    """What the rows of a batch's X sum to over all genes of their matrix, good as long as X is as it was read.

    Parameters
    ----------
    totals
        float64 ``[B]``.
    x
        X as it was read, which nobody may change in place: a copy where steps of users' come first.
    """

    def __init__(self, totals: torch.Tensor, x: torch.Tensor) -> None:
        self._totals, self._x = totals, x

    def of(self, x: torch.Tensor, step: Transform) -> torch.Tensor:
        """Return the totals for ``x``, which must be what was read."""
        if not (x is self._x or _are_equal(x, self._x.to(x.device))):
            raise ValueError(
                f"{step!r}: a transform before it changed X, and genes are left out (var_subset=, join=), so its "
                "totals over all genes are not known. Put NormalizeTotal first, or pass over='delivered' to it"
            )
        return self._totals.to(x.device)


def compute(
    steps: Sequence[StepOnX],
    data_dict: dict[str, Any],
    totals: RowTotals | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Return a new dict with X after ``steps``, computed in float32 or float64 and rounded once.

    Parameters
    ----------
    steps
        At least one.
    data_dict
        An item or a batch.
    totals
        What rows sum to over all genes; None where that is what X holds.
    dtype
        Of X afterwards; None for that of X, where that is no float for torch's default dtype.

    Examples
    --------
    >>> from annfeed import Log1p, NormalizeTotal
    >>> compute([NormalizeTotal(1e6), Log1p()], {"X": torch.tensor([[1.0, 0.0]]).half()})["X"]
    tensor([[13.8125,  0.0000]], dtype=torch.float16)
    """
    x = _x_of(data_dict, steps[0])
    dtype = dtype or (x.dtype if x.is_floating_point() else torch.get_default_dtype())
    known = totals.of(x, steps[0]) if totals is not None and any(map(needs_totals, steps)) else None
    y = x.to(torch.float64 if torch.float64 in (x.dtype, dtype) else torch.float32)
    for step in steps:
        y = step.on(y, known)
    y = y.to(dtype)
    _warn_of_infinities(x, y, steps)
    return {**data_dict, "X": y}


def run_steps(
    steps: Sequence[Transform],
    data: dict[str, Any],
    totals: RowTotals | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Return what the last of ``steps`` returns; neighbouring steps on X are computed together.

    Parameters as of `compute`, with ``Compose`` taken apart (`steps_of`); ``dtype`` is that after the steps on X that
    come first.

    Examples
    --------
    >>> from annfeed import Log1p, NormalizeTotal
    >>> run_steps([NormalizeTotal(4), Log1p()], {"X": torch.tensor([[3.0, 1.0]])})["X"]
    tensor([[1.3863, 0.6931]])
    """
    for on_x, members in groupby(steps, key=is_on_x):
        if on_x:
            data = compute([m for m in members if isinstance(m, StepOnX)], data, totals, dtype)
        else:
            for member in members:
                data = call_transform(member, data)
        dtype = None
    return data


def _kind(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"a {type(value).__name__}"


def _x_of(data: Mapping[str, Any], transform: Transform) -> torch.Tensor:
    try:
        x = data["X"]
    except KeyError:
        raise UnknownNameError(
            f"{type(transform).__name__} works on 'X', and the data dict has only {list(data)}; read one matrix as 'X'"
        ) from None
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{type(transform).__name__} works on a tensor 'X', not on {_kind(x)}")
    return x


def _values(x: torch.Tensor) -> torch.Tensor:
    return x.values() if x.layout is torch.sparse_csr else x


def _are_equal(x: torch.Tensor, y: torch.Tensor) -> bool:
    if (x.layout, x.shape, x.dtype) != (y.layout, y.shape, y.dtype):
        return False
    if x.layout is torch.sparse_csr and not (
        torch.equal(x.crow_indices(), y.crow_indices()) and torch.equal(x.col_indices(), y.col_indices())
    ):
        return False
    a, b = _values(x), _values(y)
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _warn_of_infinities(x: torch.Tensor, y: torch.Tensor, steps: Sequence[StepOnX]) -> None:
    """Warn where finite numbers became infinite."""
    before, after = _values(x), _values(y)
    if bool(torch.isfinite(after.sum(dtype=torch.float64))):
        return
    lost = torch.isinf(after) & torch.isfinite(before)
    if bool(lost.any()):
        names = ", ".join(type(step).__name__ for step in steps)
        warn(
            f"after {names}, values are too large for {y.dtype} and become infinite; pass a wider dtype, "
            "as torch.float32"
        )
