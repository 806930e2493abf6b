"""Where the windows of an epoch end: what is timed or weighed is whole windows, and not the small first ones."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from contender import Contender
from settings import Settings, is_large


def full_windows(n_rows: int, settings: Settings) -> list[tuple[int, int]]:
    """Batches of an epoch before, and up to the end of, each window that is full, in order.

    Raises
    ------
    SystemExit
        If there are fewer than three.
    """
    from annfeed.order.epoch import EpochPlan

    # Sizes are the same in every order.
    plan = EpochPlan(n_rows=n_rows, batch_size=settings.batch, window=settings.window)
    counts = [window.n_batches for window in plan.windows()]
    ends = list(accumulate(counts))
    full = max(1, settings.window // settings.batch)
    spans = [(end - count, end) for count, end in zip(counts, ends, strict=True) if count == full]
    if len(spans) < 3:
        raise SystemExit(
            f"{settings.file}: {n_rows:,} rows have {len(spans)} full windows of {settings.window:,} rows; expected "
            "three: give a smaller --window"
        )
    return spans


def nothing(*_: Any) -> None:
    """Stand in for a step, or for what is waited for."""


def seconds_a_batch(
    contender: Contender,
    settings: Settings,
    seconds: float,
    step: Callable[[Any], Any] = nothing,
    wait: Callable[[], Any] = nothing,
) -> float:
    """Return the mean over whole windows, for ``seconds`` or longer, of a loop that calls ``step`` with each batch.

    ``wait`` is called before a window's time is taken, for work that goes on elsewhere.
    """
    # The last one has nothing to read behind it.
    windows = full_windows(len(contender.dataset), settings)[1:-1]
    begins, ends = windows[0][0], {end for _, end in windows}
    batches, took = 0, 0.0
    while took < seconds:
        began = 0.0
        for count, (x, _) in enumerate(contender.epoch(), 1):
            step(x)
            if count == begins:
                wait()
                began = time.perf_counter()
            elif count in ends:
                wait()
                so_far = time.perf_counter() - began
                if took + so_far >= seconds or count == windows[-1][1]:
                    batches, took = batches + count - begins, took + so_far
                    break
    return took / batches


def add_rounds(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how often and how long is measured."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="of each run; default by size")


def seconds_of(given: argparse.Namespace) -> float:
    """Return how long each run takes."""
    return float(given.seconds or (4.0 if is_large(given) else 0.7))
