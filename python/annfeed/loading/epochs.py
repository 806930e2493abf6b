"""`Epoch`: an epoch of a loader from its beginning, or from a saved place.

`PlanSampler` makes the epochs of annfeed's orders, `GivenSampler` those of users' samplers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from annfeed.loading.state import Position, Progress
from annfeed.order.epoch import EpochPlan
from annfeed.order.random import EpochStream, derive_key
from annfeed.order.sampler_plan import SamplerPlan
from annfeed.order.windows import Window


@dataclass(frozen=True)
class Epoch:
    """An epoch that a loader delivers.

    Parameters
    ----------
    windows
        The windows that are left.
    plan
        The order of the whole epoch.
    place
        Place of the loader in the epoch.
    seed
        Seed of the worker processes.
    draw_key
        Key of what is drawn in rows.
    """

    windows: Iterator[Window]
    plan: EpochPlan | SamplerPlan
    place: Position
    seed: int
    draw_key: int


def begun(
    progress: Progress,
    plan: EpochPlan | SamplerPlan,
    epoch: int,
    seed: int | None,
    worker_key: tuple[int, int, int],
    draw_key: int,
) -> Epoch:
    """Return the epoch that begins, or the rest of it if its place was loaded.

    Parameters
    ----------
    progress
        Progress of the loader.
    plan, epoch, seed
        Plan, number and seed of the epoch; the seed is None if a user's sampler makes the order.
    worker_key
        Seed, number of the epoch and rank, from which the seed of workers is derived.
    draw_key
        Key of what is drawn in rows.
    """
    place = progress.begin(epoch, seed, plan.n_batches)
    # Workers of a resumed epoch do not repeat the random numbers of its first part.
    rest = (place.batch,) if place.batch else ()
    worker_seed = derive_key(*worker_key[:2], EpochStream.WORKERS, worker_key[2], *rest)
    return Epoch(plan.windows(place.batch, place.digest), plan, place, worker_seed, draw_key)
