"""How a matrix is stored in a file, how much each order decodes, and recommended settings.

The core describes the matrix, h5py lists the obs columns; no values are read. Costs are expected values of the formula
in `_Facts.cost`.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from annfeed._core import Reader
from annfeed.errors import UnsupportedError
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.file import open_h5py, text_of
from annfeed.h5ad.foreign import recognised
from annfeed.h5ad.turns import reading
from annfeed.order.auto_blocks import LEAST_BLOCKS, LEAST_ROWS
from annfeed.user_arrays import positive_int

#: Decoded bytes of a chunk above which a warning is given: each row of it needs the whole chunk.
_GIANT_CHUNK = 64 << 20
#: Obs columns that the text form lists at most.
_MOST_COLUMNS = 40


@dataclass(frozen=True)
class Inspection:
    """How a matrix is stored, as `AnnDataset.inspect` and ``annfeed inspect`` describe it.

    Parameters
    ----------
    place
        File and element.
    encoding
        "csr", "csc" or "dense".
    shape
        Rows and columns.
    dtype
        dtype of the values, and of the column indices of a sparse matrix.
    nnz
        Number of stored values.
    chunk
        Elements of a chunk along each axis; None if the values are contiguous.
    rows_per_chunk
        Mean number of rows with values in a chunk; 0 if each row can be read alone.
    filters
        Names of the filters, in the order of writing.
    stored_bytes_per_row
        Bytes of a row on disk, on average.
    decoded_bytes_per_row
        Bytes of a row after the filters, on average.
    reader
        "rust" or "h5py".
    window
        Rows read together, for ``cost``.
    cost
        For each order the expected decoded bytes per delivered byte, without a cache.
    advice
        Recommended settings, and warnings.
    declined
        Why h5py reads the matrix; None if the core does.
    conversion_bytes
        Bytes of memory that the first read of a CSC matrix takes; 0 for other encodings.
    obs_columns
        For each obs column "categorical (12 categories)", "text", or the dtype.

    Examples
    --------
    >>> import anndata, numpy as np, tempfile
    >>> from annfeed import AnnDataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
    ...     found = AnnDataset(f"{folder}/three.h5ad").inspect()
    >>> found.encoding, found.shape, found.filters, found.reader
    ('dense', (3, 3), (), 'rust')
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
    declined: str | None = None
    conversion_bytes: int = 0
    obs_columns: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        rows, columns = self.shape
        per_chunk = f", {self.rows_per_chunk:.3g} rows a chunk" if self.rows_per_chunk else ""
        lines = [
            self.place,
            f"  encoding    {self.encoding}, {self.dtype}, {rows:,} x {columns:,}, {self.nnz:,} values stored",
            f"  chunks      {self.chunk or 'none (one run)'}{per_chunk}",
            f"  filters     {' + '.join(self.filters) or 'none'} (read by {self.reader})",
        ]
        if self.declined is not None:
            lines.append(f"  h5py        because of {self.declined}")
        lines.append(
            f"  a row       {self.stored_bytes_per_row:,.0f} bytes stored, {self.decoded_bytes_per_row:,.0f} decoded"
        )
        if self.cost:
            lines.append(f"  decoded for each byte delivered, windows of {self.window:,} rows, no cache:")
        lines += [f"    {order:<22}{cost:8.1f} x" for order, cost in self.cost.items()]
        lines += [f"  {'advice' if i == 0 else '':<12}{text}" for i, text in enumerate(self.advice)]
        listed = [f"{name}: {kind}" for name, kind in list(self.obs_columns.items())[:_MOST_COLUMNS]]
        if len(self.obs_columns) > _MOST_COLUMNS:
            listed.append(f"and {len(self.obs_columns) - _MOST_COLUMNS} more (all with --json)")
        lines += [f"  {'obs' if i == 0 else '':<12}{text}" for i, text in enumerate(listed)]
        return "\n".join(lines)


@dataclass(frozen=True)
class ManyInspections:
    """How the matrices of several files are stored, as `AnnDataset.inspect` describes them.

    Parameters
    ----------
    files
        One `Inspection` for each file, in the order of the rows; AnnData objects in memory are left out.

    Examples
    --------
    >>> from annfeed.inspection import ManyInspections
    >>> ManyInspections(()).cost
    {}
    """

    files: tuple[Inspection, ...]

    @property
    def cost(self) -> dict[str, float]:
        """For each order the expected decoded bytes per delivered byte, over all files that have a cost."""
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
        rows = sum(file.shape[0] for file in self.files)
        lines = [f"{len(self.files)} files, {rows:,} rows"]
        lines += [
            f"  {file.place}  {file.encoding}, {file.dtype}, {file.shape[0]:,} x {file.shape[1]:,}, "
            f"{'+'.join(file.filters) or 'no filters'}, {_per_chunk(file)}read by {file.reader}"
            for file in self.files
        ]
        lines += [f"    {order:<22}{cost:8.1f} x" for order, cost in self.cost.items()]
        return "\n".join(lines)


