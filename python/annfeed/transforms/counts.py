"""The transforms that annfeed has: counts normalised, logarithms, genes scaled, as scanpy does it.

Each is a step on ``X``; transforms/base.py computes neighbouring ones together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from annfeed.memory.sparse import compressed
from annfeed.transforms.base import StepOnX
from annfeed.user_arrays import as_array, is_series

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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

    @property
    def needs_totals(self) -> bool:
        """Whether it wants the totals of rows over all genes."""
        return self.over == "all"

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
        return f"Scale(<{len(self.mean)} genes>, max_value={self.max_value})"


def _times(x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    # A factor that x's dtype does not hold would make zeros NaN.
    if bool((factors.abs() > torch.finfo(x.dtype).max).any()):
        return (x.to(factors.dtype) * factors).to(x.dtype)
    return x * factors.to(x.dtype)


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
