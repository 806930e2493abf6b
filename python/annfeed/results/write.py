"""Puts what a model made of the rows back beside them: into ``obsm`` or ``obs`` of an .h5ad file, an AnnData, or many.

Which row is which is told by the ``"index"`` of batches. What results may look like is in results/batches.py, where
they go in results/places.py, and how a file is changed in results/h5ad.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    import anndata

    from annfeed.dataset import AnnDataset
    from annfeed.results.batches import Piece
    from annfeed.results.places import Place, Places, Where

    Target: TypeAlias = "str | bytes | os.PathLike[str] | anndata.AnnData | AnnDataset"

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
    """Write results to ``obsm[key]`` of an .h5ad file, an AnnData or all files of a dataset, each at its row.

    Parameters
    ----------
    path_or_adata
        The file, which is changed in place; or an AnnData, whose ``obsm`` in memory is (of a backed one, too: its file
        stays as it is); or an `annfeed.AnnDataset`, whose files or AnnData objects get the results of their rows. One
        file is changed at a time, and each wholly or not at all.
    key
        The name in ``obsm``.
    results
        ``[n, k]`` or ``[n]`` numbers, numpy or torch; or a DataFrame, whose column names are kept; or an iterable of
        batches of these, each a pair ``(index, values)`` or a dict ``{"index": …, key: …}``: a list, what Lightning's
        ``Trainer.predict`` returns, or a generator, whose batches are taken one by one and not held. Rows that a dict
        marks in ``"is_padding"`` are left out.
    index
        Of one array or DataFrame: int64 ``[n]``, the row of each result, as in a batch's ``"index"``. None where there
        is one for each row of the file, or of the dataset, in order; or where a DataFrame's index holds obs names.
    fill
        For rows without a result: ``float("nan")``, say; None where each row must have one.
    overwrite
        Replace an ``obsm[key]`` that is there.

    Raises
    ------
    ValueError
        If the key is there, rows have no result or two different ones, or shapes do not agree.
    IndexError
        If an index is out of range.
    TypeError
        If results or index are no numbers.
    OSError
        If a file is open elsewhere, cannot be written, or the disk is full; `StaleFileError` if it is another
        file than the one that the dataset was made from.
    StaleDataError
        If an AnnData has other cells than when the dataset was made, or in another order.
    FormatError
        If it is no .h5ad file.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> adata = anndata.AnnData(np.eye(3, dtype="float32"))
    >>> write_obsm(adata, "X_twice", [([2, 0], np.array([[4.0], [0.0]])), ([1], np.array([[2.0]]))])
    >>> adata.obsm["X_twice"].ravel()
    array([0., 2., 4.])
    """
    from annfeed.results.batches import pieces
    from annfeed.results.places import find_places

    target = find_places(_decoded(path_or_adata))
    target.check("obsm", key, overwrite)
    gathered = _Matrix(target)
    for piece in pieces(results, index, key, target, of_column=False):
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
    """Write one value a row, as a predicted label, to ``obs[column]`` of a file, an AnnData or all files of a dataset.

    Labels become a categorical, numbers an array, numbers of which some are missing one of pandas' nullable arrays: as
    anndata writes them.

    Parameters
    ----------
    path_or_adata
        As for `write_obsm`: a file, an AnnData (its ``obs`` in memory), or an `annfeed.AnnDataset`.
    column
        The name in ``obs``.
    results
        ``[n]`` text, integers, bools or floats: numpy, torch, pandas or a list; or an iterable of batches of these,
        each a pair ``(index, values)`` or a dict ``{"index": …, column: …}``, as for `write_obsm`.
    categories
        What integers stand for: 0 is the first, -1 is missing. A list of labels, ``dataset.categories[column]``, or
        `pandas.CategoricalDtype`. With text, the labels that there may be, in this order. None: integers are numbers.
    index
        Of one array: int64 ``[n]``, the row of each result, as in a batch's ``"index"``. None where there is one for
        each row of the file, or of the dataset, in order; or where a Series has obs names as its index.
    fill
        For rows without a result. None: they are missing, where the type can say so (labels, floats, nullable numbers);
        else each row must have one.
    overwrite
        Replace a column that is there.

    Raises
    ------
    ValueError
        If the column is there, rows have two different results, or none where the type has no "missing", or a code or
        label is not among the categories.
    IndexError
        If an index is out of range.
    TypeError
        If results are of mixed or other types.
    OSError
        If a file is open elsewhere, cannot be written, or the disk is full; `StaleFileError` if it is another
        file than the one that the dataset was made from.
    StaleDataError
        If an AnnData has other cells than when the dataset was made, or in another order.
    FormatError
        If it is no .h5ad file; `UnsupportedError` if its obs is stored as before anndata 0.7.

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
    from annfeed.results.places import find_places

    target = find_places(_decoded(path_or_adata))
    target.check("obs", column, overwrite)
    gathered = ResultColumn(target.n_rows, target.place, categories, to_file=_is_to_file(target))
    for piece in pieces(results, index, column, target, of_column=True):
        gathered.put(piece.what, piece.rows, _one_value(piece))
    _write(target, "obs", column, gathered.finish(fill), overwrite)


