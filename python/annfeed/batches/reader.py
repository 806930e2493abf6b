"""`RowReader`: positions in a dataset become rows, and rows become batches, for loaders and `dataset[…]`."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from annfeed._core import RowOps
from annfeed.arrays import Int64Array
from annfeed.batches.fingerprint import fingerprint
from annfeed.batches.items import Batch, Collate, Items, apply_transform
from annfeed.batches.keys import INDEX, IS_PADDING, measured_key
from annfeed.batches.matrix import Matrix
from annfeed.batches.preload import check_device, preload
from annfeed.batches.preloaded import DeviceRows, moved
from annfeed.batches.sets import SETS, SetsOfBatch, parts_of
from annfeed.batches.steps import steps_on_x
from annfeed.batches.tensors import check_dtype, check_output
from annfeed.batches.token_matrix import TokenMatrix, token_matrix
from annfeed.batches.tokens import Tokens
from annfeed.batches.window import ROW_TOTALS, LoadedWindow, TokenRows, WindowRows
from annfeed.memory.sparse import quieten
from annfeed.obs.labels import label_codes
from annfeed.obs.to_batch import ObsColumns
from annfeed.order.auto_blocks import units_of_positions
from annfeed.order.random import row_key
from annfeed.process.spawning import ThroughFile
from annfeed.process.threads import reading_threads
from annfeed.sources.base import sum_stats
from annfeed.sources.file import FileSource
from annfeed.transforms.base import Transform, check_transform
from annfeed.transforms.fuse import Fused, fuse

if TYPE_CHECKING:
    from annfeed.obs.table import ObsTable


class RowReader(ThroughFile):
    """Reads rows of matrices and of obs together, and makes batches of them.

    Parameters
    ----------
    sources
        Path of each source, or a description of an AnnData.
    rows
        int64, the row at each position; None for all rows in order.
    transform, output, dtype, threads, categories, return_index, var_column
        As in `annfeed.AnnDataset`.
    measured
        Of matrices in modalities of a MuData, by key: bool ``[rows of obs]``, whether they have the row.

    Examples
    --------
    >>> import anndata
    >>> from annfeed import AnnDataset
    >>> dataset = AnnDataset(anndata.AnnData(np.eye(3, dtype="float32")), obs_subset=[2, 0])
    >>> dataset.reader.load(np.array([1, 0])).batch(0, 2)["X"]
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """

    #: What is done with the transform, None until it is needed; the matrix that becomes tokens, None for none.
    _fused: Fused | None = None
    _tokens: TokenMatrix | None = None

    def __init__(
        self,
        matrices: dict[str, Matrix],
        obs: ObsTable,
        sources: list[str],
        rows: Int64Array | None,
        *,
        transform: Transform | None,
        output: str | Tokens,
        dtype: torch.dtype,
        threads: int | None,
        categories: Literal["str", "code"],
        return_index: bool,
        measured: Mapping[str, npt.NDArray[np.bool_]] = MappingProxyType({}),
        var_column: str | None = None,
    ) -> None:
        self.matrices = matrices
        self.measured = dict(measured)
        self._obs: ObsTable | ObsColumns = obs
        self.sources = sources
        self.rows = rows
        self.dtype = dtype
        self._var_column = var_column
        self.output = output
        self.threads, self.return_index = threads, return_index
        self.transform = transform
        self.categories_as: Literal["str", "code"] = categories
        self._n_rows = obs.n_rows
        #: Key of draws in rows: that of the epoch, in a reader for one.
        self.draw_key = row_key(0, 0)
        #: Row in the file of each row of obs, for a view of a backed AnnData; None if they are the same.
        self._rows_in_file: Int64Array | None = None
        self._fingerprint: dict[str, Any] | None = None
        #: Add the rows of controls to batches of sets, whatever `return_index` is.
        self.control_index = False
        #: What was reported, and what was counted, of sets of cells: for all parts of a dataset.
        self.told: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.look_again(thorough=False)
        self._steps()  # errors of the transform are raised now

    def __len__(self) -> int:
        return self._n_rows if self.rows is None else len(self.rows)

    @property
    def transform(self) -> Transform | None:
        """The transform of items or batches; the core applies NormalizeTotal, Log1p and Scale if they come first."""
        return self._transform

    @transform.setter
    def transform(self, transform: Transform | None) -> None:
        self._transform, self._fused = check_transform(transform), None

    @property
    def output(self) -> str | Tokens:
        """The kind of batches: "dense", "csr", or tokens."""
        return self._output

    @output.setter
    def output(self, output: str | Tokens) -> None:
        tokens = check_output(output)
        self._tokens = None if tokens is None else token_matrix(tokens, self.matrices, self.dtype, self._var_column)
        self._output, self._fused = output, None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of matrices that do not become tokens."""
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: torch.dtype) -> None:
        check_dtype(dtype, only_tokens=self._tokens is not None and len(self.matrices) == 1)
        self._dtype, self._fused = dtype, None

    @property
    def first(self) -> Matrix:
        """The first matrix."""
        return next(iter(self.matrices.values()))

    @property
    def obs(self) -> ObsTable:
        """The obs of all rows."""
        assert not isinstance(self._obs, ObsColumns)  # that is the obs of a reader for one epoch
        return self._obs

    @property
    def checked_obs(self) -> ObsTable:
        """The obs of all rows; StaleDataError if they are no longer those of when it was made."""
        self.obs.source.check_rows()
        return self.obs

    @property
    def n_source_rows(self) -> int:
        """Rows of the sources, of which ``rows`` are some or all."""
        return self._n_rows

    @property
    def n_vars_of_first(self) -> int:
        """Columns that are delivered of the first matrix."""
        return self.first.n_vars

    def file_with_headers(self) -> FileSource | None:
        """Return a file of the first matrix whose headers are known; None if there is none."""
        parts = self.first.source.parts()
        return next((part for part in parts if isinstance(part, FileSource) and part.headers is not None), None)

    @property
    def is_closed(self) -> bool:
        """Whether the files are closed, so that nothing can be read."""
        return any(matrix.source.is_closed for matrix in self.matrices.values())

    @property
    def is_of_file(self) -> bool:
        """Whether all data come from files, and none from an AnnData that may be edited."""
        return self.obs.source.is_of_file

    @property
    def row_bytes(self) -> int:
        """Bytes of a delivered row; a CSR row is estimated as a quarter of a dense one."""
        token_key, of_tokens = ("", 0) if self._tokens is None else (self._tokens.key, self._tokens.row_bytes)
        others = sum(matrix.n_vars for key, matrix in self.matrices.items() if key != token_key) * self.dtype.itemsize
        return of_tokens + (others if self._kind == "dense" else others // 4)

    @property
    def device(self) -> torch.device | None:
        """Where preloaded rows are and batches are made, if that is a device; None for the host's memory."""
        kept = self.first.preloaded
        return kept.block.device if kept is not None and isinstance(kept.block, DeviceRows) else None

    @property
    def preloaded_bytes(self) -> int | None:
        """Bytes of memory that preloaded rows take; None if the rows are read when they are wanted."""
        kept = [matrix.preloaded.block.nbytes for matrix in self.matrices.values() if matrix.preloaded]
        return sum(kept) if kept else None

    def preload(self, device: torch.device | None) -> None:
        """Decode the rows of all matrices, once, and keep them: in the core's types, or on a device."""
        check_device(device, self.first.source.place, has_tokens=self._tokens is not None)
        self.forget_preloaded()
        self.look_again(thorough=True)
        wants_totals, threads = self._steps().wants_totals, reading_threads(self.threads)
        # On a device the steps of the transform are torch's, some in a wider dtype.
        of_x = fuse(self._transform, self._kind, self.dtype, in_core=False).dtype
        kept = {}
        of_totals = "X" if self._tokens is None else self._tokens.key
        for key, matrix in self.matrices.items():
            dtype, with_totals = of_x if key == "X" else self.dtype, wants_totals and key == of_totals
            kept[key] = preload(matrix, self.rows, threads, device, dtype, with_totals=with_totals)
        self.matrices, self._fused = kept, None

    def forget_preloaded(self) -> None:
        """Read rows from their sources again."""
        self.matrices = {key: matrix.keeping(None) for key, matrix in self.matrices.items()}
        self._fused = None

    def read_stats(self) -> dict[str, int]:
        """Return what reading did so far in this process, under the names of `annfeed.sources.base.STATS`."""
        return sum_stats(matrix.source for matrix in self.matrices.values())

    def unit_starts(self) -> Int64Array | None:
        """Return the first position of each decode unit; None if any row can be read by itself."""
        starts = self.first.unit_starts()
        return starts if starts is None or self.rows is None else units_of_positions(starts, self.rows)

    def fingerprint(self) -> dict[str, Any]:
        """Return numbers, and digests of ``rows`` and of a few rows' values, to tell these rows from others.

        The same cells in a file that was moved, recompressed or added to have the same fingerprint.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> from annfeed import AnnDataset
        >>> AnnDataset(anndata.AnnData(np.eye(3, dtype="float32"))).reader.fingerprint()["n_vars"]
        3
        """
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.matrices, self.rows, len(self), self.sources)
        return dict(self._fingerprint)

    def label_codes(self, column: str, needed_by: str | None = None) -> tuple[npt.NDArray[Any], list[Any]]:
        """Return an obs column of the rows as codes and labels, as `annfeed.obs.labels.label_codes` does."""
        return label_codes(self.obs.column(column, coded=True), needed_by, self.rows)

    def rows_of_obs(self, positions: Int64Array) -> Int64Array:
        """Return the row of obs at each position."""
        return positions if self.rows is None else self.rows[positions]

    def rows_at(self, positions: Int64Array) -> Int64Array:
        """Return the rows of the file or AnnData at ``positions``, as ``"index"`` has them."""
        rows = self.rows_of_obs(positions)
        return rows if self._rows_in_file is None else self._rows_in_file[rows]

    def part(self, positions: Int64Array) -> Self:
        """Return a reader of some positions."""
        part = copy.copy(self)
        part.rows, part._fingerprint = self.rows_of_obs(positions), None
        return part

    def with_transform(self, transform: Transform | None) -> Self:
        """Return a copy with another transform."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def look_again(self, thorough: bool) -> None:
        """Use the matrices that AnnData objects hold now."""
        self.obs.source.check_rows()
        now = {key: matrix.now(thorough) for key, matrix in self.matrices.items()}
        if any(now[key] is not matrix for key, matrix in self.matrices.items()):
            self.matrices, self._fingerprint = now, None
        held = self.first.held
        if held is not None:  # None for files, and in another process
            self._rows_in_file = held.rows_in_file

    def at_epoch(self, return_index: bool, control_index: bool = False) -> Self:
        """Return a copy for an epoch, with what AnnData objects hold now and the current transform.

        What is replaced later, in an AnnData or in the dataset, does not change the copy.
        """
        if self.output == "csr":
            quieten()
        self.look_again(thorough=True)
        now = copy.copy(self)
        now._obs, now.return_index, now.control_index = self.obs.now(), return_index, control_index
        now._fused = None
        now._steps()
        return now

    def pin_batches(self, pinned: bool) -> None:
        """Set whether the next batches are made in page-locked memory."""
        for matrix in self.matrices.values():
            matrix.tensors.pin(pinned)

    def batch(self, positions: Int64Array) -> Batch:
        """Return the rows at ``positions``, as AnnData objects hold them now, as one transformed batch."""
        self.look_again(thorough=False)
        self._fused = None  # parameters of the transform may have changed
        done: Batch = self.postprocess(self.load(positions).batch(0, len(positions)))
        return done

    def load(self, positions: Int64Array) -> LoadedWindow:
        """Read the rows at ``positions`` (int64, any order, repeats allowed) together, as a window."""
        rows = self.rows_of_obs(positions)
        index = self.rows_at(positions) if self.return_index or self.control_index else None
        return LoadedWindow(
            lambda: self.read(rows),
            lambda start, stop: self.obs_batch(rows[start:stop]),
            index,
            self._steps().rest_wants_totals,
        )

    def obs_batch(self, rows: Int64Array) -> Batch:
        """Return the obs columns of a batch at ``rows`` of obs, and which rows were measured."""
        batch: Batch = self._obs.take(rows, self.categories_as)
        for key, there in self.measured.items():
            batch[measured_key(key)] = torch.from_numpy(there[rows])
        return batch

    def read(self, rows: Int64Array) -> dict[str, WindowRows | TokenRows]:
        """Read ``rows`` of every matrix together."""
        threads = reading_threads(self.threads)
        found: dict[str, WindowRows | TokenRows] = {}
        for key, matrix in self.matrices.items():
            if self._tokens is not None and key == self._tokens.key:
                numbers = rows if self._rows_in_file is None else self._rows_in_file[rows]
                found[key] = self._tokens.read(matrix, rows, numbers, self.draw_key, threads)
                continue
            ops, dtype, as_stored = self._made(key)
            block, slots = matrix.load(rows, threads, as_stored)
            tensor = partial(matrix.tensors.tensor, output=self._kind, dtype=dtype, threads=threads, ops=ops)
            found[key] = WindowRows(block, slots, tensor)
        return found

    @property
    def _kind(self) -> str:
        """The kind of the matrices' tensors, but for tokens."""
        return self.output if isinstance(self.output, str) else "dense"

    def ask(self, positions: Int64Array) -> object:
        """Ask for the bytes of the rows at ``positions`` for a later `load`; they come while the result is kept."""
        rows, threads = self.rows_of_obs(positions), reading_threads(self.threads)
        return [matrix.ask(rows, threads, self._made(key)[2]) for key, matrix in self.matrices.items()]

    def _made(self, key: str) -> tuple[RowOps | None, torch.dtype, torch.dtype | None]:
        """How the tensors of a matrix are made: by which operations, of which dtype, of which if left in the file."""
        steps = self._steps()
        ops, dtype = (steps.ops, steps.dtype) if key == "X" else (None, self.dtype)
        stays = self._kind == "dense" and ops is None and (self._tokens is None or key != self._tokens.key)
        return ops, dtype, dtype if stays else None

    def postprocess(self, batch: Batch, collate_fn: Any = None) -> Any:
        """Return a batch of a window after transform and collate function; a user's sees a sequence of items."""
        sets: SetsOfBatch | None = batch.pop(SETS, None)
        if sets is None:
            done = self._transformed(batch)
        else:
            done = sets.merged([self._transformed(part) for part in parts_of(batch, sets)])
            if self.device is not None:
                done = moved(done, self.device)  # the marks of sets, too
            if not self.return_index:
                done.pop(INDEX, None)
        return done if collate_fn is None or isinstance(collate_fn, Collate) else collate_fn(Items(done))

    def _transformed(self, batch: Batch) -> Batch:
        steps = self._steps()
        if self.device is not None:
            batch = moved(batch, self.device)
        totals = batch.pop(ROW_TOTALS, None)
        marks = {key: batch.pop(key) for key in (INDEX, IS_PADDING) if key in batch}  # not for the transform
        dtype = self.dtype if steps.dtype != self.dtype else None
        return {**apply_transform(steps.rest, batch, totals, dtype), **marks}

    def _steps(self) -> Fused:
        """Return which steps of the transform the core applies, and which are left."""
        if self._fused is None:
            tokens, in_core = self._tokens, self.device is None
            if tokens is None:
                self._fused = steps_on_x(self.matrices, self._transform, self._kind, self.dtype, in_core)
            else:
                self._fused = tokens.steps(self.matrices[tokens.key], self._transform, self.dtype)
        return self._fused

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fused": None, "_fingerprint": None}
