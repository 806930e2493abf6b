"""What `annfeed.rewrite` takes and gives: size, time and peak memory of writing, and the rates of reading, by codec.

    python benches/rewriting.py                               # SIZE=small, or the size in the environment; all codecs
    python benches/rewriting.py --file atlas.h5ad zstd:1 gzip # another file; these codecs, at these levels

Each file is written in a process of its own, whose peak resident memory is taken. Rates are of CSR batches of 128 rows
without a cache, in rounds that take turns between the files, the sum of each row compared with that of the source; the
median counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from keep import keep
from make_atlas import SIZES, make_atlas

ORDERS: dict[str, dict[str, Any]] = {
    "file order": {"shuffle": False},
    "block 16": {"block_size": 16},
    "block 64": {"block_size": 64},
    "block 512": {"block_size": 512},
}
CODECS = ["zstd", "zstd:1", "bitshuffle", "lz4", "lzf", "gzip"]
WRITE = """
import resource, sys, time
from annfeed import rewrite
source, target, codec, level = sys.argv[1:]
began = time.perf_counter()
rewrite(source, target, codec=codec, level=int(level) if level else None, progress=False)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def written(source: str, target: Path, codec: str) -> tuple[float, float]:
    """Return the seconds and the peak memory (MiB) of writing a file."""
    name, _, level = codec.partition(":")
    command = [sys.executable, "-c", WRITE, source, str(target), name, level]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


def rate(path: Path, order: dict[str, Any], seconds: float, sums: dict[int, float]) -> float:
    """Return the cells a second; compare each row with ``sums``, or note it there."""
    from annfeed import AnnDataset

    with AnnDataset(path, obs_columns=[], cache=0, output="csr") as dataset:
        loader = dataset.get_optimized_dataloader(128, seed=0, return_index=True, **order)
        seen: list[tuple[Any, Any]] = []
        began, cells = time.perf_counter(), 0
        for batch in loader:
            cells += len(batch["index"])
            seen.append((batch["index"], batch["X"]))
            if (taken := time.perf_counter() - began) > seconds:
                break
    for index, x in seen:
        values = np.add.reduceat(np.append(x.values().numpy(), 0).astype(np.float64), x.crow_indices().numpy()[:-1])
        values[np.diff(x.crow_indices().numpy()) == 0] = 0
        for row, value in zip(index.tolist(), values.tolist(), strict=True):
            assert sums.setdefault(row, value) == value, f"{path}: row {row}"
    return cells / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default=os.environ.get("SIZE", "small"))
    parser.add_argument("--file", type=Path, help="an .h5ad with cells in rows instead of a made one")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("codecs", nargs="*", default=CODECS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a round, for each file and order")
    options = parser.parse_args()
    source: Path = options.file or make_atlas(SIZES[options.size])
    label = options.label or SIZES[options.size].label
    size = os.path.getsize(source)
    beside = source.parent
    about: dict[str, dict[str, Any]] = {"source": {"size": 1.0}}
    with tempfile.TemporaryDirectory(dir=beside if os.access(beside, os.W_OK) else None) as folder:
        files = {"source": source}
        print(f"{'':<14}{'size / source':>14}{'written in s':>14}{'peak MiB':>10}")
        for codec in options.codecs:
            files[codec] = Path(folder) / f"{codec.replace(':', '-')}.h5ad"
            seconds, peak = written(str(source), files[codec], codec)
            about[codec] = {"size": files[codec].stat().st_size / size, "seconds": seconds, "peak_mib": peak}
            print(f"{codec:<14}{about[codec]['size']:>14.3f}{seconds:>14.1f}{peak:>10.0f}", flush=True)
        sums: dict[int, float] = {}
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(options.rounds):
            for name, order in ORDERS.items():
                for codec, path in files.items():
                    rates.setdefault((codec, name), []).append(rate(path, order, options.seconds, sums))
        print(f"\n{'cells/s':<14}" + "".join(f"{name:>12}" for name in ORDERS))
        for codec in files:
            found = [statistics.median(rates[codec, name]) for name in ORDERS]
            print(f"{codec:<14}" + "".join(f"{one:>12,.0f}" for one in found))
        keep(
            "rewriting",
            label,
            [
                {"data": label, "codec": codec, **about[codec], "order": order, "round": turn, "cells_per_s": cells}
                for (codec, order), found in rates.items()
                for turn, cells in enumerate(found)
            ],
            rounds=options.rounds,
        )


if __name__ == "__main__":
    main()
