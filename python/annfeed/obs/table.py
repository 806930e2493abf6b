"""The obs of one dataset as tensors and strings, for any rows in any order.

Labels must not drift: a column's dtype, its categories and their codes are those of the whole column, whatever rows a
batch holds, so each column is converted once, whole, and a batch is a fancy index into it. Columns nobody asked for are
never read. No matrix, order of rows, subset or epoch is known here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal

import anndata
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from annfeed.arrays import Int64Array
from annfeed.errors import StaleFileError, UnknownNameError
from annfeed.h5ad.held_anndata import HeldAnnData
from annfeed.h5ad.identity import KnownFile, n_own_writes
from annfeed.h5ad.turns import reading
from annfeed.obs.base import Name, ObsSource
from annfeed.obs.concat import ConcatObs
from annfeed.obs.file import FileObs
from annfeed.obs.memory import AnnDataObs, FrameObs
from annfeed.obs.to_batch import CategoriesAs, Column, Labels, ObsColumns, convert, holds
from annfeed.user_arrays import near_matches


class ObsTable:
    """The obs columns of a file, an AnnData or a DataFrame, read when needed and given out by row number.

    Make one with `from_file`, `from_anndata` or `from_frame`. What a column becomes depends on the whole column:

    ===========================  ==========================================================================
    in obs                       in a batch, under ``obs_<column>``
    ===========================  ==========================================================================
    bool                         torch.bool
    integer                      torch.int64
    float                        torch.get_default_dtype(), missing as NaN
    nullable integer, boolean    as above if nothing is missing in the column, else torch.float64 with NaN
    text, categorical            list of str, missing as "nan"; numbers as categories: their ``str()``
    anything else                list of str, the ``str()`` of each value, missing as "nan"
    ===========================  ==========================================================================

    With ``categories="code"`` each of the last two rows becomes torch.int64 codes instead, -1 for missing, and
    ``categories[column]`` lists what they stand for: a categorical's categories as stored, unused ones kept; for other
    columns their different texts, sorted.

    A table pickles as path, group and columns if it is of a file, else with its frame (the selected columns).
    """

    def __init__(self, source: ObsSource, columns: Iterable[Name] | None) -> None:
        if isinstance(columns, str):
            raise TypeError(f"obs_columns is {columns!r}; expected a list of names, or None. Pass [{columns!r}]")
        #: Where the columns come from.
        self.source = source
        self._asked = None if columns is None else list(dict.fromkeys(columns))
        self._converted: dict[Name, tuple[object, Column]] = {}
        self._n_writes = n_own_writes()  # up to which columns were looked at again
        self._of_epoch = False
        _ = self.columns  # a wrong path, group or column is told now, not in a worker

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        group: str = "obs",
        columns: Iterable[Name] | None = None,
        file: KnownFile | None = None,
    ) -> ObsTable:
        """Make a table of the obs in an .h5ad file; the file is opened for each read only.

        Parameters
        ----------
        path, group
            The file, and where the obs lies in it: "obs", "mod/rna/obs", "experiments/rna/obs".
        columns
            The columns wanted; None for all.
        file
            The file that it must be; None for the one that is there now.

        Examples
        --------
        >>> import tempfile
        >>> adata = anndata.AnnData(obs=pd.DataFrame({"sex": ["f", "m"], "age": [30, 40]}, index=["a", "b"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     adata.write_h5ad(f"{folder}/two.h5ad")
        ...     ObsTable.from_file(f"{folder}/two.h5ad", columns=["age"]).take([1, 0, 1])
        {'obs_age': tensor([40, 30, 40])}
        """
        return cls(FileObs(path, group, file), columns)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, columns: Iterable[Name] | None = None) -> ObsTable:
        """Make a table of a DataFrame, which is kept by reference: its index are the obs names.

        Examples
        --------
        >>> table = ObsTable.from_frame(pd.DataFrame({"sex": pd.Categorical(["f", None], ["f", "m"])}))
        >>> table.take([0, 1]), table.take([0, 1], categories="code")
        ({'obs_sex': ['f', 'nan']}, {'obs_sex': tensor([ 0, -1])})
        """
        if not isinstance(frame, pd.DataFrame):
            raise TypeError(f"obs must be a pandas DataFrame, not a {type(frame).__name__}")
        return cls(FrameObs(frame), columns)

    @classmethod
    def from_anndata(
        cls, adata: anndata.AnnData, columns: Iterable[Name] | None = None, place: str | None = None
    ) -> ObsTable:
        """Make a table of the obs that ``adata`` has whenever the table is read; `now` is for an epoch.

        The AnnData is kept by reference; only its obs goes into a pickle. ``place`` are the words for it in messages.

        Examples
        --------
        >>> adata = anndata.AnnData(obs=pd.DataFrame({"age": [30, 40]}, index=["a", "b"]))
        >>> table = ObsTable.from_anndata(adata)
        >>> adata.obs["age"] = [31, 41]
        >>> table.take([0])
        {'obs_age': tensor([31])}
        """
        if not isinstance(adata.obs, pd.DataFrame):
            raise TypeError(f"adata.obs is a {type(adata.obs).__name__}, not a DataFrame; pass the file's path")
        held = HeldAnnData(adata, place or "AnnData")
        return cls(AnnDataObs(held, place or "obs of the AnnData in memory"), columns)

    @classmethod
    def concat(
        cls,
        tables: Sequence[ObsTable],
        keys: Sequence[str],
        join: Literal["inner", "outer"],
        columns: Iterable[Name] | None = None,
        *,
        label: str | None = None,
        index_unique: str | None = None,
    ) -> ObsTable:
        """Make a table of the rows of several, one after the other.

        Parameters
        ----------
        tables
            In the order of their rows; only where their columns come from is taken from them.
        keys
            A different text for each.
        join
            Of columns that not all have: "inner" leaves them out, "outer" gives missing values; one warning names them.
        columns
            The columns wanted; None for all.
        label
            A categorical column to add, of the key of each row.
        index_unique
            Put between the name of a row and its key, to make the names distinct; None leaves them.

        Examples
        --------
        >>> tables = [ObsTable.from_frame(pd.DataFrame({"age": ages})) for ages in ([30], [40, 50])]
        >>> ObsTable.concat(tables, ["a", "b"], "inner", label="source").take([2, 0])
        {'obs_age': tensor([50, 30]), 'obs_source': ['b', 'a']}
        """
        source = ConcatObs([table.source for table in tables], keys, join, label, index_unique)
        if columns is None or isinstance(columns, str):
            table = cls(source, columns)
            source.check(None)
            return table
        asked = list(columns)
        source.check([name for name in asked if name != label])
        return cls(source, asked if label is None else [*asked, label])

    @property
    def n_rows(self) -> int:
        """The number of rows (cells)."""
        return self.source.n_rows

    @property
    def names(self) -> pd.Index[str]:
        """The obs names, as strings; a file's are read when first asked for."""
        return self.source.names

    @property
    def columns(self) -> list[Name]:
        """The columns selected, in the order asked for.

        Raises UnknownNameError if one is not (or no longer) there, ValueError if two would have one key in a batch.
        """
        there = self.source.column_names
        known = set(there)
        columns = list(there) if self._asked is None else list(self._asked)
        for name in columns:
            self._check_known(name, known)
        if len(known) < len(there) or len({f"obs_{name}" for name in columns}) < len(columns):
            _check_distinct(columns, there, self.source.place)
        return columns

    @property
    def categories(self) -> dict[Name, pd.Index[Any]]:
        """What the codes of ``take(…, categories="code")`` stand for: an Index for each column that has codes.

        Every selected column is read for this.
        """
        return {name: c.categories for name, c in self._columns() if isinstance(c, Labels)}

    def frame(self) -> pd.DataFrame:
        """Return the selected columns as a new DataFrame; one of a file is read anew at each call.

        Examples
        --------
        >>> ObsTable.from_frame(pd.DataFrame({"a": [1], "b": [2]}), columns=["b"]).frame()
           b
        0  2
        """
        return self.source.frame(self.columns)

    def column(self, name: Name, coded: bool = False) -> pd.Series[Any]:
        """Return one column, selected or not, as it is in the file or the DataFrame, numbered by row.

        The names of the rows are not read. With ``coded`` texts of files are not held, but come as a categorical, whose
        categories are the different texts in order of appearance.

        Examples
        --------
        >>> ObsTable.from_frame(pd.DataFrame({"a": [1], "b": [2]}), columns=["b"]).column("a").tolist()
        [1]
        """
        self._check_known(name, self.source.column_names)
        ((_, column),) = self.source.read([name], coded)
        return pd.Series(column, name=name).reset_index(drop=True)

    def _check_known(self, name: Name, known: Collection[Name]) -> None:
        if name not in known:
            near = near_matches(str(name), map(str, self.source.column_names), limit=20)
            remedy = self.source.remedy(name)
            if remedy:
                near = f"{near}{'' if near[-1] in '.?' else '.'} {remedy}"
            raise UnknownNameError(f"{self.source.place} has no column {name!r}. {near}")

    def take(self, rows: npt.ArrayLike, categories: CategoriesAs = "str") -> dict[str, torch.Tensor | list[str]]:
        """Return the selected columns at ``rows``, under the keys ``obs_<column>``.

        Parameters
        ----------
        rows
            int64 [n], row numbers from 0; any order, repeats allowed.
        categories
            "str" for texts, "code" for int64 codes; the class says which columns that concerns.

        Examples
        --------
        >>> table = ObsTable.from_frame(pd.DataFrame({"sex": ["f", "m"], "age": [30, 40]}))
        >>> table.take([1, 1], categories="code")
        {'obs_sex': tensor([1, 1]), 'obs_age': tensor([40, 40])}
        """
        if categories not in ("str", "code"):
            raise ValueError(f'categories must be "str" or "code", not {categories!r}')
        index = _row_numbers(rows, self.n_rows, self.source.place)
        columns = dict(self._columns())
        # A column or an obs that was replaced was noticed; here, what was written into the arrays at these rows.
        edited = [name for name, column in columns.items() if not self._holds(name, column, index)]
        if edited:
            for name in edited:
                del self._converted[name]
            columns = dict(self._columns())
        return {f"obs_{name}": column.take(index, categories) for name, column in columns.items()}

    def now(self) -> ObsTable | ObsColumns:
        """Return what the obs holds at this moment, for an epoch: later edits do not reach it.

        A file's columns are read when they are needed: a file that changed is another file. A column that annfeed
        itself replaces meanwhile is the old one to the end of the epoch, or, where it was not read yet, an error.

        Examples
        --------
        >>> frame = pd.DataFrame({"sex": ["f", "m"]})
        >>> before = ObsTable.from_frame(frame).now()
        >>> frame.loc[0, "sex"] = "d"
        >>> before.take(np.array([0])), ObsTable.from_frame(frame).take([0])
        ({'obs_sex': ['f']}, {'obs_sex': ['d']})
        """
        if self.source.is_of_file:
            self._look_again()
            now = ObsTable(self.source, self._asked)
            now._converted, now._n_writes, now._of_epoch = self._converted, self._n_writes, True
            return now
        self.source.check_rows()
        names = self.columns
        found = {name: column for name, _, column in self._convert(names, copied=True)}
        return ObsColumns({name: found[name] for name in names})

    def _holds(self, name: Name, column: Column, rows: Int64Array) -> bool:
        """Whether a converted column is still what memory has at ``rows``."""
        if self.source.is_of_file:
            return True
        if self.source.is_one_frame and column.is_of(self._converted[name][0]):
            return True
        return all(holds(column, rows[at], series) for at, series in self.source.live(name, rows))

    def _look_again(self) -> None:
        """Forget columns that annfeed replaced in files; what epochs under way hold of them stays theirs."""
        n_writes = n_own_writes()
        if self._n_writes == n_writes or self._of_epoch:
            return
        replaced = {name for name in self._converted if self.source.is_replaced(name, self._n_writes)}
        if replaced:
            self._converted = {name: of for name, of in self._converted.items() if name not in replaced}
        self._n_writes = n_writes

    def _check_kept(self, names: list[Name]) -> None:
        """Refuse to read in mid-epoch what is no longer what it was when the epoch began."""
        for name in names if self._of_epoch and self._n_writes != n_own_writes() else ():
            if self.source.is_replaced(name, self._n_writes):
                raise StaleFileError(
                    f"{self.source.place}: column {name!r} was replaced by write_obs in mid-epoch, before it was "
                    "read. Begin the epoch again"
                )

    def _columns(self) -> list[tuple[Name, Column]]:
        self._look_again()
        names = self.columns
        cache = self._converted
        stale = [name for name in names if name not in cache or not self.source.still_holds(name, cache[name][0])]
        if stale:
            with reading():
                self._check_kept(stale)
                cache.update({name: (array, column) for name, array, column in self._convert(stale)})
        return [(name, cache[name][1]) for name in names]

    def _convert(self, names: list[Name], copied: bool = False) -> Iterator[tuple[Name, object, Column]]:
        """Give columns, converted, each with the array that it is of."""
        computed = {name: column for name in names if (column := self.source.computed(name)) is not None}
        yield from ((name, None, column) for name, column in computed.items())
        with closing(self.source.read([name for name in names if name not in computed], coded=True)) as columns:
            for name, found in columns:
                # The array is kept for `still_holds`, but not a file's: its column would be in memory twice.
                array = found.array if self.source.is_one_frame else None
                yield name, array, convert(found.copy() if copied else found, f"{self.source.place}: column {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the converted columns behind; an AnnData's obs is taken as it is now."""
        columns = self.columns
        # To a file a column may have been added since.
        return {"source": self.source.to_pickle(columns), "asked": columns if self.source.is_of_file else self._asked}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start with nothing read."""
        self.source, self._asked, self._converted = state["source"], state["asked"], {}
        self._n_writes, self._of_epoch = n_own_writes(), False

    def __repr__(self) -> str:
        return f"ObsTable({self.source.place}, columns={'all' if self._asked is None else self._asked})"


def _row_numbers(rows: npt.ArrayLike, n_rows: int, place: str) -> Int64Array:
    index = np.asarray(rows)
    if index.size == 0:
        index = index.astype(np.int64)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise TypeError(f"rows must be integers in one dimension, not {index.dtype} of shape {index.shape}")
    if index.size and (index.min() < 0 or index.max() >= n_rows):
        bad = index.min() if index.min() < 0 else index.max()
        raise IndexError(f"{place}: row {bad} is outside 0..{n_rows - 1}")
    return index.astype(np.int64, copy=False)


def _check_distinct(columns: list[Name], there: list[Name], place: str) -> None:
    keys = [f"obs_{name}" for name in columns]
    for name, key in zip(columns, keys, strict=True):
        if keys.count(key) > 1 or there.count(name) > 1:
            raise ValueError(f"{place} has two columns for {key!r}; rename one, or select others")
