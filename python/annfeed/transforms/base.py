"""Transforms of items and batches: the base class for users' own, `Compose`, and three that annfeed brings.

A transform is called with a dict and returns one, as in anndata's ``AnnDataset``. batches/items.py applies them.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import torch

from annfeed.errors import AnnfeedWarning, UnknownNameError
from annfeed.memory.sparse import compressed
from annfeed.user_arrays import as_array, is_series

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Transform(ABC):
    """A step that is called with the dict of one item, or of one batch if ``batched`` is True, and returns a dict.

    An item is ``{"X": tensor [n_vars], "obs_<column>": 0-d tensor | str}``; a batch is
    ``{"X": tensor [B, n_vars], "obs_<column>": tensor [B] | list[str]}``. Keys may be added, changed or left out, in
    the same way for every item. An instance must pickle to be sent to torch workers that are spawned.

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
        """Return the name of the class with empty brackets; subclasses with parameters show them here."""
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
    >>> Compose([NormalizeTotal(1e4), Log1p()])
    Compose(
        NormalizeTotal(target_sum=10000.0)
        Log1p()
    )
    """

    def __init__(self, transforms: Iterable[Transform]) -> None:
        """Check and keep the members."""
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
        """Return one line for each member."""
        members = "".join(f"\n    {line}" for t in self.transforms for line in repr(t).splitlines())
        return f"{type(self).__name__}({members}\n)"


class StepOnX(Transform):
    """A step on ``X`` alone, row by row; steps that follow each other are computed together and rounded once."""

    batched = True

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        """Return a new dict with ``X`` after this step."""
        return compute([self], data_dict)

    @abstractmethod
    def on(self, x: torch.Tensor, totals: torch.Tensor | None) -> torch.Tensor:
        """Return a wide float ``x`` after this step; ``totals`` are those of its rows over all genes, where known."""


class NormalizeTotal(StepOnX):
    """Scale each row of ``X`` to the sum ``target_sum``: x * target_sum / total, as ``scanpy.pp.normalize_total`` does.

    ``X`` is dense ``[B, n_vars]`` or ``[n_vars]``, or sparse CSR ``[B, n_vars]``, and is not changed in place. A float
    dtype is kept, others become torch's default dtype. It is computed in float32 (float64 for float64). A row whose
    total is 0 stays as it is.

    Parameters
    ----------
    target_sum
        Sum of each row afterwards, a positive number.
    over
        Genes that make up the total. "all": all genes of the matrix as stored (with several files, of the row's own
        file), also those that ``var_subset`` or ``join`` leaves out. "delivered": the genes in ``X``. Outside of a
        dataset both mean the genes in ``X``.

    Raises
    ------
    ValueError
        If ``target_sum`` is not positive and finite, or ``over`` is neither; in a dataset that leaves out genes, if a
        transform before it changed ``X``.

    Examples
    --------
    >>> NormalizeTotal(10)({"X": torch.tensor([[1.0, 3.0], [0.0, 0.0]])})["X"]
    tensor([[2.5000, 7.5000],
            [0.0000, 0.0000]])
    """

    def __init__(self, target_sum: float = 1e4, over: Literal["all", "delivered"] = "all") -> None:
        """Keep the target."""
        if target_sum is None:
            raise TypeError(
                "NormalizeTotal: found target_sum=None, with which scanpy takes the median of the totals of all cells; "
                "expected a number, as a batch knows its own cells only. Pass the median of the training cells' totals"
            )
        self.target_sum = float(target_sum)
        if not 0 < self.target_sum < float("inf"):
            raise ValueError(f"NormalizeTotal: target_sum must be a positive number, not {target_sum!r}")
        if over not in ("all", "delivered"):
            raise ValueError(f"NormalizeTotal: over is {over!r}; expected 'all' or 'delivered'")
        self.over = over

    def on(self, x: torch.Tensor, totals: torch.Tensor | None) -> torch.Tensor:
        """Return ``x`` normalised."""
        sums = totals if self.over == "all" else None
        if x.layout is not torch.sparse_csr:
            sums = x.sum(-1, keepdim=True, dtype=torch.float64) if sums is None else sums.unsqueeze(-1)
            return _times(x, self._factors(sums))
        crow, values = x.crow_indices(), x.values()
        row_of_value = torch.repeat_interleave(torch.arange(x.shape[0], device=x.device), crow.diff())
        if sums is None:
            sums = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
            sums.index_add_(0, row_of_value, values.to(torch.float64))
        return _with_values(x, _times(values, self._factors(sums)[row_of_value]))

    def _factors(self, sums: torch.Tensor) -> torch.Tensor:
        # In float64, because float32 sums of 30,000 values differ by more than 1e-6 with the order of addition.
        return torch.where(sums == 0, 1.0, self.target_sum / sums)

    def __repr__(self) -> str:
        """Return the class with its parameters."""
        over = "" if self.over == "all" else f", over={self.over!r}"
        return f"NormalizeTotal(target_sum={self.target_sum}{over})"


class Log1p(StepOnX):
    """Replace each value x of ``X`` by ln(1 + x), as ``scanpy.pp.log1p`` does.

    ``X`` is dense or sparse CSR, and is not changed in place. A float dtype is kept, others become torch's default
    dtype. It is computed in float32 (float64 for float64).

    Examples
    --------
    >>> Log1p()({"X": torch.tensor([0.0, 1.0])})["X"]
    tensor([0.0000, 0.6931])
    """

    def on(self, x: torch.Tensor, totals: torch.Tensor | None) -> torch.Tensor:
        """Return the logarithms."""
        return _with_values(x, torch.log1p(x.values())) if x.layout is torch.sparse_csr else torch.log1p(x)


class Scale(StepOnX):
    """Centre and scale each gene: (x - mean) / std, clipped, as ``scanpy.pp.scale`` does with the data's own values.

    ``X`` is dense, ``[B, n_vars]`` or ``[n_vars]``, and is not changed in place. A float dtype is kept, others become
    torch's default dtype. It is computed in float32 (float64 for float64).

    Parameters
    ----------
    mean, std
        One number for each gene of ``X``, ``[n_vars]``, in its order; a std of 0 counts as 1. If both are pandas
        Series, their indexes must be equal; the index is not compared with gene names.
    max_value
        Clip to -max_value..max_value; None does not clip.

    Raises
    ------
    ValueError
        If lengths or indexes differ, a value is not finite, a std is negative or ``max_value`` is not positive; when
        called, if ``X`` has another number of genes or is sparse.

    Examples
    --------
    >>> Scale(mean=[1.0, 2.0], std=[2.0, 0.0], max_value=3)({"X": torch.tensor([[5.0, 3.0], [99.0, 2.0]])})["X"]
    tensor([[2., 1.],
            [3., 0.]])
    """

    def __init__(
        self,
        mean: ArrayLike | torch.Tensor | Sequence[float],
        std: ArrayLike | torch.Tensor | Sequence[float],
        max_value: float | None = None,
    ) -> None:
        """Check the parameters and keep them as float64 tensors."""
        self.mean = _vector("mean", mean)
        std_vector = _vector("std", std)
        if self.mean.shape != std_vector.shape:
            raise ValueError(f"Scale: mean has {len(self.mean)} values and std {len(std_vector)}; give one a gene")
        if is_series(mean) and is_series(std) and not mean.index.equals(std.index):
            raise ValueError(
                "Scale: found mean and std as Series with different indexes; expected the same genes in the same "
                "order. Pass std.reindex(mean.index)"
            )
        if (std_vector < 0).any():
            raise ValueError("Scale: std has negative values")
        if max_value is not None and not max_value > 0:
            raise ValueError(f"Scale: max_value must be positive or None, not {max_value!r}")
        self.std = torch.where(std_vector == 0, 1.0, std_vector)
        self.max_value = max_value

    def on(self, x: torch.Tensor, totals: torch.Tensor | None) -> torch.Tensor:
        """Return ``x`` scaled."""
        if x.layout is not torch.strided:
            raise ValueError('Scale: X is sparse, and centring fills it; use output="dense", or leave Scale out')
        if x.shape[-1:] != self.mean.shape:
            raise ValueError(
                f"Scale: X has shape {tuple(x.shape)}, mean and std have {len(self.mean)} values; give one a gene of "
                "X, in its order (see var_subset)"
            )
        out = (x - self.mean.to(x)) / self.std.to(x)
        return out if self.max_value is None else out.clamp_(-self.max_value, self.max_value)

    def __repr__(self) -> str:
        """Return the class with its number of genes and its limit."""
        return f"Scale(<{len(self.mean)} genes>, max_value={self.max_value})"


def check_transform(transform: object) -> Transform | None:
    """Return ``transform`` if it may be a dataset's transform (a Transform or None), else raise TypeError.

    Examples
    --------
    >>> check_transform(Log1p())
    Log1p()
    """
    if transform is None or isinstance(transform, Transform):
        return transform
    raise TypeError(
        f"transform must be a Transform or None, not {_kind(transform)}; make it a class that inherits from "
        "annfeed.Transform and defines __call__(self, data_dict), and pass an instance of it"
    )


def call_transform(transform: Transform, data: dict[str, Any]) -> dict[str, Any]:
    """Return ``transform(data)``, or raise TypeError if that is no dict (a forgotten ``return``, most often).

    Examples
    --------
    >>> call_transform(Log1p(), {"X": torch.zeros(2)})
    {'X': tensor([0., 0.])}
    """
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
    >>> steps_of(Compose([Log1p(), Compose([NormalizeTotal()])]))
    [Log1p(), NormalizeTotal(target_sum=10000.0)]
    """
    if type(transform) is Compose:
        return [step for member in transform.transforms for step in steps_of(member)]
    return [] if transform is None else [transform]


