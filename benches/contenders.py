"""Who is compared: a small class for each library, and the list of settings in which they run.

A contender opens the file and then gives epochs of batches ``(X, rows)``; ``rows`` are the file rows of the batch, for
the check that comes before timing (annfeed's only where ``with_rows``: a timed run delivers X alone). Imports of peers
are inside the classes: what is not installed is skipped.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Batch = tuple[Any, "np.ndarray | None"]


@dataclass(frozen=True)
class Settings:
    """What is the same for all contenders of a run."""

    file: Path
    folder: Path
    window: int = 16_384
    batch: int = 128
    cache: str = "2GiB"
    seed: int = 0

    @property
    def uncompressed(self) -> Path:
        """The file's twin without compression."""
        return self.folder / f"{self.file.stem}-uncompressed.h5ad"


@dataclass
class Contender:
    """One library in one setting.

    ``epochs`` says what is timed: "any" (a few seconds of reading), "first" (a whole epoch, the first) or "later"
    (after one epoch that is not timed). ``fetch`` says how many rows it reads at a time: "window" or "batch".
    """

    name: str
    needs: str = "annfeed"
    order: str = "exact random"
    block: int | str = 1
    output: str = "dense"
    fetch: str = "window"
    cache: str = "off"
    workers: int = 0
    epochs: str = "any"
    stored: str = "as is"
    genes: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        try:
            importlib.import_module(self.needs)
        except Exception as error:
            return f"{self.needs} cannot be imported ({error})"
        return None

    def path(self, settings: Settings) -> Path:
        """The file that it reads."""
        return settings.uncompressed if self.stored == "uncompressed" else settings.file

    def reads(self, settings: Settings) -> Path:
        """What lies in the page cache when it is timed: its file, or a folder."""
        return self.path(settings)

    def columns(self, n_vars: int) -> np.ndarray | None:
        """The genes that it delivers; None for all."""
        return None if self.genes is None else np.arange(0, n_vars, max(1, n_vars // self.genes))[: self.genes]

    def prepare(self, settings: Settings) -> None:
        """Make what it needs besides the file, once; not timed."""

    def open(self, settings: Settings, with_rows: bool) -> None:
        """Open the file; part of the time to the first batch."""
        raise NotImplementedError

    def epoch(self) -> Iterator[Batch]:
        """The batches of an epoch."""
        raise NotImplementedError


class Annfeed(Contender):
    """`AnnDataset.get_optimized_dataloader`."""

    def open(self, settings: Settings, with_rows: bool) -> None:
        self.dataset = self._dataset(settings, with_rows)
        self.loader = self._loader(settings)

    def epoch(self) -> Iterator[Batch]:
        for batch in self.loader:
            rows = batch.get("obs_row")
            yield batch["X"], None if rows is None else rows.numpy()

    def _dataset(self, settings: Settings, with_rows: bool) -> Any:
        from annfeed import AnnDataset

        path = self.path(settings)
        n_vars = n_vars_of(path)
        return AnnDataset(
            numbered(path) if with_rows else path,
            obs_columns=["row"] if with_rows else [],
            chunk_size=settings.window,
            output=self.output,
            var_subset=self.columns(n_vars),
            cache=settings.cache if self.cache == "on" else 0,
        )

    def _loader(self, settings: Settings) -> Any:
        shuffle = self.order != "file"
        keywords = {"shuffle": shuffle, "block_size": self.block} if shuffle else {"shuffle": False}
        return self.dataset.get_optimized_dataloader(settings.batch, seed=settings.seed, **keywords)


class AnnfeedPlain(Annfeed):
    """A plain torch DataLoader over an `AnnDataset`, which reads batch by batch."""

    def _loader(self, settings: Settings) -> Any:
        import torch

        return torch.utils.data.DataLoader(
            self.dataset,
            batch_size=settings.batch,
            shuffle=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=self.dataset.get_collate_fn(),
            generator=torch.Generator().manual_seed(settings.seed),
        )


class AnndataBacked(Contender):
    """``X[sorted rows].toarray()`` of a backed AnnData, batch by batch."""

    def open(self, settings: Settings, with_rows: bool) -> None:
        import anndata

        self.x = anndata.read_h5ad(self.path(settings), backed="r").X
        self.batch, self.rng = settings.batch, np.random.default_rng(settings.seed)

    def epoch(self) -> Iterator[Batch]:
        import torch

        order = self.rng.permutation(self.x.shape[0])
        for start in range(0, len(order), self.batch):
            rows = np.sort(order[start : start + self.batch])
            yield torch.from_numpy(self.x[rows].toarray()), rows


class AnnLoader(Contender):
    """anndata's own torch loader, on a backed AnnData."""

    def missing(self) -> str | None:
        try:
            from anndata.experimental import AnnLoader as Loader  # noqa: F401
        except ImportError as error:
            return f"this anndata has no AnnLoader ({error})"
        return None

    def open(self, settings: Settings, with_rows: bool) -> None:
        from anndata.experimental import AnnLoader as Loader

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.loader = Loader(numbered(self.path(settings)), batch_size=settings.batch, shuffle=True)

    def epoch(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield batch.X, batch.obs_names.astype(np.int64).to_numpy()


class ScipyInMemory(Contender):
    """The whole matrix loaded with anndata, then ``X[rows].toarray()``."""

    def open(self, settings: Settings, with_rows: bool) -> None:
        import anndata

        self.x = anndata.read_h5ad(self.path(settings)).X
        self.batch, self.rng = settings.batch, np.random.default_rng(settings.seed)

    def epoch(self) -> Iterator[Batch]:
        import torch

        order = self.rng.permutation(self.x.shape[0])
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            yield torch.from_numpy(self.x[rows].toarray()), rows


class ScDataset(Contender):
    """scDataset: blocks shuffled over the file, a window fetched from a backed AnnData, shuffled, cut into batches."""

    def open(self, settings: Settings, with_rows: bool) -> None:
        import anndata
        from scdataset import BlockShuffling, scDataset
        from torch.utils.data import DataLoader

        x = anndata.read_h5ad(self.path(settings), backed="r").X
        dense = self.output == "dense"

        def make(window: tuple[Any, np.ndarray], positions: np.ndarray) -> Batch:
            part = window[0][positions]
            return as_dense(part) if dense else as_csr(part), window[1][positions]

        dataset = scDataset(
            _Rows(x),
            BlockShuffling(block_size=self.block),
            batch_size=settings.batch,
            fetch_factor=settings.window // settings.batch,
            fetch_callback=lambda collection, rows: (collection.x[rows], np.asarray(rows)),
            batch_callback=make,
            seed=settings.seed,
        )
        self.loader = DataLoader(dataset, batch_size=None)

    def epoch(self) -> Iterator[Batch]:
        yield from self.loader


@dataclass
class _Rows:
    """A backed matrix with the length that scDataset asks for."""

    x: Any

    def __len__(self) -> int:
        return self.x.shape[0]


class Annbatch(Contender):
    """annbatch, from its own zarr copy of the file, converted once (in the file's order; not timed)."""

    def _copy(self, settings: Settings) -> Path:
        return settings.folder / f"{settings.file.stem}.zarr"

    def reads(self, settings: Settings) -> Path:
        return self._copy(settings)

    def prepare(self, settings: Settings) -> None:
        if self._copy(settings).exists():
            return
        import anndata
        import zarr
        from annbatch import write_sharded

        print(f"annbatch: converting {settings.file.name}", flush=True)
        adata = anndata.read_h5ad(settings.file)
        part = self._copy(settings).with_suffix(".part")
        group = zarr.open_group(part, mode="w", zarr_format=3)
        write_sharded(group, anndata.AnnData(adata.X, obs=adata.obs[[]], var=adata.var[[]]))
        part.rename(self._copy(settings))

    def open(self, settings: Settings, with_rows: bool) -> None:
        import anndata
        import zarr
        from annbatch import Loader
        from annbatch.samplers import RandomSampler

        threads = cores()
        zarr.config.set(
            {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": threads},
        )
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        group = zarr.open_group(self._copy(settings), mode="r")
        sampler = RandomSampler(
            chunk_size=self.block,
            preload_nchunks=settings.window // self.block,
            batch_size=settings.batch,
            rng=np.random.default_rng(settings.seed),
        )
        self.loader = Loader(batch_sampler=sampler, preload_to_gpu=False, to="torch", return_index=True)
        x = anndata.io.sparse_dataset(group["X"])
        self.loader.add_adata(anndata.AnnData(x, obs=anndata.io.read_elem(group["obs"])))

    def epoch(self) -> Iterator[Batch]:
        for batch in self.loader:
            x = batch["X"]
            yield x.to_dense() if self.output == "dense" else x, np.asarray(batch["index"])


class Limit(Contender):
    """The yardstick (limit.rs): every chunk inflated once, in file order, on all cores. It makes no batches."""

    def missing(self) -> str | None:
        return None if shutil.which("cargo") else "cargo is not there to build limit.rs"

    def prepare(self, settings: Settings) -> None:
        self._values = self._run(settings)["values"]

    def check(self, settings: Settings) -> int:
        """Whether it saw every value; returns the number of rows."""
        import h5py

        self.prepare(settings)
        with h5py.File(settings.file) as file:
            assert self._values == len(file["X/data"]), f"{self.name}: saw {self._values} values"
            return int(file["X"].attrs["shape"][0])

    def measure(self, settings: Settings, seconds: float) -> dict[str, float]:
        """Read the file until ``seconds`` are over; there is no first batch and no memory to speak of."""
        cells = took = 0.0
        while took < seconds:
            result = self._run(settings)
            cells, took = cells + result["cells"], took + result["seconds"]
        return {"cells": int(cells), "seconds": round(took, 4), "cells_per_s": round(cells / took, 1)}

    def _run(self, settings: Settings) -> dict[str, float]:
        command = ["cargo", "bench", "--quiet", "--locked", "--bench", "limit", "--"]
        command += [str(settings.file), str(cores()), self.options["mode"]]
        root = Path(__file__).resolve().parent.parent
        answer = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout
        return json.loads(answer.strip().splitlines()[-1])


def as_dense(x: Any) -> Any:
    """Dense torch tensor of a scipy matrix."""
    import torch

    return torch.from_numpy(x.toarray())


def as_csr(x: Any) -> Any:
    """Sparse torch tensor of a scipy matrix, not checked: it was valid."""
    import torch

    parts = (torch.from_numpy(part) for part in (x.indptr, x.indices, x.data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR support beta
        return torch.sparse_csr_tensor(*parts, size=x.shape, check_invariants=False)


def numbered(path: Path) -> Any:
    """The file as a backed AnnData whose obs, and names of obs, are the number of each row."""
    import anndata
    import pandas as pd

    adata = anndata.read_h5ad(path, backed="r")
    rows = np.arange(adata.n_obs)
    adata.obs = pd.DataFrame({"row": rows}, index=rows.astype(str))
    return adata


def n_vars_of(path: Path) -> int:
    """Columns of X."""
    import h5py

    with h5py.File(path) as file:
        return int(file["X"].attrs["shape"][1])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _annbatch(block: int) -> Contender:
    return Annbatch(f"annbatch block {block} CSR", "annbatch", "blocks", block, "csr", stored="own zarr")


def _blocks(block: int | str, output: str) -> Contender:
    label = "CSR" if output == "csr" else output
    return Annfeed(f"annfeed block {block} {label}", order="blocks", block=block, output=output)


#: In this order they run: those that are compared run next to each other, as near in time as can be.
CONTENDERS: list[Contender] = [
    AnnLoader("AnnLoader backed", "anndata", fetch="batch"),
    Annfeed("annfeed random dense"),
    AnndataBacked("anndata backed", "anndata", fetch="batch"),
    Annfeed("annfeed random dense, cache, first epoch", cache="on", epochs="first"),
    Annfeed("annfeed random dense, cache, later epochs", cache="on", epochs="later"),
    ScipyInMemory("scipy in memory", "scipy", fetch="batch", cache="all"),
    AnnfeedPlain("annfeed plain DataLoader, cache, later epochs", cache="on", epochs="later", fetch="batch"),
    AnnfeedPlain("annfeed plain DataLoader, 2 workers", workers=2, cache="on", epochs="later", fetch="batch"),
    _blocks(16, "dense"),
    ScDataset("scDataset block 16 dense", "scdataset", "blocks", 16),
    _blocks("auto", "dense"),
    _blocks(64, "dense"),
    ScDataset("scDataset block 64 dense", "scdataset", "blocks", 64),
    ScDataset("scDataset block 16 CSR", "scdataset", "blocks", 16, "csr"),
    _blocks(16, "csr"),
    _annbatch(16),
    _blocks("auto", "csr"),
    _blocks(64, "csr"),
    _annbatch(64),
    _annbatch(512),
    _blocks(512, "csr"),
    Annfeed("annfeed block 16 CSR, uncompressed", order="blocks", block=16, output="csr", stored="uncompressed"),
    ScDataset("scDataset block 16 CSR, uncompressed", "scdataset", "blocks", 16, "csr", stored="uncompressed"),
    Annfeed("annfeed file order CSR", order="file", output="csr"),
    Limit("limit: rows as CSR", "torch", "file", output="csr", options={"mode": "csr"}),
    Annfeed("annfeed file order 2,000 genes", order="file", genes=2_000),
    Limit("limit: 2,000 genes", "torch", "file", genes=2_000, options={"mode": "genes"}),
    Limit("limit: dense", "torch", "file", options={"mode": "dense"}),
    Annfeed("annfeed file order dense", order="file"),
]

BY_NAME = {contender.name: contender for contender in CONTENDERS}

#: What is compared with what: ours, theirs, and the ratio that we aim for on the reference shape (2 cores).
COMPARISONS: list[tuple[str, str, float | None]] = [
    ("annfeed random dense", "anndata backed", 9),
    ("annfeed random dense", "AnnLoader backed", None),
    ("annfeed random dense, cache, first epoch", "anndata backed", 40),
    ("annfeed random dense, cache, later epochs", "anndata backed", 80),
    ("annfeed random dense, cache, later epochs", "scipy in memory", 1.5),
    ("annfeed plain DataLoader, cache, later epochs", "annfeed random dense, cache, later epochs", 0.5),
    ("annfeed plain DataLoader, 2 workers", "annfeed random dense, cache, later epochs", 0.5),
    ("annfeed block 16 dense", "scDataset block 16 dense", 5),
    ("annfeed block auto dense", "scDataset block 16 dense", 8),
    ("annfeed block 64 dense", "scDataset block 64 dense", None),
    ("annfeed block 16 CSR", "scDataset block 16 CSR", None),
    ("annfeed block 16 CSR", "annbatch block 16 CSR", 1.1),
    ("annfeed block 64 CSR", "annbatch block 64 CSR", 1.2),
    ("annfeed block 512 CSR", "annbatch block 512 CSR", 1.0),
    ("annfeed block auto CSR", "annbatch block 16 CSR", 2),
    ("annfeed block 16 CSR, uncompressed", "scDataset block 16 CSR, uncompressed", 3),
    ("annfeed file order CSR", "limit: rows as CSR", 0.85),
    ("annfeed file order 2,000 genes", "limit: 2,000 genes", 0.85),
    ("annfeed file order dense", "limit: dense", 0.85),
]
