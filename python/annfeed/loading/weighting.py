"""`weights=` or `balance=` become a `Weighting`, after checks; order/weighted.py draws the rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annfeed.arrays import integer
from annfeed.inputs.selection import numbers_of_rows
from annfeed.order.weights import Weighting

if TYPE_CHECKING:
    from annfeed.loading.protocols import Rows

#: Rows counted together.
_CHUNK = 1 << 20


def find_weighting(
    dataset: Rows,
    weights: Any,
    balance: str | None,
    temperature: float,
    replacement: bool,
    n_samples: int | None,
) -> Weighting | None:
    """Return the expected counts of rows; None if neither ``weights`` nor ``balance`` is given.

    Parameters
    ----------
    dataset
        The dataset; its obs column ``balance`` is read.
    weights, balance, temperature, replacement, n_samples
        As in `AnnDataset.get_optimized_dataloader`.

    Examples
    --------
    >>> import anndata, pandas as pd
    >>> from annfeed import AnnDataset
    >>> obs = pd.DataFrame({"cell_type": list("TTTB")}, index=list("1234"))
    >>> dataset = AnnDataset(anndata.AnnData(np.eye(4, dtype="float32"), obs=obs))
    >>> find_weighting(dataset, None, "cell_type", 1.0, True, 12).expected_counts(np.arange(4)).tolist()
    [2.0, 2.0, 2.0, 6.0]
    """
    how = draws_of(weights, balance, temperature, replacement, n_samples)
    if how is None:
        return None
    if balance is not None:
        codes, labels = dataset.reader.label_codes(balance, needed_by="balance")
        return Weighting(class_weights(codes, len(labels), float(temperature)), codes=codes, **how)
    return Weighting(numbers_of_rows("weights", weights, len(dataset), lambda: dataset.obs_names), **how)


def draws_of(
    weights: Any, balance: str | None, temperature: float, replacement: bool, n_samples: int | None
) -> dict[str, Any] | None:
    """Return ``n_samples`` and ``replacement`` for `Weighting`, after checks; None without ``weights`` and ``balance``.

    The parameters are those of `find_weighting`.

    Examples
    --------
    >>> draws_of(None, "cell_type", 1.0, True, 12)
    {'replacement': True, 'n_samples': 12}
    """
    if isinstance(temperature, bool) or not isinstance(temperature, int | float | np.number):
        raise TypeError(f"temperature is {temperature!r}; expected a number from 0 to 1")
    if not isinstance(replacement, bool | np.bool_):
        raise TypeError(f"replacement is {replacement!r}; expected True or False")
    if n_samples is not None:
        n_samples = integer("n_samples", n_samples, 0, or_else=", or None")
    if balance is None and temperature != 1:
        raise ValueError(f"temperature={temperature} given without balance=, whose shares it sets")
    if weights is None and balance is None:
        for name, value in {"n_samples": n_samples, "replacement": None if replacement else False}.items():
            if value is not None:
                raise ValueError(f"{name}={value} given without weights= or balance=; without them each row comes once")
        return None
    if balance is not None:
        if weights is not None:
            raise ValueError("weights and balance given; balance makes weights: pass one of them")
        if not 0 <= temperature <= 1:
            raise ValueError(
                f"temperature is {temperature}; expected 0 (shares as in the data) to 1 (equal shares): "
                "a class of n rows gets a share in proportion to n ** (1 - temperature)"
            )
    return {"replacement": bool(replacement), "n_samples": n_samples}


def class_weights(codes: npt.NDArray[Any], n_classes: int, temperature: float) -> npt.NDArray[np.float64]:
    """Return the weight of the rows of each class, n ** -temperature for a class of n rows, float64 [n_classes].

    The share of a class is then in proportion to n ** (1 - temperature), as in Arivazhagan et al., "Massively
    multilingual neural machine translation in the wild" (2019), whose 1 / T is 1 - temperature here.

    Examples
    --------
    >>> class_weights(np.array([0, 0, 0, 0, 1]), 2, temperature=0.5).tolist()
    [0.5, 1.0]
    """
    # Piece by piece, because bincount converts codes to 8 bytes.
    parts = (codes[start : start + _CHUNK] for start in range(0, len(codes), _CHUNK))
    counts: npt.NDArray[np.int64] = sum(
        (np.bincount(p, minlength=n_classes) for p in parts), np.zeros(n_classes, np.int64)
    )
    return weights_of_counts(counts, temperature)


def weights_of_counts(counts: npt.NDArray[np.int64], temperature: float) -> npt.NDArray[np.float64]:
    """Return n ** -temperature for each count n >= 1, the same on every processor.

    Examples
    --------
    >>> weights_of_counts(np.array([4, 1]), 0.5).tolist()
    [0.5, 1.0]
    """
    if temperature == 1:
        return 1.0 / counts
    # NumPy's power differs in the last bit between processors and versions: a state saved on one fits on it only.
    return np.array([math.pow(count, -temperature) for count in counts.tolist()], np.float64)