def _per_chunk(file: Inspection) -> str:
    return f"{file.rows_per_chunk:.3g} rows a chunk, " if file.rows_per_chunk else ""


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
    positive_int("window", window)
    with reading(), recognised(file):
        if where.var is None:
            _refuse_frame(file, where.path)
        facts = Reader.describe(file, where.path)
    encoding, shape = facts["format"], facts["shape"]
    values, *others = facts["arrays"]
    # A row of a sparse matrix needs values and column indices, a dense one values.
    arrays = [values, *others[:1]]
    n_rows, nnz = max(1, shape[0]), math.prod(values["shape"])
    filtered = any(array["filters"] for array in arrays)
    costs = _Facts(
        n_rows=shape[0],
        rows_per_chunk=_rows_per_chunk(arrays[-1], n_rows, encoding) if filtered else 0.0,
        window=window,
        held_bytes=nnz * (values["item_size"] if encoding == "dense" else 3),
        chunk_bytes=max(_chunk_bytes(array) for array in arrays),
        conversion_bytes=facts["conversion_bytes"],
    )
    return Inspection(
        place=f"{file}: '{facts['path']}'",
        encoding=encoding,
        shape=shape,
        dtype=values["dtype"] + (f" (indices {others[0]['dtype']})" if others else ""),
        nnz=nnz,
        chunk=tuple(values["chunk"]) if values["chunk"] else None,
        rows_per_chunk=costs.rows_per_chunk,
        filters=tuple(values["filters"]),
        stored_bytes_per_row=sum(array["stored_bytes"] for array in arrays) / n_rows,
        decoded_bytes_per_row=sum(math.prod(array["shape"]) * array["item_size"] for array in arrays) / n_rows,
        reader="rust" if facts["declined"] is None else "h5py",
        window=window,
        cost=costs.costs() if encoding != "csc" else {},
        advice=tuple(costs.advice(encoding)),
        declined=facts["declined"],
        conversion_bytes=facts["conversion_bytes"],
        obs_columns=_obs_columns(file, where.obs),
    )


def _refuse_frame(path: str, elem: str) -> None:
    from annfeed.sources.frame import frame_columns  # its imports take a second: only for obsm

    if frame_columns(path, elem) is not None:
        raise UnsupportedError(
            f"{path}: '{elem}' is a DataFrame; expected an array or a sparse matrix. AnnDataset reads it: "
            "each column is an array of its own, held in memory from the first read on; every order costs the same"
        )


def inspect_files(files: Sequence[tuple[str, str]], window: int = 6000) -> ManyInspections:
    """Describe the matrices of several files that are read as one.

    Parameters
    ----------
    files
        Path and element of each.
    window
        Rows read together, from each file in proportion to its rows.

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
    conversion_bytes: int

    def cost(self, block: float) -> float:
        """Return the expected decoded bytes per delivered byte, for blocks of ``block`` rows.

        A chunk of R rows is touched by about R / block + 1 blocks (a block across a chunk border counts for both). A
        window contains each block with probability f = window / n, so it decodes a chunk with probability
        1 - (1 - f)^(R / block + 1), and delivers the fraction f of the chunk's rows. The cost is the ratio of the two.
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
            return [
                "stored by columns: the first read turns it into rows in memory, which takes "
                f"{self.conversion_bytes:,} bytes of cache= ({self.conversion_bytes / 2**30:.2g} GiB), in each worker; "
                "better written as CSR"
            ]
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


def _rows_per_chunk(array: dict[str, Any], n_rows: int, encoding: str) -> float:
    if array["chunk"] is None or encoding == "csc":
        return 0.0
    if encoding == "dense":
        return float(array["chunk"][0])
    return float(array["chunk"][0] / max(1.0, math.prod(array["shape"]) / n_rows))


def _chunk_bytes(array: dict[str, Any]) -> int:
    return 0 if array["chunk"] is None else math.prod(array["chunk"]) * int(array["item_size"])


def _obs_columns(path: str, group: str) -> dict[str, str]:
    """Return the columns of an obs and their types; {} if it cannot be read (making a dataset says why)."""
    with contextlib.suppress(Exception), open_h5py(path) as file:
        obs = file[group]
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
