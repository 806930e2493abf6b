"""One contender, once, in this process: the rate, the time to the first batch, and the memory it took."""

from __future__ import annotations

import gc
import importlib
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from contender import Batch, Contender
from settings import Settings
from yardsticks import Limit

#: annfeed's first windows are small, so that the first batch comes soon; they shall not be most of what is timed.
LEAST_WINDOWS = 3
#: More than any run needs: a stop for a contender that gives no batches.
MOST_EPOCHS = 1000


def measure(contender: Contender, settings: Settings, seconds: float) -> dict[str, float]:
    """Return cells, seconds, cells_per_s, first_batch_s, peak_mb and grown_mb of one run.

    The rate counts from the first ``next()``, after opening; the first batch counts from before opening. Who has gone
    through an epoch by ``seconds`` is timed to the end of the epoch under way: a user waits for whole epochs.
    Where an epoch takes longer, a run ends at the first batch after ``seconds``: for peers that read whole windows at
    the end of one (a rate taken in the middle would count a window's reading and not its rows), for annfeed not before
    three windows; what annfeed has read ahead by then is not counted.
    """
    for name in ("torch", "anndata", contender.needs):  # importing is nobody's first batch
        importlib.import_module(name)
    if isinstance(contender, Limit):
        return contender.measure(settings, seconds)
    gc.collect()
    before = resident_mb()
    began = time.perf_counter()
    contender.open(settings, with_rows=False)
    epochs = _epochs(contender)
    if contender.epochs == "later":
        for _ in next(epochs):
            pass
    opened = time.perf_counter()
    cells, first, wanted = 0, 0.0, float("inf") if contender.epochs == "first" else seconds
    windows = contender.fetch == "window"
    whole = settings.window if windows and contender.needs != "annfeed" else 1
    least = LEAST_WINDOWS * settings.window if windows and contender.needs == "annfeed" else 0
    whole_epochs = 0
    while True:
        in_epoch = 0
        for x, _ in next(epochs):
            now = time.perf_counter()
            cells += x.shape[0]
            in_epoch += x.shape[0]
            first = first or now - (opened if contender.epochs == "later" else began)
            if now - opened >= wanted and in_epoch % whole == 0 and cells >= least and whole_epochs == 0:
                break
        else:
            whole_epochs += 1
        took = time.perf_counter() - opened
        if (took >= wanted and cells >= least) or contender.epochs == "first":
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10 if sys.platform == "linux" else 1 << 20)
    return {
        "cells": cells,
        "seconds": round(took, 4),
        "cells_per_s": round(cells / took, 1),
        "first_batch_s": round(first, 4),
        "peak_mb": round(peak),
        "grown_mb": round(peak - before),
    }


def _epochs(contender: Contender) -> Iterator[Iterator[Batch]]:
    for _ in range(MOST_EPOCHS):
        yield contender.epoch()


def resident_mb() -> float:
    """Memory of this process now; on systems without /proc, its peak so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / (1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
