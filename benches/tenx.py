"""Rates of a Cell Ranger .h5 beside an .h5ad of the same matrix, types, chunks and filters; both read by annfeed.

    python benches/tenx.py                          # SIZE=small, or the size in the environment
    python benches/tenx.py --size 200k --rounds 7

Both are made of the atlas of the benchmarks, as Cell Ranger writes: gzip at 4 after shuffle, int32 counts, int64 row
indices, chunks of 80,000. Rates are of CSR batches of 128 cells without a cache, in rounds that take turns between the
files; every row of every batch is compared with the atlas, outside of the time. Medians count, ratios within a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from keep import keep
from make_atlas import FOLDER, SIZES, make_atlas

ORDERS: dict[str, dict[str, Any]] = {
    "block auto": {"block_size": "auto"},
    "block 64": {"block_size": 64},
    "file order": {"shuffle": False},
}
#: What Cell Ranger gives the arrays.
STORED: dict[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "chunks": (80_000,)}
DTYPES = {"data": np.int32, "indices": np.int64, "indptr": np.int64}
#: Values that are copied together: whole chunks.
STEP = 100 * 80_000


def made(atlas: Path, folder: Path) -> dict[str, Path]:
    """Return the files by kind, made of the atlas if they are not there yet."""
    paths = {"10x": folder / f"{atlas.stem}-10x.h5", "h5ad": folder / f"{atlas.stem}-as-10x.h5ad"}
    for kind, path in paths.items():
        if path.exists():
            continue
        unfinished = path.with_suffix(".unfinished")
        with h5py.File(atlas) as source, h5py.File(unfinished, "w") as file:
            shape = tuple(int(n) for n in source["X"].attrs["shape"])
            (_write_tenx if kind == "10x" else _write_h5ad)(source, file, shape)
        unfinished.rename(path)
    return paths


def _write_tenx(source: h5py.File, file: h5py.File, shape: tuple[int, int]) -> None:
    group = file.create_group("matrix")
    _copy_arrays(source["X"], group)
    n_cells, n_genes = shape
    group["shape"] = np.array([n_genes, n_cells], np.int32)
    group["barcodes"] = np.array([f"{i:016}-1".encode() for i in range(n_cells)])
    texts = {"id": "ENSG{:011}", "name": "gene {}", "feature_type": "Gene Expression", "genome": "GRCh38"}
    for name, text in texts.items():
        group[f"features/{name}"] = np.array([text.format(i).encode() for i in range(n_genes)])


def _write_h5ad(source: h5py.File, file: h5py.File, shape: tuple[int, int]) -> None:
    for name in source.attrs:
        file.attrs[name] = source.attrs[name]
    for name in ("obs", "var"):
        source.copy(name, file)
    group = file.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
    _copy_arrays(source["X"], group)


def _copy_arrays(source: h5py.Group, target: h5py.Group) -> None:
    for name, dtype in DTYPES.items():
        old = source[name]
        options = {**STORED, "chunks": (min(STORED["chunks"][0], len(old)),)}
        new = target.create_dataset(name, len(old), dtype, **options)
        for start in range(0, len(old), STEP):
            new[start : start + STEP] = old[start : start + STEP].astype(dtype)


class Oracle:
    """What each row of the atlas holds: the number of its values, their sum, and the sum of columns times values."""

    def __init__(self, atlas: Path) -> None:
        with h5py.File(atlas) as file:
            x = file["X"]
            self._starts = x["indptr"][...].astype(np.int64)
            values, columns = x["data"][...].astype(np.float64), x["indices"][...].astype(np.float64)
        self.facts = np.stack(_facts(self._starts, columns, values))

    def check(self, index: np.ndarray, x: Any) -> None:
        """Compare a batch."""
        parts = [part.numpy() for part in (x.crow_indices(), x.col_indices(), x.values())]
        found = np.stack(_facts(parts[0], parts[1].astype(np.float64), parts[2].astype(np.float64)))
        np.testing.assert_array_equal(found, self.facts[:, index])


def _facts(starts: np.ndarray, columns: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    lengths = np.diff(starts)

    def summed(of: np.ndarray) -> np.ndarray:
        # Whole numbers far below 2**53: exact in any order.
        return np.diff(np.append(0, np.cumsum(of))[starts])

    return [lengths.astype(np.float64), summed(values), summed(values * (columns + 1))]


def rate(path: Path, order: dict[str, Any], seconds: float, seed: int, oracle: Oracle) -> float:
    """Return the cells a second, from the second batch on."""
    from annfeed import AnnDataset

    with AnnDataset(path, obs_columns=[], cache=0, output="csr") as dataset:
        loader = dataset.get_optimized_dataloader(128, seed=seed, return_index=True, **order)
        seen, cells, began = [], 0, None
        for batch in loader:
            if began is None:
                began = time.perf_counter()
                continue
            cells += len(batch["index"])
            seen.append((batch["index"].numpy(), batch["X"]))
            if (taken := time.perf_counter() - began) > seconds:
                break
    for index, x in seen:
        oracle.check(index, x)
    return cells / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default=os.environ.get("SIZE", "small"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a round, for each file and order")
    options = parser.parse_args()
    shape = SIZES[options.size]
    atlas = make_atlas(shape)
    files, oracle = made(atlas, FOLDER), Oracle(atlas)
    rows = []
    for turn in range(options.rounds):
        for name, order in ORDERS.items():
            for kind, path in list(files.items())[:: 1 if turn % 2 else -1]:
                found = rate(path, order, options.seconds, turn, oracle)
                rows.append({"data": shape.label, "order": name, "file": kind, "round": turn, "cells_per_s": found})
    print(f"{'':<14}" + "".join(f"{kind:>14}" for kind in files) + f"{'10x / h5ad':>14}")
    for name in ORDERS:
        by_kind = {
            kind: [row["cells_per_s"] for row in rows if (row["order"], row["file"]) == (name, kind)] for kind in files
        }
        ratio = statistics.median(a / b for a, b in zip(by_kind["10x"], by_kind["h5ad"], strict=True))
        medians = "".join(f"{statistics.median(found):>14,.0f}" for found in by_kind.values())
        print(f"{name:<14}{medians}{ratio:>14.3f}")
    keep("10x", shape.label, rows, rounds=options.rounds)


if __name__ == "__main__":
    main()
