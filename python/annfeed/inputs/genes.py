"""Genes of several files matched by name: the joined names, and for each file which of its columns go where.

Arithmetic on names; nothing is read here. The order of the joined names is that of `anndata.concat`, which takes it
from pandas: an intersection keeps the first file's order, a union of different names is sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal

import numpy as np
import pandas as pd

from annfeed.sources.columns import Placed
from annfeed.user_arrays import first_few

Join = Literal["inner", "outer"]


def join_names(names: Sequence[pd.Index[Any]], join: Join, where: Callable[[int], str]) -> pd.Index[Any]:
    """Return the joined names.

    Parameters
    ----------
    names
        Of each file; the same Index object for files that have the same names.
    join
        "inner": names that all files have; "outer": names that any file has.
    where
        Names the file of a number, for messages.

    Raises
    ------
    ValueError
        If files of different names have one twice, or no name is in all files of an inner join.

    Examples
    --------
    >>> names = [pd.Index(["CD4", "CD8A"]), pd.Index(["CD8A", "ACTB", "CD4"])]
    >>> list(join_names(names, "inner", str)), list(join_names(names, "outer", str))
    (['CD4', 'CD8A'], ['ACTB', 'CD4', 'CD8A'])
    """
    distinct = {id(index): (i, index) for i, index in reversed(list(enumerate(names)))}
    different = [index for _, index in sorted(distinct.values(), key=lambda found: found[0])]
    if len(different) > 1:  # else there is nothing to match
        for number, index in sorted(distinct.values(), key=lambda found: found[0]):
            _check_unique(index, where(number))
    if join == "outer":
        united: pd.Index[Any] = reduce(lambda a, b: a.union(b), different)
        return united
    joined: pd.Index[Any] = reduce(lambda a, b: a.intersection(b), different)
    if len(joined) == 0 and all(len(index) for index in different):
        raise ValueError(_nothing_common(names, where))
    return joined


def place_columns(names: pd.Index[Any], wanted: pd.Index[Any]) -> Placed:
    """Return which columns of a file are read as which of the ``wanted`` ones.

    Parameters
    ----------
    names
        The file's, each once.
    wanted
        The joined names that are delivered, in order.

    Examples
    --------
    >>> place_columns(pd.Index(["CD8A", "ACTB", "CD4"]), pd.Index(["CD4", "CD3E", "ACTB"])).columns
    array([ 2, -1,  1])
    """
    if names is wanted or names.equals(wanted):
        return Placed(None)
    return Placed(names.get_indexer(wanted).astype(np.int64))


def _check_unique(names: pd.Index[Any], place: str) -> None:
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"{place} has several genes of one name: {first_few(twice, 5)}; files are joined by the names of their "
            "genes, so that each may be there once. Make them distinct, as with adata.var_names_make_unique()"
        )


def _nothing_common(names: Sequence[pd.Index[Any]], where: Callable[[int], str]) -> str:
    first = names[0]
    other = next((i for i, index in enumerate(names) if len(first.intersection(index)) == 0), len(names) - 1)
    return (
        f"no gene is in all {len(names)} files: {where(0)} has {first_few(first)}, {where(other)} has "
        f"{first_few(names[other])}. Are some named by symbol and others by id? join='outer' takes the genes of any "
        "file"
    )
