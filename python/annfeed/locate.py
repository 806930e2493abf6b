"""From what the user passed (path, AnnData, backed AnnData, view) to matrices and obs.

The one place that knows where anndata keeps things; it reads no row.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import anndata
import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.cache import SharedBudget
from annfeed.errors import UnknownNameError
from annfeed.h5py_file import check_not_replaced, open_h5py
from annfeed.identity import KnownFile
from annfeed.matrix import Matrix
from annfeed.obs import ObsTable
from annfeed.placed import GAP, Placed
from annfeed.selection import column_subset, near_matches
from annfeed.source import FileSource, MemorySource, Source

Int64Array = npt.NDArray[np.int64]
AnnDataOrPath: TypeAlias = "anndata.AnnData | str | os.PathLike[str]"

#: "mod/rna/raw/X" -> prefix "mod/rna/", place "raw/X": the shortest prefix, as "raw/" must not become one.
_ELEM = re.compile(r"^(?P<prefix>(?:.+?/)??)(?P<place>X|raw/X|raw\.X|(?:layers|obsm)/[^/]+)$")


@dataclass(frozen=True)
class Elem:
    """A place in a file, taken apart.

    Parameters
    ----------
    path
        The place, as HDF5 has it.
    obs
        The group of the obs that goes with it.
    var
        The group of the var that goes with it; None where its columns have no names (obsm).
    """

    path: str
    obs: str
    var: str | None

    @classmethod
    def parse(cls, elem: Any) -> Elem:
        """Take a place apart.

        Raises
        ------
        TypeError
            If it is no text.
        ValueError
            If it is no place where a matrix over cells lies.

        Examples
        --------
        >>> Elem.parse("mod/rna/layers/counts")
        Elem(path='mod/rna/layers/counts', obs='mod/rna/obs', var='mod/rna/var')
        """
        if not isinstance(elem, str):
            raise TypeError(f"elem is {elem!r}, where a text like 'X' or a dict {{key: place}} was expected")
        match = _ELEM.match(elem.strip("/"))
        if match is None:
            raise UnknownNameError(
                f"elem is {elem!r}, where 'X', 'raw/X', 'layers/<name>' or 'obsm/<name>' was expected "
                "(in a nested AnnData with its path before it: 'mod/rna/X')"
            )
        prefix, place = match["prefix"], match["place"]
        var = None if place.startswith("obsm/") else prefix + ("raw/var" if place.startswith("raw") else "var")
        return cls(prefix + place, prefix + "obs", var)


def parse_places(elem: str | Mapping[str, str]) -> dict[str, Elem]:
    """Return the places of a dataset's matrices by key.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> parse_places("X")
    {'X': Elem(path='X', obs='obs', var='var')}
    """
    places = dict(elem) if isinstance(elem, Mapping) else {"X": elem}
    if not places:
        raise ValueError("elem is empty, where at least one {key: place} was expected")
    return {key: Elem.parse(place) for key, place in places.items()}


def find_matrix(
    adata_or_path: AnnDataOrPath,
    elem: Elem,
    var_subset: Any,
    open_file: Callable[..., FileSource],
    place: str = "AnnData",
) -> Matrix:
    """Return a matrix of one source, with ``var_subset`` applied if it is over genes.

    Parameters
    ----------
    adata_or_path
        The source.
    elem
        Where the matrix lies in it.
    var_subset
        Names, positions, a mask, or columns that were found already; None for all.
    open_file
        Makes the `FileSource` of a path and an element.
    place
        The words for an AnnData in messages.
    """
    if isinstance(adata_or_path, anndata.AnnData):
        return _of_anndata(adata_or_path, elem, var_subset, open_file, place)
    return _of_file(as_path(adata_or_path), elem, var_subset, open_file)


def file_opener(budget: SharedBudget, threads: int, strict: bool, **options: Any) -> Callable[..., FileSource]:
    """Return what opens the files of one dataset, which share a budget."""
    return partial(FileSource, cache=budget, threads=threads, strict=strict, **options)


def find_names(adata_or_path: AnnDataOrPath, elem: Elem) -> pd.Index[Any]:
    """Return the names of the columns of a matrix over genes."""
    if isinstance(adata_or_path, anndata.AnnData):
        return _names_in_memory(adata_or_path, elem)()
    return _names_in_file(as_path(adata_or_path), elem)


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


def find_shape(path: str, elem: Elem) -> tuple[int, int] | None:
    """Return the shape of a matrix in a file, looked up in its attributes; None where only the reader can tell."""
    # What is wrong with the file is for the reader to say.
    with suppress(Exception), open_h5py(path) as file:
        node = file[elem.path]
        shape = node.shape if hasattr(node, "shape") else node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
        n_rows, n_cols = shape
        return int(n_rows), int(n_cols)
    return None


def find_obs(
    adata_or_path: AnnDataOrPath, elem: str, columns: Sequence[str] | None, place: str | None = None
) -> ObsTable:
    """Return the obs that goes with ``elem``: an AnnData's own with its edits, else the file's."""
    if isinstance(adata_or_path, anndata.AnnData):
        return ObsTable.from_anndata(adata_or_path, columns, place)
    return ObsTable.from_file(as_path(adata_or_path), Elem.parse(elem).obs, columns)


def as_path(path: Any) -> str:
    """Return a path as text, with ``~`` taken for the home directory."""
    if isinstance(path, str | os.PathLike):
        return os.path.expanduser(os.fspath(path))
    raise TypeError(f"adata_or_path is a {type(path).__name__}, where an AnnData or the path of an .h5ad was expected")


def _of_file(path: str, elem: Elem, var_subset: Any, open_file: Callable[..., FileSource]) -> Matrix:
    names = partial(_names_in_file, path, elem, KnownFile.at(os.path.abspath(path)))
    columns = _columns(path, elem, var_subset, names, partial(_width, path, elem, open_file))
    source = open_file(path, elem.path, columns=columns)
    return _matrix(elem, source, columns, names)


def _width(path: str, elem: Elem, open_file: Callable[..., FileSource]) -> int:
    """Columns of a matrix in a file: looked up, as opening it without ``columns`` would read all of a CSC matrix."""
    shape = find_shape(path, elem) if os.path.isfile(path) else None
    return (open_file(path, elem.path).shape if shape is None else shape)[1]


def _matrix(elem: Elem, source: Source, columns: Int64Array | None, names: Callable[[], pd.Index[Any]]) -> Matrix:
    n_obs, n_vars = source.shape
    if elem.var is None:
        return Matrix(elem.path, source, n_obs, n_vars, partial(_numbered, n_vars))
    if columns is None:
        return Matrix(elem.path, source, n_obs, n_vars, names)
    return Matrix(elem.path, source, n_obs, len(columns), partial(_picked, names, columns))


def _columns(
    place: str, elem: Elem, var_subset: Any, names: Callable[[], pd.Index[Any]], n_cols: Callable[[], int]
) -> Int64Array | None:
    if var_subset is None or elem.var is None:
        return None
    if isinstance(var_subset, Placed):
        return var_subset.columns
    return column_subset(var_subset, n_cols(), names, f"{place}: '{elem.var}'")


def _numbered(n: int) -> pd.Index[Any]:
    return pd.RangeIndex(n).astype(str)


def _names_in_file(path: str, elem: Elem, known: KnownFile | None = None) -> pd.Index[Any]:
    group = elem.var or ""
    if group.endswith("raw/var"):
        with open_h5py(path) as file:
            # Before anndata 0.7, raw lay flat at the top.
            group = group if group in file else "raw.var"
    return ObsTable.from_file(path, group, [], known).names


def _of_anndata(
    adata: anndata.AnnData, elem: Elem, var_subset: Any, open_file: Callable[..., FileSource], place: str
) -> Matrix:
    if adata.isbacked and _is_in_file(adata, elem):
        return _of_backed(adata, elem, var_subset, open_file)
    matrix = _in_memory(adata, elem.path)
    names = _names_in_memory(adata, elem)
    columns = _columns(place, elem, var_subset, names, lambda: int(matrix.shape[1]))
    return _matrix(elem, MemorySource(matrix, columns=columns, name=f"{place}: '{elem.path}'"), columns, names)


def _is_in_file(adata: anndata.AnnData, elem: Elem) -> bool:
    if elem.obs != "obs" or (elem.path.startswith("raw") and adata.raw is None):
        return False  # of another AnnData in the file, or taken out of this one
    with open_h5py(str(adata.filename)) as file:
        return elem.path in file or (elem.path == "raw/X" and "raw.X" in file)


def _of_backed(adata: anndata.AnnData, elem: Elem, var_subset: Any, open_file: Callable[..., FileSource]) -> Matrix:
    path = str(adata.filename)
    if adata.file.is_open:
        check_not_replaced(adata.file._file)
    names = _names_in_memory(adata, elem)
    over_vars = elem.var is not None and not elem.path.startswith("raw")
    if not adata.is_view:
        columns = _columns(path, elem, var_subset, names, partial(_width, path, elem, open_file))
        return _matrix(elem, open_file(path, elem.path, columns=columns), columns, names)
    # anndata resolves views of views to positions in the file.
    view: Any = adata
    rows = np.arange(view._adata_ref.n_obs, dtype=np.int64)[view._oidx]
    viewed = np.arange(view._adata_ref.n_vars, dtype=np.int64)[view._vidx] if over_vars else None
    n_cols = len(viewed) if viewed is not None else _width(path, elem, open_file)
    columns = _columns(path, elem, var_subset, names, lambda: n_cols)
    in_file = columns if viewed is None else _columns_of_view(viewed, columns)
    # The AnnData's matrix is the view's: its rows are added up over the genes that it views.
    source = open_file(path, elem.path, columns=in_file, total_over=viewed)
    n_vars = n_cols if columns is None else len(columns)
    if elem.var is None:
        names = partial(_numbered, n_vars)
    picked = names if columns is None else partial(_picked, names, columns)
    return Matrix(elem.path, source, len(rows), n_vars, picked, rows)


def _columns_of_view(viewed: Int64Array, columns: Int64Array | None) -> Int64Array:
    return viewed if columns is None else np.where(columns == GAP, GAP, viewed[columns])


def _picked(names: Callable[[], pd.Index[Any]], columns: Int64Array) -> pd.Index[Any]:
    return names()[columns]


def _names_in_memory(adata: anndata.AnnData, elem: Elem) -> Callable[[], pd.Index[Any]]:
    # The index travels to workers, the AnnData must not: it may be large, and a backed one does not pickle.
    return partial(_same, adata.raw.var_names if elem.path.startswith("raw") else adata.var_names)


def _same(names: pd.Index[Any]) -> pd.Index[Any]:
    return names


def _in_memory(adata: anndata.AnnData, elem: str) -> Any:
    kind, _, name = elem.partition("/")
    if elem == "X" and adata.X is not None:
        return adata.X
    if elem in ("raw/X", "raw.X") and adata.raw is not None:
        return adata.raw.X
    if kind in ("layers", "obsm"):
        holder = getattr(adata, kind)
        if name in holder:
            value = holder[name]
            return value.to_numpy() if isinstance(value, pd.DataFrame) else value
        raise UnknownNameError(f"the AnnData has no {kind}[{name!r}]. {near_matches(name, holder)}")
    raise UnknownNameError(f"the AnnData has no {elem!r}. Pass elem= with a matrix that it has, as 'layers/counts'")
