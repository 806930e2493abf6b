"""The same file warm, cold, and on mounts whose reads take 0, 1, 5 and 30 ms: annfeed in three orders, beside others.

    python benches/storage.py                               # SIZE=small, or the size in the environment: warm and cold
    python benches/storage.py --size 200k --slowfs slowfs.c # and slow mounts (as root, with libfuse3-dev)

``--slowfs`` is the source of a FUSE file system that shows the folder ``SLOWFS_SOURCE``, read-only, past the page
cache, each read taking ``SLOWFS_LATENCY_MS`` more. It works on the same cores: what is lost at 0 ms is its work, and
what is lost beyond that is waiting. Rows are checked on every storage before anything is timed; rounds go through the
storages in turn, each contender in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from contender import Contender
from keep import keep, layout
from machine import OthersMeter
from measure import measure
from oracle import check
from ours import annfeed_in
from peers import AnndataBacked, ScDataset
from settings import Settings, add_arguments, chosen, warm

from annfeed.cli.bench import drop_pages

LATENCIES = (0, 1, 5, 30)
CONTENDERS: tuple[Contender, ...] = (
    annfeed_in("file order", "csr"),
    annfeed_in("block auto", "csr"),
    annfeed_in("block 16", "csr"),
    ScDataset("scDataset block 16 csr", needs="scdataset", order="blocks", block=16, output="csr"),
    AnndataBacked("anndata backed, exact random", needs="anndata", fetch="batch"),
)


def main() -> None:
    """Check, measure every contender on every storage, round after round, and write bench-data/storage.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--slowfs", type=Path, help="C source of the slow file system; without it, no slow mounts")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders whose names begin so")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of reading, for each contender and round")
    given = parser.parse_args()
    label, settings = chosen(given)
    contenders = [c for c in CONTENDERS if not given.only or any(c.name.startswith(name) for name in given.only)]
    contenders = [c for c in contenders if _told(c)]
    rows: list[dict[str, Any]] = []
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch", "anndata", "annfeed"])
    with _mounts(settings.file.parent, given.slowfs) as folders, processes.Pool(1, maxtasksperchild=1) as fresh:
        storages = {"warm": settings, "cold": settings}
        storages |= {name: replace(settings, file=folder / settings.file.name) for name, folder in folders.items()}
        for contender in contenders:
            for name, there in storages.items():
                if name != "cold":
                    check(contender, there, settings.file)  # h5py would take minutes on a slow mount
        for turn in range(given.rounds):
            for contender in contenders:
                for name, there in storages.items():
                    warm(settings.file)  # of a mount, too: what is slow is the mount, not the disk behind it
                    if name == "cold":
                        drop_pages(str(settings.file))
                    meter = OthersMeter()
                    found = fresh.apply(_measured, (CONTENDERS.index(contender), there, given.seconds))
                    row = {"data": label, "round": turn, "storage": name, "name": contender.name, **found}
                    rows.append(row | {"window": settings.window, "batch": settings.batch, "others": meter.share()})
                    shown = f"{found['cells_per_s']:>10,.0f} cells/s, open {found['open_s']:.2f} s"
                    print(f"round {turn + 1}: {name:>6} {contender.name:<32}{shown}", flush=True)
    keep("storage", label, rows, file=layout(settings.file), rounds=given.rounds, seconds=given.seconds)
    print(table(pd.DataFrame(rows)))


def _told(contender: Contender) -> bool:
    why = contender.missing()
    if why is not None:
        print(f"left out: {contender.name}: {why}")
    return why is None


def _measured(number: int, settings: Settings, seconds: float) -> dict[str, float]:
    """In a process of its own: seconds of opening all that users open, and the rate."""
    from annfeed import AnnDataset

    contender = CONTENDERS[number]
    began = time.perf_counter()
    if contender.needs == "annfeed":
        AnnDataset(settings.file).close()
    else:
        contender.open(settings, with_rows=False)
    opened = time.perf_counter() - began
    found = measure(contender, settings, seconds)
    kept = ("cells", "seconds", "cells_per_s", "first_batch_s")
    return {"open_s": round(opened, 4)} | {key: found[key] for key in kept}


@contextlib.contextmanager
def _mounts(folder: Path, source: Path | None) -> Iterator[dict[str, Path]]:
    """Mount ``folder`` once for each latency, while the block runs; by name."""
    if source is None:
        yield {}
        return
    told = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], stdout=subprocess.PIPE, text=True, check=True)
    flags = shlex.split(told.stdout)
    with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as mounted:
        program, found = Path(work, "slowfs"), {}
        subprocess.run(["gcc", "-O2", source, "-o", program, *flags, "-lpthread"], check=True)
        for latency in LATENCIES:
            place = Path(work, f"{latency}ms")
            place.mkdir()
            where = os.environ | {"SLOWFS_SOURCE": str(folder.resolve()), "SLOWFS_LATENCY_MS": str(latency)}
            subprocess.run([program, place, "-o", "ro,max_idle_threads=64,max_threads=64"], env=where, check=True)
            mounted.callback(subprocess.run, ["fusermount3", "-u", "-z", place], check=False)
            found[f"{latency} ms"] = place
        yield found


def table(rows: pd.DataFrame) -> str:
    """Median rates as shares of the contender's own warm rate, and seconds of opening."""
    rates = rows.pivot_table(index="name", columns="storage", values="cells_per_s", aggfunc="median", sort=False)
    opening = rows.pivot_table(index="name", columns="storage", values="open_s", aggfunc="median", sort=False)
    storages = [name for name in rates.columns if name != "warm"]
    lines = ["| | warm, cells/s | " + " | ".join(f"{name} / warm" for name in storages) + " | opening, s: warm | "]
    lines[0] += " | ".join(storages) + " |"
    lines.append("|---|" + "--:|" * (2 * len(storages) + 2))
    for name in rates.index:
        shares = " | ".join(f"{rates.loc[name, s] / rates.loc[name, 'warm']:.2f}" for s in storages)
        seconds = " | ".join(f"{opening.loc[name, s]:.2f}" for s in ["warm", *storages])
        lines.append(f"| {name} | {rates.loc[name, 'warm']:,.0f} | {shares} | {seconds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
