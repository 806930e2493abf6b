"""Where rows come from: sorted, distinct rows in, a decoded block out, whatever the matrix is stored as.

Three kinds with one interface: the Rust reader, h5py for what it does not decode, and arrays in memory. Nothing here
knows torch, the order of an epoch, or obs.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from annfeed import cancel
from annfeed._core import Block, Reader
from annfeed.cache import process_budget
from annfeed.errors import AnnfeedWarning, StaleFileError, UnsupportedError
from annfeed.h5py_source import H5pyMatrix
from annfeed.identity import Identity, current_identity, file_identity, holders, wait_for_own_write

Int64Array = npt.NDArray[np.int64]

#: What `Source.stats` counts.
STATS = ("opens", "bytes_read", "bytes_decoded", "cache_hits", "cache_misses", "cache_bytes")


class Source(Protocol):
    """A matrix that gives rows."""

    @property
    def place(self) -> str:
        """File and element, or what it is in memory, for messages."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns as stored."""

    def read(self, rows: Int64Array, threads: int) -> Block:
        """Decode ``rows`` (sorted, distinct) into a block of the wanted columns."""

    def unit_starts(self) -> Int64Array | None:
        """First row of each unit of rows that are decoded together; None where any row can be read by itself."""

    def stats(self) -> dict[str, int]:
        """What reading did so far in this process, under the names of `STATS`."""

    def close(self) -> None:
        """Let go of file descriptors and memory."""


