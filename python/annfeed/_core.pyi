"""Types of the Rust core (``rust/python``); stubtest compares them with the built module."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "Asked",
    "Budget",
    "Buffer",
    "BufferPool",
    "Cancel",
    "ChunkEncoder",
    "DecodedRows",
    "DemandFlag",
    "DirectRows",
    "Reader",
    "RowOps",
    "StoredArray",
    "TokenSpec",
    "__version__",
    "about",
    "gather_items",
    "order_by_key",
    "row_digests",
]

__version__: str

_Int64 = npt.NDArray[np.int64]
_Bytes = npt.NDArray[np.uint8]

@final
class RowOps:
    """Normalising to a total (``over_all``: of all columns of the matrix), log1p and scaling, in this order."""

    def __new__(
        cls,
        target_sum: float | None = None,
        log1p: bool = False,
        mean: npt.NDArray[np.float32] | None = None,
        std: npt.NDArray[np.float32] | None = None,
        max_value: float | None = None,
        over_all: bool = True,
    ) -> RowOps: ...

@final
class TokenSpec:
    """Which genes of a row become tokens, in which order, with which values; `annfeed.Tokens` checks the numbers.

    ``scale``, ``ids`` and ``kept`` have one element for each of ``n_cols`` columns.
    """

    def __new__(
        cls,
        n_cols: int,
        length: int,
        choose: str,
        order: str,
        values: str,
        target_sum: float,
        bins: int,
        scale: npt.NDArray[np.float64] | None,
        ids: _Int64 | None,
        kept: npt.NDArray[np.bool_] | None,
        zeros: int,
        pad_id: int,
        pad_value: float,
        cls_id: int | None,
    ) -> TokenSpec: ...

@final
class BufferPool:
    """Memory for batches, reused when the last array on it is freed."""

    def __new__(cls) -> BufferPool: ...
    def take(self, nbytes: int) -> Buffer: ...

@final
class Buffer:
    """Memory of a pool, returned to it when nothing refers to it."""

    def __len__(self) -> int: ...

@final
class Cancel:
    """Stops reads in threads that receive no signals."""

    def __new__(cls) -> Cancel: ...
    def set(self) -> None: ...

@final
class Asked:
    """Bytes that a reader was asked for; they are read while this is kept."""

@final
class DemandFlag:
    """Whether the consumer waits for the batch that a thread makes ahead.

    In a ``with`` block of that thread, batches are made on one core until the consumer waits, then on all.
    """

    def __new__(cls) -> DemandFlag: ...
    def set(self, awaited: bool) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_error: object) -> None: ...

@final
class Budget:
    """Most bytes of decoded rows that are kept, shared by all readers with this budget."""

    def __new__(cls, limit: int) -> Budget: ...
    @staticmethod
    def movable(most: int) -> Budget: ...
    @property
    def limit(self) -> int: ...
    @property
    def most(self) -> int: ...
    @property
    def held(self) -> int: ...
    def move_limit(self, limit: int) -> None: ...

@final
class Reader:
    """A matrix of an `.h5ad` file, open to read sorted rows."""

    def __new__(
        cls,
        path: str,
        elem: str,
        *,
        columns: _Int64 | None = None,
        totals: bool = False,
        total_over: _Int64 | None = None,
        budget: Budget | None = None,
        threads: int = 1,
        io_depth: int | None = None,
    ) -> Reader: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def format(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def identity(self) -> tuple[int, int, int, int]: ...
    @property
    def read_stats(self) -> tuple[int, int, int, int]: ...
    @property
    def waits(self) -> bool: ...
    @property
    def bytes_decoded(self) -> int: ...
    @property
    def cache_stats(self) -> tuple[int, int, int]: ...
    @property
    def unconverted(self) -> int | None: ...
    @property
    def direct_dtype(self) -> str | None: ...
    def convert(
        self, threads: int = 1, cancel: Cancel | None = None, progress: Callable[[int], object] | None = None
    ) -> None: ...
    @staticmethod
    def describe(path: str, elem: str) -> dict[str, Any]: ...
    def unit_starts(self) -> _Int64 | None: ...
    def reopen(self, budget: Budget | None = None) -> Reader: ...
    def read(self, rows: _Int64, threads: int = 1, cancel: Cancel | None = None) -> DecodedRows: ...
    def ask(self, rows: _Int64, threads: int = 1) -> Asked | None: ...
    def direct(self, rows: _Int64) -> DirectRows: ...

@final
class DirectRows:
    """Rows of a matrix that are read from the file straight into a batch."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def nbytes(self) -> int: ...
    def read(self, positions: _Int64, out: _Bytes, threads: int = 1) -> None: ...

