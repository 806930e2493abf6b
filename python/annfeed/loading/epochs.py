"""An epoch of a loader as it begins, or goes on from a saved place.

`PlanSampler` counts the epochs of our own orders, `GivenSampler` those of samplers that others bring. A loader treats
both alike, and so it does their plans of an epoch, `EpochPlan` and `SamplerPlan`.
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
        Those that are left.
    plan
        Their order.
    place
        Where in the epoch the loader is.
    seed
        Of worker processes.
    """

    windows: Iterator[Window]
    plan: EpochPlan | SamplerPlan
    place: Position
    seed: int


def begun(
    progress: Progress, plan: EpochPlan | SamplerPlan, epoch: int, seed: int | None, worker_key: tuple[int, int, int]
) -> Epoch:
    """Return the epoch that begins, or the rest of it where its place was loaded.

    Parameters
    ----------
    progress
        Of the loader.
    plan, epoch, seed
        Of the epoch; the seed is None where a sampler makes the order.
    worker_key
        A seed, a number of the epoch, and the rank, of which the seed of workers is made.
    """
    place = progress.begin(epoch, seed, plan.n_batches)
    # Workers of the rest of an epoch do not repeat the random numbers of those before.
    rest = (place.batch,) if place.batch else ()
    worker_seed = derive_key(*worker_key[:2], EpochStream.WORKERS, worker_key[2], *rest)
    return Epoch(plan.windows(place.batch, place.digest), plan, place, worker_seed)
