"""How rows are preloaded: all of a dataset's matrix, decoded once, and then kept in memory or on a device.

Batches are made from them afterwards (batches/preloaded.py); which rows they have is decided as before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from annfeed._core import DecodedRows
from annfeed.arrays import Int64Array
from annfeed.batches.densify import TAKE_CSR
from annfeed.batches.preloaded import DeviceRows, Preloaded
from annfeed.batches.token_matrix import no_device
from annfeed.display.progress import progress_bar
from annfeed.display.text import in_gib
from annfeed.memory.budget import free_memory
from annfeed.sources.base import RowSource
from annfeed.sources.file import FileSource

if TYPE_CHECKING:
    from annfeed.batches.matrix import Matrix

log = logging.getLogger("annfeed")

#: Rows that are read together take about this much if they are dense.
_PIECE = 256 << 20
#: Bytes that are copied to a device together, about.
_COPIED = 64 << 20
_REMEDY = "Take fewer rows (obs_subset=) or genes (var_subset=)"


def check_device(device: torch.device | None, place: str, *, has_tokens: bool) -> None:
    """Raise ValueError if batches of preloaded rows cannot be made on ``device``.

    Parameters
    ----------
    device
        The device; None for the host's memory.
    place
        Place of the matrix, for messages.
    has_tokens
        Whether batches are of tokens.
    """
    if device is None:
        return
    if device.type not in TAKE_CSR:
        raise ValueError(
            f"device is {device}; expected one that takes CSR tensors ({', '.join(TAKE_CSR)}). Keep the rows in "
            "memory (preload()), and move batches"
        )
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        raise ValueError(f"device is {device}, which torch cannot use here ({error}). Pass another, or none") from None
    if has_tokens:
        raise ValueError(no_device(place))


def preload(
    matrix: Matrix,
    rows: Int64Array | None,
    threads: int,
    device: torch.device | None,
    dtype: torch.dtype,
    *,
    with_totals: bool,
) -> Matrix:
    """Return a copy of a matrix that keeps ``rows`` of obs (None for all), each decoded once.

    Parameters
    ----------
    device, dtype
        Where they are kept, and of which dtype there; None for the core's types in the host's memory.
    with_totals
        Whether a transform needs their sums over columns that are left out.

    Raises
    ------
    MemoryError
        If they are expected to take more memory than is free.
    """
    wanted = rows if matrix.rows is None else matrix.rows if rows is None else matrix.rows[rows]
    kept = None if wanted is None else np.unique(wanted)
    sample = matrix.sample_digest()
    decoded = _decoded(matrix, kept, threads)
    block = decoded if device is None else _on_device(matrix, decoded, device, dtype, threads, with_totals)
    return matrix.keeping(Preloaded(block, kept, with_totals or not matrix.source.is_part, sample))


def _decoded(matrix: Matrix, kept: Int64Array | None, threads: int) -> DecodedRows:
    source = matrix.source
    n_rows = source.shape[0] if kept is None else len(kept)
    about = _size(source, n_rows, matrix.n_vars)
    is_one = len(source.parts()) == 1  # rows of several files may differ, so that some do not tell what all will take
    if about is not None and is_one:
        _check_room(source, n_rows, about)
    size = "" if about is None else f", about {in_gib(about)}"
    log.info("preloading %s rows of %s%s", f"{n_rows:,}", source.place, size)
    parts: list[tuple[DecodedRows, Int64Array | None, str]] = []
    n_done = held = 0
    with progress_bar(f"preloading {matrix.elem}{size}", n_rows, "rows") as count:
        for piece in _pieces(source, kept, matrix.n_vars):
            block = source.read(piece, threads).compact()
            parts.append((block, None, ""))
            n_done, held = n_done + len(piece), held + block.nbytes
            # Headers do not tell how wide values are.
            _check_room(source, n_rows, held / n_done * n_rows if is_one else held + block.nbytes, held)
            count(len(piece))
    for part in source.parts():
        part.set_aside()  # the same rows need not be kept twice
    return DecodedRows.concat(matrix.n_vars, parts)


def _check_room(source: RowSource, n_rows: int, about: float, held: int = 0) -> None:
    """Raise MemoryError if all rows take more memory than is free, of which they have ``held`` already."""
    free = free_memory() + held
    if about > free:
        raise MemoryError(
            f"{source.place}: {n_rows:,} rows take {in_gib(about)} or more; found {in_gib(free)} of free memory. "
            f"{_REMEDY}, or leave the rows in the file: the loader keeps what fits (cache=)"
        )


def _on_device(
    matrix: Matrix, block: DecodedRows, device: torch.device, dtype: torch.dtype, threads: int, with_totals: bool
) -> DeviceRows:
    def as_csr(slots: Int64Array) -> torch.Tensor:
        return matrix.tensors.tensor(block, slots, "csr", dtype, threads)

    n_rows = block.shape[0]
    with progress_bar(f"copying {matrix.elem} to {device}", n_rows, "rows") as count:
        try:
            return _copied(block, device, dtype, as_csr, with_totals, count)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(
                f"{matrix.source.place}: {n_rows:,} rows do not fit into the memory of {device} ({error}). {_REMEDY}, "
                "or keep them in the host's memory (preload())"
            ) from None


def _pieces(source: RowSource, kept: Int64Array | None, n_vars: int) -> Iterator[Int64Array]:
    """Rows to read together: cut where units of decoding begin, so that each is decoded once."""
    n_rows = source.shape[0]
    step = max(1, _PIECE // (4 * max(1, n_vars)))
    borders: Int64Array = np.arange(0, n_rows, step, dtype=np.int64)
    starts = source.unit_starts()
    if starts is not None and len(starts):
        borders = np.unique(starts[np.searchsorted(starts, borders, side="right") - 1])
    ends = [*borders.tolist(), n_rows]
    if kept is None:
        yield from (np.arange(start, stop, dtype=np.int64) for start, stop in pairwise(ends))
        return
    cuts = np.searchsorted(kept, ends).tolist()
    yield from (kept[start:stop] for start, stop in pairwise(cuts) if stop > start)


def _size(source: RowSource, n_rows: int, n_vars: int) -> float | None:
    """Bytes that decoded rows take, about; None where no headers tell. Of several files mostly one has headers."""
    for part in source.parts():
        if isinstance(part, FileSource) and part.headers is not None:
            return n_rows * part.headers.held_bytes * min(1.0, n_vars / max(1, part.shape[1]))
    return None


def _copied(
    block: DecodedRows,
    device: torch.device,
    dtype: torch.dtype,
    as_csr: Callable[[Int64Array], torch.Tensor],
    with_totals: bool,
    count: Callable[[int], Any],
) -> DeviceRows:
    """Copy decoded rows to a device.

    Parameters
    ----------
    block, device
        The rows, and where they go.
    dtype, as_csr
        Makes a CSR tensor, of this dtype, of the rows at some slots of ``block``.
    with_totals
        Whether to keep sums over all columns of their matrix, too.
    count
        Called with the number of rows copied since the last call.
    """
    n_rows, n_vars = block.shape
    pieces = list(_slots(block))
    sizes = [block.nnz(piece) for piece in pieces]
    indptr = torch.zeros(n_rows + 1, dtype=torch.int64)
    indices = torch.empty(sum(sizes), dtype=torch.int32, device=device)
    values = torch.empty(sum(sizes), dtype=dtype, device=device)
    row = at = 0
    for piece, size in zip(pieces, sizes, strict=True):
        part = as_csr(piece)
        indptr[row + 1 : row + len(piece) + 1] = part.crow_indices()[1:].to(torch.int64) + at
        indices[at : at + size], values[at : at + size] = part.col_indices(), part.values()
        row, at = row + len(piece), at + size
        count(len(piece))
    totals = torch.from_numpy(block.totals(np.arange(n_rows, dtype=np.int64))).to(device) if with_totals else None
    return DeviceRows(indptr.to(device), indices, values, totals, n_vars)


def _slots(block: DecodedRows) -> Iterator[Int64Array]:
    """Slots of rows to copy together."""
    n_rows = block.shape[0]
    # Sizes of rows differ; of equal numbers of rows none is much larger than the mean.
    per_row = max(1, block.nbytes // max(1, n_rows) // 2)
    step = max(1, _COPIED // per_row)
    for start in range(0, n_rows, step):
        yield np.arange(start, min(start + step, n_rows), dtype=np.int64)
