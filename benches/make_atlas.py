"""Makes the data of the benchmarks: a seeded atlas of counts, written block by block as an .h5ad file.

    python benches/make_atlas.py --size 200k

A cell has a type and a donor; its counts are Poisson draws of depth x profile of the type x the donor's taste for each
gene. Depths are lognormal, set so that a cell shows as many genes as asked for. Rows are sorted by donor, as in real
atlases. Chunks are those that h5py guesses, and gzip is at 4, its default: as of ``write_h5ad(compression="gzip")``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from profiles import Profiles, load_profiles

#: Where everything that the benchmarks make lies; not in version control.
FOLDER = Path(__file__).resolve().parent.parent / "bench-data"

#: Spread (in log) of a cell's depth, and of a donor's taste.
DEPTH_SPREAD, DONOR_SPREAD = 0.55, 0.4
BLOCK = 512


@dataclass(frozen=True)
class Shape:
    """What is to be made; the file is kept under a name of these."""

    n_obs: int
    n_vars: int
    genes_per_cell: int
    donors: int = 40

    @property
    def label(self) -> str:
        """Short name."""
        return f"{self.n_obs // 1000}k x {self.n_vars // 1000}k"


SIZES = {
    "small": Shape(20_000, 5_000, 600),
    "20k": Shape(20_000, 30_000, 1_620),
    "200k": Shape(200_000, 30_000, 1_620, donors=100),
}


def make_atlas(shape: Shape, *, seed: int = 0, base: Path | None = None, folder: Path = FOLDER) -> Path:
    """Return the file of that shape, made if it is not there yet."""
    source = "" if base is None else f"-{base.stem}"
    path = folder / f"atlas-{shape.n_obs}x{shape.n_vars}-{shape.genes_per_cell}-seed{seed}{source}.h5ad"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    began = time.perf_counter()
    print(f"making {path.name} (kept in {folder.name}/)", flush=True)
    _write(part, shape, seed, base)
    part.rename(path)
    print(f"made in {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1e6:.0f} MB", flush=True)
    return path


def _write(path: Path, shape: Shape, seed: int, base: Path | None) -> None:
    rng = np.random.default_rng(seed)
    profiles = load_profiles(base, shape.n_vars, rng)
    kind = rng.choice(len(profiles.names), shape.n_obs, p=profiles.weights)
    donor = np.sort(rng.integers(shape.donors, size=shape.n_obs))
    depth = np.exp(rng.normal(0, DEPTH_SPREAD, shape.n_obs))
    depth *= _scale(profiles, shape.genes_per_cell, rng)
    taste = np.exp(rng.normal(0, DONOR_SPREAD, (shape.donors, shape.n_vars)))

    def block(start: int) -> sp.csr_matrix:
        rows = slice(start, min(start + BLOCK, shape.n_obs))
        rate = profiles.shares[kind[rows]] * taste[donor[rows]]
        rate *= (depth[rows] / rate.sum(1))[:, None]
        return sp.csr_matrix(np.random.default_rng([seed, start]).poisson(rate).astype(np.float32))

    _write_frame(path, shape, _obs(profiles, kind, donor))
    with h5py.File(path, "r+") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        _append(file["X"], _ahead(pool, block, range(0, shape.n_obs, BLOCK)), shape)


def _scale(profiles: Profiles, genes: int, rng: np.random.Generator) -> float:
    """The depth at which cells show ``genes`` genes on average."""
    spread = np.exp(rng.normal(0, DEPTH_SPREAD, 64))
    kinds = rng.choice(len(profiles.names), 64, p=profiles.weights)
    low, high = 10.0, 1e7
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        shown = np.mean(
            [(1 - np.exp(-middle * s * profiles.shares[k])).sum() for s, k in zip(spread, kinds, strict=True)]
        )
        low, high = (middle, high) if shown < genes else (low, middle)
    return low


def _obs(profiles: Profiles, kind: np.ndarray, donor: np.ndarray) -> pd.DataFrame:
    columns = {
        "cell_type": pd.Categorical.from_codes(kind, profiles.names),
        "donor_id": pd.Categorical.from_codes(donor, [f"donor_{i:03d}" for i in range(donor.max() + 1)]),
    }
    return pd.DataFrame(columns, index=[f"cell_{i:07d}" for i in range(len(kind))])


def _write_frame(path: Path, shape: Shape, obs: pd.DataFrame) -> None:
    var = pd.DataFrame(index=[f"gene_{i:05d}" for i in range(shape.n_vars)])
    empty = sp.csr_matrix((shape.n_obs, shape.n_vars), dtype=np.float32)
    anndata.AnnData(empty, obs=obs, var=var).write_h5ad(path, compression="gzip")


def _append(group: h5py.Group, blocks: Iterator[sp.csr_matrix], shape: Shape) -> None:
    """Replace the empty matrix in ``group`` by the blocks, one after another."""
    about = shape.n_obs * shape.genes_per_cell
    chunk = h5py._hl.filters.guess_chunk((about,), (None,), 4)
    for name in ("data", "indices", "indptr"):
        del group[name]
    keywords = {"shape": (0,), "maxshape": (None,), "chunks": chunk, "compression": "gzip"}
    data = group.create_dataset("data", dtype="f4", **keywords)
    indices = group.create_dataset("indices", dtype="i4", **keywords)
    starts = [np.zeros(1, np.int64)]
    for block in blocks:
        end = data.shape[0] + block.nnz
        starts.append(data.shape[0] + block.indptr[1:].astype(np.int64))
        for dataset, values in ((data, block.data), (indices, block.indices)):
            dataset.resize((end,))
            dataset[end - block.nnz :] = values
    indptr = np.concatenate(starts)
    group.create_dataset("indptr", data=indptr.astype(np.int32 if indptr[-1] < 2**31 else np.int64), compression="gzip")


def _ahead(pool: ThreadPoolExecutor, work, arguments):
    """Results in order, a few made ahead."""
    waiting = deque()
    for argument in arguments:
        waiting.append(pool.submit(work, argument))
        if len(waiting) > 3:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def main() -> None:
    """Make a file of a size and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default=os.environ.get("SIZE", "small"))
    parser.add_argument("--base", type=Path, help="real count file (.h5ad) to take profiles from; default: scanpy's")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(make_atlas(SIZES[given.size], seed=given.seed, base=given.base))


if __name__ == "__main__":
    main()
