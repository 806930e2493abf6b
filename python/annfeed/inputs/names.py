"""Names of columns as a matrix has them: functions that give them when asked, and that pickle in a partial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from annfeed.arrays import Int64Array


def same(names: pd.Index[Any]) -> pd.Index[Any]:
    """Return the names.

    Examples
    --------
    >>> same(pd.Index(["CD4"])).tolist()
    ['CD4']
    """
    return names


def picked(names: Callable[[], pd.Index[Any]], columns: Int64Array) -> pd.Index[Any]:
    """Return the names of some of the columns.

    Examples
    --------
    >>> import numpy as np
    >>> picked(lambda: pd.Index(["CD4", "CD8A"]), np.array([1])).tolist()
    ['CD8A']
    """
    return names()[columns]


def numbered(n: int) -> pd.Index[Any]:
    """Return the names of columns that have none: their numbers, as text.

    Examples
    --------
    >>> numbered(2).tolist()
    ['0', '1']
    """
    return pd.RangeIndex(n).astype(str)
