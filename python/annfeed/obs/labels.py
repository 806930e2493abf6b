"""An obs column as codes, for what goes by its labels: splits and balanced orders.

Codes here are numbered by first appearance and mean nothing outside; batches carry those of obs/to_batch.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array

if TYPE_CHECKING:
    import pandas as pd

#: Rows looked at together.
_CHUNK = 1 << 20


def label_codes(
    column: pd.Series[Any], needed_by: str | None = None, rows: Int64Array | None = None
) -> tuple[npt.NDArray[Any], list[Any]]:
    """Return the code of each row, as narrow as they fit, and the label of each code, in order of appearance.

    Of a categorical, only its codes are looked at. A row without a label has code -1; where ``needed_by`` is given, the
    option that needs one in each row, that is a ValueError. ``rows`` are those that are meant, in order; None for all.

    Examples
    --------
    >>> import pandas as pd
    >>> label_codes(pd.Series(["b", None, "a", "b"]))
    (array([ 0, -1,  1,  0], dtype=int8), ['b', 'a'])
    """
    codes, labels = _codes(column)
    codes, order = _by_appearance(codes if rows is None else codes[rows], len(labels))
    n_missing = int(np.count_nonzero(codes < 0))
    if needed_by is not None and n_missing:
        raise ValueError(
            f"{needed_by}={column.name!r}: {n_missing} of {len(codes)} rows have no value there, and none is made up. "
            "Leave them out with obs_subset=, or fill them in"
        )
    return codes, [labels[code] for code in order]


def _codes(column: pd.Series[Any]) -> tuple[npt.NDArray[Any], Any]:
    import pandas as pd

    from annfeed.obs.to_batch import as_labels

    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.array.codes, column.dtype.categories
    return as_labels(column).factorize()


def _by_appearance(codes: npt.NDArray[Any], n_labels: int) -> tuple[npt.NDArray[Any], list[int]]:
    """The codes, numbered by first appearance, and which ones these were."""
    order: dict[int, None] = {}
    for start in range(0, len(codes), _CHUNK):
        found, first = np.unique(codes[start : start + _CHUNK], return_index=True)
        order.update(dict.fromkeys(found[np.argsort(first)].tolist()))
        if len(order) > n_labels:  # all, and missing ones
            break
    order.pop(-1, None)
    kept = list(order)
    # Code -1 finds the last entry.
    number = np.full(n_labels + 1, -1, np.min_scalar_type(-max(1, len(kept))))
    number[kept] = np.arange(len(kept), dtype=number.dtype)
    return number[codes], kept
