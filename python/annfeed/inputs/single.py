"""From what the user passed (path, AnnData, backed AnnData, view) to matrices and obs.

The one place that knows where anndata keeps things; it reads no row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import anndata
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.arrays import Int64Array
from annfeed.batches.matrix import Matrix
from annfeed.errors import FormatError, StaleDataError, UnknownNameError
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.elem_in_file import elem_in
from annfeed.h5ad.file import missing_filters, open_h5py
from annfeed.h5ad.headers import read_headers
from annfeed.h5ad.held_anndata import HeldAnnData, source_of
from annfeed.h5ad.sparse import encoding_of, sparse_format, sparse_shape
from annfeed.inputs.gene_table import GeneTable
from annfeed.inputs.held_matrix import HeldFrame, HeldMatrix
from annfeed.inputs.names import numbered, picked
from annfeed.inputs.paths import AnnDataOrPath, is_in_memory
from annfeed.inputs.selection import column_subset
from annfeed.inputs.source_var import SourceVar, obs_in_file, var_in_file
from annfeed.obs.table import ObsTable
from annfeed.sources.base import RowSource
from annfeed.sources.columns import ColumnMap
from annfeed.sources.file import FileSource
from annfeed.sources.frame import FrameFileSource, FrameRows, frame_columns
from annfeed.sources.memory import MemorySource
from annfeed.user_arrays import near_matches, one_axis

#: HDF5 filters that the core decodes beside those of every HDF5: LZF, Blosc, LZ4, bitshuffle, Zstandard.
_DECODED = (32000, 32001, 32004, 32008, 32015)


class Symbols(NamedTuple):
    """What is wanted of a matrix over genes, whose names are values of a column of var."""

    subset: Any
    column: str

    @property
    def are_names(self) -> bool:
        """Whether genes are named; masks and slices say themselves which genes they mean, and numbers are refused."""
        return not isinstance(self.subset, slice) and one_axis("var_subset", self.subset).dtype.kind in "OU"


def subsets_by_key(var_subset: Any, elems: Mapping[str, Elem], var_column: str | None = None) -> dict[str, Any]:
    """Return which columns are wanted of each matrix: `Symbols` of those over genes, where there is a ``var_column``.

    ``var_subset`` is of the matrices over genes, or, where there is none, of those in obsm; or ``{key: subset}``.

    Examples
    --------
    >>> from annfeed.h5ad.elem import parse_elems
    >>> elems = parse_elems({"X": "X", "protein": "obsm/protein"})
    >>> subsets_by_key(["CD4"], elems), subsets_by_key({"protein": ["CD4"]}, elems)
    ({'X': ['CD4'], 'protein': None}, {'X': None, 'protein': ['CD4']})
    """
    if var_column is not None:
        return _by_column(subsets_by_key(var_subset, elems), elems, var_column)
    if isinstance(var_subset, Mapping):
        for key in var_subset:
            if key not in elems:
                raise UnknownNameError(
                    f"var_subset has the key {key!r}, elem has not. {near_matches(key, list(elems))}"
                )
        return {key: var_subset.get(key) for key in elems}
    if hasattr(var_subset, "__next__"):
        var_subset = list(var_subset)  # an iterator serves once
    over_genes = any(elem.var is not None for elem in elems.values())
    return {key: var_subset if elem.var is not None or not over_genes else None for key, elem in elems.items()}


def _by_column(subsets: dict[str, Any], elems: Mapping[str, Elem], column: Any) -> dict[str, Any]:
    if not isinstance(column, str):
        raise TypeError(f"var_column is {column!r}; expected the name of a column of var, or None")
    over_genes = {key for key, elem in elems.items() if elem.var is not None and subsets[key] is not None}
    if not over_genes:
        raise ValueError(
            f"var_column={column!r} is given without a var_subset of genes, whose names are looked up in that column; "
            "pass both, or neither"
        )
    kept = {key: list(subset) if hasattr(subset, "__next__") else subset for key, subset in subsets.items()}
    return {key: Symbols(subset, column) if key in over_genes else subset for key, subset in kept.items()}


def find_matrix(
    adata_or_path: AnnDataOrPath,
    elem: Elem,
    var_subset: Any,
    open_file: Callable[..., FileSource],
    place: str = "AnnData",
) -> Matrix:
    """Return a matrix of one source, with ``var_subset`` applied: names, positions, a mask, or columns found already.

    ``open_file`` makes the `FileSource` of a path and an element, ``place`` are the words for an AnnData in messages.
    """
    if elem.var is None:
        names = find_frame_names(adata_or_path, elem)
        if names is not None:
            if not is_in_memory(adata_or_path):
                return _of_frame_in_file(as_path(adata_or_path), elem, var_subset, names)
            held = HeldAnnData(adata_or_path, place)
            matrix = _of_frame(held, elem, var_subset, names, copied=False)
            matrix.held = HeldFrame(held, partial(_frame_again, held, elem, var_subset, names))
            return matrix
    if is_in_memory(adata_or_path):
        return _of_anndata(adata_or_path, elem, var_subset, open_file, place)
    return _of_file(as_path(adata_or_path), elem, var_subset, open_file)


def _frame_again(held: HeldAnnData, elem: Elem, var_subset: Any, names: pd.Index[Any], copied: bool) -> Matrix:
    place, now = held.place, find_frame_names(held.adata, elem)
    if now is None and _in_obsm(held.adata, elem) is None:
        raise UnknownNameError(f"{place} has no {elem.path!r} any more. Put it back, or make the dataset again")
    if now is None or not now.equals(names):
        raise StaleDataError(
            f"{place}: '{elem.path}' has other columns now; expected those that it had when the dataset was made. Make "
            "the dataset again"
        )
    return _of_frame(held, elem, var_subset, names, copied=copied)


def _in_obsm(adata: anndata.AnnData, elem: Elem) -> Any:
    """What lies there; None for nothing. Of a view, that of the AnnData that it is of: anndata would copy its rows."""
    return source_of(adata).obsm.get(elem.path.removeprefix("obsm/"))


def find_frame_names(adata_or_path: AnnDataOrPath, elem: Elem) -> pd.Index[Any] | None:
    """Return the names of the columns of a DataFrame in obsm; None where it is something else, or is not there."""
    if not is_in_memory(adata_or_path):
        return frame_columns(as_path(adata_or_path), elem.path)
    frame = _in_obsm(adata_or_path, elem)
    return frame.columns.astype(str) if isinstance(frame, pd.DataFrame) else None


def elem_of(adata_or_path: AnnDataOrPath, elem: Elem) -> Elem:
    """Return the place of a matrix in a source; UnknownNameError if it can have none of this name."""
    if not is_in_memory(adata_or_path):
        return elem_in(as_path(adata_or_path), elem)
    elem.check()
    if elem.features.types is not None:
        raise ValueError(
            "feature_types is given, and a source is an AnnData; expected paths. Of an AnnData pass a view: "
            'adata[:, adata.var["feature_types"] == "Gene Expression"]'
        )
    return elem


def find_names(adata_or_path: AnnDataOrPath, elem: Elem, place: str = "AnnData") -> pd.Index[Any]:
    """Return the names of the columns of a matrix over genes; ``place`` are the words for an AnnData in messages."""
    if isinstance(adata_or_path, anndata.AnnData):
        return HeldMatrix(HeldAnnData(adata_or_path, place), elem, FileSource).names()
    return SourceVar(as_path(adata_or_path), elem_of(adata_or_path, elem), place).names()


def find_raw_names(path: str, elem: Elem) -> npt.NDArray[Any] | None:
    """Return the names of a matrix's columns as they are stored; None where they are no plain strings.

    Two files whose stored names are equal have equal names: to see that takes half as long as to decode them.
    """
    with suppress(Exception), open_h5py(path) as file:
        var = file[elem.var]
        names = var[var.attrs["_index"]]
        if names.dtype.kind == "O" and names.dtype.metadata and names.dtype.metadata.get("vlen") in (str, bytes):
            raw: npt.NDArray[Any] = names[()]
            return raw
    return None


def find_n_names(path: str, elem: Elem) -> int | None:
    """Return how many names of columns there are for a matrix over genes; None where nothing can tell."""
    if elem.var is None:
        return None
    # What is wrong with a var is told when its names are read.
    with suppress(FormatError, OSError):
        return var_in_file(path, elem, []).n_rows
    return None


def check_columns(place: str, var: str, n_cols: int, n_names: int | None) -> None:
    """Raise where a matrix and its var have different lengths."""
    if n_names is not None and n_names != n_cols:
        raise FormatError(
            f"{place} has {n_cols} columns, but {var} has {n_names} rows; expected the same number. "
            "The file is damaged or was written wrongly: copy it again, or write it again with anndata"
        )


def find_shape(path: str, elem: Elem) -> tuple[int, int] | None:
    """Return the shape of a matrix in a file, looked up in its attributes; None where only the reader can tell.

    The reader, which then opens the file at once, says what is wrong with a matrix that it cannot read.
    """
    with open_h5py(path) as file, suppress(Exception):
        node = file[elem.path]
        if not _is_matrix(node):
            return None
        n_rows, n_cols = node.shape if hasattr(node, "shape") else sparse_shape(node)
        return None if min(n_rows, n_cols) < 0 else (int(n_rows), int(n_cols))
    return None


def _is_matrix(node: Any) -> bool:
    """Whether encoding, dtypes and filters are ones that a reader knows, as far as the headers tell."""
    if isinstance(node, h5py.Dataset):
        return encoding_of(node) in (None, "array") and node.ndim == 2 and _is_array(node, "biuf")
    parts = {"data": "biuf", "indices": "iu", "indptr": "iu"}
    return sparse_format(node) is not None and all(_is_array(node[name], kinds) for name, kinds in parts.items())


def _is_array(array: Any, kinds: str) -> bool:
    if not isinstance(array, h5py.Dataset) or array.dtype.kind not in kinds or array.dtype.itemsize > 8:
        return False
    return all(code in _DECODED for code in missing_filters(array))


def check_same_rows(adata_or_path: AnnDataOrPath, elems: Mapping[str, Elem]) -> None:
    """Raise where matrices go with different obs whose rows are not the same cells in the same order."""
    groups = list(dict.fromkeys(elem.obs for elem in elems.values()))
    if len(groups) < 2 or isinstance(adata_or_path, anndata.AnnData):
        return
    path = as_path(adata_or_path)
    by_group = {elem.obs: elem for elem in elems.values()}
    first, *others = [obs_in_file(path, by_group[group], []) for group in groups]
    for group, other in zip(groups[1:], others, strict=True):
        if other.n_rows != first.n_rows:
            found = f"{first.n_rows} and {other.n_rows} rows"
        elif not first.names.equals(other.names):
            place = int(np.argmax(np.asarray(first.names != other.names)))
            found = f"row {place} is {first.names[place]!r} and {other.names[place]!r}"
        else:
            continue
        raise ValueError(
            f"{path}: '{groups[0]}' and '{group}' are not the same cells: {found}; expected the same names in the same "
            "order, as rows of several matrices are paired by position (but for modalities of a MuData). Read one of "
            "them, or write a file in which they agree"
        )


def find_obs(
    adata_or_path: AnnDataOrPath, elem: Elem, columns: Sequence[str] | None, place: str | None = None
) -> ObsTable:
    """Return the obs that goes with ``elem``: an AnnData's own with its edits, else the file's."""
    if isinstance(adata_or_path, anndata.AnnData):
        return ObsTable.from_anndata(adata_or_path, columns, place)
    return obs_in_file(as_path(adata_or_path), elem_of(adata_or_path, elem), columns)


def as_path(path: Any) -> str:
    """Return a path as text, with ``~`` taken for the home directory; its bytes need not be UTF-8."""
    if isinstance(path, str | bytes | os.PathLike):
        return os.path.expanduser(os.fsdecode(path))
    raise TypeError(
        f"adata_or_path is a {type(path).__name__}; expected a MuData, an AnnData or the path of an .h5ad, an .h5mu or "
        "a Cell Ranger .h5"
    )


def _of_file(path: str, elem: Elem, var_subset: Any, open_file: Callable[..., FileSource]) -> Matrix:
    if elem.var is not None:
        shape = find_shape(path, elem)
        if shape is not None:
            check_columns(f"{path}: '{elem.path}'", elem.var, shape[1], find_n_names(path, elem))
    width = partial(_width, path, elem, open_file)
    if elem.var is None:
        columns = _columns(path, elem, var_subset, lambda: numbered(width()), width)
        source = open_file(path, elem.path, columns=columns)
        source.headers = read_headers(path, elem.path)
        return _matrix(elem, source, columns, partial(numbered, source.shape[1]))
    var = SourceVar(path, elem, path)
    var.check_types()
    chosen = var.chosen()
    columns = _columns(
        path, elem, var_subset, var.names, width if chosen is None else lambda: len(chosen), GeneTable([var])
    )
    stored = columns
    if chosen is not None:  # those of some types, as if there were no others
        columns = np.arange(len(chosen)) if columns is None else columns
        stored = chosen[columns]
    source = open_file(path, elem.path, columns=stored, total_over=chosen)
    source.headers = read_headers(path, elem.path)
    matrix = _matrix(elem, source, columns, var.names)
    matrix.var = GeneTable([var], columns=columns)
    return matrix


def _of_frame(held: HeldAnnData, elem: Elem, var_subset: Any, names: pd.Index[Any], *, copied: bool) -> Matrix:
    """The matrix of a DataFrame in obsm, whose columns have names as genes have."""
    words = f"{held.place}: '{elem.path}'"
    columns = _columns(held.place, replace(elem, var=elem.path), var_subset, lambda: names, lambda: len(names))
    frame, rows = _in_obsm(held.adata, elem), held.rows()
    source = MemorySource(FrameRows(frame.copy() if copied else frame, words), columns=columns, name=words)
    return _matrix(elem, source, columns, partial(pd.Index, names), rows)


def _of_frame_in_file(path: str, elem: Elem, var_subset: Any, names: pd.Index[Any]) -> Matrix:
    columns = _columns(path, replace(elem, var=elem.path), var_subset, lambda: names, lambda: len(names))
    return _matrix(elem, FrameFileSource(path, elem.path, columns=columns), columns, partial(pd.Index, names))


def _width(path: str, elem: Elem, open_file: Callable[..., FileSource]) -> int:
    """Columns of a matrix in a file: looked up, as opening it without ``columns`` would read all of a CSC matrix."""
    shape = find_shape(path, elem) if os.path.isfile(path) else None
    return (open_file(path, elem.path).shape if shape is None else shape)[1]


def _matrix(
    elem: Elem,
    source: RowSource,
    columns: Int64Array | None,
    names: Callable[[], pd.Index[Any]],
    rows: Int64Array | None = None,
) -> Matrix:
    n_obs, n_vars = source.shape
    if columns is not None:
        n_vars, names = len(columns), partial(picked, names, columns)
    return Matrix(elem.path, source, n_obs if rows is None else len(rows), n_vars, names, rows)


def _columns(
    place: str,
    elem: Elem,
    var_subset: Any,
    names: Callable[[], pd.Index[Any]],
    n_cols: Callable[[], int],
    table: GeneTable | None = None,
) -> Int64Array | None:
    if var_subset is None:
        return None
    if isinstance(var_subset, ColumnMap):
        return var_subset.columns
    var_subset, by = var_subset if isinstance(var_subset, Symbols) else (var_subset, None)
    if elem.var is None:  # an array in obsm
        return column_subset(var_subset, n_cols(), None, f"{place}: '{elem.path}'")
    return column_subset(var_subset, n_cols(), names, f"{place}: '{elem.var}'", table, by)


def _of_anndata(
    adata: anndata.AnnData, elem: Elem, var_subset: Any, open_file: Callable[..., FileSource], place: str
) -> Matrix:
    held = HeldMatrix(HeldAnnData(adata, place), elem, open_file)
    if elem.var is not None and held.place != place:  # in the file
        over_vars = adata.is_view and not elem.path.startswith("raw")
        n_names = source_of(adata).n_vars if over_vars else held.n_cols
        there = held.elem_in_file
        width = _width(held.place, there, open_file)
        check_columns(f"{held.place}: '{there.path}'", there.var or "", width, n_names)
    if elem.var is not None and not isinstance(var_subset, ColumnMap):
        held.table = GeneTable([SourceVar(adata, elem, place)])
    held.select(_columns(held.place, elem, var_subset, held.names, lambda: held.n_cols, held.table))
    return held.now()
