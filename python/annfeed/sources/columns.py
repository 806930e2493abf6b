"""Which of a matrix's columns come as which of the columns delivered; it may lack some of them.

Plain numbers: inputs/genes.py makes them, the core and the sources go by them.
"""

from __future__ import annotations

from dataclasses import dataclass

from annfeed.arrays import Int64Array

#: A joined gene that a file does not have, where columns are numbered; the core knows it by this number.
MISSING = -1


@dataclass(frozen=True, eq=False)
class ColumnMap:
    """Which of a file's columns come as which joined ones."""

    #: ``[joined columns]``, the file's column for each, `MISSING` where it has none; None for all as they are.
    columns: Int64Array | None

    @property
    def has_gaps(self) -> bool:
        """Whether the file lacks a joined column."""
        return self.columns is not None and bool((self.columns == MISSING).any())
