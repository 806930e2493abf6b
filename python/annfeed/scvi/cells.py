"""The cells of one or several files with their registered values: what windows of the data module are read from.

Each file is an `AnnDataset`; here their rows are numbered through, and batches put together of several files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from annfeed.arrays import Int64Array, digest_of
from annfeed.batches.items import Batch, Collate
from annfeed.batches.window import LoadedWindow
from annfeed.dataset import AnnDataset
from annfeed.h5ad.elem import Elem
from annfeed.inputs.single import find_names
from annfeed.loading.loader import WindowLoader
from annfeed.memory.buffers import BatchMemory
from annfeed.order.blocks import units_of_positions
from annfeed.process.spawning import ThroughFile


def open_files(paths: list[Any], **options: Any) -> list[AnnDataset]:
    """Return the datasets of the files, all with the genes of the first, in its order.

    Raises
    ------
    KeyError
        If a file lacks one of them.
    """
    first, *others = paths
    files = [AnnDataset(first, obs_columns=[], **options)]
    elem = Elem.parse(options["elem"])
    names = find_names(first, elem) if others else None
    for path in others:
        # A mask or positions say which genes of the first file; in a file of others, these go by name.
        same = find_names(path, elem).equals(names)
        chosen = options | ({} if same else {"var_subset": list(files[0].var_names)})
        files.append(AnnDataset(path, obs_columns=[], **chosen))
    return files


class CellDataset(ThroughFile, Dataset[Any]):
    """Rows of several files, one file after the other, with values for each.

    Parameters
    ----------
    files
        Of the same genes; they deliver "X".
    columns
        By key: [n_rows of all files, k], in the dtype of a batch.
    rows
        int64, the rows of the dataset, in its order.
    """

    def __init__(self, files: list[AnnDataset], columns: dict[str, npt.NDArray[Any]], rows: Int64Array) -> None:
        self._files = files
        self._columns = columns
        self._rows = rows
        self._starts = np.cumsum([0, *map(len, files)])[:-1]
        self._memory = BatchMemory()
        self.chunk_size = files[0].chunk_size
        #: As of an `AnnDataset`, for the loader: values are given once, and X makes nearly all of a row.
        self.is_of_file = True
        self.row_bytes = files[0].row_bytes
        self.output, self.dtype, self.threads = files[0].output, files[0].dtype, files[0].threads
        self.transform = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def get_collate_fn(self) -> Collate:
        """Return the function that hands on batches as they were read."""
        return Collate()

    def unit_starts(self) -> Int64Array | None:
        """First position of each run of rows that are decoded together; None where any row can be read by itself."""
        units = [file.unit_starts() for file in self._files]
        known = [starts + first for starts, first in zip(units, self._starts, strict=True) if starts is not None]
        return units_of_positions(np.concatenate(known), self._rows) if len(known) == len(units) else None

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these rows from others, as an `AnnDataset` does."""
        files = [file.fingerprint() for file in self._files]
        values = digest_of(np.array(["-".join(map(str, file.values())) for file in files]))
        return {
            "n_rows": len(self),
            "n_vars": files[0]["n_vars"],
            "obs_subset": digest_of(self._rows),
            "values": values,
        }

    def at_epoch(self) -> CellDataset:
        """Return itself: files stay as they are, and the values were given."""
        return self

    def pin_batches(self, pinned: bool) -> None:
        """Make the next batches in page-locked memory, or no longer."""
        self._memory.pinned = pinned
        for file in self._files:
            file.pin_batches(pinned)

    def finish(self, batch: Batch) -> Batch:
        """Return the batch: there is no transform."""
        return batch

    def load(self, positions: Int64Array) -> LoadedCells:
        """Read the rows at ``positions`` (any order, repeats allowed) together, to make batches of them."""
        rows = self._rows[positions]
        file_of = np.searchsorted(self._starts, rows, side="right") - 1
        loaded = {int(i): self._files[i].load(rows[file_of == i] - self._starts[i]) for i in np.unique(file_of)}
        return LoadedCells(rows, file_of, loaded, self._columns, self._memory)

    def loader(self, batch_size: int, **kwargs: Any) -> WindowLoader:
        """Return the loader that reads windows; keywords as in `AnnDataset.get_optimized_dataloader`."""
        cells: Any = self
        return WindowLoader(cells, batch_size=batch_size, **kwargs)


class LoadedCells:
    """The rows of a window, read from their files.

    Parameters
    ----------
    rows, file_of
        int64, in the order of delivery: the row among all, and its file.
    loaded
        What was read of each file, in the order of ``rows``.
    columns
        The values of all rows, by key.
    memory
        For batches of several files.
    """

    def __init__(
        self,
        rows: Int64Array,
        file_of: Int64Array,
        loaded: dict[int, LoadedWindow],
        columns: dict[str, npt.NDArray[Any]],
        memory: BatchMemory,
    ) -> None:
        self._rows = rows
        self._file_of = file_of
        self._loaded = loaded
        self._columns = columns
        self._memory = memory

    def batch(self, start: int, stop: int) -> Batch:
        """Return rows ``start`` to ``stop`` as a batch of registry keys."""
        rows = self._rows[start:stop]
        batch: dict[str, Any] = {"X": self._matrix(start, stop)}
        batch.update((key, torch.from_numpy(values[rows])) for key, values in self._columns.items())
        return batch

    def _matrix(self, start: int, stop: int) -> torch.Tensor:
        file_of = self._file_of[start:stop]
        parts = {int(i): self._part(int(i), start, stop) for i in np.unique(file_of)}
        first = next(iter(parts.values()))
        if len(parts) == 1:
            return first
        whole = self._memory.empty((stop - start) * first.shape[1], first.dtype).view(stop - start, first.shape[1])
        for i, part in parts.items():
            whole[torch.from_numpy(np.flatnonzero(file_of == i))] = part
        return whole

    def _part(self, file: int, start: int, stop: int) -> torch.Tensor:
        """The rows of one file among rows ``start`` to ``stop``, which follow each other in what was read of it."""
        first = int(np.count_nonzero(self._file_of[:start] == file))
        n = int(np.count_nonzero(self._file_of[start:stop] == file))
        matrix: torch.Tensor = self._loaded[file].batch(first, first + n)["X"]
        return matrix
