"""`CellSets` and `Controls`: how a loader makes sets of cells. loading/set_order.py makes the order that they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from annfeed.arrays import integer
from annfeed.order.sets import Short


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Controls beside sets of cells: which cells they are, and which of them a cell is compared with.

    A control has the values of ``match`` that its cell has. Where there is no such control, the columns of ``fallback``
    are tried instead. Within an epoch, the controls of a match come in random order, and each of them comes before any
    comes again. Those of a fallback do so, too, but are counted apart: one may have come for a match before. No set has
    a control twice if it has others that fit.

    Parameters
    ----------
    where
        The value of an obs column that controls have, ``{"drug": "DMSO"}``, or a list of such values; of several
        columns all must fit. These cells are in no set.
    match
        Obs columns that a control has in common with its cell; ``[]`` for any control.
    fallback
        Columns that are compared instead where no control matches: ``["cell_line"]``; or several such lists, which are
        tried in their order: ``[["cell_line"], []]``.
    size
        Controls of a set, int; control i is for cell i of the set, counted round. None: one for each cell.

    Raises
    ------
    TypeError, ValueError
        If an argument has another type, or a value that is none of these.

    Examples
    --------
    >>> Controls(where={"drug": "DMSO"}, match=["cell_line", "plate"], fallback=["cell_line"])
    Controls(where={'drug': 'DMSO'}, match=('cell_line', 'plate'), fallback=(('cell_line',),), size=None)
    """

    where: Mapping[str, Any]
    match: str | Iterable[str] = ()
    fallback: str | Iterable[str] | Iterable[Iterable[str]] = ()
    size: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.where, Mapping) or not self.where:
            raise TypeError(
                f"Controls: where is {self.where!r}; expected a dict of an obs column and its value, as "
                "{'drug': 'DMSO'}"
            )
        _set(self, "where", {column: _plain(value) for column, value in self.where.items()})
        empty = next((column for column, value in self.where.items() if value == []), None)
        if empty is not None:
            raise ValueError(f"Controls: where[{empty!r}] has no value; expected one that controls have, or several")
        _set(self, "match", _columns("Controls: match", self.match))
        _set(self, "fallback", self._levels(self.fallback))
        if self.size is not None:
            _set(self, "size", integer("Controls: size", self.size, or_else=", or None"))

    @staticmethod
    def _levels(fallback: Any) -> tuple[tuple[str, ...], ...]:
        what = "Controls: fallback"
        if isinstance(fallback, str):
            return (_columns(what, fallback),)
        levels = list(fallback) if isinstance(fallback, Iterable) else [fallback]
        if all(isinstance(level, str) for level in levels):
            return (_columns(what, levels),) if levels else ()
        return tuple(_columns(what, level) for level in levels)


@dataclass(frozen=True, kw_only=True)
class CellSets:
    """Sets of cells that have the same values in obs columns, for ``sets=`` of a loader.

    The loader's ``batch_size`` counts sets. A batch of 16 sets of 64 cells has ``"X"`` ``[1024, n_vars]`` and the obs
    columns of these cells, ``"set"``: int64 ``[1024]``, the number of each cell's set in the batch, and
    ``"is_repeat"``: bool ``[1024]``, True for a cell that fills up a set or is drawn again. With ``controls`` it has
    ``"control_X"``, ``"control_obs_…"``, ``"control_index"`` and ``"control_set"`` of the controls. Every cell that is
    not a control comes once in an epoch without that mark, except for what ``short`` says; each epoch divides the
    cells of a group anew.

    Cells without a value in a column of ``by`` are in no set; a warning says how many.

    Parameters
    ----------
    by
        Obs column, or a list of columns: a group has the same values in all of them.
    size
        Cells of a set. None: each group is one set, as for bags of cells: ``CellSets(by="donor_id", size=None)``.
    short
        What becomes of the last cells of a group, if they are fewer than ``size``. "repeat": cells of the group's first
        sets fill the set (of a group with fewer cells than ``size``, its only set has them several times). "drop": they
        are left out; other cells in each epoch. "keep": the set is shorter.
    controls
        Controls beside the sets; None for none.

    Raises
    ------
    TypeError, ValueError
        If an argument has another type, or a value that is none of these.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from annfeed import AnnDataset
    >>> obs = pd.DataFrame({"drug": list("aabbccDDD")}, index=list("123456789"))
    >>> dataset = AnnDataset(anndata.AnnData(np.eye(9, dtype="float32"), obs=obs))
    >>> sets = CellSets(by="drug", size=2, controls=Controls(where={"drug": "D"}))
    >>> for batch in dataset.get_optimized_dataloader(batch_size=2, sets=sets, seed=0):
    ...     print(batch["obs_drug"], batch["set"].tolist(), batch["control_obs_drug"])
    ['c', 'c', 'b', 'b'] [0, 0, 1, 1] ['D', 'D', 'D', 'D']
    ['a', 'a'] [0, 0] ['D', 'D']
    """

    by: str | Iterable[str]
    size: int | None = 64
    short: Short = "repeat"
    controls: Controls | None = field(default=None)

    def __post_init__(self) -> None:
        by = _columns("CellSets: by", self.by)
        if not by:
            raise ValueError("CellSets: by is empty; expected an obs column, or a list of them")
        _set(self, "by", by)
        if self.size is not None:
            _set(self, "size", integer("CellSets: size", self.size, or_else=", or None"))
        if self.short not in get_args(Short):
            raise ValueError(f'CellSets: short is {self.short!r}; expected "repeat", "drop" or "keep"')
        if self.controls is not None and not isinstance(self.controls, Controls):
            found = type(self.controls).__name__
            raise TypeError(f"CellSets: controls is a {found}; expected annfeed.Controls, or None")

    def in_words(self) -> str:
        """Return what the sets are, in words.

        Examples
        --------
        >>> CellSets(by=["cell_line", "drug"]).in_words()
        "sets of 64 cells by 'cell_line', 'drug'"
        """
        size = "all cells" if self.size is None else f"{self.size:,} cells"
        beside = "" if self.controls is None else " beside controls"
        return f"sets of {size} by {', '.join(map(repr, self.by))}{beside}"


def _columns(what: str, columns: Any) -> tuple[str, ...]:
    if isinstance(columns, str):
        return (columns,)
    found = tuple(columns) if isinstance(columns, Iterable) and not isinstance(columns, Mapping) else (None,)
    if not all(isinstance(column, str) for column in found):
        raise TypeError(f"{what} is {columns!r}; expected an obs column, or a list of them")
    if len(set(found)) < len(found):
        raise ValueError(f"{what} is {list(found)}; expected each column once")
    return found


def _plain(value: Any) -> Any:
    """The same for numpy's numbers and arrays: its text is part of saved states."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


def _set(of: object, name: str, value: object) -> None:
    object.__setattr__(of, name, value)  # frozen: only __post_init__ may
