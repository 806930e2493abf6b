"""`RowBatches`: how positions in a dataset become rows, and rows batches; what loaders ask of a dataset.

`AnnDataset` adds what users ask of it. Nothing here opens files, and no order is decided here.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from annfeed.arrays import Int64Array, digest_of
from annfeed.batches.indexed import IndexedDataset
from annfeed.batches.items import Batch, Item, apply_transform
from annfeed.batches.matrix import Matrix
from annfeed.batches.window import LoadedWindow
from annfeed.obs.columns import ObsColumns
from annfeed.obs.labels import label_codes
from annfeed.order.blocks import units_of_positions
from annfeed.process.spawning import ThroughFile
from annfeed.process.threads import reading_threads
from annfeed.sources.concat import JoinedSource
from annfeed.transforms.base import Transform, check_transform
from annfeed.transforms.fuse import Fused, fuse

if TYPE_CHECKING:
    from annfeed._core import RowOps
    from annfeed.obs.table import ObsTable

#: Key of a batch between `LoadedWindow.batch` and `RowBatches.finish`, which no transform sees.
_ROW_TOTALS = "annfeed: totals of the rows of X"


class RowBatches(ThroughFile, Dataset[Item]):
    """Rows of matrices and of obs, read together; the base of `AnnDataset`, which sets what is declared here.

    Examples
    --------
    >>> import anndata
    >>> from annfeed import AnnDataset
    >>> dataset = AnnDataset(anndata.AnnData(np.eye(3, dtype="float32")), obs_subset=[2, 0])
    >>> dataset.load(np.array([1, 0])).batch(0, 2)["X"]
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """

    output: str
    dtype: torch.dtype
    threads: int | None
    return_index: bool
    #: Path of each source, or the words for an AnnData.
    sources: list[str]
    _matrices: dict[str, Matrix]
    _obs: ObsTable | ObsColumns
    _categories: Literal["str", "code"]
    #: ``obs_subset`` as rows; None for all.
    _rows: Int64Array | None
    #: Row of the file of each row of obs, where the source is a view of a backed AnnData; else None: they are the same.
    _rows_in_file: Int64Array | None
    _n_rows: int
    _transform: Transform | None
    _fused: Fused | None
    _fingerprint: tuple[Int64Array | None, dict[str, Any]] | None

    def __len__(self) -> int:
        """Return the number of rows of the dataset."""
        return self._n_rows if self._rows is None else len(self._rows)

    @property
    def transform(self) -> Transform | None:
        """What is done to items or batches; leading NormalizeTotal, Log1p and Scale are done in Rust."""
        return self._transform

    @transform.setter
    def transform(self, transform: Transform | None) -> None:
        self._transform = check_transform(transform)
        self._fused = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns as delivered (of the first matrix, where there are several)."""
        return len(self), self._first.n_vars

    def unit_starts(self) -> Int64Array | None:
        """First position of each run of rows that are decoded together; None where any row can be read by itself."""
        starts = self._first.unit_starts()
        return starts if starts is None or self._rows is None else units_of_positions(starts, self._rows)

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this dataset's rows from others: numbers, and digests of ``obs_subset`` and of a few rows.

        It is of the contents: the same cells in a file that was moved, recompressed or added to have the same one.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> from annfeed import AnnDataset
        >>> AnnDataset(anndata.AnnData(np.eye(3, dtype="float32"))).fingerprint()["n_vars"]
        3
        """
        if self._fingerprint is None or self._fingerprint[0] is not self._rows:  # of the whole of a part, maybe
            n_rows, n_vars = self.shape
            chosen = None if self._rows is None else digest_of(self._rows)
            values = "-".join(matrix.sample_digest() for matrix in self._matrices.values())
            found = {"n_rows": n_rows, "n_vars": n_vars, "sources": self._sources_digest(), "obs_subset": chosen}
            found["values"] = values
            self._fingerprint = self._rows, found
        return dict(self._fingerprint[1])

    def _sources_digest(self) -> str | None:
        """Of several sources: names and first rows, as a few values do not show that one of many was exchanged."""
        source = self._first.source
        if not isinstance(source, JoinedSource):
            return None
        starts = source.offsets[:-1].tolist()
        return digest_of(np.array([f"{os.path.basename(p)} {n}" for p, n in zip(self.sources, starts, strict=True)]))

    @property
    def n_threads(self) -> int:
        """Threads that reading uses in this process."""
        return reading_threads(self.threads)

    @property
    def is_of_file(self) -> bool:
        """Whether all comes from files, where nobody edits it, and nothing from an AnnData."""
        return self._obs_table.is_of_file

    @property
    def row_bytes(self) -> int:
        """Bytes of a delivered row, dense; CSR rows are taken for a quarter of that."""
        dense = sum(matrix.n_vars for matrix in self._matrices.values()) * self.dtype.itemsize
        return dense if self.output == "dense" else dense // 4

    def load(self, positions: Int64Array) -> LoadedWindow:
        """Read the rows at ``positions`` (int64, any order, repeats allowed) together, to make batches of them."""
        return self.load_rows(self._rows_of_obs(positions))

    def load_rows(self, rows: Int64Array) -> LoadedWindow:
        """Read ``rows`` of the file or AnnData together."""
        blocks = {}
        for key, matrix in self._matrices.items():
            ops, dtype = self._done_to(key)
            blocks[key] = matrix.load(rows, self.n_threads, dtype if self.output == "dense" and ops is None else None)
        return LoadedWindow(self, rows, blocks)

    def rows_at(self, positions: Int64Array) -> Int64Array:
        """Return the rows of the file or AnnData at ``positions``: what ``"index"`` is, and `write_obsm` writes to.

        Of a view of a backed AnnData these are the rows of its file, as the view itself can hold no results.
        """
        rows = self._rows_of_obs(positions)
        return rows if self._rows_in_file is None else self._rows_in_file[rows]

    def _rows_of_obs(self, positions: Int64Array) -> Int64Array:
        return positions if self._rows is None else self._rows[positions]

    def at_epoch(self) -> Self:
        """Return the dataset as it is now, for an epoch: what AnnData objects hold, and the transform.

        Whatever is replaced later, in the AnnData or in the dataset, does not reach it.

        Raises
        ------
        StaleDataError
            If an AnnData has other cells or genes than when the dataset was made.
        UnknownNameError
            If a matrix or an obs column is no longer there.
        """
        self._look_again(thorough=True)
        now = copy.copy(self)
        now._obs = self._obs_table.now()
        now._fused = None
        now._steps()
        return now

    def with_transform(self, transform: Transform | None) -> Self:
        """Return the same with another transform."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def _look_again(self, thorough: bool) -> None:
        """Take the matrices that AnnData objects hold now."""
        self._obs_table.check_rows()
        now = {key: matrix.now(thorough) for key, matrix in self._matrices.items()}
        if any(now[key] is not matrix for key, matrix in self._matrices.items()):
            self._matrices, self._fingerprint = now, None
        held = self._first.held
        if held is not None:  # else of files, or a dataset that travelled to another process
            self._rows_in_file = held.rows_in_file

    def pin_batches(self, pinned: bool) -> None:
        """Make the next batches in page-locked memory, or no longer."""
        for matrix in self._matrices.values():
            matrix.pin_batches(pinned)

    def finish(self, batch: Batch) -> Batch:
        """Apply what is left of the transform to a batch as it was read."""
        fused = self._steps()
        totals = batch.pop(_ROW_TOTALS, None)
        return apply_transform(fused.rest, batch, totals, self.dtype if fused.dtype != self.dtype else None)

    def label_codes(self, column: str, needed_by: str | None = None) -> tuple[npt.NDArray[Any], list[Any]]:
        """Return an obs column of the dataset's rows as codes and labels, as `annfeed.obs.labels.label_codes` does."""
        return label_codes(self._obs_table.labels(column), needed_by, self._rows)

    def obs_batch(self, rows: Int64Array) -> dict[str, Any]:
        """Return the obs values of ``rows`` (of the file, not positions in the dataset)."""
        return self._obs.take(rows, self._categories)

    def matrix_batch(self, key: str, block: Any, places: Int64Array) -> torch.Tensor:
        """Return the rows ``places`` of ``block`` as a tensor of the dataset's output and dtype."""
        ops, dtype = self._done_to(key)
        return self._matrices[key].batch(block, places, self.output, dtype, self.n_threads, ops)

    def totals_batch(self, blocks: Mapping[str, tuple[Any, Int64Array]], start: int, stop: int) -> dict[str, Any]:
        """Return what the rows of "X" sum to over all genes, where `finish` needs it (and takes it out again)."""
        if not self._steps().rest_wants_totals:
            return {}
        block, places = blocks["X"]
        return {_ROW_TOTALS: torch.from_numpy(block.totals(places[start:stop]))}

    def _done_to(self, key: str) -> tuple[RowOps | None, torch.dtype]:
        """What is done to a matrix in Rust, and in which dtype it comes from there."""
        return (self._steps().ops, self._steps().dtype) if key == "X" else (None, self.dtype)

    def _steps(self) -> Fused:
        """What of the transform is done in Rust, and what is left."""
        if self._fused is None:
            source = self._matrices["X"].source if "X" in self._matrices else None
            is_part = source is not None and source.is_part
            fused = fuse(self._transform, self.output, self.dtype, self._has_gaps, is_part)
            if source is not None and fused.wants_totals:
                source.keep_totals()
            self._fused = fused
        return self._fused

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fused": None, "_fingerprint": None}

    def _transformed(self, positions: Int64Array) -> Batch:
        self._look_again(thorough=False)
        self._fused = None  # a transform may have another parameter by now
        reads = IndexedDataset(self) if self.return_index else self
        return reads.finish(reads.load(positions).batch(0, len(positions)))

    @property
    def _obs_table(self) -> ObsTable:
        assert not isinstance(self._obs, ObsColumns)  # which the dataset of one epoch has
        return self._obs

    @property
    def _has_gaps(self) -> bool:
        source = self._matrices["X"].source if "X" in self._matrices else None
        return isinstance(source, JoinedSource) and source.has_gaps

    @property
    def _first(self) -> Matrix:
        return next(iter(self._matrices.values()))
