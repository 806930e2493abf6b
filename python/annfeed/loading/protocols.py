"""The protocols of a dataset that loaders use; this room knows nothing else of datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sized
from typing import Any, Protocol, Self

import numpy.typing as npt
import pandas as pd
import torch

from annfeed.arrays import Int64Array
from annfeed.batches.items import Batch
from annfeed.loading.readahead import Loads
from annfeed.obs.table import ObsTable
from annfeed.sources.file import FileSource
from annfeed.transforms.base import Transform


class Reads(Loads, Protocol):
    """Rows as an epoch reads them."""

    return_index: bool
    #: Key of what is drawn in rows.
    draw_key: int

    @property
    def device(self) -> torch.device | None:
        """Where batches are made, if that is a device."""

    def postprocess(self, batch: Batch, collate_fn: Any, /) -> Any:
        """Return a batch after transform and collate function."""

    def with_transform(self, transform: Transform | None, /) -> Self:
        """Return a copy with another transform."""

    def pin_batches(self, pinned: bool, /) -> None:
        """Set whether the next batches are made in page-locked memory."""


class Reader(Reads, Protocol):
    """Reads the rows of a dataset, as `annfeed.batches.reader.RowReader`."""

    output: Any
    dtype: torch.dtype
    threads: int | None
    #: What was reported, and what was counted, of sets of cells.
    told: set[str]
    counts: Counter[str]

    @property
    def transform(self) -> Transform | None:
        """The transform of items or batches."""

    @property
    def matrices(self) -> Mapping[str, Any]:
        """The matrices by their keys."""

    @property
    def obs(self) -> ObsTable:
        """The obs of all rows."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a delivered row."""

    @property
    def preloaded_bytes(self) -> int | None:
        """Bytes of memory that preloaded rows take; None if the rows are read when they are wanted."""

    @property
    def n_source_rows(self) -> int:
        """Rows of the sources, of which the dataset has some or all."""

    @property
    def n_vars_of_first(self) -> int:
        """Columns that are delivered of the first matrix."""

    def file_with_headers(self) -> FileSource | None:
        """Return a file of the first matrix whose headers are known; None if there is none."""

    @property
    def is_of_file(self) -> bool:
        """Whether all data come from files, and none from an AnnData that may be edited."""

    def at_epoch(self, return_index: bool, control_index: bool, /) -> Reads:
        """Return a copy with what AnnData objects hold now, for an epoch.

        ``return_index`` adds "index" to batches, ``control_index`` "control_index" to those of sets.
        """

    def unit_starts(self) -> Int64Array | None:
        """Return the first position of each decode unit; None if any row can be read by itself."""

    def label_codes(self, column: str, needed_by: str | None = None) -> tuple[npt.NDArray[Any], list[Any]]:
        """Return an obs column as codes and labels."""

    def fingerprint(self) -> dict[str, Any]:
        """Return numbers and digests that distinguish these rows from others."""


class Rows(Sized, Protocol):
    """A dataset of a loader, as `annfeed.AnnDataset`."""

    @property
    def reader(self) -> Reader:
        """The reader of its rows."""

    @property
    def window(self) -> int:
        """Rows read together."""

    @property
    def cache(self) -> str | int:
        """Most bytes of decoded rows that are kept."""

    @property
    def obs_names(self) -> pd.Index[str]:
        """The names of the rows."""

    def get_collate_fn(self) -> Any:
        """Return the function that stacks items, and returns a whole batch unchanged."""
