"""One array from file to file: read stretch by stretch, compressed chunk by chunk, and read back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from annfeed._core import ChunkEncoder, StoredArray
from annfeed.arrays import Int64Array
from annfeed.errors import FormatError, UnsupportedError
from annfeed.rewriting.codecs import Codec

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
        try:
            self._stored = StoredArray(path, dataset.name)
        except UnsupportedError as error:
            self.declined = error
        self._held: tuple[int, Bytes] = (0, np.empty(0, np.uint8))

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
        The array whose type, axes and attributes it gets.
    shape
        Its shape.
    chunk_rows
        Elements of a chunk along the first axis; a chunk holds all of the others.
    codec
        How chunks are compressed.
    threads
        Threads that compress.
    """

    def __init__(
        self, parent: Any, name: str, like: Any, shape: tuple[int, ...], chunk_rows: int, codec: Codec, threads: int
    ) -> None:
        import h5py

        item_size = like.dtype.itemsize
        chunk = (min(chunk_rows, shape[0]), *shape[1:])
        self.chunk_rows = chunk[0]
        self._threads = threads
        self._next, self._n_axes = 0, len(shape)
        filters = codec.filters(item_size)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(chunk)
        for number, values in filters:
            _set_filter(plist, number, values)
        axes = tuple(
            h5py.h5s.UNLIMITED if most is None else max(most, n) for most, n in zip(like.maxshape, shape, strict=True)
        )
        space = h5py.h5s.create_simple(shape, axes)
        created = h5py.h5d.create(parent.id, name.encode(), like.id.get_type(), space, plist)
        self.dataset = h5py.Dataset(created)
        self._encoder = ChunkEncoder(filters, item_size, codec.level, math.prod(chunk) * item_size)

    def add(self, elements: Bytes) -> None:
        """Write the bytes of the next elements: of whole chunks, or of all that is left."""
        for stored, mask in self._encoder.encode(elements, self._threads):
            self.dataset.id.write_direct_chunk((self._next, *[0] * (self._n_axes - 1)), stored, mask)
            self._next += self.chunk_rows


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
