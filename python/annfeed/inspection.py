"""What lies in a file, what each order costs there, and the settings that we would use.

Reads attributes and chunk tables through h5py, never data. The costs are expectations, from the formula below.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from annfeed.blocks import LEAST_BLOCKS, LEAST_ROWS
from annfeed.errors import UnknownNameError
from annfeed.foreign import recognised
from annfeed.h5py_file import open_h5py

_FILTERS = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32015: "zstd",
    32026: "blosc2",
}
_RUST = {1, 2, 3, 32000, 32004, 32015}
#: Above this, one row costs more than a whole batch should.
_GIANT_CHUNK = 64 << 20


@dataclass(frozen=True)
class Inspection:
    """What `AnnDataset.inspect` and ``annfeed inspect`` tell about a matrix.

    Parameters
    ----------
    place
        File and element.
    encoding
        "csr", "csc" or "dense".
    shape
        Rows and columns.
    dtype
        Of the values (and, where sparse, of the column indices).
    nnz
        Stored values.
    chunk
        Elements of a chunk along each axis; None where the values lie in one run.
    rows_per_chunk
        Rows of which a chunk holds values, on average; 0 where any row can be read by itself.
    filters
        By name, as applied when writing.
    stored_bytes_per_row
        Bytes on disk.
    decoded_bytes_per_row
        Bytes after the filters.
    reader
        "rust" or "h5py".
    window
        Rows read together, of which the costs speak.
    cost
        By order: decoded bytes for each byte delivered, without a cache.
    advice
        What we would set, and what to mind.
    """

    place: str
    encoding: str
    shape: tuple[int, int]
    dtype: str
    nnz: int
    chunk: tuple[int, ...] | None
    rows_per_chunk: float
    filters: tuple[str, ...]
    stored_bytes_per_row: float
    decoded_bytes_per_row: float
    reader: str
    window: int
    cost: dict[str, float] = field(default_factory=dict)
    advice: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return a table for people."""
        rows, columns = self.shape
        lines = [
            self.place,
            f"  encoding    {self.encoding}, {self.dtype}, {rows:,} x {columns:,}, {self.nnz:,} values stored",
            f"  chunks      {self.chunk or 'none (one run)'}, {self.rows_per_chunk:.3g} rows a chunk",
            f"  filters     {' + '.join(self.filters) or 'none'} (read by {self.reader})",
            f"  a row       {self.stored_bytes_per_row:,.0f} bytes stored, {self.decoded_bytes_per_row:,.0f} decoded",
            f"  decoded for each byte delivered, windows of {self.window:,} rows, no cache:",
        ]
        lines += [f"    {order:<22}{cost:8.1f} x" for order, cost in self.cost.items()]
        return "\n".join(lines + [f"  {'advice' if i == 0 else '':<12}{text}" for i, text in enumerate(self.advice)])


@dataclass(frozen=True)
class ManyInspections:
    """What `AnnDataset.inspect` tells about many files.

    Parameters
    ----------
    files
        In the order of their rows; those in memory are not among them.
    """

    files: tuple[Inspection, ...]

    @property
    def cost(self) -> dict[str, float]:
        """By order: decoded bytes for each byte delivered, over all files that have such a cost."""
        with_cost = [file for file in self.files if file.cost]
        weights = [file.decoded_bytes_per_row * file.shape[0] for file in with_cost]
        total = sum(weights)
        if total == 0:
            return {}
        return {
            order: sum(file.cost[order] * weight for file, weight in zip(with_cost, weights, strict=True)) / total
            for order in with_cost[0].cost
        }

    def __str__(self) -> str:
        """Return a table for people: a line a file, and the costs."""
        rows = sum(file.shape[0] for file in self.files)
        lines = [f"{len(self.files)} files, {rows:,} rows"]
        lines += [
            f"  {file.place}  {file.encoding}, {file.dtype}, {file.shape[0]:,} x {file.shape[1]:,}, "
            f"{'+'.join(file.filters) or 'no filters'}, {file.rows_per_chunk:.3g} rows a chunk, read by {file.reader}"
            for file in self.files
        ]
        lines += [f"    {order:<22}{cost:8.1f} x" for order, cost in self.cost.items()]
        return "\n".join(lines)


