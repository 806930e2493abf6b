"""Batch samplers of `AnnDataLoader`: the positions of each batch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, RandomSampler, Sampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler


def batches_of(
    dataset: Any, *, batch_size: int, shuffle: bool, drop_last: bool, generator: torch.Generator | None
) -> BatchSampler:
    """Return the batches of a dataset in its order, or shuffled anew in each epoch.

    Like scvi-tools' loader, it draws one number in each epoch from ``generator``, or from torch's global generator.
    """
    order: Sampler[int] = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
    return BatchSampler(order, batch_size, drop_last)


class UserBatches(Sampler[Any]):
    """The batches of a user's sampler: the sequences that it gives, or its positions in groups of ``batch_size``.

    Parameters
    ----------
    sampler
        Iterable of positions, or of sequences of positions.
    batch_size, drop_last
        Used only for a sampler of positions.

    Examples
    --------
    >>> list(UserBatches([4, 0, 4], 2, False)), list(UserBatches([[4], [0, 4]], 2, False))
    ([[4, 0], [4]], [[4], [0, 4]])
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool) -> None:
        BatchSampler(range(0), batch_size, drop_last)  # torch's own checks
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._gives_batches: bool | None = True if isinstance(sampler, BatchSampler) else None

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of an epoch."""
        items = iter(self.sampler)
        for first in items:
            self._gives_batches = _is_batch(first)
            rest = chain([first], items)
            yield from rest if self._gives_batches else BatchSampler(rest, self.batch_size, self.drop_last)

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        if self._gives_batches is None and n:
            with _generators_kept(self.sampler):
                self._gives_batches = _is_batch(next(iter(self.sampler)))
        if self._gives_batches:
            return n
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch in the sampler, and in the one inside it, if they have ``set_epoch``."""
        for sampler in (self.sampler, getattr(self.sampler, "sampler", None)):
            if callable(getattr(sampler, "set_epoch", None)):
                sampler.set_epoch(epoch)  # type: ignore[union-attr]


class BatchDistributedSampler(DistributedSampler[Any]):
    """This rank's share of the positions, in batches; every rank gives the same number.

    Parameters
    ----------
    dataset
        Only its length is used.
    batch_size
        Positions of a batch on each rank.
    drop_last
        Leave out a last batch that is not full.
    drop_dataset_tail
        Leave out the last positions that would make ranks unequal, instead of repeating the first ones.
    shuffle
        A new order in each epoch, set by `set_epoch`.
    """

    def __init__(
        self, dataset: Any, batch_size: int, *, drop_last: bool, drop_dataset_tail: bool, shuffle: bool
    ) -> None:
        BatchSampler(range(0), batch_size, drop_last)  # torch's own checks
        super().__init__(dataset, shuffle=shuffle, drop_last=drop_dataset_tail)
        self.batch_size = batch_size
        self.drop_last_batch = drop_last

    def __iter__(self) -> Iterator[Any]:
        """Return the batches of an epoch."""
        return iter(BatchSampler(super().__iter__(), self.batch_size, self.drop_last_batch))

    def __len__(self) -> int:
        if self.drop_last_batch:
            return self.num_samples // self.batch_size
        return -(-self.num_samples // self.batch_size)


def _is_batch(item: Any) -> bool:
    return (item.ndim if hasattr(item, "ndim") else np.ndim(item)) > 0


@contextmanager
def _generators_kept(sampler: Any) -> Iterator[None]:
    """Restore the generators from which taking a sampler's first item may draw."""
    parts = (sampler, getattr(sampler, "sampler", None))
    own = [g for g in (getattr(part, "generator", None) for part in parts) if isinstance(g, torch.Generator)]
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate(), [g.get_state() for g in own]  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])
        for generator, state in zip(own, kept[3], strict=True):
            generator.set_state(state)
