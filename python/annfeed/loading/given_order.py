"""Samplers that others bring: which of them count epochs, and those that Lightning puts around ours to predict.

The order that they give is read by order/sampler_plan.py.
"""

from __future__ import annotations

from typing import Any

from annfeed.loading.sampler import PlanSampler


def with_epochs(order: Any) -> list[Any]:
    """The samplers in a user's order whose epoch can be set, as in torch's DistributedSampler."""
    candidates = (order, getattr(order, "sampler", None))
    return [
        s for s in candidates if callable(getattr(s, "set_epoch", None)) and isinstance(getattr(s, "epoch", None), int)
    ]


def predict_all(batch_sampler: Any) -> None:
    """Let nothing be dropped or filled up where Lightning predicts: it makes the loader anew around our sampler.

    Its batch sampler takes note of the batches, and is asked not to drop the last one; our sampler must not either.
    """
    sampler, wrapped = getattr(batch_sampler, "sampler", None), getattr(batch_sampler, "_batch_sampler", None)
    if isinstance(sampler, PlanSampler) and wrapped is not None:
        batch_sampler.sampler = wrapped.sampler = sampler.undropped()
