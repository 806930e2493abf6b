"""Puts what a model made of the rows back beside them: into ``obsm`` of an .h5ad file or an AnnData.

Which row is which is told by the ``"index"`` of batches. The value is written with anndata's own writer; how the file
is opened for it, and what is left after a failure, is decided here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from annfeed.errors import FormatError, UnsupportedError
from annfeed.identity import own_write

if TYPE_CHECKING:
    import anndata

Array = npt.NDArray[Any]

#: Where a value lies in ``obsm`` until it is whole.
_UNFINISHED = ".annfeed-unfinished"
#: Bytes that must be free beside those of the value.
_SLACK = 1 << 20


def write_obsm(
    path_or_adata: str | os.PathLike[str] | anndata.AnnData,
    key: str,
    results: Any,
    *,
    index: Any = None,
    fill: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write results to ``obsm[key]`` of an .h5ad file or an AnnData, each at its row.

    Parameters
    ----------
    path_or_adata
        The file, which is changed in place; or an AnnData, whose ``obsm`` in memory is (of a backed one, too: its file
        stays as it is).
    key
        The name in ``obsm``.
    results
        ``[n, k]`` or ``[n]`` numbers, numpy or torch; or an iterable of pairs ``(index, values)``, such as Lightning's
        ``Trainer.predict`` returns from a ``predict_step`` that gives them.
    index
        Of an array: int64 ``[n]``, the row of each result, as in a batch's ``"index"``; None where there is one for
        each row, in order.
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
        If the file is open elsewhere, cannot be written, or the disk is full.
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
    import anndata

    if not isinstance(key, str) or not key or "/" in key or key.startswith("."):
        raise ValueError(f"key is {key!r}, where a name without '/' and not beginning with '.' was expected")
    values, rows = _as_arrays(results, index)
    if isinstance(path_or_adata, anndata.AnnData):
        if key in path_or_adata.obsm and not overwrite:
            raise ValueError(_there(f"AnnData: obsm[{key!r}]"))
        path_or_adata.obsm[key] = _placed(values, rows, path_or_adata.n_obs, fill, "AnnData")
        return
    if not isinstance(path_or_adata, str | os.PathLike):
        kind = type(path_or_adata).__name__
        raise TypeError(f"path_or_adata is a {kind}, where an AnnData or the path of an .h5ad file was expected")
    path = os.path.expanduser(os.fspath(path_or_adata))
    _check_file(path, key, overwrite)
    from annfeed.obs import ObsTable

    n_obs = ObsTable.from_file(path, "obs", []).n_rows
    _write(path, key, _placed(values, rows, n_obs, fill, path), overwrite)


def _as_arrays(results: Any, index: Any) -> tuple[Array, Array | None]:
    """All values, [n, k], and their rows; None for all rows in order."""
    if isinstance(results, torch.Tensor | np.ndarray) or index is not None:
        values = _numbers("results", results)
        return _columns(values), None if index is None else _row_numbers(index, len(values))
    if not isinstance(results, Iterable):
        raise TypeError(f"results is a {type(results).__name__}, where an array or pairs (index, values) were expected")
    all_values: list[Array] = []
    all_rows: list[Array] = []
    for number, pair in enumerate(results):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(
                f"result {number} is a {type(pair).__name__}, where a pair (index, values) was expected; an array of "
                "all results is passed as one, not in a list"
            )
        values = _columns(_numbers(f"result {number}", pair[1]))
        if all_values and values.shape[1] != all_values[0].shape[1]:
            widths = f"{values.shape[1]} columns, result 0 has {all_values[0].shape[1]}"
            raise ValueError(f"result {number} has {widths}: all must have the same")
        all_values.append(values)
        all_rows.append(_row_numbers(pair[0], len(values), f" of result {number}"))
    if not all_values:
        raise ValueError("results is empty, where at least one pair (index, values) was expected")
    return np.concatenate(all_values), np.concatenate(all_rows)


def _numbers(what: str, values: Any) -> Array:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype is torch.bfloat16 else values
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} has dtype {array.dtype}, where numbers were expected")
    if array.ndim not in (1, 2):
        raise ValueError(f"{what} has shape {array.shape}, where [n, k] or [n] was expected")
    return array


def _columns(values: Array) -> Array:
    return values.reshape(len(values), -1 if values.size else values.shape[-1] if values.ndim == 2 else 1)


def _row_numbers(index: Any, n: int, where: str = "") -> Array:
    rows = np.asarray(index.detach().cpu() if isinstance(index, torch.Tensor) else index)
    if rows.size == 0 and n == 0:
        return np.empty(0, np.int64)
    if rows.dtype.kind not in "iu":
        raise TypeError(f"the index{where} has dtype {rows.dtype}, where integers were expected")
    if rows.shape != (n,):
        raise ValueError(f"the index{where} has shape {rows.shape}, where one row for each of {n} results was expected")
    return rows.astype(np.int64)


def _placed(values: Array, rows: Array | None, n_obs: int, fill: float | None, place: str) -> Array:
    """The values in the order of the rows."""
    if rows is None:
        if len(values) != n_obs:
            raise ValueError(
                f"{place}: there are {len(values)} results for {n_obs} rows; pass index= to say which rows they are of"
            )
        return values
    outside = rows[(rows < 0) | (rows >= n_obs)]
    if len(outside):
        raise IndexError(f"{place}: there is a result for row {outside[0]}, where 0 to {n_obs - 1} was expected")
    # The last of several results of a row is taken; they must all be the same.
    last = np.full(n_obs, -1, np.int64)
    last[rows] = np.arange(len(rows))
    _check_repeats(values, rows, last, place)
    missing = np.flatnonzero(last < 0)
    if not len(missing):
        return values[last]
    if fill is None:
        raise ValueError(
            f"{place}: {len(missing)} of {n_obs} rows have no result, the first is row {missing[0]}. Were the results "
            "of all ranks gathered? Otherwise fill=float('nan') fills them"
        )
    filled = np.asarray(fill).astype(values.dtype) if np.isfinite(fill) or values.dtype.kind == "f" else None
    if filled is None or (np.isfinite(fill) and filled != fill):
        raise ValueError(f"fill is {fill!r}, which results of dtype {values.dtype} cannot hold; pass floats")
    whole = np.full((n_obs, values.shape[1]), filled, dtype=values.dtype)
    whole[rows] = values
    return whole


def _check_repeats(values: Array, rows: Array, last: Array, place: str) -> None:
    repeated = np.flatnonzero(last[rows] != np.arange(len(rows)))
    for one in repeated:
        if not np.array_equal(values[one], values[last[rows[one]]], equal_nan=values.dtype.kind == "f"):
            raise ValueError(f"{place}: row {rows[one]} has two different results; give one for each row")


def _there(place: str) -> str:
    return f"{place} is there already; pass overwrite=True to replace it, or choose another key"


def _check_file(path: str, key: str, overwrite: bool) -> None:
    """Refuse before the file is opened for writing, where that can be known."""
    import h5py

    from annfeed.h5py_file import open_h5py

    with open_h5py(path) as file:
        obsm = file.get("obsm")
        if obsm is not None and not isinstance(obsm, h5py.Group):
            raise UnsupportedError(
                f"{path}: 'obsm' is in the form of before anndata 0.7, to which nothing can be added; read the file "
                "with anndata and write it again"
            )
        if "obs" not in file:
            raise FormatError(f"{path} has no 'obs', where an .h5ad file was expected")
        if obsm is not None and key in obsm and not overwrite:
            raise ValueError(_there(f"{path}: 'obsm/{key}'"))


def _write(path: str, key: str, value: Array, overwrite: bool) -> None:
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    if free < value.nbytes + _SLACK:
        raise OSError(28, f"{value.nbytes} bytes to write and {free} free on the disk; the file is as it was", path)
    with own_write(path), _open(path) as file:
        from anndata.io import write_elem

        try:
            obsm = file.require_group("obsm") if "obsm" in file else _new_obsm(file)
            if _UNFINISHED in obsm:  # of a process that was killed
                del obsm[_UNFINISHED]
            if key in obsm and not overwrite:
                raise ValueError(_there(f"{path}: 'obsm/{key}'"))
            write_elem(obsm, _UNFINISHED, value)
            # To the disk, so that it is there before the old one goes.
            file.flush()
            if key in obsm:
                del obsm[key]
            obsm.move(_UNFINISHED, key)
        except ValueError:
            raise
        except Exception as error:
            with suppress(Exception):
                del file["obsm"][_UNFINISHED]
            raise OSError(
                f"{path}: 'obsm/{key}' could not be written ({error}); what was in the file before is as it was"
            ) from error


def _new_obsm(file: Any) -> Any:
    from anndata.io import write_elem

    write_elem(file, "obsm", {})
    return file["obsm"]


def _open(path: str) -> Any:
    import h5py

    elsewhere = (
        f"{path} is open elsewhere, where nobody else may have it to write. Close it there (a backed AnnData: "
        "adata.file.close()), or write after it is done"
    )
    try:
        file = h5py.File(path, "r+", locking="best-effort")
    except PermissionError:
        raise
    except OSError as error:
        # HDF5 tells in words alone.
        if isinstance(error, BlockingIOError) or "lock" in str(error) or "already open" in str(error):
            raise OSError(error.errno or 11, f"{elsewhere} ({error})") from error
        raise OSError(f"{path} cannot be opened for writing: {error}") from error
    # HDF5's locks are of a process: a second handle in this one shares the first's.
    if h5py.h5f.get_obj_count(file.id, h5py.h5f.OBJ_FILE) > 1:
        file.close()
        raise OSError(11, f"{elsewhere}: it is open in this process")
    return file
