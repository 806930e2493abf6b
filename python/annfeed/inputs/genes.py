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

from annfeed.sources.columns import ColumnMap
from annfeed.user_arrays import first_few

Join = Literal["inner", "outer"]

#: What to do about repeated names.
MAKE_UNIQUE = "Make them distinct, as with adata.var_names_make_unique()"


def join_names(
    names: Sequence[pd.Index[Any]],
    join: Join,
    where: Callable[[int], str],
    by: Literal["name", "id"] = "name",
    remedy: Callable[[int], str] = lambda _: MAKE_UNIQUE,
) -> pd.Index[Any]:
    """Return the joined names: "inner", those that all files have; "outer", those that any file has.

    Files that have the same names must give the same Index object. For messages, ``where`` names the file of a number,
    ``by`` says what the names are, and ``remedy`` how those of that file can be made distinct.

    Examples
    --------
    >>> names = [pd.Index(["CD4", "CD8A"]), pd.Index(["CD8A", "ACTB", "CD4"])]
    >>> list(join_names(names, "inner", str)), list(join_names(names, "outer", str))
    (['CD4', 'CD8A'], ['ACTB', 'CD4', 'CD8A'])
    """
    first_at = {id(index): i for i, index in reversed(list(enumerate(names)))}
    different = [names[i] for i in sorted(first_at.values())]
    if len(different) > 1:  # else there is nothing to match
        for index in different:
            _check_unique(index, where(first_at[id(index)]), by, remedy(first_at[id(index)]))
    if join == "outer":
        united: pd.Index[Any] = reduce(lambda a, b: a.union(b), different)
        return united
    joined: pd.Index[Any] = reduce(lambda a, b: a.intersection(b), different)
    if len(joined) == 0 and all(len(index) for index in different):
        raise ValueError(_nothing_common(names, where))
    return joined


def place_columns(names: pd.Index[Any], wanted: pd.Index[Any]) -> ColumnMap:
    """Return which columns of a file, whose ``names`` are there once each, are read as which of the ``wanted`` ones.

    Examples
    --------
    >>> place_columns(pd.Index(["CD8A", "ACTB", "CD4"]), pd.Index(["CD4", "CD3E", "ACTB"])).columns
    array([ 2, -1,  1])
    """
    if names is wanted or names.equals(wanted):
        return ColumnMap(None)
    return ColumnMap(names.get_indexer(wanted).astype(np.int64))


def _check_unique(names: pd.Index[Any], place: str, by: str, remedy: str) -> None:
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"{place} has several genes of one {by}: {first_few(twice, 5)}; files are joined by the {by}s of their "
            f"genes, so that each may be there once. {remedy}"
        )


def _nothing_common(names: Sequence[pd.Index[Any]], where: Callable[[int], str]) -> str:
    first = names[0]
    other = next((i for i, index in enumerate(names) if len(first.intersection(index)) == 0), len(names) - 1)
    return (
        f"no gene is in all {len(names)} files: {where(0)} has {first_few(first)}, {where(other)} has "
        f"{first_few(names[other])}. Are some named by symbol and others by id? join='outer' takes the genes of any "
        "file"
    )
