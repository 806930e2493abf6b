"""Samplers that others bring: their epochs, and those that Lightning puts around ours to predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from annfeed.loading.epochs import Epoch, begun
from annfeed.loading.sampler import PlanSampler
from annfeed.loading.state import Position, Progress
from annfeed.order.sampler_plan import SamplerPlan
from annfeed.process.ranks import draw_seed, rank_and_world

if TYPE_CHECKING:
    from annfeed.loading.rows import Rows


class GivenSampler:
    """The epochs of a sampler that a user, or a trainer, brings.

    Parameters
    ----------
    sampler
        Gives positions, or, with ``batch_size=None``, sequences of positions.
    dataset
        Its length and chunk_size are read at each epoch.
    batch_size, drop_last
        As in `SamplerPlan`.
    seed
        Of workers; None draws one for each epoch.
    generator
        Where seeds come from with ``seed=None``; None for torch's global generator.
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
        """The number of the next epoch: that of the sampler, if it has one as torch's DistributedSampler does."""
        epochs: list[int] = [sampler.epoch for sampler in self._with_epochs()]
        return epochs[0] if epochs else self._n_begun

    @property
    def n_batches(self) -> int:
        """Batches of an epoch; TypeError where the sampler does not know."""
        return len(self._plan())

    @property
    def n_known(self) -> int | None:
        """`n_batches`, None where the sampler does not know."""
        return self._plan().n_batches

    @property
    def remainder(self) -> int:
        """-1: nobody knows how many rows of the ranks' last batches are repeats."""
        return -1

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the number of the next epoch, for a sampler that has one."""
        for sampler in self._with_epochs():
            sampler.set_epoch(epoch)

    def resume(self, place: Position) -> None:
        """Let the next epoch go on from ``place``."""
        self._n_begun = place.epoch
        self.set_epoch(place.epoch)
        self.progress.load(place)

    def begin_epoch(self) -> Epoch:
        """Draw a seed for workers, as torch's loader does, and count the epoch."""
        seed = draw_seed(self._generator, 1) if self._seed is None else self._seed
        number = self.epoch
        self._n_begun += 1
        return begun(self.progress, self._plan(), number, None, (seed, self._n_begun, rank_and_world()[0]))

    def order(self) -> dict[str, Any]:
        """Return what the order is made of, for a saved state."""
        return self._plan().state() | {"seed": self._seed, "world": rank_and_world()[1]}

    def in_words(self) -> str:
        """Return what the order is, for people."""
        return f"that of a {type(self.sampler).__name__}"

    def _plan(self) -> SamplerPlan:
        return SamplerPlan(
            sampler=self.sampler,
            n_rows=len(self._dataset),
            batch_size=self._batch_size,
            window=self._dataset.chunk_size,
            drop_last=self._drop_last,
            world=rank_and_world()[1],
            keeps_proof=True,
        )

    def _with_epochs(self) -> list[Any]:
        """The sampler, and the one inside it, where their epoch can be set."""
        candidates = (self.sampler, getattr(self.sampler, "sampler", None))
        return [
            sampler
            for sampler in candidates
            if callable(getattr(sampler, "set_epoch", None)) and isinstance(getattr(sampler, "epoch", None), int)
        ]


def predict_all(batch_sampler: Any) -> None:
    """Let nothing be dropped or filled up where Lightning predicts: it makes the loader anew around our sampler.

    Its batch sampler takes note of the batches, and is asked not to drop the last one; our sampler must not either.
    """
    sampler, wrapped = getattr(batch_sampler, "sampler", None), getattr(batch_sampler, "_batch_sampler", None)
    if isinstance(sampler, PlanSampler) and wrapped is not None:
        batch_sampler.sampler = wrapped.sampler = sampler.undropped()
