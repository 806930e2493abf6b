"""The keywords of torch's DataLoader that loaders take beside their own, for type checkers.

Those of Lightning's and scvi-tools' loaders are in lightning.py and scvi/keywords.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from multiprocessing.context import BaseContext
from typing import Any, Literal, TypedDict

import torch


class WorkerKeywords(TypedDict, total=False):
    """Of worker processes and memory."""

    pin_memory: bool
    timeout: float
    worker_init_fn: Callable[[int], None] | None
    multiprocessing_context: str | BaseContext | None
    prefetch_factor: int | None
    persistent_workers: bool
    pin_memory_device: str
    in_order: bool


class TorchKeywords(WorkerKeywords, total=False):
    """All that `AnnDataset.get_optimized_dataloader` does not name."""

    sampler: Iterable[Any] | None
    batch_sampler: Iterable[Sequence[Any]] | None
    collate_fn: Callable[[Any], Any] | None
    generator: torch.Generator | None


class PredictKeywords(TorchKeywords, total=False):
    """Of `AnnDataset.predict_loader`."""

    num_workers: int
    seed: int | None
    prefetch_batches: int | None
    block_size: int | Literal["auto"]
