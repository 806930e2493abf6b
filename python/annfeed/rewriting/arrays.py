"""One array from file to file: read stretch by stretch, compressed chunk by chunk, and read back."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed._core import ChunkEncoder, StoredArray
from annfeed.arrays import Int64Array
from annfeed.errors import FormatError, UnsupportedError
from annfeed.rewriting.layout import Job

#: The bytes of elements as they are stored.
Bytes = npt.NDArray[np.uint8]


class ArrayReader:
    """The elements of an array, read by the core, or by h5py where that one declines.

    Parameters
    ----------
    path
        The file.
    dataset
        The array in it, open with h5py.
    threads
        Threads that decode.
    """

    def __init__(self, path: str, dataset: Any, threads: int) -> None:
        self.dataset = dataset
        self.dtype = np.dtype(dataset.dtype)
        self.place = f"{path}: '{dataset.name.lstrip('/')}'"
        self._threads = threads
        self._stored: StoredArray | None = None
        with suppress(UnsupportedError):
            self._stored = StoredArray(path, dataset.name)
        self._held: tuple[int, Bytes] = (0, np.empty(0, np.uint8))

    @property
    def is_stored(self) -> bool:
        """Whether elements are given as they lie in the file."""
        return self._stored is not None

    @property
    def step_bytes(self) -> int:
        """Bytes of one step along the first axis."""
        item_size: int = self.dtype.itemsize
        return item_size * math.prod(int(n) for n in self.dataset.shape[1:])

    def read(self, first: int, last: int) -> Bytes:
        """Return the bytes of elements ``first`` to ``last`` of the first axis.

        Stretches that follow each other decode no chunk twice: what is left of the last one is kept.
        """
        begin, held = self._held
        if first != begin:
            begin, held = first, held[:0]
        end = begin + len(held) // max(1, self.step_bytes)
        if end < last:
            unit = 1 if self._stored is None else self._stored.unit
            aligned = min(-(-last // unit) * unit, self.dataset.shape[0])
            held = np.concatenate([held, self._decoded(end, aligned)]) if len(held) else self._decoded(end, aligned)
        cut = (last - first) * self.step_bytes
        self._held = last, held[cut:].copy()
        return held[:cut]

    def values(self, first: int, last: int) -> npt.NDArray[Any]:
        """Return elements ``first`` to ``last`` of an array of one axis as numbers."""
        return self.read(first, last).view(self.dtype)

    def _decoded(self, first: int, last: int) -> Bytes:
        if self._stored is not None:
            out = np.empty((last - first) * self.step_bytes, np.uint8)
            self._stored.read(first, last, out, self._threads)
            return out
        try:
            return np.ascontiguousarray(self.dataset[first:last]).reshape(-1).view(np.uint8)
        except (OSError, RuntimeError) as error:
            raise FormatError(
                f"{self.place} cannot be decoded ({error}). Where a filter is missing: pip install 'annfeed[filters]'; "
                "else copy or download the file again"
            ) from error


class ArrayWriter:
    """An array that is written chunk by chunk, in the order of its elements.

    Parameters
    ----------
    parent, name
        Where it goes, in a file that is open with h5py.
    like
        The array whose type and axes it gets.
    shape
        Its shape.
    chunk_rows
        Elements of a chunk along the first axis; a chunk holds all of the others.
    job
        How chunks are compressed.
    dtype
        Another type than that of ``like``; None for its own.
    """

    def __init__(
        self,
        parent: Any,
        name: str,
        like: ArrayReader,
        shape: tuple[int, ...],
        chunk_rows: int,
        job: Job,
        dtype: np.dtype[Any] | None = None,
    ) -> None:
        import h5py

        own = like.dtype if dtype is None else dtype
        chunk = (min(chunk_rows, shape[0]), *shape[1:])
        self._chunk_rows, self._threads = chunk[0], job.threads
        self._next, self._n_axes = 0, len(shape)
        self._rest = np.empty(0, np.uint8)
        filters = job.codec.filters(own.itemsize)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(chunk)
        for number, values in filters:
            _set_filter(plist, number, values)
        old = like.dataset
        # An axis that can grow still can.
        axes = [
            h5py.h5s.UNLIMITED if most is None else new if most == was else max(most, new)
            for most, was, new in zip(old.maxshape, old.shape, shape, strict=True)
        ]
        # As it lies in the file, if its bytes were taken as they lie there.
        datatype = old.id.get_type() if own is like.dtype and like.is_stored else h5py.h5t.py_create(own, logical=True)
        space = h5py.h5s.create_simple(shape, tuple(axes))
        self.dataset = h5py.Dataset(h5py.h5d.create(parent.id, name.encode(), datatype, space, plist))
        self._chunk_bytes = math.prod(chunk) * own.itemsize
        self._encoder = ChunkEncoder(filters, own.itemsize, job.codec.level, self._chunk_bytes)

    @property
    def chunk_rows(self) -> int:
        """Elements of a chunk along the first axis."""
        return int(self._chunk_rows)

    def add(self, elements: Bytes) -> None:
        """Write the bytes of the next elements; those that fill no chunk wait for the next."""
        if len(self._rest):
            elements = np.concatenate([self._rest, elements])
        whole_chunks = len(elements) // self._chunk_bytes * self._chunk_bytes
        self._write(elements[:whole_chunks])
        self._rest = elements[whole_chunks:].copy()

    def finish(self) -> None:
        """Write what is left."""
        self._write(self._rest)

    def _write(self, elements: Bytes) -> None:
        for stored, mask in self._encoder.encode(elements, self._threads):
            self.dataset.id.write_direct_chunk((self._next, *[0] * (self._n_axes - 1)), stored, mask)
            self._next += self._chunk_rows


def _set_filter(plist: Any, number: int, values: tuple[int, ...]) -> None:
    import h5py

    if number == h5py.h5z.FILTER_LZF:
        values = ()  # filled in by h5py
    elif number > h5py.h5z.FILTER_RESERVED and h5py.h5z.filter_avail(number):
        values = values[3:] if len(values) > 3 else values  # bitshuffle puts its own before them
    # Optional: a plug-in that is not there is needed for reading only.
    plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)


def whole(reader: ArrayReader) -> Int64Array:
    """Return an array of integers of one axis as a whole."""
    return reader.values(0, reader.dataset.shape[0]).astype(np.int64)
