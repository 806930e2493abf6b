"""The matrices that an AnnData holds at the moment: looked up again whenever an epoch begins.

Another X, layer, obsm or raw is followed, and so is a view that became an AnnData of its own, or a backed one that came
into memory.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from annfeed.arrays import Int64Array
from annfeed.batches.matrix import Matrix
from annfeed.errors import StaleDataError, UnknownNameError
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.file import check_not_replaced
from annfeed.h5ad.held_anndata import AGAIN, HeldAnnData, positions_of, same, source_of, unchanged
from annfeed.h5ad.identity import file_identity
from annfeed.inputs.names import numbered, picked
from annfeed.sources.columns import MISSING
from annfeed.sources.file import FileSource
from annfeed.sources.frame import FrameRows
from annfeed.sources.memory import MemorySource, digest_of_sparse
from annfeed.user_arrays import near_matches

if TYPE_CHECKING:
    from annfeed.inputs.gene_table import GeneTable


class HeldFrame:
    """A DataFrame in obsm of an AnnData, whose columns may be assigned to at any time.

    ``make`` makes a matrix of what is there now, or (with True) of a copy: columns may be assigned to while it is read.
    """

    def __init__(self, held: HeldAnnData, make: Callable[[bool], Matrix]) -> None:
        self._held = held
        self._make = make

    @property
    def rows_in_file(self) -> Int64Array | None:
        """As `HeldAnnData.rows_in_file`."""
        return self._held.rows_in_file()

    def now(self, thorough: bool = True) -> Matrix:
        """Return the matrix that the AnnData holds now; ``thorough``: as a copy, which serves for an epoch."""
        self._held.check()
        matrix = self._make(thorough)
        matrix.held = self
        return matrix


class HeldMatrix:
    """A matrix that an AnnData holds; ``open_file`` makes the `FileSource` of a path and an element."""

    def __init__(self, held: HeldAnnData, elem: Elem, open_file: Callable[..., FileSource]) -> None:
        self._held = held
        self._elem = elem
        self._open_file = open_file
        self._pid = os.getpid()
        self._is_raw = elem.path in ("raw/X", "raw.X")
        self._genes = None if elem.var is None else self._names()
        self._columns: Int64Array | None = None
        #: The var of the genes; None where they are joined with those of other sources, or have none.
        self.table: GeneTable | None = None
        #: Columns that the AnnData has there.
        self.n_cols = int(self._value().shape[1]) if self._genes is None else len(self._genes)
        self._key: tuple[Any, ...] = ()
        self._matrix: Matrix | None = None
        self._digest: str | None = None

    @property
    def place(self) -> str:
        """The words for where the matrix lies: the file, or the AnnData."""
        return str(self._held.adata.filename) if self._on_disk() else self._held.place

    @property
    def elem_in_file(self) -> Elem:
        """Where it is in the file of a backed AnnData, which may be a modality of a backed MuData."""
        modality = getattr(self._held.adata.file, "_mod", None)
        return self._elem if modality is None else Elem.parse(f"mod/{modality}/{self._elem.path}")

    @property
    def rows_in_file(self) -> Int64Array | None:
        """As `HeldAnnData.rows_in_file`."""
        return self._held.rows_in_file()

    def names(self) -> pd.Index[Any]:
        """Return the names of its columns: genes, or numbers."""
        return numbered(self.n_cols) if self._genes is None else self._genes

    def select(self, columns: Int64Array | None) -> None:
        """Deliver ``columns`` (`annfeed.sources.columns.MISSING` for one that is not there); None for all."""
        self._columns = columns

    def now(self, thorough: bool = True) -> Matrix:
        """Return the matrix that the AnnData holds now; parameters and errors as of `Matrix.now`."""
        self._held.check()
        if self._genes is not None:
            self._genes = unchanged(self._genes, self._names(), "genes", self._held.place)
        on_disk = self._on_disk()
        key, value = self._file_key() if on_disk else self._key_in_memory()
        if self._matrix is None or not same(key, self._key) or (thorough and self._overwritten(value)):
            self._matrix = self._of_file() if on_disk else self._in_memory(value, thorough)
            # A table's columns may be assigned to at any time, so nothing of it is kept.
            self._key = () if isinstance(value, pd.DataFrame) else key
        return self._matrix

    def _names(self) -> pd.Index[Any]:
        holder: Any = self._held.adata.raw if self._is_raw else self._held.adata
        if holder is None:
            raise self._missing()
        names: pd.Index[Any] = holder.var_names
        return names

    def _on_disk(self) -> bool:
        """Whether it lies in the file: of a backed AnnData X and raw do, while anndata holds all else in memory."""
        adata = self._held.adata
        return bool(adata.isbacked) and (self._elem.path == "X" or (self._is_raw and adata.raw is not None))

    # --- in memory ---------------------------------------------------------------------------------------------------

    def _value(self) -> Any:
        """The matrix itself: of a view, that of the AnnData that it is of (anndata keeps raw for each)."""
        adata = self._held.adata
        if self._is_raw:
            value = None if adata.raw is None else adata.raw.X
        else:
            holder = source_of(adata)
            kind, _, name = self._elem.path.partition("/")
            if self._elem.path == "X":
                value = holder.X
            elif kind in ("layers", "obsm"):
                value = getattr(holder, kind).get(name)
            else:
                value = None
        if value is None:
            raise self._missing()
        return value

    def _missing(self) -> UnknownNameError:
        elem = self._elem.path
        kind, _, name = elem.partition("/")
        place = "the AnnData" if self._held.place == "AnnData" else self._held.place
        if kind in ("layers", "obsm"):
            names = [key for key in getattr(self._held.adata, kind) if key is not None]  # None is X, in anndata 0.13
            return UnknownNameError(f"{place} has no {kind}[{name!r}]. {near_matches(name, names)}")
        return UnknownNameError(f"{place} has no {elem!r}. Pass elem= with a matrix that it has, as 'layers/counts'")

    def _key_in_memory(self) -> tuple[tuple[Any, ...], Any]:
        value = self._value()
        arrays = (value.data, value.indices, value.indptr) if _is_compressed(value) else ()
        return (value, *arrays, self._view_rows(), *self._view_columns_key()), value

    def _overwritten(self, value: Any) -> bool:
        return self._digest is not None and digest_of_sparse(value) != self._digest

    def _in_memory(self, value: Any, thorough: bool) -> Matrix:
        rows, viewed = self._view_rows(), self._view_columns()
        columns = self._source_columns(viewed)
        if isinstance(value, pd.DataFrame):
            value = FrameRows(value.copy() if thorough else value, f"{self._held.place}: '{self._elem.path}'")
        self._digest = None
        if sp.issparse(value):
            if value.format == "csr":
                value = copy.copy(value)  # which keeps these arrays, whichever the user's has next
            else:
                # Rows of a CSC matrix lie everywhere in it; so do those of the rarer formats.
                self._digest = digest_of_sparse(value)
                value = value.tocsr() if rows is None else value[rows].tocsr()
                rows = None
        name = f"{self._held.place}: '{self._elem.path}'"
        source = MemorySource(value, columns=columns, name=name, total_over=viewed)
        return self._made(source, rows, viewed)

    # --- in the file -------------------------------------------------------------------------------------------------

    def _file_key(self) -> tuple[tuple[Any, ...], None]:
        path = str(self._held.adata.filename)
        return (path, self._written(path), self._view_rows(), *self._view_columns_key()), None

    def _written(self, path: str) -> tuple[int, ...] | None:
        """What tells how the AnnData itself wrote to its file; None where it is not open for writing."""
        file = self._held.adata.file
        before = self._key[1] if self._key and self._key[0] == path else None
        # A forked process has no business with the parent's file.
        if os.getpid() != self._pid or not file.is_open:
            return before
        h5 = file[next(iter(file))].file
        if h5.mode == "r":
            return before
        h5.flush()
        now = file_identity(path)
        # Another file at the path is not the one that the AnnData has; reading from the one before tells it.
        return before if before is not None and now is not None and before[:2] != now[:2] else now

    def _of_file(self) -> Matrix:
        path, viewed = str(self._held.adata.filename), self._view_columns()
        if self._held.adata.file.is_open:
            check_not_replaced(self._held.adata.file._file.file)  # of a modality it is a group
        # The AnnData's matrix is the view's: its rows are added up over the genes that it views.
        elem = self.elem_in_file.path
        source = self._open_file(path, elem, columns=self._source_columns(viewed), total_over=viewed)
        return self._made(source, self._view_rows(), viewed)

    # --- rows and columns --------------------------------------------------------------------------------------------

    def _made(self, source: MemorySource | FileSource, rows: Int64Array | None, viewed: Int64Array | None) -> Matrix:
        n_cells, n_cols = source.shape
        if self._genes is None and n_cols != self.n_cols:
            raise StaleDataError(
                f"{source.place} has {n_cols} columns now; expected the {self.n_cols} that it had when the dataset was "
                f"made. {AGAIN}"
            )
        n_vars = len(self._columns) if self._columns is not None else n_cols if viewed is None else len(viewed)
        names = partial(pd.Index, self.names())
        if self._columns is not None:
            names = partial(picked, names, self._columns)
        var = None if self.table is None else replace(self.table, columns=self._columns)
        return Matrix(self._elem.path, source, n_cells if rows is None else len(rows), n_vars, names, rows, self, var)

    def _view_rows(self) -> Int64Array | None:
        """The row of the source of each row; None where they are the same."""
        return None if self._is_raw and not self._on_disk() else self._held.rows()

    def _view_columns_key(self) -> tuple[Any, ...]:
        view = self._held.adata
        if not view.is_view or self._is_raw or self._genes is None:
            return ()
        return source_of(view), view._vidx, source_of(view).var_names

    def _view_columns(self) -> Int64Array | None:
        """The column of the source of each gene of a view; None where they are the same."""
        view = self._held.adata
        if not view.is_view or self._is_raw or self._genes is None:
            return None
        if isinstance(view._vidx, slice) and view._vidx == slice(None):
            return None
        return positions_of(view._vidx, source_of(view).var_names, view.var_names, "genes", self._held.place)

    def _source_columns(self, viewed: Int64Array | None) -> Int64Array | None:
        if viewed is None or self._columns is None:
            return self._columns if viewed is None else viewed
        return np.where(self._columns == MISSING, MISSING, viewed[self._columns])


def _is_compressed(value: Any) -> bool:
    return sp.issparse(value) and value.format in ("csr", "csc")
