"""Small .h5ad files in every layout that HDF5 has, written with h5py alone; the oracle that reads them: h5py and scipy.

Nothing here imports annfeed or anndata.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import hdf5plugin  # noqa: F401  (registers its filters with h5py)
import numpy as np
import scipy.sparse as sp
import torch

#: HDF5 filters by the name that tests give them: (id, client data), first applied first.
PIPELINES: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "none": (),
    "gzip1": ((1, (1,)),),
    "gzip4": ((1, (4,)),),
    "gzip9": ((1, (9,)),),
    "lzf": ((32000, ()),),
    "shuffle": ((2, ()),),
    "fletcher32": ((3, ()),),
    "shuffle, gzip": ((2, ()), (1, (4,))),
    "shuffle, lzf": ((2, ()), (32000, ())),
    "shuffle, gzip, fletcher32": ((2, ()), (1, (4,)), (3, ())),
    "shuffle, lzf, fletcher32": ((2, ()), (32000, ()), (3, ())),
    "gzip, fletcher32": ((1, (4,)), (3, ())),
    "zstd": ((32015, (3,)),),
    "shuffle, zstd": ((2, ()), (32015, (3,))),
    "lz4": ((32004, (0,)),),
    "lz4 in small blocks": ((32004, (96,)),),
    "shuffle, lz4": ((2, ()), (32004, (0,))),
    "zstd, fletcher32": ((32015, (3,)), (3, ())),
    "bitshuffle": ((32008, (0, 0)),),
    "bitshuffle, lz4": ((32008, (0, 2)),),
    "bitshuffle, zstd": ((32008, (0, 3, 5)),),
    "bitshuffle in small blocks, lz4": ((32008, (16, 2)),),
    # Of Blosc the level, the shuffle (bytes 1, bits 2) and the codec.
    "blosc, blosclz": ((32001, (0, 0, 0, 0, 5, 0, 0)),),
    "blosc, bytes, blosclz": ((32001, (0, 0, 0, 0, 9, 1, 0)),),
    "blosc, bits, lz4": ((32001, (0, 0, 0, 0, 5, 2, 1)),),
    "blosc, bytes, lz4hc": ((32001, (0, 0, 0, 0, 5, 1, 2)),),
    "blosc, zlib": ((32001, (0, 0, 0, 0, 5, 0, 4)),),
    "blosc, bytes, zstd": ((32001, (0, 0, 0, 0, 5, 1, 5)),),
    "blosc, bits, zstd": ((32001, (0, 0, 0, 0, 1, 2, 5)),),
    "blosc, stored": ((32001, (0, 0, 0, 0, 0, 1, 1)),),
    # Orders that no writer of today chooses, but HDF5 allows.
    "fletcher32, gzip": ((3, ()), (1, (4,))),
    "fletcher32, shuffle, gzip": ((3, ()), (2, ()), (1, (4,))),
    "gzip, shuffle": ((1, (4,)), (2, ())),
    "gzip, gzip": ((1, (4,)), (1, (9,))),
    "zstd, gzip": ((32015, (3,)), (1, (4,))),
    "lzf, zstd": ((32000, ()), (32015, (3,))),
}
#: Filters that annfeed leaves to h5py.
FOREIGN: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "szip": ((4, (4, 8)),),
    "nbit": ((5, ()),),
    "scaleoffset": ((6, (2, 0)),),
    "bzip2": ((307, (9,)),),
    "blosc2": ((32026, (0, 0, 0, 0, 5, 1, 5)),),
}
_FLETCHER32, _MANDATORY, _OPTIONAL = 3, h5py.h5z.FLAG_MANDATORY, h5py.h5z.FLAG_OPTIONAL
_ALLOC = {"early": h5py.h5d.ALLOC_TIME_EARLY, "late": h5py.h5d.ALLOC_TIME_LATE, "incr": h5py.h5d.ALLOC_TIME_INCR}


@dataclass(frozen=True)
class Storage:
    """How HDF5 keeps one array.

    Parameters
    ----------
    chunks
        Elements of a chunk along each axis, at most its length where it has a bound; None for a contiguous (or compact)
        array.
    filters
        HDF5 filter ids with client data, first applied first: a value of `PIPELINES`.
    resizable
        So many axes, from the first on, have no upper bound; anndata writes sparse arrays with 1.
    fill
        What is read where nothing was written.
    alloc
        "early", "late" or "incr"; None for HDF5's choice.
    plain_edges
        Chunks that reach over the edge are stored without filters.
    compact
        The elements lie in the object header.
    """

    chunks: tuple[int, ...] | None = None
    filters: tuple[tuple[int, tuple[int, ...]], ...] = ()
    resizable: int = 0
    fill: Any = None
    alloc: str | None = None
    plain_edges: bool = False
    compact: bool = False


class Stored(NamedTuple):
    """The arrays of a compressed matrix as they are to be stored, right or wrong."""

    format: str
    shape: tuple[int, int]
    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray

    @classmethod
    def of(cls, matrix: Any, index: str = "i4", pointer: str = "i4", dtype: Any = None) -> Stored:
        """Take a scipy matrix apart."""
        data = matrix.data if dtype is None else matrix.data.astype(dtype)
        return cls(matrix.format, matrix.shape, data, matrix.indices.astype(index), matrix.indptr.astype(pointer))


@dataclass(frozen=True)
class Layout:
    """How a file keeps its matrix: each array's storage, and what concerns the whole file."""

    data: Storage = field(default_factory=Storage)
    indices: Storage = field(default_factory=Storage)
    indptr: Storage = field(default_factory=Storage)
    libver: str = "earliest"
    userblock: int = 0


