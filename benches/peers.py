"""The libraries that annfeed is compared with; imports are inside the classes, what is not installed is skipped."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from contender import Batch, Contender, as_csr, as_dense, numbered
from settings import Settings, cores


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