@final
class DecodedRows:
    """Decoded rows of a matrix, from which batches are copied in any order, with repeats."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def nbytes(self) -> int: ...
    def dense(
        self,
        positions: _Int64,
        out: npt.NDArray[np.generic],
        dtype: str,
        threads: int = 1,
        ops: RowOps | None = None,
    ) -> tuple[int, str, str] | None: ...
    def expressed(
        self, positions: _Int64, spec: TokenSpec, threads: int
    ) -> tuple[_Int64, int, tuple[int, int | None, str] | None]: ...
    def tokens(
        self,
        positions: _Int64,
        rows: _Int64,
        epoch: int,
        n_expressed: _Int64,
        spec: TokenSpec,
        genes: _Int64,
        values: npt.NDArray[np.float32],
        mask: _Bytes,
        threads: int,
    ) -> tuple[tuple[int, str, str] | None, tuple[int, int | None, str] | None]: ...
    def totals(self, positions: _Int64) -> npt.NDArray[np.float64]: ...
    def nnz(self, positions: _Int64) -> int: ...
    def compact(self) -> DecodedRows: ...
    def csr(
        self,
        positions: _Int64,
        indptr: npt.NDArray[np.int32],
        indices: npt.NDArray[np.int32],
        data: npt.NDArray[np.generic],
        dtype: str,
        ops: RowOps | None = None,
    ) -> tuple[int, str, str] | None: ...
    @staticmethod
    def concat(n_cols: int, parts: list[tuple[DecodedRows, _Int64 | None, str]]) -> DecodedRows: ...
    @staticmethod
    def from_csr(
        n_cols: int,
        indptr: _Int64,
        indices: _Bytes,
        index_dtype: str,
        data: _Bytes,
        dtype: str,
        columns: _Int64 | None = None,
        totals: bool = False,
        total_over: _Int64 | None = None,
    ) -> DecodedRows: ...
    @staticmethod
    def from_dense(
        n_rows: int,
        n_cols: int,
        data: _Bytes,
        dtype: str,
        columns: _Int64 | None = None,
        totals: bool = False,
        total_over: _Int64 | None = None,
    ) -> DecodedRows: ...

@final
class StoredArray:
    """An array of a file, read in parts as it is stored."""

    def __new__(cls, path: str, name: str) -> StoredArray: ...
    @property
    def unit(self) -> int: ...
    def read(self, first: int, last: int, out: _Bytes, threads: int = 1, cancel: Cancel | None = None) -> None: ...

@final
class ChunkEncoder:
    """Compresses chunks with HDF5's filters."""

    def __new__(
        cls, filters: list[tuple[int, tuple[int, ...]]], item_size: int, level: int, chunk_bytes: int
    ) -> ChunkEncoder: ...
    def encode(self, data: _Bytes, threads: int = 1, cancel: Cancel | None = None) -> list[tuple[bytes, int]]: ...
    def decode(self, stored: bytes, mask: int, out: _Bytes) -> None: ...

def about() -> dict[str, str]: ...
def order_by_key(keys: _Int64, n_keys: int) -> _Int64: ...
def gather_items(items: _Bytes, starts: _Int64, order: _Int64) -> _Bytes: ...
def row_digests(
    starts: _Int64,
    first: int,
    elements: _Bytes,
    item_size: int,
    salt: int,
    digests: npt.NDArray[np.uint64],
    threads: int = 1,
) -> None: ...
