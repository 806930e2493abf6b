"""Peak memory of loading, beside the sum of what a loader is meant to hold: two windows, and the batches in flight.

    python benches/memory.py                     # SIZE=small, or the size in the environment

Each setting runs in a process of its own, whose peak resident memory is taken above what it held before the file was
opened; before that it loaded a few rows of a matrix in memory, so that the pages of libraries are not counted. The
windows and batches are weighed as they pass. A fast consumer takes batches as they come; a slow one takes twice as
long, so that everything that is made ahead is there. With a cache, what the cache holds is taken off the peak.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from keep import keep, layout
from machine import OthersMeter
from oracle import check
from ours import annfeed_in
from settings import Settings, add_arguments, chosen, warm
from windows import full_windows

#: Peak over the sum, at most.
AIM = 1.2
#: Full windows that a run without a cache goes through; one with a cache goes through an epoch, and fills it.
WINDOWS = 3
_PROC = Path("/proc/self")
#: How often memory is looked at where the kernel keeps no peak for us, in seconds.
_LOOK = 0.003


class Peak:
    """The peak of resident memory since it was made, in bytes: the kernel's own, or else sampled in a thread."""

    def __init__(self) -> None:
        self._stop, self._sampled = threading.Event(), resident()
        try:
            (_PROC / "clear_refs").write_text("5")  # proc(5): begins the peak anew
            self._thread = None
        except OSError:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()

    def taken(self) -> int:
        """End it and give the peak."""
        if self._thread is None:
            status = (_PROC / "status").read_text()
            return int(status.split("VmHWM:", 1)[1].split(None, 1)[0]) << 10
        self._stop.set()
        self._thread.join()
        return self._sampled

    def _sample(self) -> None:
        while not self._stop.wait(_LOOK):
            self._sampled = max(self._sampled, resident())


def resident() -> int:
    """Bytes of this process in memory."""
    return int((_PROC / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def weigh(order: str, output: str, cache: str, pause: float, settings: Settings) -> dict[str, float]:
    """Load in this process, ``pause`` seconds with each batch; return bytes, and seconds a batch."""
    contender = annfeed_in(order, output, cache)
    _load_a_little(output)
    gc.collect()
    before, peak = resident(), Peak()
    contender.open(settings, with_rows=False)
    windows = _weighed_windows(contender.dataset, settings.window // settings.batch * settings.batch)
    spans = full_windows(len(contender.dataset), settings)
    wanted = spans[WINDOWS - 1][1] if cache == "off" else sys.maxsize
    largest, count, began = 0, 0, time.perf_counter()
    for x, _ in contender.epoch():
        largest, count = max(largest, _nbytes(x)), count + 1
        if pause:
            time.sleep(pause)
        if count == wanted:
            break
    took = time.perf_counter() - began
    return {
        "grown": peak.taken() - before,
        "cached": contender.dataset.stats()["cache_bytes"],
        "windows": max(a + b for a, b in pairwise(windows)),
        "batch": largest,
        "batches": contender.loader.prefetch_batches + 1,
        "seconds_a_batch": took / count,
    }


def _load_a_little(output: str) -> None:
    import anndata
    import scipy.sparse as sp

    from annfeed import AnnDataset

    little = sp.random(1000, 500, 0.1, "csr", np.float32, rng=np.random.default_rng(0))
    dataset = AnnDataset(anndata.AnnData(little), obs_columns=[], output=output, cache=0)
    for _ in dataset.get_optimized_dataloader(100, seed=0):
        pass


def _weighed_windows(dataset: Any, full: int) -> list[int]:
    """Bytes of each full window that the dataset will load; the list fills as it does."""
    load, weights = dataset.reader.load, []

    def weighed(positions: np.ndarray) -> Any:
        window = load(positions)
        if len(positions) == full:
            weights.append(window.nbytes)
        return window

    dataset.reader.load = weighed
    return weights


def _nbytes(x: Any) -> int:
    import torch

    parts = [x] if x.layout is torch.strided else [x.crow_indices(), x.col_indices(), x.values()]
    return sum(part.numel() * part.element_size() for part in parts)


def main() -> None:
    """Check, weigh every setting, and write bench-data/memory.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print("\n" + json.dumps(weigh(*json.loads(given.one), Settings.from_json(given.settings))), flush=True)
        return
    if not (_PROC / "statm").exists():
        print("memory is left out: this system has no /proc")
        return
    label, settings = chosen(given)
    warm(settings.file)
    rows: list[dict[str, Any]] = []
    for order in ("exact random", "block auto"):
        for output in ("dense", "csr"):
            for cache in ("off", "on"):
                check(annfeed_in(order, output, cache), settings)
                rows += _rows(label, order, output, cache, settings, rows)
    keep("memory", label, rows, file=layout(settings.file))
    print(table(pd.DataFrame(rows)))


def _rows(
    label: str, order: str, output: str, cache: str, settings: Settings, before: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A fast consumer and, without a cache, a slow one. ``before``: rows of other settings."""
    rows, pause = [], 0.0
    for consumer in ("fast", "slow") if cache == "off" else ("fast",):
        meter = OthersMeter()
        command = [sys.executable, "-W", "ignore", __file__, "--settings", settings.as_json()]
        command += ["--one", json.dumps([order, output, cache, pause])]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(answer.strip().splitlines()[-1])
        pause = 2 * found["seconds_a_batch"]
        if cache == "on":
            # What rows a window shares with the cache is the cache's: a window weighs what it does without one.
            found["windows"] = 1e6 * before[-1]["windows_mb"]
        meant = found["windows"] + found["batches"] * found["batch"]
        row = {"data": label, "order": order, "output": output, "consumer": consumer}
        row |= {"cache": settings.cache if cache == "on" else "off"}
        row |= {f"{name}_mb": round(found[name] / 1e6, 2) for name in ("grown", "cached", "windows", "batch")}
        row |= {"batches": found["batches"], "meant_mb": round(meant / 1e6, 2)}
        row |= {"ratio": round((found["grown"] - found["cached"]) / meant, 4)}
        rows.append(row | {"window": settings.window, "batch": settings.batch, "others": meter.share()})
    return rows


def table(rows: pd.DataFrame) -> str:
    """One line for each setting."""
    lines = [
        "| order | out | consumer | cache | peak, MB | held by the cache, MB | two windows, MB | batches, MB "
        "| (peak - cache) / (windows + batches) | aim |",
        "|---|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows.itertuples():
        held = "" if row.cache == "off" else f"{row.cached_mb:,.0f}"
        lines.append(
            f"| {row.order} | {row.output} | {row.consumer} | {row.cache} | {row.grown_mb:,.0f} | {held} "
            f"| {row.windows_mb:,.0f} | {row.batches} x {row.batch_mb:,.1f} | {row.ratio:.2f} | {AIM:g} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
