"""What a loader asks of a dataset: nothing else of it is known in this room."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Protocol

import numpy.typing as npt
import pandas as pd
import torch

from annfeed.arrays import Int64Array
from annfeed.batches.indexed import Numbered
from annfeed.transforms.base import Transform


class Rows(Sized, Protocol):
    """A dataset that a loader delivers: `annfeed.AnnDataset` is one."""

    @property
    def chunk_size(self) -> int:
        """Rows that are read together."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a delivered row."""

    @property
    def is_of_file(self) -> bool:
        """Whether all comes from files, where nobody edits it."""

    @property
    def output(self) -> str:
        """Of matrices: "dense" or "csr"."""

    @property
    def dtype(self) -> torch.dtype:
        """Of matrices."""

    @property
    def threads(self) -> int | None:
        """Threads that read; None for as many as there are cores."""

    @property
    def transform(self) -> Transform | None:
        """What is done to batches."""

    @property
    def obs_names(self) -> pd.Index[str]:
        """The names of the rows."""

    def at_epoch(self) -> Numbered:
        """Return the dataset as it is now, for an epoch."""

    def unit_starts(self) -> Int64Array | None:
        """First position of each run of rows that are decoded together; None where any row can be read by itself."""

    def label_codes(self, column: str, needed_by: str | None = None) -> tuple[npt.NDArray[Any], list[Any]]:
        """Return an obs column as codes and labels."""

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these rows from others."""

    def get_collate_fn(self) -> Any:
        """Return the function that makes a batch of items, and hands on a whole batch."""
