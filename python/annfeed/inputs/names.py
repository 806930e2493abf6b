"""Names of the columns of a matrix, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from annfeed.arrays import Int64Array


def picked(names: Callable[[], pd.Index[Any]], columns: Int64Array) -> pd.Index[Any]:
    """Return the names of some of the columns."""
    return names()[columns]


def numbered(n: int) -> pd.Index[Any]:
    """Return the names of columns that have none: their numbers, as text.

    Examples
    --------
    >>> numbered(2).tolist()
    ['0', '1']
    """
    return pd.RangeIndex(n).astype(str)
