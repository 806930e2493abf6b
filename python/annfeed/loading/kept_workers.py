"""The worker processes of a `WindowLoader`: started for each epoch, or kept for the next."""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from annfeed.h5ad.identity import n_own_writes
from annfeed.loading.slices import SliceBatches, SliceOrder, batches_from
from annfeed.loading.worker_processes import worker_loader
from annfeed.order.windows import Window

if TYPE_CHECKING:
    from annfeed.batches.items import Batch
    from annfeed.loading.protocols import Reader, Reads
    from annfeed.transforms.base import Transform


class LoaderWorkers:
    """Workers of a loader. Persistent ones serve one epoch at a time; a second epoch at the same time gets new ones."""

    def __init__(self) -> None:
        self._kept: DataLoader[Any] | None = None
        self._kept_are_busy = False
        self._kept_know: tuple[Any, ...] = ()  # dataset and options that the kept workers have

    def batches(
        self, loader: DataLoader[Any], reads: Reads, windows: Iterator[Window], seed: int, collate_fn: Any
    ) -> Generator[Any]:
        """Yield the batches of an epoch.

        Parameters
        ----------
        loader
            Its keywords are those of the workers.
        reads
            Its dataset, as the epoch reads it.
        windows
            Windows of the epoch.
        seed
            The workers' seeds are derived from it; no generator of the user is touched.
        collate_fn
            As in torch's DataLoader.
        """
        reader: Reader = loader.dataset.reader  # type: ignore[attr-defined]  # torch's word for it is Dataset
        # Persistent workers have the dataset of when they were started; an AnnData may have changed since.
        persistent = loader.persistent_workers and reader.is_of_file and not self._kept_are_busy
        transform = _pickled(reader.transform) if persistent else None
        if persistent:
            know = (n_own_writes(), reader.output, reader.dtype, reader.threads, reads.return_index, collate_fn)
            if know != self._kept_know or transform is None:
                self._kept, self._kept_know = None, know
        workers = self._kept if persistent else None
        if workers is None:
            made = SliceBatches(reads, partial(_postprocessed, collate_fn=collate_fn), transform)
            workers = worker_loader(loader, made, SliceOrder(reader.row_bytes, transform))
        if persistent:
            self._kept, self._kept_are_busy = workers, True
        order: SliceOrder = workers.sampler  # type: ignore[assignment]
        order.windows, order.transform, order.draw_key = windows, transform, reads.draw_key
        workers.generator = torch.Generator("cpu").manual_seed(seed % 2**63)
        try:
            yield from batches_from(workers)
        finally:
            if persistent:
                self._kept_are_busy = False

    def __reduce__(self) -> tuple[type[LoaderWorkers], tuple[()]]:
        """Pickle without workers: a copy of a loader starts its own."""
        return LoaderWorkers, ()


def _postprocessed(reads: Reads, batch: Batch, collate_fn: Any) -> Any:
    return reads.postprocess(batch, collate_fn)


def _pickled(transform: Transform | None) -> bytes | None:
    """Return a transform pickled, to compare it and send it to workers; None if it does not pickle."""
    try:
        return pickle.dumps(transform)
    except Exception:  # any error of a user's class; forked workers need no pickle
        return None
