"""The groups of sets of cells, from obs columns: their codes, and their labels for messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array
from annfeed.loading.description import in_a_line
from annfeed.order.groups import Groups, joined_codes

if TYPE_CHECKING:
    from annfeed.loading.protocols import Rows

#: Groups that a message names.
_NAMED = 3
Codes = npt.NDArray[Any]


class Columns:
    """Obs columns of a dataset as codes, each read once."""

    def __init__(self, dataset: Rows) -> None:
        self._dataset = dataset
        self._read: dict[str, tuple[Codes, list[Any]]] = {}

    @property
    def place(self) -> str:
        """The words for the dataset in messages."""
        return in_a_line(self._dataset)

    def one(self, name: str) -> tuple[Codes, list[Any]]:
        """Return the code of each row, -1 for missing values, and the label of each code."""
        if name not in self._read:
            self._read[name] = self._dataset.reader.label_codes(name)
        return self._read[name]

    def joined(self, names: Sequence[str]) -> tuple[Codes, int]:
        """Return a code of each row for its values in several columns, -1 if one is missing, and how many there are."""
        if not names:
            return np.zeros(len(self._dataset), np.int8), 1
        codes, labels = self.one(names[0])
        n = len(labels)
        for name in names[1:]:
            others, labels = self.one(name)
            codes, n = joined_codes(codes, others, len(labels))
        return codes, n


@dataclass(frozen=True, eq=False)
class Found:
    """The groups that were found: ``codes`` is the group of each row, -1 for rows in no set."""

    columns: Columns
    by: tuple[str, ...]
    codes: Codes
    groups: Groups

    @cached_property
    def first_rows(self) -> Int64Array:
        """A row of each group; 0 for an empty one."""
        rows = np.zeros(len(self.groups), np.int64)
        here = self.groups.sizes > 0
        rows[here] = self.groups.members[self.groups.starts[here]]
        return rows

    def labels(self, group: int) -> Any:
        """Return the values of a group: of one column the value, of several a tuple."""
        row = self.first_rows[group]
        values = []
        for name in self.by:
            codes, labels = self.columns.one(name)
            values.append(labels[codes[row]])
        return values[0] if len(values) == 1 else tuple(values)

    def told(self, groups: Int64Array) -> str:
        """Return the number of some groups, and the first of them, for messages."""
        names = ", ".join(repr(self.labels(group)) for group in groups[:_NAMED].tolist())
        more = ", …" if len(groups) > _NAMED else ""
        return f"{len(groups):,} of {np.count_nonzero(self.groups.sizes):,} groups ({names}{more})"


def listed(names: str | Iterable[str]) -> str:
    """Return the names of columns for messages.

    Examples
    --------
    >>> listed(("drug", "plate"))
    "'drug', 'plate'"
    """
    return ", ".join(repr(name) for name in ([names] if isinstance(names, str) else names))
