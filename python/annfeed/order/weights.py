"""`Weighting`: the expected count of each row in an epoch of rows drawn by weight, and its sums over strata.

In n draws the expected count of a row of weight w is ``x = n * w / sum(w)``. order/weighted.py draws the rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array

Float64Array = npt.NDArray[np.float64]

#: Neighbouring rows whose draws are computed together.
RUN_ROWS = 64
#: Rows that are summed at a time.
_CHUNK = 1 << 20
#: Tolerance for an expected count of 1 if no row may come twice.
_CERTAIN = 1 - 1e-9


class Weighting:
    """The expected count of each row in an epoch of draws.

    Parameters
    ----------
    weights
        Real numbers [n_rows], finite, >= 0, not all 0; kept by reference. With ``codes``: [n_classes], the weight of
        each row of a class.
    codes
        Integers [n_rows], the class of each row.
    n_samples
        Draws in an epoch. None: n_rows; without replacement, the most that keep every row's share in proportion to its
        weight, sum(weights) / max(weights).
    replacement
        Whether a row may come more than once. If not, rows with an expected count above 1 come once, and the others
        share the rest in proportion.
    drawn
        What is drawn, for messages.

    Examples
    --------
    >>> weighting = Weighting([1.0, 0.0, 3.0])
    >>> weighting.expected_counts(np.arange(3)).tolist()
    [0.75, 0.0, 2.25]
    >>> Weighting([1.0, 1.0, 2.0], replacement=False).n_samples
    2
    """

    def __init__(
        self,
        weights: npt.ArrayLike,
        *,
        codes: npt.NDArray[Any] | None = None,
        n_samples: int | None = None,
        replacement: bool = True,
        drawn: str = "rows",
    ) -> None:
        self._drawn = drawn
        self._values = _real(weights)
        self._codes = codes
        self.n_rows = len(self._values if codes is None else codes)
        self.replacement = replacement
        largest = self._check()
        self._largest = largest
        total = math.fsum(float(np.cumsum(part)[-1]) for part in self._parts(1.0))
        if n_samples is None:
            # Relative tolerance: truncation must not drop a draw if the sum is a whole number up to rounding.
            n_samples = self.n_rows if replacement else min(self.n_rows, int(total * (1 + 1e-12)))
        if n_samples < min(1, self.n_rows):
            raise ValueError(f"n_samples is {n_samples}; expected at least 1")
        self.n_samples = n_samples
        self._scale = n_samples / total if total else 0.0
        if not replacement:
            self._scale = self._clipped_scale(total)
        self._sum_strata()

    def expected_counts(self, rows: Int64Array) -> Float64Array:
        """Return the expected count of each of ``rows`` in an epoch, float64 of the same shape."""
        return self._scaled(self._values[rows] if self._codes is None else self._values[self._codes[rows]])

    @cached_property
    def digest(self) -> str:
        """Return a short text that differs for other weights."""
        found = hashlib.blake2b(f"{self.n_rows} {self.n_samples} {self.replacement}".encode(), digest_size=8)
        for array in (self._values, self._codes):
            if array is not None:
                found.update(array.dtype.str.encode())
                found.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        return found.hexdigest()

    def _scaled(self, weights: npt.NDArray[Any]) -> Float64Array:
        # Divided by the largest first, so that neither tiny nor huge weights overflow.
        expected: Float64Array = np.divide(weights, self._largest, dtype=np.float64) * self._scale
        if not self.replacement:
            expected[expected > _CERTAIN] = 1.0
        return expected

    def _check(self) -> float:
        """Check each weight; return the largest."""
        what = "weights" if self._codes is None else "weights of classes"
        largest = 0.0
        for start in range(0, len(self._values), _CHUNK):
            part = self._values[start : start + _CHUNK].astype(np.float64)
            good = np.isfinite(part) & (part >= 0)
            if not good.all():
                bad = int(np.argmin(good))
                raise ValueError(f"{what}[{start + bad}] is {part[bad]}; expected a finite number that is not negative")
            largest = max(largest, float(part.max()))
        if self.n_rows and not largest:
            raise ValueError(f"all {len(self._values)} {what} are 0; expected at least one above")
        return largest or 1.0

    def _parts(self, scale: float) -> Iterator[Float64Array]:
        """Yield the weights of all rows divided by the largest, times ``scale``, some rows at a time."""
        for start in range(0, self.n_rows, _CHUNK):
            part = slice(start, start + _CHUNK)
            values = self._values[part] if self._codes is None else self._values[self._codes[part]]
            yield np.divide(values, self._largest, dtype=np.float64) * scale

    def _clipped_scale(self, total: float) -> float:
        """Return the scale for which expected counts, each at most 1, sum to ``n_samples``."""
        n_certain, scale = 0, self._scale
        while True:
            certain, rest, n_weighted = 0, [0.0], 0
            for expected in self._parts(scale):
                above = expected > _CERTAIN
                certain += int(np.count_nonzero(above))
                n_weighted += int(np.count_nonzero(expected))
                rest.append(float(np.cumsum(np.where(above, 0.0, expected))[-1]))
            if self.n_samples > n_weighted:
                raise ValueError(
                    f"n_samples is {self.n_samples}, but only {n_weighted} {self._drawn} have a weight above 0; "
                    "draw fewer, or with replacement=True"
                )
            if certain == n_certain:
                return scale
            n_certain, left = certain, math.fsum(rest)
            scale *= (self.n_samples - certain) / left if left else 1.0

    def _sum_strata(self) -> None:
        """Sum the expected counts of each stratum: the rows of a run of 64 that have the same multiplicity."""
        small = np.int32 if self.n_rows < 2**31 else np.int64
        runs_of: dict[int, list[npt.NDArray[Any]]] = {}
        sums: dict[int, list[npt.NDArray[Any]]] = {}
        for start in range(0, self.n_rows, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, self.n_rows), dtype=np.int64)
            expected = self.expected_counts(rows)
            multiplicity = multiplicity_of(expected)
            n_multiplicities = int(multiplicity.max()) + 1
            # bincount adds in the order of rows, so sums are equal on every machine.
            found = np.bincount((rows - start) // RUN_ROWS * n_multiplicities + multiplicity, weights=expected)
            for number in range(n_multiplicities):
                of_this = found[number::n_multiplicities]
                there = np.flatnonzero(of_this)
                runs_of.setdefault(number, []).append((start // RUN_ROWS + there).astype(small))
                sums.setdefault(number, []).append(of_this[there])
        there_are = range(max(runs_of, default=-1) + 1)
        #: The first stratum of each multiplicity, and the number of strata.
        self.multiplicity_starts = np.cumsum([0, *(sum(map(len, runs_of.get(number, []))) for number in there_are)])
        #: The run of 64 rows of each stratum, and the sum of the expected counts of its rows.
        self.run_of = np.concatenate(
            [np.empty(0, small), *(p for number in there_are for p in runs_of.pop(number, []))]
        )
        self.expected = np.concatenate([np.empty(0), *(p for number in there_are for p in sums.pop(number, []))])


def multiplicity_of(expected: Float64Array) -> npt.NDArray[np.int16]:
    """Return the smallest k >= 0 with expected count <= 2 ** k.

    Examples
    --------
    >>> multiplicity_of(np.array([0.0, 0.7, 1.0, 1.5, 3.0, 4.5])).tolist()
    [0, 0, 0, 1, 2, 3]
    """
    multiplicity: npt.NDArray[np.int16] = np.where(expected > 1, np.frexp(expected)[1], 0).astype(np.int16)
    return multiplicity


def _real(weights: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(weights)
    if array.dtype.kind not in "biuf" and array.size:
        raise TypeError(f"weights have dtype {array.dtype}; expected real numbers")
    if array.ndim != 1:
        raise ValueError(f"weights have shape {array.shape}; expected one dimension, a weight for each row")
    return array if array.dtype.kind in "biuf" else array.astype(np.float64)
