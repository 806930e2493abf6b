"""Finds how the matrix of a file is stored: the core describes it, h5py lists the obs columns; no values are read."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from annfeed._core import Reader
from annfeed.arrays import integer
from annfeed.display.progress import tracked
from annfeed.errors import UnsupportedError
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.elem_in_file import elem_in
from annfeed.h5ad.file import open_h5py, text_of
from annfeed.h5ad.foreign import recognised
from annfeed.h5ad.headers import StoredArray, headers_of
from annfeed.h5ad.turns import reading
from annfeed.inspection.costs import Costs
from annfeed.inspection.found import Inspection, ManyInspections


def inspect_file(path: str | os.PathLike[str], elem: str = "X", window: int = 6000) -> Inspection:
    """Describe the matrix ``elem`` of a file without reading its values.

    Parameters
    ----------
    path, elem
        The file and the place in it.
    window
        Rows read together, for the costs.

    Examples
    --------
    >>> import anndata, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
    ...     inspect_file(f"{folder}/three.h5ad").encoding
    'dense'
    """
    file, where = os.fsdecode(path), Elem.parse(elem)
    integer("window", window)
    with reading(), recognised(file):
        where = elem_in(file, where)
        if where.var is None:
            _refuse_frame(file, where.path)
        facts = Reader.describe(file, where.path)
    encoding, shape = facts["format"], facts["shape"]
    values, *others = facts["arrays"]
    # A row of a sparse matrix needs values and column indices, a dense one values.
    arrays = [values, *others[:1]]
    n_rows, nnz = max(1, shape[0]), math.prod(values["shape"])
    headers = headers_of(_stored(values), _stored(others[0]) if others else None, n_rows)
    rows_per_chunk = 0.0 if encoding == "csc" else headers.rows_per_chunk
    return Inspection(
        file=file,
        elem=facts["path"],
        encoding=encoding,
        shape=shape,
        dtype=values["dtype"] + (f" (indices {others[0]['dtype']})" if others else ""),
        nnz=nnz,
        chunk=tuple(values["chunk"]) if values["chunk"] else None,
        rows_per_chunk=rows_per_chunk,
        chunk_bytes=max(_chunk_bytes(array) for array in arrays),
        filters=tuple(values["filters"]),
        stored_bytes_per_row=sum(array["stored_bytes"] for array in arrays) / n_rows,
        decoded_bytes_per_row=headers.decoded_bytes,
        held_bytes=round(headers.held_bytes * n_rows),
        reader="rust" if facts["declined"] is None else "h5py",
        window=window,
        cost=Costs(shape[0], rows_per_chunk, window).by_order() if encoding != "csc" else {},
        declined=facts["declined"],
        conversion_bytes=facts["conversion_bytes"],
        obs_columns=_obs_columns(file, where),
        kind="h5ad" if where.tenx is None else "10x",
    )


def _refuse_frame(path: str, elem: str) -> None:
    from annfeed.sources.frame import frame_columns  # its imports take a second: only for obsm

    if frame_columns(path, elem) is not None:
        raise UnsupportedError(
            f"{path}: '{elem}' is a DataFrame; expected an array or a sparse matrix. AnnDataset reads it: "
            "each column is an array of its own, held in memory from the first read on; every order costs the same"
        )


def inspect_files(files: Sequence[tuple[str, str]], window: int = 6000, *, strict: bool = True) -> ManyInspections:
    """Describe the matrices of several files that are read as one.

    Parameters
    ----------
    files
        Path and element of each.
    window
        Rows read together, from each file in proportion to its rows.
    strict
        False to tell what is wrong with a file in ``unreadable``, instead of raising.

    Examples
    --------
    >>> import anndata, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
    ...     len(inspect_files([(f"{folder}/three.h5ad", "X")] * 2).files)
    2
    """
    shown = tracked(files, "inspecting", len(files), "files")
    integer("window", window)
    found, unreadable = [], dict[str, str]()
    for path, elem in shown:
        try:
            found.append(inspect_file(path, elem, window))
        except (OSError, ValueError, KeyError) as error:
            if strict:
                raise
            unreadable[path] = str(error).removeprefix(f"{path}: ")
    n_rows = max(1, sum(one.shape[0] for one in found))
    described = tuple(_in_windows_of(one, max(1, round(window * one.shape[0] / n_rows))) for one in found)
    return ManyInspections(described, unreadable)


def _in_windows_of(found: Inspection, window: int) -> Inspection:
    cost = Costs(found.shape[0], found.rows_per_chunk, window).by_order() if found.cost else {}
    return replace(found, window=window, cost=cost)


def _stored(array: dict[str, Any]) -> StoredArray:
    chunk = None if array["chunk"] is None else tuple(array["chunk"])
    return StoredArray(math.prod(array["shape"]), int(array["item_size"]), chunk, bool(array["filters"]))


def _chunk_bytes(array: dict[str, Any]) -> int:
    return 0 if array["chunk"] is None else math.prod(array["chunk"]) * int(array["item_size"])


def _obs_columns(path: str, elem: Elem) -> dict[str, str]:
    """Return the columns of an obs and their types; {} if it cannot be read (making a dataset says why)."""
    with contextlib.suppress(Exception), open_h5py(path) as file:
        if elem.tenx is not None:
            return dict.fromkeys(elem.tenx.obs_columns(file), "bool")
        obs = file[elem.obs]
        if obs.dtype.names if hasattr(obs, "dtype") else False:  # anndata before 0.7
            return {name: str(obs.dtype[name]) for name in obs.dtype.names if name != "index"}
        names = [text_of(name) for name in obs.attrs["column-order"]]
        return {name: _kind_of_column(obs[name]) for name in names}
    return {}


def _kind_of_column(column: Any) -> str:
    if not hasattr(column, "dtype"):
        if "categories" in column:
            return f"categorical ({len(column['categories'])} categories)"
        return f"{column['values'].dtype} with missing values" if "values" in column else "unknown"
    if "categories" in column.attrs:  # anndata before 0.8
        return f"categorical ({len(column.file[column.attrs['categories']])} categories)"
    return "text" if column.dtype.kind in "OSU" else str(column.dtype)
