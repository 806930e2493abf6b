"""What `annfeed.rewrite` takes and gives: size, time and peak memory of writing, and the rates of reading, by codec.

    python benches/rewriting.py                               # SIZE=small, or the size in the environment; all codecs
    python benches/rewriting.py --file atlas.h5ad zstd:1 gzip # another file; these codecs, at these levels

Each file is written in a process of its own, whose peak resident memory is taken; beside them, where annbatch is
installed, its conversion of the file, in the order of the file and shuffled, and ours shuffled. Rates are of CSR
batches of 128 rows without a cache, in rounds that take turns between the files, the sum of each row compared with that
of the source; the median counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  # h5py reads what we wrote
import numpy as np
import pandas as pd
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
SHUFFLE = """
import resource, sys, time
from annfeed import rewrite
source, target = sys.argv[1:]
began = time.perf_counter()
rewrite(source, target, rows="shuffled", seed=0, progress=False)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
#: annbatch's own way, with its defaults.
CONVERT = """
import resource, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
from annbatch import DatasetCollection
source, target, shuffle = sys.argv[1:]
began = time.perf_counter()
DatasetCollection(target).add_adatas([source], shuffle=shuffle == "shuffled", rng=np.random.default_rng(0))
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def written(source: str, target: Path, codec: str) -> tuple[float, float]:
    """Return the seconds and the peak memory (MiB) of writing a file."""
    name, _, level = codec.partition(":")
    return _timed(WRITE, source, str(target), name, level)


def _timed(program: str, *arguments: str) -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    seconds, peak = map(float, done.stdout.splitlines()[-1].split())
    return seconds, peak


def conversions(source: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Return seconds and peak memory of our files and annbatch's, in turns; without it only ours."""
    ways: dict[str, tuple[str, list[str], str]] = {
        "annfeed": (WRITE, ["zstd", ""], ".h5ad"),
        "annfeed shuffled": (SHUFFLE, [], ".h5ad"),
    }
    if importlib.util.find_spec("annbatch") is not None:
        ways["annbatch"] = (CONVERT, ["as it is"], ".zarr")
        ways["annbatch shuffled"] = (CONVERT, ["shuffled"], ".zarr")
    rows = []
    for turn in range(rounds):
        for name, (program, arguments, suffix) in ways.items():
            target = folder / f"converted{suffix}"
            seconds, peak = _timed(program, str(source), str(target), *arguments)
            assert _sums(target) == _sums(source), f"{name}: other values than those of {source}"
            size = _size(target)
            rows.append(
                {"way": name, "round": turn, "seconds": seconds, "peak_mib": peak, "size": size / _size(source)}
            )
            shutil.rmtree(target) if target.is_dir() else target.unlink()
    return rows


def _sums(path: Path) -> tuple[int, float]:
    """How many values X stores, and their sum."""
    if path.suffix == ".h5ad":
        with h5py.File(path) as file:
            return _of_arrays([file["X/data"]])
    import zarr

    group = zarr.open_group(path, mode="r")
    return _of_arrays([group[f"{name}/X/data"] for name in group])


def _of_arrays(arrays: list[Any]) -> tuple[int, float]:
    count, total = 0, 0.0
    for array in arrays:
        count += array.shape[0]
        for start in range(0, array.shape[0], 1 << 24):
            total += float(np.asarray(array[start : start + (1 << 24)], np.float64).sum())
    return count, total


def _size(path: Path) -> int:
    return sum(part.stat().st_size for part in path.rglob("*")) if path.is_dir() else path.stat().st_size


def show_conversions(rows: list[dict[str, Any]]) -> None:
    """Print medians, and ours over theirs, taken within a round."""
    found = pd.DataFrame(rows).drop(columns="data").set_index(["way", "round"])
    print(found.groupby("way", sort=False).median().to_string(float_format=lambda x: f"{x:,.3g}"))
    for way in ("", " shuffled"):
        if f"annbatch{way}" in found.index:
            ratio = (found.loc[f"annfeed{way}"] / found.loc[f"annbatch{way}"]).median()
            print(f"annfeed{way} / annbatch{way}: " + ", ".join(f"{key} {value:.3g}" for key, value in ratio.items()))


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
    parser.add_argument("--only-conversions", action="store_true", help="nothing but ours beside annbatch's")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a round, for each file and order")
    options = parser.parse_args()
    source: Path = options.file or make_atlas(SIZES[options.size])
    label = options.label or SIZES[options.size].label
    size = os.path.getsize(source)
    beside = source.parent
    about: dict[str, dict[str, Any]] = {"source": {"size": 1.0}}
    with tempfile.TemporaryDirectory(dir=beside if os.access(beside, os.W_OK) else None) as folder:
        converted = [{"data": label, **row} for row in conversions(source, Path(folder), options.rounds)]
        show_conversions(converted)
        keep("conversions", label, converted, rounds=options.rounds)
        if options.only_conversions:
            return
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