def is_on_x(transform: Transform) -> bool:
    """Whether a transform is a step on X and no more than that: a subclass with a ``__call__`` of its own may do more.

    Examples
    --------
    >>> is_on_x(Log1p()), is_on_x(Compose([Log1p()]))
    (True, False)
    """
    return isinstance(transform, StepOnX) and type(transform).__call__ is StepOnX.__call__ and transform.batched


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
        """Return the totals for ``x``.

        Raises
        ------
        ValueError
            If it is not what was read.
        """
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
    _tell_of_infinities(x, y, steps)
    return {**data_dict, "X": y}


def needs_totals(transform: Transform) -> bool:
    """Whether a transform wants the totals of rows over all genes.

    Examples
    --------
    >>> needs_totals(NormalizeTotal()), needs_totals(NormalizeTotal(over="delivered"))
    (True, False)
    """
    return isinstance(transform, NormalizeTotal) and transform.over == "all"


def run_steps(
    steps: Sequence[Transform],
    data: dict[str, Any],
    totals: RowTotals | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Return what the last of ``steps`` returns; neighbouring steps on X are computed together.

    Parameters
    ----------
    steps
        In order, Compose taken apart (`steps_of`).
    data
        An item or a batch.
    totals
        As in `compute`.
    dtype
        Of X after the steps on X that come first; None as in `compute`.

    Examples
    --------
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


def _times(x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    # A factor that x's dtype does not hold would make zeros NaN.
    if bool((factors.abs() > torch.finfo(x.dtype).max).any()):
        return (x.to(factors.dtype) * factors).to(x.dtype)
    return x * factors.to(x.dtype)


def _tell_of_infinities(x: torch.Tensor, y: torch.Tensor, steps: Sequence[StepOnX]) -> None:
    """Warn where finite numbers became infinite."""
    before, after = _values(x), _values(y)
    if bool(torch.isfinite(after.sum(dtype=torch.float64))):
        return
    lost = torch.isinf(after) & torch.isfinite(before)
    if bool(lost.any()):
        names = ", ".join(type(step).__name__ for step in steps)
        warnings.warn(
            f"after {names}, values are too large for {y.dtype} and become infinite; pass a wider dtype, "
            "as torch.float32",
            AnnfeedWarning,
            stacklevel=2,
        )


def _with_values(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return compressed(x.crow_indices(), x.col_indices(), values, x.shape)


def _vector(name: str, values: Any) -> torch.Tensor:
    array = as_array(f"Scale: {name}", values)
    if array.ndim != 1:
        raise ValueError(f"Scale: {name} must have one value a gene, shape [n_vars], not {array.shape}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"Scale: {name} holds {array.dtype}; expected numbers")
    vector = torch.from_numpy(array.astype("float64"))
    if not torch.isfinite(vector).all():
        raise ValueError(f"Scale: {name} has values that are not finite")
    return vector
