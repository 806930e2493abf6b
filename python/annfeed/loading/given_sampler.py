"""Samplers of users and trainers: their epochs, and the samplers that Lightning wraps around ours to predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from annfeed.loading.epochs import Epoch, begun
from annfeed.loading.sampler import PlanSampler
from annfeed.loading.state import Position, Progress
from annfeed.order.random import row_key
from annfeed.order.sampler_plan import SamplerPlan
from annfeed.process.ranks import draw_seed, rank_and_world

if TYPE_CHECKING:
    from annfeed.loading.protocols import Rows


class GivenSampler:
    """The epochs of a sampler that a user or a trainer passes.

    Parameters
    ----------
    sampler
        Gives positions, or, with ``batch_size=None``, sequences of positions.
    dataset
        Its length and window are read at each epoch.
    batch_size, drop_last
        As in `SamplerPlan`.
    seed
        Seed of workers; None draws one for each epoch.
    generator
        Generator to draw seeds from; None for torch's global generator.
    """

    def __init__(
        self,
        sampler: Any,
        dataset: Rows,
        batch_size: int | None,
        drop_last: bool,
        seed: int | None,
        generator: torch.Generator | None,
    ) -> None:
        self.sampler = sampler
        self.progress = Progress()
        self._dataset = dataset
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._seed = seed
        self._generator = generator
        self._n_begun = 0

    @property
    def epoch(self) -> int:
        """The number of the next epoch: the sampler's ``epoch`` if it has ``set_epoch``, else counted here."""
        epochs: list[int] = [sampler.epoch for sampler in self._with_epochs()]
        return epochs[0] if epochs else self._n_begun

    @property
    def n_batches(self) -> int:
        """Batches of an epoch; TypeError if the sampler has no length."""
        return len(self._plan())

    @property
    def n_known(self) -> int | None:
        """`n_batches`, or None if the sampler has no length."""
        return self._plan().n_batches

    @property
    def remainder(self) -> int:
        """-1: the number of repeated rows in the ranks' last batches is unknown."""
        return -1

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the number of the next epoch, for a sampler that has one."""
        for sampler in self._with_epochs():
            sampler.set_epoch(epoch)

    def resume(self, place: Position, order: Mapping[str, Any]) -> None:
        """Continue from ``place`` in the next epoch; the order is the sampler's own."""
        self._n_begun = place.epoch
        self.set_epoch(place.epoch)
        self.progress.load(place)

    def begin_epoch(self) -> Epoch:
        """Begin and count the next epoch; with no seed draw one for workers, as torch's loader does."""
        seed = draw_seed(self._generator, 1) if self._seed is None else self._seed
        number = self.epoch
        self._n_begun += 1
        worker_key = seed, self._n_begun, rank_and_world()[0]
        return begun(self.progress, self._plan(), number, None, worker_key, row_key(self._seed or 0, number))

    def order(self, saved: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what determines the order, for a saved state."""
        return self._plan().state() | {"seed": self._seed, "world": rank_and_world()[1]}

    def in_words(self) -> str:
        """Return a description of the order."""
        return f"that of a {type(self.sampler).__name__}"

    def _plan(self) -> SamplerPlan:
        return SamplerPlan(
            sampler=self.sampler,
            n_rows=len(self._dataset),
            batch_size=self._batch_size,
            window=self._dataset.window,
            drop_last=self._drop_last,
            world=rank_and_world()[1],
            keeps_proof=True,
        )

    def _with_epochs(self) -> list[Any]:
        """Return which of the sampler and the one inside it have an epoch that can be set."""
        candidates = (self.sampler, getattr(self.sampler, "sampler", None))
        return [
            sampler
            for sampler in candidates
            if callable(getattr(sampler, "set_epoch", None)) and isinstance(getattr(sampler, "epoch", None), int)
        ]


def predict_all(batch_sampler: Any) -> None:
    """Drop and repeat no row when Lightning predicts: it makes a new loader whose batch sampler wraps our sampler."""
    sampler, wrapped = getattr(batch_sampler, "sampler", None), getattr(batch_sampler, "_batch_sampler", None)
    if isinstance(sampler, PlanSampler) and wrapped is not None:
        batch_sampler.sampler = wrapped.sampler = sampler.undropped()
