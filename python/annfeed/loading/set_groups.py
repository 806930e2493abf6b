"""The groups of sets of cells, from obs columns: and their labels for messages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from annfeed.arrays import Int64Array
from annfeed.loading.label_columns import Codes, Columns
from annfeed.order.groups import Groups

#: Groups that a message names.
_NAMED = 3


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


def listed(names: Iterable[str]) -> str:
    """Return the names of columns for messages.

    Examples
    --------
    >>> listed(("drug", "plate"))
    "'drug', 'plate'"
    """
    return ", ".join(map(repr, names))
