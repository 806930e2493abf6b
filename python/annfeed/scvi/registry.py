"""Finds the fields of a registry of scvi-tools: where the data of each key are, and their dtype.

It uses scvi-tools' manager, but imports nothing from scvi-tools.
"""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed.batches.matrix import Matrix
from annfeed.errors import FormatError, UnknownNameError
from annfeed.h5ad.file import check_not_replaced
from annfeed.h5ad.headers import read_headers
from annfeed.memory.budget import cache_budget
from annfeed.scvi.fields import ArrayField, Field, SparseField, StreamedField, no_names
from annfeed.sources.base import RowSource
from annfeed.sources.file import FileSource
from annfeed.sources.memory import MemorySource

#: Keys of codes and positions (int64 in a batch); all others are measurements (float32).
_INTEGER_KEYS = frozenset({"batch", "labels", "extra_categorical_covs", "ind_x"})
#: Key of the kind of minified data, a text in ``uns``; not part of a batch.
_MINIFY_TYPE = "minify_type"


def keys_and_dtypes(adata_manager: Any, asked: Any) -> dict[str, Any]:
    """Return the keys of a batch in order, each with its numpy dtype.

    Parameters
    ----------
    adata_manager
        The manager; its ``data_registry`` is used.
    asked
        None for all registered keys, a list of keys, or ``{key: dtype}``.
    """
    registered = list(adata_manager.data_registry.keys())
    if asked is None:
        asked = registered
    if not isinstance(asked, list | dict):
        raise ValueError(f"data_and_attributes is {asked!r}; expected a list of registry keys or a dict {{key: dtype}}")
    for key in asked:
        if key not in registered:
            raise UnknownNameError(f"{key!r} is not in the data registry, which has {registered}")
    if isinstance(asked, dict):
        return dict(asked)
    return {key: np.int64 if key in _INTEGER_KEYS else np.float32 for key in asked}


def find_fields(
    adata_manager: Any,
    dtypes: dict[str, Any],
    *,
    as_tensor: bool,
    cache: str | int,
    threads: int,
    io_depth: int | None,
    before: Mapping[str, Field],
) -> dict[str, Field]:
    """Return the current fields of the keys, in order; matrices on disk are opened, not read.

    Parameters
    ----------
    adata_manager
        The manager; its ``adata``, ``data_registry`` and ``get_from_registry`` are used.
    dtypes
        dtype of each key.
    as_tensor
        Return sparse tensors for sparse data.
    cache
        Bytes of decoded rows to keep in memory, as in `annfeed.AnnDataset`.
    threads, io_depth
        Threads for opening, and reads in flight, as `annfeed.sources.file.FileSource` takes them.
    before
        Fields found before, whose open files are used again.
    """
    cache_budget(cache)  # raises if it is wrong, also if nothing is on disk
    n_obs = adata_manager.adata.shape[0]
    fields: dict[str, Field] = {}
    for key, dtype in dtypes.items():
        value = _value(adata_manager, key)
        if isinstance(value, str) and key == _MINIFY_TYPE:
            continue
        known = before.get(key)
        if isinstance(known, StreamedField) and _is_in(known.matrix.source, value):
            fields[key] = known
            continue
        streamed = _on_disk(key, value, cache, threads, io_depth)
        if streamed is not None:
            source, stored, sparse = streamed
            n_rows, n_vars = source.shape
            if n_rows != n_obs:
                raise FormatError(f"{source.place} has {n_rows} rows, but the AnnData has {n_obs}: read it again")
            matrix = Matrix(key, source, n_rows, n_vars, no_names)
            fields[key] = StreamedField(matrix, stored, dtype, as_tensor=as_tensor and sparse)
        else:
            fields[key] = _in_memory(key, value, dtype, as_tensor)
    return fields


def _value(adata_manager: Any, key: str) -> Any:
    """Return the data of a key. obs columns are copied: later edits are for the next epoch."""
    place = adata_manager.data_registry[key]
    try:
        value = adata_manager.get_from_registry(key)
    except (KeyError, ValueError) as error:
        name, of = place["attr_key"], place["attr_name"]
        raise UnknownNameError(
            f"registry key {key!r}: the AnnData has no {of}[{name!r}], which setup_anndata registered ({error}). Put "
            "it back, or run setup_anndata again"
        ) from error
    if value is None:
        raise UnknownNameError(
            f"registry key {key!r}: the AnnData has no {place['attr_name']} by now. Put it back, or run setup_anndata "
            "again"
        )
    return value.copy() if place["attr_name"] == "obs" else value


def _in_memory(key: str, value: Any, dtype: Any, as_tensor: bool) -> Field:
    import pandas as pd
    import scipy.sparse as sp

    if isinstance(value, pd.DataFrame):
        return ArrayField(value.to_numpy(copy=True), dtype)  # later edits are for the next epoch
    if isinstance(value, np.ndarray):
        return ArrayField(np.asarray(value), dtype)
    if sp.issparse(value):
        # Rows of a CSC matrix are slow to read: convert it once, unless CSC tensors are wanted.
        as_is = value.format == "csr" or (value.format == "csc" and as_tensor)
        return SparseField(copy.copy(value) if as_is else value.tocsr(), dtype, as_tensor=as_tensor)
    raise TypeError(
        f"{key!r} of the registry holds a {type(value).__name__}; expected an array, a DataFrame, a sparse matrix or a "
        "matrix on disk"
    )


def _on_disk(
    key: str, value: Any, cache: str | int, threads: int, io_depth: int | None
) -> tuple[RowSource, npt.DTypeLike, bool] | None:
    """Return the source of a matrix on disk, its dtype there, and whether it is sparse; None for one in memory."""
    import h5py
    from anndata.abc import CSCDataset, CSRDataset

    sparse = isinstance(value, CSRDataset | CSCDataset)
    place = _place(value)
    if place is not None and os.path.exists(place[0]):
        check_not_replaced((value.group if sparse else value).file)
        source = _open(*place, cache, threads, io_depth)
        return source, source.reader.dtype, sparse
    if sparse or isinstance(value, h5py.Dataset) or hasattr(value, "compute"):
        return MemorySource(value, name=f"registry key {key!r}", lazy=True), value.dtype, sparse
    return None


def _place(value: Any) -> tuple[str, str] | None:
    """Return file and element of a matrix on disk; None for anything else."""
    import h5py
    from anndata.abc import CSCDataset, CSRDataset

    node: Any = value
    if isinstance(value, CSRDataset | CSCDataset):
        node = node.group
    if isinstance(node, h5py.Group | h5py.Dataset):
        return node.file.filename, node.name.strip("/")
    return None


def _is_in(source: RowSource, value: Any) -> bool:
    """Whether a source reads the matrix on disk ``value``."""
    place = _place(value)
    if place is None or not isinstance(source, FileSource):
        return False
    return (source.path, source.elem) == (os.path.abspath(place[0]), place[1])


def _open(path: str, elem: str, cache: str | int, threads: int, io_depth: int | None) -> FileSource:
    """Return the source of a matrix, which all loaders of this process share while the file is the same."""
    found = os.stat(path)
    key = (os.getpid(), path, elem, cache, io_depth, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    source = _opened.get(key)
    if source is None or source.identity != key[5:]:  # annfeed changed the file, and it was restored
        source = _opened[key] = FileSource(path, elem, cache=cache, threads=threads, io_depth=io_depth)
        source.headers = read_headers(path, elem)
    return source


#: Sources that `_open` opened.
_opened: weakref.WeakValueDictionary[tuple[Any, ...], FileSource] = weakref.WeakValueDictionary()