class FileSource:
    """A matrix in an .h5ad file: by the Rust reader, or by h5py where that one declines (with one warning).

    Pickles as path, identity of the file and options. A forked or spawned process opens its own descriptor at its first
    read, and finds out there whether the file is still the same.

    Parameters
    ----------
    path
        The file.
    elem
        Where the matrix lies in it: "X", "raw/X", "layers/counts", "obsm/X_pca".
    columns
        int64, the wanted columns in order; None for all.
    cache
        What decoded rows may take in memory, and a CSC matrix: as `annfeed.cache.process_budget` reads it.
    threads
        Threads for opening.
    strict
        Raise UnsupportedError where h5py would be needed.

    Raises
    ------
    OSError
        If the file cannot be read.
    FormatError
        If it is not what it says it is.
    UnknownNameError
        If it has no such element.
    MemoryError
        If a CSC matrix does not fit ``cache``.
    """

    def __init__(
        self,
        path: str,
        elem: str,
        *,
        columns: Int64Array | None = None,
        cache: str | int = 0,
        threads: int = 1,
        strict: bool = False,
    ) -> None:
        # A worker may run in another directory.
        self.path = os.path.abspath(path)
        self.elem = elem
        self._columns = columns
        self._cache = cache
        self._strict = strict
        self._warned = False
        self._reader: Reader | H5pyMatrix | None = None
        self._pid = os.getpid()
        self._closed = False
        self._n_opens = 0
        self._identity: Identity | None = None
        reader = self._open(threads)
        self._shape = reader.shape

    @property
    def place(self) -> str:
        """File and element."""
        return f"{self.path}: '{self.elem}'"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns in the file."""
        return self._shape

    @property
    def reader(self) -> Reader | H5pyMatrix:
        """The reader of this process, opened if need be."""
        if self._closed:
            raise ValueError(f"{self.place}: the dataset is closed; make a new one to read on")
        if self._identity is not None and self._identity != current_identity(self._identity):
            self._reader = None  # it was opened before we wrote to the file
        if self._reader is not None and self._pid != os.getpid():
            # Forked: the parsed layout is shared memory, the descriptor should be ours.
            self._check_unchanged(file_identity(self.path))
            self._reader, self._pid = self._reader.reopen(process_budget(self._cache)), os.getpid()
            self._n_opens = 1
        return self._reader or self._open(1)

    def read(self, rows: Int64Array, threads: int) -> Block:
        """Decode ``rows`` (sorted, distinct) into a block of the wanted columns."""
        try:
            return self.reader.read(rows, threads, cancel.current())
        except StaleFileError:
            wait_for_own_write()
            if self._identity is None or self._identity == current_identity(self._identity):
                raise
        return self.reader.read(rows, threads, cancel.current())

    def release(self, path: str) -> None:
        """Close the file until the next read, if h5py has it open and it is the one at ``path``."""
        if path == self.path and isinstance(self._reader, H5pyMatrix):
            self._reader.close()
            self._reader = None

    def unit_starts(self) -> Int64Array | None:
        """First row of each unit of rows that are decoded together; None where any row can be read by itself."""
        return self.reader.unit_starts()

    def stats(self) -> dict[str, int]:
        """What reading did so far in this process."""
        if self._reader is None or self._pid != os.getpid():
            return dict.fromkeys(STATS, 0)
        counts = (self._n_opens, self._reader.bytes_read, self._reader.bytes_decoded, *self._reader.cache_stats)
        return dict(zip(STATS, counts, strict=True))

    def close(self) -> None:
        """Close the file; reading again is an error."""
        if isinstance(self._reader, H5pyMatrix):
            self._reader.close()
        self._reader, self._closed = None, True

    def _open(self, threads: int) -> Reader | H5pyMatrix:
        # First: of another file the reader might say anything else.
        self._check_unchanged(file_identity(self.path))
        reader: Reader | H5pyMatrix
        budget = process_budget(self._cache)
        try:
            reader = Reader(self.path, self.elem, columns=self._columns, budget=budget, threads=threads)
        except UnsupportedError as error:
            if self._strict:
                raise
            reader = H5pyMatrix(self.path, self.elem, columns=self._columns, budget=budget)
            if not self._warned:
                warnings.warn(
                    f"{error}. It is read through h5py instead, which is slower; strict=True makes this an error",
                    AnnfeedWarning,
                    stacklevel=2,
                )
        self._warned = True
        self._check_unchanged(reader.identity)
        self._reader, self._pid, self._identity = reader, os.getpid(), reader.identity
        if isinstance(reader, H5pyMatrix):
            holders.add(self)
        self._n_opens += 1
        return reader

    def _check_unchanged(self, identity: Identity | None) -> None:
        if self._identity is not None and identity != current_identity(self._identity):
            raise StaleFileError(
                f"{self.path}: the file changed since the dataset was made. Make the dataset again to read the new file"
            )

    def __getstate__(self) -> dict[str, Any]:
        identity = None if self._identity is None else current_identity(self._identity)
        return {**self.__dict__, "_reader": None, "_n_opens": 0, "_identity": identity}


class MemorySource:
    """A matrix in memory: a numpy array or a scipy sparse matrix, kept by reference.

    Parameters
    ----------
    matrix
        2-D array or sparse matrix of bool, integers or floats.
    columns
        int64, the wanted columns in order; None for all.
    name
        What it is, for messages: "AnnData in memory: 'X'".

    Raises
    ------
    TypeError
        If it is neither, or holds no numbers.

    Examples
    --------
    >>> source = MemorySource(np.eye(3, dtype=np.float32), name="eye")
    >>> source.read(np.array([0, 2]), threads=1).shape
    (2, 3)
    """

    def __init__(self, matrix: Any, *, columns: Int64Array | None = None, name: str) -> None:
        import scipy.sparse as sp

        self.place = name
        self._columns = columns
        if sp.issparse(matrix):
            # Rows of a CSC matrix lie everywhere in it; so do those of the rarer formats.
            self._matrix = matrix if matrix.format == "csr" else matrix.tocsr()
        elif isinstance(matrix, np.ndarray) and matrix.ndim == 2:
            self._matrix = np.asarray(matrix)
        else:
            raise TypeError(
                f"{name} is a {type(matrix).__name__}, where a 2-D numpy array or a scipy sparse matrix was expected"
            )
        if self._matrix.dtype.kind not in "biuf" or self._matrix.dtype.itemsize > 8:
            raise TypeError(f"{name} has dtype {self._matrix.dtype}, where bool, integers or floats were expected")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        n_rows, n_cols = self._matrix.shape
        return int(n_rows), int(n_cols)

    def read(self, rows: Int64Array, threads: int) -> Block:
        """Copy ``rows`` (sorted, distinct) into a block of the wanted columns."""
        return block_of(self._matrix[rows], self._columns)

    def unit_starts(self) -> None:
        """Any row can be taken by itself."""

    def stats(self) -> dict[str, int]:
        """Nothing is read."""
        return dict.fromkeys(STATS, 0)

    def close(self) -> None:
        """Nothing to close: the matrix is the user's."""


def block_of(rows: Any, columns: Int64Array | None) -> Block:
    """Return a block of the rows of a numpy array or a scipy CSR matrix."""
    if isinstance(rows, np.ndarray):
        picked = rows if columns is None else rows[:, columns]
        data = _little_endian(picked)
        n_rows, n_cols = picked.shape
        return Block.from_dense(n_rows, n_cols, data.reshape(-1).view(np.uint8), data.dtype.name)
    indices, data = _little_endian(rows.indices), _little_endian(rows.data)
    indptr = np.asarray(rows.indptr, dtype=np.int64)
    return Block.from_csr(
        rows.shape[1],
        indptr,
        indices[: indptr[-1]].view(np.uint8),
        indices.dtype.name,
        data[: indptr[-1]].view(np.uint8),
        data.dtype.name,
        columns,
    )


def _little_endian(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
