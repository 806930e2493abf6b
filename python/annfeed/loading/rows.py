"""What a loader asks of a dataset: nothing else of it is known in this room."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Protocol, Self

import numpy.typing as npt
import pandas as pd
import torch

from annfeed.arrays import Int64Array
from annfeed.batches.items import Batch
from annfeed.loading.readahead import Loads
from annfeed.transforms.base import Transform


class Reads(Loads, Protocol):
    """Rows as an epoch reads them."""

    return_index: bool

    def postprocess(self, batch: Batch, collate_fn: Any, /) -> Any:
        """Return a batch as it was read transformed and collated."""

    def with_transform(self, transform: Transform | None, /) -> Self:
        """Return the same with another transform."""

    def pin_batches(self, pinned: bool, /) -> None:
        """Make the next batches in page-locked memory, or no longer."""


class Reader(Reads, Protocol):
    """What reads the rows of a dataset and knows them: `annfeed.batches.reader.RowReader` is one."""

    output: str
    dtype: torch.dtype
    threads: int | None

    @property
    def transform(self) -> Transform | None:
        """What is done to batches."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a delivered row."""

    @property
    def is_of_file(self) -> bool:
        """Whether all comes from files, where nobody edits it."""

    def at_epoch(self, return_index: bool, /) -> Reads:
        """Return what it is now, for an epoch, and whether batches say which rows they are."""

    def unit_starts(self) -> Int64Array | None:
        """First position of each run of rows that are decoded together; None where any row can be read by itself."""

    def label_codes(self, column: str, needed_by: str | None = None) -> tuple[npt.NDArray[Any], list[Any]]:
        """Return an obs column as codes and labels."""

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these rows from others."""


class Rows(Sized, Protocol):
    """A dataset that a loader delivers: `annfeed.AnnDataset` is one."""

    @property
    def reader(self) -> Reader:
        """What reads its rows."""

    @property
    def chunk_size(self) -> int:
        """Rows that are read together."""

    @property
    def cache(self) -> str | int:
        """Bytes of decoded rows that may be kept."""

    @property
    def obs_names(self) -> pd.Index[str]:
        """The names of the rows."""

    def get_collate_fn(self) -> Any:
        """Return the function that makes a batch of items, and hands on a whole batch."""
