"""`write_obsm`, `write_obs` and `check_writable`: results of a model go into ``obsm`` or ``obs``, each to its row.

The ``"index"`` of batches tells the rows. results/batches.py takes results in all their forms, results/destinations.py
finds where they go, results/h5ad.py changes a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from annfeed.display.progress import progress_bar, tracked
from annfeed.user_arrays import numpy_of_tensor

if TYPE_CHECKING:
    import anndata
    from mudata import MuData

    from annfeed.dataset import AnnDataset
    from annfeed.results.batches import Piece
    from annfeed.results.destinations import Destination, Destinations, Where

    Target: TypeAlias = "str | bytes | os.PathLike[str] | anndata.AnnData | MuData | AnnDataset"

Array = npt.NDArray[Any]


def write_obsm(
    path_or_adata: Target,
    key: str,
    results: Any,
    *,
    index: Any = None,
    fill: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write numbers to ``obsm[key]`` of an .h5ad file, an AnnData, or all sources of a dataset.

    Parameters
    ----------
    path_or_adata
        Path of a file, which is changed in place; an AnnData or MuData, whose ``obsm`` in memory is set (the file of a
        backed one is not changed); or an `annfeed.AnnDataset`, whose files and AnnData objects get the results of their
        rows. Files are changed one after the other. If writing fails, the file keeps what it had.
    key
        Name in ``obsm``.
    results
        Numbers, ``[n, k]`` or ``[n]``: a numpy array, a tensor, or a DataFrame, whose column names are kept. Or an
        iterable of batches of these, for example a generator or what Lightning's ``Trainer.predict`` returns: each
        batch is a pair ``(index, values)`` or a dict ``{"index": …, key: …}``. Rows where a dict has True in
        ``"is_padding"`` are left out. The batches of a generator are not kept.
    index
        For one array or DataFrame: the row of each result, int64 ``[n]``, as in the ``"index"`` of batches. None: there
        is one result for each row of the file or of the dataset, in order; or a DataFrame has obs names as its index.
    fill
        Value for rows without a result, for example ``float("nan")``; None makes such rows an error.
    overwrite
        Whether to replace an existing ``obsm[key]``.

    Raises
    ------
    ValueError
        If the key exists, a row has no result or two different ones, or shapes do not agree.
    IndexError
        If an index is out of range.
    TypeError
        If results or index are not numbers.
    OSError
        If a file is open elsewhere, cannot be written, or the disk is full; `StaleFileError` if it is not the file that
        the dataset was made from.
    StaleDataError
        If an AnnData has other cells, or another order of cells, than when the dataset was made.
    FormatError
        If a file is not an .h5ad file.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> adata = anndata.AnnData(np.eye(3, dtype="float32"))
    >>> write_obsm(adata, "X_twice", [([2, 0], np.array([[4.0], [0.0]])), ([1], np.array([[2.0]]))])
    >>> adata.obsm["X_twice"].ravel()
    array([0., 2., 4.])
    """
    from annfeed.results.batches import pieces
    from annfeed.results.destinations import find_destinations

    target = find_destinations(path_or_adata)
    target.check("obsm", key, overwrite)
    gathered = _Matrix(target)
    for piece in _counted(pieces(results, index, key, target, of_column=False), target):
        gathered.put(piece)
    _write(target, "obsm", key, gathered.finish(fill), overwrite)


