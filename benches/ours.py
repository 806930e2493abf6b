"""annfeed as a contender: its own loader, and a plain torch DataLoader over its dataset."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contender import Batch, Contender, n_vars_of, numbered
from settings import Settings

#: The orders that the benchmarks of annfeed alone go through: what a contender's ``order`` and ``block`` are in each.
ORDERS: dict[str, tuple[str, int | str]] = {
    "file order": ("file", 1),
    "block 16": ("blocks", 16),
    "block auto": ("blocks", "auto"),
    "exact random": ("exact random", 1),
}


def annfeed_in(order: str, output: str, cache: str = "off", **options: Any) -> Annfeed:
    """annfeed in one of `ORDERS`."""
    kind, block = ORDERS[order]
    name = f"annfeed {order} {output}" + ("" if cache == "off" else ", cache")
    return Annfeed(name, order=kind, block=block, output=output, cache=cache, options=options)


class Annfeed(Contender):
    """`AnnDataset.get_optimized_dataloader`."""

    def open(self, settings: Settings, with_rows: bool) -> None:
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
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
            obs_columns=["row"] if with_rows else self.options.get("obs_columns", []),
            window=settings.window,
            output=self.output,
            var_subset=self.columns(n_vars),
            cache=self._cache(settings),
        )

    def _cache(self, settings: Settings) -> int | str:
        from annfeed.memory.budget import cache_budget

        if self.cache == "half":
            return half_of_rows(self.path(settings))
        if self.cache == "on":  # of each worker, where there are some
            return cache_budget(settings.cache) * max(1, self.workers)
        return {"off": 0}.get(self.cache, self.cache)

    def _loader(self, settings: Settings) -> Any:
        shuffle = self.order != "file"
        keywords = {"shuffle": shuffle, "block_size": self.block} if shuffle else {"shuffle": False}
        return self.dataset.get_optimized_dataloader(
            settings.batch, seed=settings.seed, num_workers=self.workers, **keywords
        )


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


def half_of_rows(path: Path) -> int:
    """Half the bytes that the cache takes for all rows: counts below 256, and columns in 2 bytes where they fit."""
    import h5py

    with h5py.File(path) as file:
        return len(file["X/data"]) * (3 if n_vars_of(path) <= 1 << 16 else 5) // 2
