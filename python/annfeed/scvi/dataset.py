"""Torch datasets of the data that scvi-tools registered: of an AnnData's registry, and of .h5ad files."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Subset

from annfeed.arrays import Int64Array
from annfeed.batches.items import Batch
from annfeed.batches.matrix import Matrix
from annfeed.batches.reader import RowReader
from annfeed.batches.window import LoadedWindow
from annfeed.dataset import AnnDataset
from annfeed.inputs.selection import row_indices
from annfeed.memory.sparse import quieten
from annfeed.process.spawning import ThroughFile
from annfeed.process.threads import reading_threads, reads_in_flight
from annfeed.scvi.fields import Field, StreamedField
from annfeed.scvi.registry import find_fields, keys_and_dtypes
from annfeed.scvi.same_cells import SameCells
from annfeed.sources.base import sum_stats


class RegistryDataset(ThroughFile, Dataset[Batch]):
    """The registered data of an AnnData; indexing with rows returns a batch of them, in their order.

    Parameters
    ----------
    adata_manager
        As scvi-tools makes it in ``setup_anndata``.
    getitem_tensors
        Keys of a batch: None for all, a list, or ``{key: numpy dtype}``.
    load_sparse_tensor
        Return torch sparse tensors for sparse data.
    cache, threads, io_depth
        As in `annfeed.AnnDataset`.
    """

    def __init__(
        self,
        adata_manager: Any,
        getitem_tensors: list[str] | dict[str, Any] | None = None,
        load_sparse_tensor: bool = False,
        *,
        cache: str | int = "auto",
        threads: int | None = None,
        io_depth: int | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        if adata_manager.adata is None:
            raise ValueError("adata_manager has no AnnData; run setup_anndata (or register_fields) first")
        self.adata_manager = adata_manager
        self.keys_and_dtypes = keys_and_dtypes(adata_manager, getitem_tensors)
        self.load_sparse_tensor = load_sparse_tensor
        self.threads, self._io_depth = threads, reads_in_flight(io_depth)
        self._n_obs = int(adata_manager.adata.shape[0])
        self.cache = cache
        self._same = SameCells(adata_manager.adata)
        self._fields: dict[str, Field] = {}
        self._fields = self._fields_now()

    def at_epoch(self) -> RegistryDataset:
        """Return a copy for an epoch; what is registered later does not change it."""
        if self.adata_manager is None:  # a copy for an epoch, or in another process
            return self
        self._same.check()
        if self.load_sparse_tensor:
            quieten()
        now = copy.copy(self)
        now._fields = self._fields = self._fields_now()
        now.adata_manager = None
        return now

    def _fields_now(self) -> dict[str, Field]:
        return find_fields(
            self.adata_manager,
            self.keys_and_dtypes,
            as_tensor=self.load_sparse_tensor,
            cache=self.cache,
            threads=reading_threads(self.threads),
            io_depth=self._io_depth,
            before=self._fields,
        )

    @property
    def streamed(self) -> bool:
        """Whether a key is read from disk."""
        return any(field.streamed for field in self._fields.values())

    def matrix_with_headers(self) -> Matrix | None:
        """Return a matrix in a file whose headers are known; None if there is none."""
        matrices = (field.matrix for field in self._streamed())
        return next((matrix for matrix in matrices if getattr(matrix.source, "headers", None) is not None), None)

    @property
    def row_bytes(self) -> int:
        """Bytes that are read for a row, as delivered; a sparse row is estimated as a quarter of a dense one."""
        return sum(field.row_bytes for field in self._streamed())

    @property
    def registered_keys(self) -> Any:
        """The registered keys."""
        return self.adata_manager.data_registry.keys()

    def __len__(self) -> int:
        return self._n_obs

    def __getitem__(self, index: int | Sequence[int] | Int64Array | slice) -> Batch:
        """Return a batch of the rows ``index``: numpy arrays ``[B, ...]`` (and sparse tensors) by key.

        Parameters
        ----------
        index
            One position or several, a slice, or a mask of the AnnData's length; negative positions count from the end.
        """
        adata = None if self.adata_manager is None else self.adata_manager.adata
        names = None if adata is None else lambda: adata.obs_names
        one = isinstance(index, int) or getattr(index, "ndim", None) == 0
        rows = row_indices([index] if one else index, self._n_obs, names)
        return self.at_epoch().load(rows).batch(0, len(rows))

    def load(self, rows: Int64Array) -> LoadedWindow:
        """Read ``rows`` (any order, repeats allowed) together, as a window."""
        fields, threads = self._fields, reading_threads(self.threads)
        return LoadedWindow(
            lambda: {key: field.read(rows, threads) for key, field in fields.items()}, lambda start, stop: {}
        )

    def ask(self, rows: Int64Array) -> object:
        """Ask for the bytes of ``rows`` for a later `load`; they come while the result is kept."""
        threads = reading_threads(self.threads)
        return [field.matrix.ask(rows, threads) for field in self._streamed()]

    def read_stats(self) -> dict[str, int]:
        """Return what reading did so far in this process, under the names of `annfeed.sources.base.STATS`."""
        return sum_stats(field.matrix.source for field in self._streamed())

    def _streamed(self) -> Iterator[StreamedField]:
        return (field for field in self._fields.values() if isinstance(field, StreamedField))

    def __getstate__(self) -> dict[str, Any]:
        # A worker needs only the fields; a backed AnnData does not pickle.
        return {**self.__dict__, "adata_manager": None, "_same": None}


class RowSubset(ThroughFile, Subset[Batch]):
    """The rows ``indices`` of a `RegistryDataset`, in that order.

    Parameters
    ----------
    dataset
        The dataset.
    indices
        int64 positions, from 0; repeats allowed.
    """

    dataset: RegistryDataset
    indices: Int64Array  # type: ignore[assignment]

    def __init__(self, dataset: RegistryDataset, indices: Int64Array) -> None:
        super().__init__(dataset, indices)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        keys = ", ".join(self.dataset.keys_and_dtypes)
        return f"{len(self.indices):,} of {len(self.dataset):,} cells, registered as {keys}"

    def at_epoch(self) -> RowSubset:
        """Return the same rows of a copy for an epoch."""
        return RowSubset(self.dataset.at_epoch(), self.indices)

    def __getitem__(self, idx: Any) -> Batch:
        """Return a batch of the positions ``idx`` (one or several)."""
        return self.dataset[self.indices[idx]]

    def __getitems__(self, indices: Any) -> list[Batch]:
        """Return a batch of one row for each position. A plain torch DataLoader calls it."""
        return [self[[index]] for index in indices]

    def load(self, positions: Int64Array) -> LoadedWindow:
        """Read the rows at ``positions`` together, as a window."""
        return self.dataset.load(self.indices[positions])

    def ask(self, positions: Int64Array) -> object:
        """Ask for the bytes of the rows at ``positions`` for a later `load`; they come while the result is kept."""
        return self.dataset.ask(self.indices[positions])

    def read_stats(self) -> dict[str, int]:
        """Return what reading did so far in this process."""
        return self.dataset.read_stats()


class CellReader(RowReader):
    """Reads cells; batches have the values of registry keys instead of obs columns."""

    #: Values by key, [n_rows of all files, k], in the dtype of a batch.
    columns: Mapping[str, npt.NDArray[Any]] = MappingProxyType({})

    def obs_batch(self, rows: Int64Array) -> Batch:
        """Return the values at ``rows``."""
        return {key: torch.from_numpy(values[rows]) for key, values in self.columns.items()}


class FileCells(AnnDataset):
    """An `AnnDataset` whose batches have the values of registry keys instead of obs columns.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> cells = FileCells(anndata.AnnData(np.eye(3, dtype="float32")), obs_columns=[])
    >>> cells.reader.columns = {"batch": np.array([[0], [1], [1]])}
    >>> cells.reader.load(np.array([2, 0])).batch(0, 2)["batch"].tolist()
    [[1], [0]]
    """

    reader: CellReader
    _reader_type = CellReader