def inspect_file(path: str | os.PathLike[str], elem: str = "X", window: int = 6000) -> Inspection:
    """Describe the matrix ``elem`` of a file without reading its data.

    Parameters
    ----------
    path, elem
        The file and the place in it.
    window
        Rows read together, for the costs.

    Raises
    ------
    OSError
        If the file cannot be read.
    UnknownNameError
        If it has no such element.

    Examples
    --------
    >>> import anndata, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
    ...     inspect_file(f"{folder}/three.h5ad").encoding
    'dense'
    """
    import h5py

    with recognised(os.fsdecode(path)), open_h5py(os.fsdecode(path)) as file:
        place = "raw.X" if elem == "raw/X" and "raw/X" not in file else elem
        if place not in file:
            raise UnknownNameError(f"{os.fspath(path)}: '{elem}' does not exist")
        node = file[place]
        sparse = isinstance(node, h5py.Group)
        values = node["data"] if sparse else node
        arrays = [values, node["indices"]] if sparse else [values]
        shape = _shape(node)
        encoding = _encoding(node) if sparse else "dense"
        ids = [f for array in arrays for f in _filter_ids(array)]
        n_rows = max(1, shape[0])
        facts = _Facts(
            n_rows=shape[0],
            rows_per_chunk=_rows_per_chunk(arrays[-1], shape, encoding) if ids else 0.0,
            window=window,
            held_bytes=3 * values.size if sparse else values.size * values.dtype.itemsize,
            chunk_bytes=max(_chunk_bytes(a) for a in arrays),
        )
        return Inspection(
            place=f"{os.fspath(path)}: '{place}'",
            encoding=encoding,
            shape=shape,
            dtype=f"{values.dtype}" + (f" (indices {node['indices'].dtype})" if sparse else ""),
            nnz=int(values.size),
            chunk=values.chunks,
            rows_per_chunk=facts.rows_per_chunk,
            filters=tuple(_FILTERS.get(f, str(f)) for f in _filter_ids(values)),
            stored_bytes_per_row=sum(a.id.get_storage_size() for a in arrays) / n_rows,
            decoded_bytes_per_row=sum(a.size * a.dtype.itemsize for a in arrays) / n_rows,
            reader="rust" if set(ids) <= _RUST else "h5py",
            window=window,
            cost=facts.costs() if encoding != "csc" else {},
            advice=tuple(facts.advice(encoding)),
        )


def inspect_files(files: Sequence[tuple[str, str]], window: int = 6000) -> ManyInspections:
    """Describe the matrices of many files, which are read as one.

    Parameters
    ----------
    files
        Path and element of each.
    window
        Rows read together: of each file as many as is its part of all rows.

    Raises
    ------
    OSError
        If a file cannot be read.
    UnknownNameError
        If one has no such element.

    Examples
    --------
    >>> import anndata, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
    ...     len(inspect_files([(f"{folder}/three.h5ad", "X")] * 2).files)
    2
    """
    found = [inspect_file(path, elem, window) for path, elem in files]
    n_rows = max(1, sum(one.shape[0] for one in found))
    return ManyInspections(
        tuple(
            inspect_file(path, elem, max(1, round(window * one.shape[0] / n_rows)))
            for (path, elem), one in zip(files, found, strict=True)
        )
    )


@dataclass(frozen=True)
class _Facts:
    n_rows: int
    rows_per_chunk: float
    window: int
    held_bytes: int
    chunk_bytes: int

    def cost(self, block: float) -> float:
        """Decoded bytes for each byte delivered, at blocks of ``block`` rows.

        A chunk of R rows is touched by about R / block + 1 blocks (a block that straddles its border counts in both). A
        window takes each with probability f = window / n, so it decodes the chunk with probability
        1 - (1 - f)^(R / block + 1), while it delivers the share f of its rows.
        """
        if self.rows_per_chunk == 0 or self.n_rows == 0:
            return 1.0
        share = min(1.0, self.window / self.n_rows)
        return float((1.0 - (1.0 - share) ** (self.rows_per_chunk / block + 1.0)) / share)

    def costs(self) -> dict[str, float]:
        return {
            "file order": 1.0,
            "block_size='auto'": 1.0 if self._chunks_mix else self.cost(self._auto_rows),
            "block_size=64": self.cost(64),
            "block_size=16": self.cost(16),
            "exact random": self.cost(1),
        }

    @property
    def _auto_rows(self) -> float:
        return min(max(LEAST_ROWS, self.rows_per_chunk), max(LEAST_ROWS, self.window // LEAST_BLOCKS))

    @property
    def _chunks_mix(self) -> bool:
        return self.rows_per_chunk <= self._auto_rows

    def advice(self, encoding: str) -> list[str]:
        gib = self.held_bytes / 2**30
        if encoding == "csc":
            return [f"stored by columns: turned into rows in memory once (about {gib:.2g} GiB); better written as CSR"]
        if self.rows_per_chunk == 0:
            return ["no filters: any order costs the same; block_size=16 saves calls on slow disks"]
        advice = [f"exact random order with cache='{math.ceil(gib * 1.35)}GiB' decodes the file once, ever"]
        advice.append("without that memory: block_size='auto', chunk_size=16384")
        if self.chunk_bytes > _GIANT_CHUNK:
            advice.append(
                f"a chunk is {self.chunk_bytes / 2**20:,.0f} MiB decoded, and any row needs all of it: "
                "write the file again with anndata to get smaller chunks"
            )
        return advice


def _shape(node: Any) -> tuple[int, int]:
    shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape")) if hasattr(node, "keys") else node.shape
    return int(shape[0]), int(shape[1])


def _encoding(group: Any) -> str:
    return str(group.attrs.get("encoding-type", group.attrs.get("h5sparse_format", "?")))[:3]


def _filter_ids(array: Any) -> list[int]:
    properties = array.id.get_create_plist()
    return [int(properties.get_filter(i)[0]) for i in range(properties.get_nfilters())]


def _rows_per_chunk(array: Any, shape: tuple[int, int], encoding: str) -> float:
    if array.chunks is None or encoding == "csc":
        return 0.0
    if encoding == "dense":
        return float(array.chunks[0])
    return float(array.chunks[0] / max(1.0, array.size / max(1, shape[0])))


def _chunk_bytes(array: Any) -> int:
    if array.chunks is None:
        return 0
    size = array.dtype.itemsize
    for n in array.chunks:
        size *= n
    return int(size)