def write_obs(
    path_or_adata: Target,
    column: str,
    results: Any,
    *,
    categories: Any = None,
    index: Any = None,
    fill: Any = None,
    overwrite: bool = False,
) -> None:
    """Write one value for each row, for example a predicted label, to ``obs[column]``.

    Labels become a categorical, numbers an array, and numbers with missing ones a nullable array of pandas, as anndata
    writes them.

    Parameters
    ----------
    path_or_adata
        As for `write_obsm`: a file, an AnnData or MuData (its ``obs`` in memory), or an `annfeed.AnnDataset`.
    column
        Name in ``obs``.
    results
        Text, integers, bools or floats, ``[n]``: a numpy array, a tensor, a Series, a categorical or a list. Or an
        iterable of batches of these, each a pair ``(index, values)`` or a dict ``{"index": …, column: …}``, as for
        `write_obsm`.
    categories
        Labels of integer codes, in order (0 is the first, -1 is missing); or, for text, the allowed labels in their
        order. A list, ``dataset.categories[column]``, or a `pandas.CategoricalDtype`. None: integers are numbers.
    index
        For one array: the row of each result, int64 ``[n]``, as in the ``"index"`` of batches. None: there is one
        result for each row of the file or of the dataset, in order; or a Series has obs names as its index.
    fill
        Value for rows without a result. None: they are missing if the type allows it (labels, floats, nullable
        numbers), else an error.
    overwrite
        Whether to replace an existing column.

    Raises
    ------
    ValueError
        If the column exists, a row has two different results, a row has none and the type cannot be missing, or a code
        or label is not among the categories.
    IndexError
        If an index is out of range.
    TypeError
        If results have different types, or a type that is none of the above.
    OSError
        If a file is open elsewhere, cannot be written, or the disk is full; `StaleFileError` if it is not the file that
        the dataset was made from.
    StaleDataError
        If an AnnData has other cells, or another order of cells, than when the dataset was made.
    FormatError
        If a file is not an .h5ad file; `UnsupportedError` if its obs is stored as before anndata 0.7.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> adata = anndata.AnnData(np.eye(3, dtype="float32"))
    >>> write_obs(adata, "predicted", [([2, 0], [1, 0])], categories=["B", "T"])
    >>> adata.obs["predicted"].tolist()
    ['B', nan, 'T']
    """
    from annfeed.results.batches import pieces
    from annfeed.results.columns import ResultColumn
    from annfeed.results.destinations import find_destinations

    target = find_destinations(path_or_adata)
    target.check("obs", column, overwrite)
    gathered = ResultColumn(target.n_rows, target.place, categories, to_file=_is_to_file(target))
    for piece in _counted(pieces(results, index, column, target, of_column=True), target):
        gathered.put(piece.what, piece.rows, _one_value(piece))
    _write(target, "obs", column, gathered.finish(fill), overwrite)


def check_writable(
    path_or_adata: Target, *, obsm: str | None = None, obs: str | None = None, overwrite: bool = False
) -> None:
    """Check, before a long computation, that `write_obsm` or `write_obs` will be able to write. Nothing is changed.

    It cannot foresee a full disk, or a process that opens the file later.

    Parameters
    ----------
    path_or_adata
        As for `write_obsm`.
    obsm
        Key of the results in ``obsm``.
    obs
        Column of the results in ``obs``.
    overwrite
        Whether an existing key or column will be replaced.

    Raises
    ------
    ValueError
        If the key or column exists, or is not a valid name.
    OSError
        If a file does not exist, may not be written, or is not the one that the dataset was made from.
    StaleDataError
        If an AnnData has other cells, or another order of cells, than when the dataset was made.
    FormatError
        If a file is not an .h5ad file, or its obs is stored as before anndata 0.7.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> adata = anndata.AnnData(np.eye(3, dtype="float32"), obsm={"X_model": np.zeros((3, 2))})
    >>> check_writable(adata, obsm="X_model", overwrite=True)
    >>> check_writable(adata, obsm="X_model")
    Traceback (most recent call last):
    ValueError: AnnData: obsm['X_model'] is there already; pass overwrite=True to replace it, or choose another key
    """
    from annfeed.results.destinations import find_destinations

    target = find_destinations(path_or_adata)
    if obsm is not None:
        target.check("obsm", obsm, overwrite)
    if obs is not None:
        target.check("obs", obs, overwrite)


class _Matrix:
    """Results for obsm: an array, or the columns of a DataFrame."""

    def __init__(self, target: Destinations) -> None:
        from annfeed.results.rows import RowStore

        self._target = target
        self._array = RowStore(target.n_rows, target.place, target.folder)
        #: Columns of a DataFrame by name; None for arrays, and before the first results.
        self._columns: dict[Any, Any] | None = None
        self._first = True

    def put(self, piece: Piece) -> None:
        import pandas as pd

        from annfeed.results.columns import ResultColumn

        is_frame = isinstance(piece.values, pd.DataFrame)
        if self._first and is_frame:
            names = [str(name) for name in piece.values.columns]
            if len(set(names)) < len(names) or not names:
                raise ValueError(f"{piece.what} has the columns {names}; expected different names")
            columns = piece.values.columns
            n_rows, place, to_file = self._target.n_rows, self._target.place, _is_to_file(self._target)
            self._columns = {name: ResultColumn(n_rows, place, to_file=to_file) for name in columns}
        self._first = False
        if is_frame != (self._columns is not None):
            kinds = ("a DataFrame", "arrays") if is_frame else ("an array", "DataFrames")
            raise TypeError(f"{piece.what} is {kinds[0]}, those before are {kinds[1]}: all must be of one kind")
        if self._columns is None:
            self._array.put(piece.what, piece.rows, _columns(_numbers(piece.what, piece.values)))
            return
        if set(piece.values.columns) != set(self._columns):
            other = sorted(map(str, set(piece.values.columns) ^ set(self._columns)))
            raise ValueError(f"{piece.what} and result 0 do not both have the columns {other}: all must have the same")
        for name, column in self._columns.items():
            column.put(f"{piece.what}, column {name!r}", piece.rows, piece.values[name])

    def finish(self, fill: Any) -> Any:
        """Return all rows: an array, or the columns of a DataFrame by name."""
        from annfeed.results.columns import no_result

        if self._columns is not None:
            columns = self._columns.items()
            return {str(name): column.finish(fill, must_have_all=True, texts=True) for name, column in columns}
        missing = self._array.missing()
        if len(missing):
            if fill is None:
                raise ValueError(no_result(self._target.place, missing, self._target.n_rows))
            self._array.fill(fill, missing)
        return self._array.whole()