def put(
    group: h5py.Group,
    name: str,
    array: np.ndarray,
    storage: Storage = Storage(),
    *,
    shape: tuple[int, ...] | None = None,
    written: Iterable[tuple[slice, ...]] | None = None,
) -> h5py.Dataset:
    """Create a dataset; ``written`` are the parts of ``array`` that are written to it (all where None)."""
    shape = array.shape if shape is None else shape
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if storage.chunks is not None:
        bounds = enumerate(zip(storage.chunks, shape, strict=True))
        # HDF5 refuses chunks longer than an axis that cannot grow.
        plist.set_chunk(tuple(c if i < storage.resizable else max(1, min(c, n)) for i, (c, n) in bounds))
    if storage.compact:
        plist.set_layout(h5py.h5d.COMPACT)
    for code, values in storage.filters:
        plist.set_filter(code, _MANDATORY if code == _FLETCHER32 else _OPTIONAL, values)
    if storage.fill is not None:
        plist.set_fill_value(np.asarray(storage.fill, dtype=array.dtype))
    if storage.alloc is not None:
        plist.set_alloc_time(_ALLOC[storage.alloc])
    if storage.plain_edges:
        _dont_filter_partial_chunks(plist)
    limit = (h5py.h5s.UNLIMITED,) * storage.resizable + shape[storage.resizable :]
    space = h5py.h5s.create_simple(shape, limit)
    datatype = h5py.h5t.py_create(array.dtype, logical=True)
    created = h5py.h5d.create(group.id, name.encode(), datatype, space, plist)
    dataset = h5py.Dataset(created)
    if written is not None:
        for part in written:
            dataset[part] = array[part]
    elif array.size:
        dataset[...] = array
    return dataset


def _dont_filter_partial_chunks(plist: Any) -> None:
    # h5py has no name for it; its own libhdf5 is found through the extension module that is linked to it.
    call = ctypes.CDLL(h5py.h5p.__file__).H5Pset_chunk_opts
    call.argtypes, call.restype = [ctypes.c_int64, ctypes.c_uint], ctypes.c_int
    assert call(plist.id, 2) >= 0


