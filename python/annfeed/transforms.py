"""What may be done to a batch between reading and the model: the transforms that users write, and three that we ship.

The contract is one call, dict in and dict out, so that a transform written for anndata's ``AnnDataset`` runs unchanged.
This file applies no transform to a batch (``collate.apply_transform`` does) and reads nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from annfeed.errors import UnknownNameError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Transform(ABC):
    """A step that takes the dict of one item (or, with ``batched = True``, of one batch) and returns the dict to go on.

    An item is ``{"X": tensor [n_vars], "obs_<column>": 0-d tensor | str}``; a batch is
    ``{"X": tensor [B, n_vars], "obs_<column>": tensor [B] | list[str]}``. Keys may be added, changed or left out, in
    the same way for every item. Instances must pickle to be used with torch workers.

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
    """Whether ``__call__`` wants whole batches. False is the contract of anndata's ``AnnDataset``; True is faster."""

    @abstractmethod
    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        """Return the transformed dict; the one given may be changed and returned."""

    def __repr__(self) -> str:
        """Return the name of the class with empty brackets; subclasses with parameters show them here."""
        return f"{type(self).__name__}()"


class Compose(Transform):
    """Several transforms, one after another, as one transform.

    ``batched`` is True if all its members' are; where they are mixed, a dataset still gives each what it asks for,
    items or batches.

    Parameters
    ----------
    transforms
        The Transforms, at least one, in the order in which they run.

    Raises
    ------
    TypeError
        If a member is no Transform, or returns no dict when called.
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
        """Return what the last member returns, each having been given what the one before it returned."""
        for transform in self.transforms:
            data_dict = call_transform(transform, data_dict)
        return data_dict

    def __repr__(self) -> str:
        """Return one line for each member, as torchvision does."""
        members = "".join(f"\n    {line}" for t in self.transforms for line in repr(t).splitlines())
        return f"{type(self).__name__}({members}\n)"


class NormalizeTotal(Transform):
    """Scale each cell's counts so that they sum to ``target_sum``, as ``scanpy.pp.normalize_total`` does.

    ``X`` is dense ``[B, n_vars]`` or ``[n_vars]``, or sparse CSR ``[B, n_vars]``; float dtypes are kept, others become
    torch's default dtype. A row whose sum is zero is left as it is. The tensor given is not changed.

    Parameters
    ----------
    target_sum
        The sum of each row afterwards, a positive number.

    Raises
    ------
    ValueError
        If ``target_sum`` is not positive and finite.

    Examples
    --------
    >>> NormalizeTotal(10)({"X": torch.tensor([[1.0, 3.0], [0.0, 0.0]])})["X"]
    tensor([[2.5000, 7.5000],
            [0.0000, 0.0000]])
    """

    batched = True

    def __init__(self, target_sum: float = 1e4) -> None:
        """Keep the target."""
        self.target_sum = float(target_sum)
        if not 0 < self.target_sum < float("inf"):
            raise ValueError(f"NormalizeTotal: target_sum must be a positive number, not {target_sum!r}")

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        """Return a new dict with ``X`` normalised."""
        x = _as_float(_x_of(data_dict, self))
        if x.layout is not torch.sparse_csr:
            return {**data_dict, "X": x * self._factors(x.sum(-1, keepdim=True, dtype=torch.float64)).to(x.dtype)}
        crow, values = x.crow_indices(), x.values()
        row_of_value = torch.repeat_interleave(torch.arange(x.shape[0], device=x.device), crow.diff())
        sums = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
        sums.index_add_(0, row_of_value, values.to(torch.float64))
        return {**data_dict, "X": _with_values(x, values * self._factors(sums)[row_of_value].to(x.dtype))}

    def _factors(self, sums: torch.Tensor) -> torch.Tensor:
        # In float64, because float32 sums of 30,000 values differ by more than 1e-6 with the order of addition.
        return torch.where(sums == 0, 1.0, self.target_sum / sums)

    def __repr__(self) -> str:
        """Return the class with its parameter."""
        return f"NormalizeTotal(target_sum={self.target_sum})"


class Log1p(Transform):
    """Replace each value x of ``X`` by ln(1 + x), as ``scanpy.pp.log1p`` does.

    ``X`` is dense or sparse CSR; float dtypes are kept, others become torch's default dtype. The tensor given is not
    changed.

    Examples
    --------
    >>> Log1p()({"X": torch.tensor([0.0, 1.0])})["X"]
    tensor([0.0000, 0.6931])
    """

    batched = True

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        """Return a new dict with the logarithms."""
        x = _as_float(_x_of(data_dict, self))
        if x.layout is torch.sparse_csr:
            return {**data_dict, "X": _with_values(x, torch.log1p(x.values()))}
        return {**data_dict, "X": torch.log1p(x)}


class Scale(Transform):
    """Centre and scale each gene with a given mean and standard deviation, as ``scanpy.pp.scale`` does with its own.

    ``X`` is dense, ``[B, n_vars]`` or ``[n_vars]``; float dtypes are kept, others become torch's default dtype. The
    tensor given is not changed.

    Parameters
    ----------
    mean, std
        [n_vars], a number for each gene, computed on the training cells; a std of 0 counts as 1.
    max_value
        Clip to -max_value..max_value; None does not clip.

    Raises
    ------
    ValueError
        If the lengths differ, mean or std are not finite, std is negative or max_value is not positive; when called, if
        ``X`` has another number of genes or is sparse (centring would fill it).

    Examples
    --------
    >>> Scale(mean=[1.0, 2.0], std=[2.0, 0.0], max_value=3)({"X": torch.tensor([[5.0, 3.0], [99.0, 2.0]])})["X"]
    tensor([[2., 1.],
            [3., 0.]])
    """

    batched = True

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
        if (std_vector < 0).any():
            raise ValueError("Scale: std has negative values")
        if max_value is not None and not max_value > 0:
            raise ValueError(f"Scale: max_value must be positive or None, not {max_value!r}")
        self.std = torch.where(std_vector == 0, 1.0, std_vector)
        self.max_value = max_value

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        """Return a new dict with ``X`` scaled."""
        x = _as_float(_x_of(data_dict, self))
        if x.layout is not torch.strided:
            raise ValueError('Scale: X is sparse, and centring fills it; use output="dense", or leave Scale out')
        if x.shape[-1:] != self.mean.shape:
            raise ValueError(
                f"Scale: X has shape {tuple(x.shape)}, mean and std have {len(self.mean)} values; give one a gene of "
                "X, in its order (see var_subset)"
            )
        out = (x - self.mean.to(x)) / self.std.to(x)
        return {**data_dict, "X": out if self.max_value is None else out.clamp_(-self.max_value, self.max_value)}

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


def _as_float(x: torch.Tensor) -> torch.Tensor:
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _with_values(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    # The pattern is x's own, so checking it again would only cost time.
    return torch.sparse_csr_tensor(
        x.crow_indices(), x.col_indices(), values, size=x.shape, device=values.device, check_invariants=False
    )


def _vector(name: str, values: Any) -> torch.Tensor:
    vector = torch.as_tensor(values, device="cpu").detach().to(torch.float64).clone()
    if vector.ndim != 1:
        raise ValueError(f"Scale: {name} must have one value a gene, shape [n_vars], not {tuple(vector.shape)}")
    if not torch.isfinite(vector).all():
        raise ValueError(f"Scale: {name} has values that are not finite")
    return vector