def _is_to_file(target: Destinations) -> bool:
    return any(place.is_file for place in target.parts)


def _counted(given: Iterable[Piece], target: Destinations) -> Iterator[Piece]:
    with progress_bar("results", target.n_rows, "rows") as count:
        for piece in given:
            yield piece
            count(len(piece.rows))


def _write(target: Destinations, where: Where, key: str, value: Any, overwrite: bool) -> None:
    target.check_rows()  # results of a generator may have come for hours
    places = [part.place for part in target.parts]
    for n_done, part in enumerate(tracked(target.parts, f"writing {where}", len(places), "files")):
        try:
            _write_one(part, where, key, _value_of(part, value), overwrite)
        except Exception as error:
            if len(places) > 1:
                error.add_note(_what_is_written(places[:n_done], places))
            raise


def _value_of(part: Destination, value: Any) -> Any:
    """The rows of one destination; of several columns by name, as a DataFrame."""
    import pandas as pd

    rows = slice(part.rows.start, part.rows.stop)
    if not isinstance(value, dict):
        return value[rows]
    names = _names_of(part)
    return pd.DataFrame({name: pd.Series(column[rows], index=names) for name, column in value.items()}, index=names)


def _write_one(part: Destination, where: Where, key: str, value: Any, overwrite: bool) -> None:
    if part.is_file:
        from annfeed.results.h5ad import write_value

        write_value(part.source, part.prefix, where, key, value, overwrite)
    else:
        getattr(part.source, where)[key] = value


def _what_is_written(done: Sequence[str], places: Sequence[str]) -> str:
    left = places[len(done) :]
    if not done:
        return f"Of {len(places)} sources none is written."
    return (
        f"Written: {', '.join(done)}. Not written: {', '.join(left)}. Write again with overwrite=True when the "
        "cause is gone"
    )


def _names_of(place: Destination) -> Any:
    """Return the obs names of one file or AnnData, as the index of a DataFrame in obsm."""
    if not place.is_file:
        return place.source.obs_names
    from annfeed.obs.table import ObsTable

    names = ObsTable.from_file(place.source, f"{place.prefix}obs", []).names
    return names.astype(object)  # written as plain strings, which all versions of anndata read


def _one_value(piece: Piece) -> Any:
    """Return the values of a piece as ``[n]``."""
    values = piece.values
    if isinstance(values, torch.Tensor):
        values = numpy_of_tensor(values)
    shape: tuple[int, ...] = getattr(values, "shape", (len(values),))
    if len(shape) == 1:
        return values
    if len(shape) == 2 and shape[1] == 1:
        return values.iloc[:, 0] if hasattr(values, "iloc") else values[:, 0]
    raise ValueError(
        f"{piece.what} has shape {shape}; expected one value a row, [n]. Of scores take .argmax(1), or "
        "write them with write_obsm"
    )


def _numbers(what: str, values: Any) -> Array:
    if np.ma.is_masked(values):
        raise ValueError(
            f"{what} is an array with masked values, where each row needs its numbers. Pass "
            "array.filled(float('nan')), or another value for what is masked"
        )
    array = np.asarray(numpy_of_tensor(values) if isinstance(values, torch.Tensor) else values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} has dtype {array.dtype}; expected numbers")
    if array.ndim not in (1, 2):
        raise ValueError(f"{what} has shape {array.shape}; expected [n, k] or [n]")
    return array


def _columns(values: Array) -> Array:
    return values.reshape(len(values), -1 if values.size else values.shape[-1] if values.ndim == 2 else 1)