def check_writable(
    path_or_adata: Target, *, obsm: str | None = None, obs: str | None = None, overwrite: bool = False
) -> None:
    """Raise what `write_obsm` or `write_obs` would raise at the end, as far as it can be known before the computation.

    Nothing is changed. What can still happen later: a full disk, or another process that has the file open then.

    Parameters
    ----------
    path_or_adata
        As for `write_obsm`.
    obsm
        The key that results will have in ``obsm``.
    obs
        The column that results will be in ``obs``.
    overwrite
        Whether one that is there will be replaced.

    Raises
    ------
    ValueError
        If the key or column is there, or is no name.
    OSError
        If a file is not there, may not be written, or is not the one that the dataset was made from.
    StaleDataError
        If an AnnData has other cells than when the dataset was made, or in another order.
    FormatError
        If it is no .h5ad file, or stored as before anndata 0.7.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> adata = anndata.AnnData(np.eye(3, dtype="float32"), obsm={"X_model": np.zeros((3, 2))})
    >>> check_writable(adata, obsm="X_model", overwrite=True)
    >>> check_writable(adata, obsm="X_model")
    Traceback (most recent call last):
    ValueError: AnnData: obsm['X_model'] is there already; pass overwrite=True to replace it, or choose another key
    """
    from annfeed.results.places import find_places

    target = find_places(_decoded(path_or_adata))
    if obsm is not None:
        target.check("obsm", obsm, overwrite)
    if obs is not None:
        target.check("obs", obs, overwrite)


class _Matrix:
    """Results of several columns: an array, or a DataFrame."""

    def __init__(self, target: Places) -> None:
        from annfeed.results.rows import RowStore

        self._target = target
        self._array = RowStore(target.n_rows, target.place, target.folder)
        #: By name, of a DataFrame; None as long as nothing came, or of arrays.
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
            self._columns = {
                name: ResultColumn(self._target.n_rows, self._target.place, to_file=_is_to_file(self._target))
                for name in columns
            }
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
            whole = {
                str(name): column.finish(fill, must_have_all=True, texts=True) for name, column in self._columns.items()
            }
            return whole
        missing = self._array.missing()
        if len(missing):
            if fill is None:
                raise ValueError(no_result(self._target.place, missing, self._target.n_rows))
            self._array.fill(fill, missing)
        return self._array.whole()


def _decoded(target: Any) -> Any:
    return os.fsdecode(target) if isinstance(target, bytes) else target


def _is_to_file(target: Places) -> bool:
    return any(place.is_file for place in target.places)


def _write(target: Places, where: Where, key: str, value: Any, overwrite: bool) -> None:
    import pandas as pd

    def part(place: Place) -> Any:
        rows = slice(place.rows.start, place.rows.stop)
        if not isinstance(value, dict):
            return value[rows]
        names = _names_of(place)
        return pd.DataFrame({name: pd.Series(column[rows], index=names) for name, column in value.items()}, index=names)

    target.check_rows()  # results of a generator may have come for hours
    done: list[str] = []
    for place in target.places:
        try:
            _write_one(place, where, key, part, overwrite)
        except Exception as error:
            if len(target.places) > 1:
                error.add_note(_what_is_written(done, [one.place for one in target.places]))
            raise
        done.append(place.place)


def _write_one(place: Place, where: Where, key: str, part: Callable[[Place], Any], overwrite: bool) -> None:
    if place.is_file:
        from annfeed.results.h5ad import write_value

        write_value(place.source, place.prefix, where, key, part(place), overwrite)
    elif where == "obs":
        place.source.obs[key] = part(place)
    else:
        place.source.obsm[key] = part(place)


def _what_is_written(done: Sequence[str], places: Sequence[str]) -> str:
    left = places[len(done) :]
    if not done:
        return f"Of {len(places)} sources none is written."
    return (
        f"Written: {', '.join(done)}. Not written: {', '.join(left)}. Write again with overwrite=True when the "
        "cause is gone"
    )


def _names_of(place: Place) -> Any:
    """Return the obs names of one file or AnnData, as anndata wants them beside a DataFrame in obsm."""
    if not place.is_file:
        return place.source.obs_names
    from annfeed.obs.table import ObsTable

    names = ObsTable.from_file(place.source, f"{place.prefix}obs", []).names
    return names.astype(object)  # as plain strings in the file, which all versions of anndata read


def _one_value(piece: Piece) -> Any:
    """Return the values of a piece as ``[n]``."""
    values = piece.values
    if isinstance(values, torch.Tensor):
        values = _of_tensor(values)
    shape: tuple[int, ...] = getattr(values, "shape", (len(values),))
    if len(shape) == 1:
        return values
    if len(shape) == 2 and shape[1] == 1:
        return values.iloc[:, 0] if hasattr(values, "iloc") else values[:, 0]
    raise ValueError(
        f"{piece.what} has shape {shape}; expected one value a row, [n],. Of scores take .argmax(1), or "
        "write them with write_obsm"
    )


def _of_tensor(values: torch.Tensor) -> Array:
    values = values.detach().cpu()
    array: Array = (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    return array


def _numbers(what: str, values: Any) -> Array:
    if np.ma.is_masked(values):
        raise ValueError(
            f"{what} is an array with masked values, where each row needs its numbers. Pass "
            "array.filled(float('nan')), or another value for what is masked"
        )
    array = np.asarray(_of_tensor(values) if isinstance(values, torch.Tensor) else values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} has dtype {array.dtype}; expected numbers")
    if array.ndim not in (1, 2):
        raise ValueError(f"{what} has shape {array.shape}; expected [n, k] or [n]")
    return array


def _columns(values: Array) -> Array:
    return values.reshape(len(values), -1 if values.size else values.shape[-1] if values.ndim == 2 else 1)
