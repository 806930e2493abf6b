"""`GeneSymbols`: genes found by their values in a column of var, such as symbols, which may repeat or be missing.

Names that are columns of a matrix are found in inputs/selection.py.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.errors import UnknownNameError
from annfeed.inputs.genes import Join, join_names
from annfeed.user_arrays import first_few, near_matches

#: Values of several genes, and genes of each, that a message lists.
_LISTED = 5
#: Floats below it hold each whole number.
_WHOLE = 2.0**53


class GeneSymbols:
    """The values of a column of var, taken in from one source after another.

    What is held grows with the number of different sets of genes, not with that of sources.

    Parameters
    ----------
    column
        The name of the column.

    Examples
    --------
    >>> symbols = GeneSymbols("symbol")
    >>> symbols.add(pd.Index(["ENSG0", "ENSG1"]), pd.Series(["CD3E", None]), "a.h5ad")
    >>> symbols.add(pd.Index(["ENSG2", "ENSG1"]), pd.Series(["NKG7", "MS4A1"]), "b.h5ad")
    >>> symbols.find(["NKG7", "MS4A1"], "outer")
    array([2, 1])
    """

    def __init__(self, column: str) -> None:
        #: The name of the column.
        self.column = column
        self._places: list[str] = []
        self._by_names: dict[int, _Values] = {}  # by the identity of the names, which are kept

    def add(self, names: pd.Index[Any], values: pd.Series[Any], place: str) -> None:
        """Take in a source's values, in the order of its ``names``: the same Index for the same names."""
        number = len(self._places)
        self._places.append(place)
        found = _Values(names, texts_of(values), np.full(len(names), number, np.int64))
        known = self._by_names.setdefault(id(names), found)
        if known is not found:
            known.take_in(found)

    def find(self, wanted: Sequence[str], join: Join) -> Int64Array:
        """Return the joined genes that have the ``wanted`` values, in this order.

        Raises
        ------
        UnknownNameError
            If no gene has a value.
        ValueError
            If several genes have a value, or sources differ about a gene that has it.
        """
        values = self._joined(join)
        place = self._places[0] if len(self._places) == 1 else f"the var of {len(self._places)} sources"
        genes: dict[str, list[int]] = {}
        for gene in np.flatnonzero(pd.notna(values.texts)).tolist():
            genes.setdefault(values.texts[gene], []).append(gene)
        contested: dict[str, tuple[int, str]] = {}
        for gene, other in values.others:
            contested.setdefault(values.texts[gene], (gene, other))
            contested.setdefault(other, (gene, other))
        for name in wanted:
            if name in contested:
                raise ValueError(self._told(values, *contested[name]))
            if name not in genes:
                hint = near_matches(name, list(genes))
                if name in values.names:
                    hint = "It is the name of a gene: leave out var_column, which is for all of var_subset"
                raise UnknownNameError(f"{place} has no {name!r} in the column {self.column!r}. {hint}")
        repeated = [name for name in wanted if len(genes[name]) > 1]
        if repeated:
            listed = [f"{name!r}: {first_few(values.names[genes[name]], _LISTED)}" for name in repeated[:_LISTED]]
            more = f"; and {len(repeated) - _LISTED} more" if len(repeated) > _LISTED else ""
            raise ValueError(
                f"{place} has several genes with one value in the column {self.column!r}: {'; '.join(listed)}{more}. "
                "Choose among them: pass these names without var_column, or positions"
            )
        return np.array([genes[name][0] for name in wanted], dtype=np.int64)

    def texts(self, wanted: Container[str], join: Join, columns: Int64Array | None) -> npt.NDArray[np.object_]:
        """Return the values of some joined genes (None: of all) as texts, and None for missing ones.

        Raises
        ------
        ValueError
            If sources differ about one of these genes, and a value that it has is ``wanted``.
        """
        values = self._joined(join)
        chosen = None if columns is None else set(columns.tolist())
        for gene, other in values.others:
            is_wanted = values.texts[gene] in wanted or other in wanted
            if is_wanted and (chosen is None or gene in chosen):
                raise ValueError(self._told(values, gene, other))
        return values.texts if columns is None else values.texts[columns]

    def _joined(self, join: Join) -> _Values:
        first, *others = self._by_names.values()
        if not others:
            return first
        numbers = [int(values.sources[0]) if len(values.sources) else 0 for values in (first, *others)]
        names = join_names([v.names for v in (first, *others)], join, lambda i: self._places[numbers[i]])
        joined = first.at(names)
        for values in others:
            joined.take_in(values.at(names))
        return joined

    def _told(self, values: _Values, gene: int, other: str) -> str:
        here, there = self._places[values.sources[gene]], self._places[values.others[gene, other]]
        return (
            f"the gene {values.names[gene]!r} is {values.texts[gene]!r} in the column {self.column!r} of {here}, and "
            f"{other!r} in that of {there}; expected one value. Pass the name of the gene, without var_column"
        )


@dataclass
class _Values:
    """The value of each of some genes, and what other sources have instead."""

    names: pd.Index[Any]
    texts: npt.NDArray[np.object_]  # as the first source has it that has one; None for none
    sources: npt.NDArray[np.int64]  # the number of this source
    others: dict[tuple[int, str], int] = field(default_factory=dict)  # gene and another value: number of the source

    def take_in(self, more: _Values) -> None:
        """Take in the values of the same genes in later sources."""
        here, there = pd.notna(self.texts), pd.notna(more.texts)
        both = np.flatnonzero(here & there)
        for gene in both[self.texts[both] != more.texts[both]].tolist():
            self.others.setdefault((gene, more.texts[gene]), int(more.sources[gene]))
        new = there & ~here
        self.texts[new], self.sources[new] = more.texts[new], more.sources[new]
        for (gene, other), source in more.others.items():
            if self.texts[gene] != other:
                self.others.setdefault((gene, other), source)

    def at(self, names: pd.Index[Any]) -> _Values:
        """Return the values of other genes, by name."""
        columns = self.names.get_indexer(names)
        there = columns >= 0
        texts, sources = np.full(len(names), None, object), np.zeros(len(names), np.int64)
        texts[there], sources[there] = self.texts[columns[there]], self.sources[columns[there]]
        to = names.get_indexer(self.names)
        others = {(int(to[gene]), other): source for (gene, other), source in self.others.items() if to[gene] >= 0}
        return _Values(names, texts, sources, others)


def texts_of(values: pd.Series[Any]) -> npt.NDArray[np.object_]:
    """Return values of var as texts, and None for missing ones.

    Whole floats are the text of the whole number: a column of numbers of which one is missing is stored as floats.

    Examples
    --------
    >>> texts_of(pd.Series([7157.0, None, 0.5])), texts_of(pd.Series(["TP53", None], dtype="category"))
    (array(['7157', None, '0.5'], dtype=object), array(['TP53', None], dtype=object))
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        categories = np.full(len(values.cat.categories) + 1, None, object)  # the code of a missing value is -1
        categories[:-1] = texts_of(pd.Series(values.cat.categories))
        coded: npt.NDArray[np.object_] = categories[values.cat.codes.to_numpy()]
        return coded
    there = values.notna().to_numpy(bool)
    texts = np.full(len(values), None, object)
    texts[there] = [value if type(value) is str else _as_text(value) for value in values.to_numpy(object)[there]]
    return texts


def _as_text(value: Any) -> str:
    if isinstance(value, float | np.floating) and value.is_integer() and abs(float(value)) < _WHOLE:
        return str(int(value))
    return str(value)
