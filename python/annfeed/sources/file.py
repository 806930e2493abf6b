"""Rows of a matrix in an .h5ad file: by the Rust reader, or by h5py for what that one does not decode."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from annfeed._core import DecodedRows, DirectRows, Reader
from annfeed.arrays import Int64Array
from annfeed.display.progress import progress_bar
from annfeed.errors import FormatError, UnsupportedError
from annfeed.h5ad.headers import Headers
from annfeed.h5ad.identity import Identity, KnownFile, file_identity, holders, n_own_writes
from annfeed.h5ad.open_files import OpenFiles, forget, make_room, use
from annfeed.h5ad.turns import reading, writing
from annfeed.memory.budget import SharedBudget
from annfeed.sources import cancel
from annfeed.sources.base import STATS, RowSource, Wanted
from annfeed.sources.h5py_fallback import H5pyMatrix
from annfeed.user_warnings import warn

#: Bytes read, those read ahead, waits, microseconds waited, bytes decoded.
_NOTHING = (0, 0, 0, 0, 0)


class FileSource(RowSource):
    """A matrix in an .h5ad file: by the Rust reader, or by h5py where that one declines (with one warning).

    Pickles as path, identity of the file and options. A forked or spawned process opens its own descriptor at its first
    read, and finds out there whether the file is still the same.

    Parameters
    ----------
    path, elem
        The file, and where the matrix lies in it: "X", "raw/X", "layers/counts", "obsm/X_pca".
    columns, totals, total_over
        As of `Wanted`.
    cache
        What decoded rows may take in memory, and a CSC matrix: as `annfeed.memory.budget.process_budget` reads it, or a
        budget shared with other sources.
    threads, strict
        Threads for opening, and whether to raise UnsupportedError where h5py would be needed.
    io_depth
        Reads in flight where they are waited for; 0 for none ahead of decoding, None for the core's own number.
    shape
        Rows and columns, where they are known: the file is then opened at the first read. None opens it now.
    open_files
        Of the collection that it is part of; None for none. It counts among the files that the process has open
        either way, and may be closed between reads.
    """

    def __init__(
        self,
        path: str,
        elem: str,
        *,
        columns: Int64Array | None = None,
        totals: bool = False,
        total_over: Int64Array | None = None,
        cache: str | int | SharedBudget = 0,
        threads: int = 1,
        strict: bool = False,
        io_depth: int | None = None,
        shape: tuple[int, int] | None = None,
        open_files: OpenFiles | None = None,
    ) -> None:
        # A worker may run in another directory.
        self.path = os.path.abspath(path)
        self.elem = elem
        self._wanted = Wanted(columns, totals, total_over)
        self._budget = cache if isinstance(cache, SharedBudget) else SharedBudget(cache)
        self._open_files = open_files
        self._strict = strict
        self._io_depth = io_depth
        self._warned = False
        self._reader: Reader | H5pyMatrix | None = None
        self._pid = os.getpid()
        self._closed = False
        #: What its headers tell, where they were read when it was found.
        self.headers: Headers | None = None
        #: Whether a warning of a costly order was given.
        self.told_of_cost = False
        self._n_opens = 0
        # What was read and decoded before the file was closed for a while.
        self._counted: tuple[int, ...] = _NOTHING
        # The one that the matrix was opened from, or would have been.
        self._file = KnownFile(self.path) if shape is None else KnownFile.at(self.path)
        self._shape = shape
        if shape is None:
            with reading():
                self._shape = self._open(threads).shape
            use(self, open_files)

    @property
    def place(self) -> str:
        return f"{self.path}: '{self.elem}'"

    @property
    def identity(self) -> Identity | None:
        """Which file it is, by now; None where it was not found yet."""
        return self._file.now

    @property
    def cache_limit(self) -> int:
        """Most bytes of decoded rows that this process may keep."""
        return self._budget.of_process().most

    @property
    def shape(self) -> tuple[int, int]:
        assert self._shape is not None  # known from the first opening on
        return self._shape

    @property
    def is_part(self) -> bool:
        return self._wanted.columns is not None

    def keep_totals(self) -> None:
        """From now on, keep what rows sum to over all columns; rows that were kept without go."""
        if not self._wanted.totals:
            self._wanted = self._wanted._replace(totals=True)
            self.set_aside()

    @property
    def reader(self) -> Reader | H5pyMatrix:
        """The reader of this process, opened if need be."""
        if self._closed:
            raise ValueError(f"{self.place}: the dataset is closed; make a new one to read on")
        self._file.check_kept(self.elem)
        # Another thread may release it meanwhile; what is held here stays open as long as it is used.
        reader = self._reader
        if reader is not None and reader.identity != self._file.now:
            self.set_aside()  # it was opened before we wrote to the file
            reader = None
        if self._pid != os.getpid():
            self._n_opens, self._counted = 0, _NOTHING
            if reader is not None:
                # Forked: the parsed layout is shared memory, the descriptor should be ours.
                self._file.check()
                make_room()
                reader = reader.reopen(self._budget.of_process())
                self._reader, self._n_opens = reader, 1
            self._pid = os.getpid()
        if reader is None:
            reader = self._open(1)
        use(self, self._open_files)
        return reader

    def read(self, rows: Int64Array, threads: int) -> DecodedRows:
        with reading():
            return self._decoded(self.reader, rows, threads)

    def read_or_leave(self, rows: Int64Array, threads: int, dtype: str) -> DecodedRows | DirectRows:
        """As `read`; left in the file where a dense batch of ``dtype`` needs no more than a copy."""
        with reading():
            reader = self.reader
            if isinstance(reader, Reader) and reader.direct_dtype == dtype:
                return reader.direct(rows)
            return self._decoded(reader, rows, threads)

    def leaves(self, dtype: str) -> bool:
        """Whether `read_or_leave` leaves rows in the file, if that is open."""
        reader = self._reader
        return isinstance(reader, Reader) and reader.direct_dtype == dtype

    def ask(self, rows: Callable[[], Int64Array], threads: int) -> object:
        with reading():
            reader = self._reader
            if not isinstance(reader, Reader) or not reader.waits or self._pid != os.getpid() or self._closed:
                return None
            if reader.identity != self._file.now:
                return None  # it was opened before we wrote to the file
            return reader.ask(rows(), threads)

    def _decoded(self, reader: Reader | H5pyMatrix, rows: Int64Array, threads: int) -> DecodedRows:
        self._budget.make_room()
        _convert(reader, threads)
        return reader.read(rows, threads, cancel.current())

    def release(self, path: str) -> None:
        """Close the file until the next read, if h5py has it open and it is the one at ``path``."""
        reader, found = self._reader, file_identity(path)
        # By whatever name: device and inode tell.
        if isinstance(reader, H5pyMatrix) and found is not None and reader.identity[:2] == found[:2]:
            reader.close()
            self.set_aside()

    def unit_starts(self) -> Int64Array | None:
        with reading():
            return self.reader.unit_starts()

    def stats(self) -> dict[str, int]:
        reader = self._reader
        if self._pid != os.getpid():
            return dict.fromkeys(STATS, 0)
        counted, cached = _added(self._counted, reader), (0, 0, 0) if reader is None else reader.cache_stats
        return dict(zip(STATS, (self._n_opens, *counted, *cached), strict=True))

    def check_unchanged(self) -> None:
        """Raise StaleFileError if the file is no longer the one that the matrix was found in."""
        self._file.check()

    def set_aside(self) -> None:
        """Close the file until the next read; layout, row pointers and cached rows go with it."""
        reader, self._reader = self._reader, None
        if reader is not None and self._pid == os.getpid():
            self._counted = _added(self._counted, reader)

    @property
    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Close the file; reading again is an error."""
        reader, self._closed = self._reader, True
        if isinstance(reader, H5pyMatrix):
            with writing():  # no thread is reading through it
                reader.close()
        self._reader = None
        forget(self)

    def _open(self, threads: int) -> Reader | H5pyMatrix:
        # First: of another file the reader might say anything else.
        self._file.check()
        reader: Reader | H5pyMatrix
        budget, wanted = self._budget.of_process(), self._wanted
        n_writes = n_own_writes()
        make_room()
        options: dict[str, Any] = {**wanted._asdict(), "budget": budget, "threads": threads, "io_depth": self._io_depth}
        try:
            try:
                reader = Reader(self.path, self.elem, **options)
            except FormatError as error:
                if self._file.now is None or isinstance(error, UnsupportedError):
                    raise
                # A file that was right once is being exchanged, which the check tells, or was just put back.
                self._file.check()
                reader = Reader(self.path, self.elem, **options)
        except UnsupportedError as error:
            if self._strict:
                raise
            reader = H5pyMatrix(self.path, self.elem, wanted, budget)
            if not self._warned:
                warn(f"{error}. It is read through h5py instead, which is slower; strict=True makes this an error")
        self._warned = True
        self._file.check(reader.identity)
        self._file.check_kept(self.elem)
        if self._shape not in (None, reader.shape):
            raise FormatError(
                f"{self.place} has shape {reader.shape}, where its attributes said {self._shape}. "
                "The file is damaged or was written wrongly: write it again"
            )
        if self._file.now is None:
            self._file = KnownFile(self.path, reader.identity, n_writes)
        self._reader, self._pid = reader, os.getpid()
        if isinstance(reader, H5pyMatrix):
            holders.add(self)
        self._n_opens += 1
        return reader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_n_opens": 0, "_counted": _NOTHING}


def _added(counted: tuple[int, ...], reader: Reader | H5pyMatrix | None) -> tuple[int, ...]:
    """What was counted, with what an open reader counts."""
    now = () if reader is None else (*reader.read_stats, reader.bytes_decoded)
    return tuple(before + more for before, more in zip(counted, now or _NOTHING, strict=True))


def _convert(reader: Reader | H5pyMatrix, threads: int) -> None:
    """Turn a matrix that is stored by columns into rows, once, with a progress bar where that takes long."""
    n = reader.unconverted
    if n is None:
        return
    done = 0

    def count_to(now: int) -> None:
        nonlocal done
        count(now - done)
        done = now

    with progress_bar("columns (CSC) into rows", n, "values") as count:
        reader.convert(threads, cancel.current(), count_to)
