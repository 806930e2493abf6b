"""From opening a file to the first batch, in every order, each time in a fresh process: median of several.

    python benches/first_batch.py                # SIZE=small, or the size in the environment

What is opened is what users open: the matrix with every column of obs. The packages are imported before, the file lies
in the page cache, and the cache of decoded rows, where there is one, is empty.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from typing import Any

import pandas as pd
from keep import keep, layout
from machine import OthersMeter
from oracle import check
from ours import ORDERS, annfeed_in
from settings import Settings, add_arguments, chosen, warm

#: Seconds.
AIM = 0.5


def first_batch(order: str, output: str, cache: str, settings: Settings) -> float:
    """Seconds from before the file is opened to the first batch, in this process."""
    contender = annfeed_in(order, output, cache, obs_columns=None)
    began = time.perf_counter()
    contender.open(settings, with_rows=False)
    x, _ = next(contender.epoch())
    took = time.perf_counter() - began
    assert len(x) == settings.batch, f"{contender.name}: a first batch of {len(x)} rows"
    return took


def main() -> None:
    """Check, measure every order in turn, round after round, and write bench-data/first_batch.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    label, settings = chosen(given)
    ways = [(order, output, cache) for order in ORDERS for output in ("dense", "csr") for cache in ("off", "on")]
    for order, output, cache in ways:
        check(annfeed_in(order, output, cache), settings)
    warm(settings.file)
    rows: list[dict[str, Any]] = []
    processes = multiprocessing.get_context("forkserver")
    # A new process starts with these imported, and with nothing open.
    processes.set_forkserver_preload(["torch", "anndata", "annfeed"])
    with processes.Pool(1, maxtasksperchild=1) as fresh:
        for turn in range(given.rounds):
            for order, output, cache in ways:
                meter = OthersMeter()
                seconds = fresh.apply(first_batch, (order, output, cache, settings))
                row = {"data": label, "round": turn, "order": order, "output": output}
                row |= {"cache": settings.cache if cache == "on" else "off", "seconds": round(seconds, 4)}
                rows.append(row | {"window": settings.window, "batch": settings.batch, "others": meter.share()})
    keep("first batch", label, rows, file=layout(settings.file), rounds=given.rounds)
    print(table(pd.DataFrame(rows)))


def table(rows: pd.DataFrame) -> str:
    """Median seconds in each order."""
    medians = rows.groupby(["order", "output", "cache"])["seconds"].median()
    ways = rows[["output", "cache"]].drop_duplicates().itertuples(index=False, name=None)
    columns = [(output, cache, f"{output}, cache {cache}") for output, cache in ways]
    lines = [f"| seconds (aim: {AIM}) | " + " | ".join(title for _, _, title in columns) + " |"]
    lines.append("|---|" + "--:|" * len(columns))
    for order in rows["order"].unique():
        values = " | ".join(f"{medians[order, output, cache]:.3f}" for output, cache, _ in columns)
        lines.append(f"| {order} | {values} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