def put_matrix(group: h5py.Group, name: str, matrix: np.ndarray | Stored, layout: Layout = Layout()) -> None:
    """Write a matrix as anndata encodes it."""
    if isinstance(matrix, np.ndarray):
        put(group, name, matrix, layout.data).attrs.update(encoding("array", "0.2.0"))
        return
    made = group.create_group(name)
    made.attrs.update(encoding(f"{matrix.format}_matrix", "0.1.0"))
    made.attrs["shape"] = np.array(matrix.shape)
    put(made, "data", matrix.data, layout.data)
    put(made, "indices", matrix.indices, layout.indices)
    put(made, "indptr", matrix.indptr, layout.indptr)


def put_frame(group: h5py.Group, name: str, n: int, columns: Mapping[str, np.ndarray] | None = None) -> None:
    """Write an obs or var of ``n`` rows, named "0", "1", …, with numeric columns."""
    frame = group.create_group(name)
    frame.attrs.update(encoding("dataframe", "0.2.0"))
    frame.attrs["_index"] = "_index"
    frame.attrs.create("column-order", list(columns or {}), dtype=h5py.string_dtype())
    names = frame.create_dataset("_index", data=[str(i) for i in range(n)], shape=(n,), dtype=h5py.string_dtype())
    names.attrs.update(encoding("string-array", "0.2.0"))
    for key, values in (columns or {}).items():
        frame.create_dataset(key, data=values).attrs.update(encoding("array", "0.2.0"))


def encoding(kind: str, version: str) -> dict[str, str]:
    """Return the attributes by which anndata tells what an element is."""
    return {"encoding-type": kind, "encoding-version": version}


def write_h5ad(
    path: Path,
    matrix: np.ndarray | Stored,
    layout: Layout = Layout(),
    *,
    elem: str = "X",
    n_obs: int | None = None,
    obs: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a file with one matrix, and an obs and a var that fit it."""
    n_rows, n_cols = matrix.shape
    with h5py.File(path, "w", libver=layout.libver, userblock_size=layout.userblock) as file:
        file.attrs.update(encoding("anndata", "0.1.0"))
        put_matrix(file, elem, matrix, layout)
        put_frame(file, "obs", n_rows if n_obs is None else n_obs, obs)
        put_frame(file, "raw/var" if elem.startswith("raw") else "var", n_cols)
    return path


def stored_matrix(path: Path, elem: str = "X") -> np.ndarray | sp.csr_matrix | sp.csc_matrix:
    """Return what lies at ``elem``, as h5py reads it, in the machine's byte order."""
    with h5py.File(path, "r") as file:
        node = file["raw.X" if elem == "raw/X" and "raw" not in file else elem]
        if isinstance(node, h5py.Dataset):
            return _native(node[...])
        if "barcodes" in node:  # Cell Ranger's
            kind, shape = "csr", node["shape"][...][::-1]
        else:
            kind = node.attrs["encoding-type"] if "encoding-type" in node.attrs else node.attrs["h5sparse_format"]
            shape = node.attrs["shape"] if "shape" in node.attrs else node.attrs["h5sparse_shape"]
        make = {"csr": sp.csr_matrix, "csc": sp.csc_matrix}[kind[:3]]
        data = _native(node["data"][...])
        # scipy has no float16.
        data = data.astype(np.float32) if data.dtype == np.float16 else data
        indptr = node["indptr"][...].astype(np.int64)
        used = slice(int(indptr[-1]) if len(indptr) else 0)
        matrix = make((data[used], node["indices"][...].astype(np.int64)[used], indptr), shape=tuple(shape))
        # Or scipy would follow wrong indices out of its memory.
        matrix.check_format(full_check=True)
        return matrix


def dense_matrix(path: Path, elem: str = "X") -> np.ndarray:
    """Return what lies at ``elem`` as an array, repeated columns summed."""
    matrix = stored_matrix(path, elem)
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def dense(x: torch.Tensor) -> np.ndarray:
    """Return the values of a delivered tensor, after torch's own check where it is CSR."""
    if x.layout is torch.sparse_csr:
        parts = (x.crow_indices(), x.col_indices(), x.values())
        x = torch.sparse_csr_tensor(*parts, size=x.shape, check_invariants=True).to_dense()
    return x.numpy()


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="))
