"""The keywords of torch's DataLoader that loaders of models of scvi-tools take, for type checkers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from annfeed.loading.keywords import TorchKeywords, WorkerKeywords


class CellsKeywords(TorchKeywords, total=False):
    """Of the loaders of `annfeed.scvi.SCVIDataModule`."""

    num_workers: int
    prefetch_batches: int | None
    drop_last: bool


class RegisteredKeywords(WorkerKeywords, total=False):
    """Of `annfeed.AnnDataLoader`."""

    num_workers: int
    collate_fn: Callable[[Any], Any] | None
    generator: torch.Generator | None
