"""`ObsSource`, what obs columns come from: a file (obs/file.py), memory (obs/memory.py), several (obs/concat.py).

Nothing is converted here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Protocol

import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.obs.to_batch import Column

Name = Any  # of a column: str in a file; a DataFrame may have others

#: Names and columns: a Series each; or a Categorical, the codes of a text column of a file.
Read = Generator[tuple[Name, Any], None, None]


class ObsSource(Protocol):
    """An obs, wherever it is; what a method does here is right for files."""

    @property
    def place(self) -> str:
        """The words for it in messages."""

    @property
    def is_of_file(self) -> bool:
        """Whether it is read from files only, and not from a DataFrame that may be edited."""

    @property
    def is_one_frame(self) -> bool:
        """Whether what `read` gives are the arrays of one DataFrame, and no copies."""
        return False

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    @property
    def names(self) -> pd.Index[str]:
        """Names of the rows, as text."""

    def read_names(self) -> pd.Index[str]:
        """Return the names, which are not kept."""
        return self.names

    @property
    def column_names(self) -> list[Name]:
        """All columns that there are."""

    def remedy(self, column: Name) -> str:
        """Return how there would be a column that there is not, as the end of a message; "" where there is no way."""
        return ""

    def frame(self, columns: list[Name]) -> pd.DataFrame:
        """Return some columns as a new DataFrame."""

    def read(self, columns: list[Name], coded: bool = False) -> Read:
        """Give some columns, one by one; ``coded``: text of files as codes, so that the texts are never all held."""

    def computed(self, column: Name) -> Column | None:
        """Return a column that need not be read, converted; None for all that must."""
        return None

    def check_rows(self) -> None:
        """Raise StaleDataError if rows are no longer those of when it was made; files are looked at when read."""
        return

    def check_unchanged(self) -> None:
        """Do as `check_rows`, and raise StaleFileError if a file is another one."""
        self.check_rows()

    def is_replaced(self, column: Name, since: int) -> bool:
        """Whether annfeed wrote another column in its place, in a file, after so many writes of its own."""
        return False

    def still_holds(self, column: Name, array: object) -> bool:
        """Whether ``array``, from an earlier `read`, is still the column's."""
        return True

    def live(self, column: Name, rows: Int64Array) -> Iterator[tuple[Int64Array, pd.Series[Any]]]:
        """Give what the column holds in memory now at ``rows``, in pieces, each with its positions among ``rows``."""
        return iter(())

    def to_pickle(self, columns: list[Name]) -> ObsSource:
        """Return what goes into a pickle in place of this source."""
        return self


def as_text(index: pd.Index[Any]) -> pd.Index[str]:
    """Return names of rows as text, as AnnData does with the obs it is given."""
    return index if pd.api.types.is_string_dtype(index) else index.astype(str)
