"""The batches of a window that was read, and with several ranks the mark of rows that only fill up the last batch.

order/epoch.py decides which rows these are; here they get their key in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import torch

from annfeed.arrays import Int64Array
from annfeed.batches.items import Batch
from annfeed.batches.keys import IS_PADDING
from annfeed.order.windows import Window


class Loaded(Protocol):
    """The rows of a window, read."""

    def batch(self, start: int, stop: int) -> Batch:
        """Return rows ``start`` to ``stop`` of the window as a batch."""


class Loads(Protocol):
    """What reads windows."""

    def load(self, positions: Int64Array, /) -> Loaded:
        """Read the rows at ``positions`` (any order, repeats allowed) together."""


def batches_of(window: Window, loaded: Loaded) -> Iterator[Batch]:
    """Give the batches of a window, marked where there are several ranks, before any transform.

    Parameters
    ----------
    window
        Rows and their cut into batches.
    loaded
        The same rows, read.
    """
    bounds = window.offsets.tolist()
    for start, stop in pairwise(bounds):
        batch = loaded.batch(start, stop)
        if window.n_padding is not None:
            batch[IS_PADDING] = torch.arange(start, stop, device="cpu") >= bounds[-1] - window.n_padding
        yield batch
