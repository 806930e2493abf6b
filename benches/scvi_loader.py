"""scvi-tools' loader: `annfeed.AnnDataLoader` over a backed AnnData, and beside the stock class over data in memory.

    python benches/scvi_loader.py                # SIZE=small, or the size in the environment

Cells in a random order, dense. Each setting runs in a process of its own, whose memory is the peak above what it held
before the file was opened. The stock class over a backed AnnData is not here: it gives rows of other cells.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
from contender import Batch, Contender, numbered
from keep import keep, layout
from machine import OthersMeter
from measure import measure
from oracle import check
from settings import Settings, add_arguments, chosen, warm
from windows import add_rounds, seconds_of

#: Where the data lies, whose loader it is, cells of a batch, cache, and what is timed.
SETTINGS = [
    ("backed", "annfeed", 128, "off", "any"),
    ("backed", "annfeed", 512, "off", "any"),
    ("backed", "annfeed", 128, "on", "first"),
    ("backed", "annfeed", 128, "on", "later"),
    ("memory", "annfeed", 128, "off", "any"),
    ("memory", "stock", 128, "off", "any"),
]


class ScviLoader(Contender):
    """A loader over a manager of SCVI."""

    def open(self, settings: Settings, with_rows: bool) -> None:
        from scvi.model import SCVI

        adata = numbered(settings.file)
        if self.options["data"] == "memory":
            adata = adata.to_memory()
        # A covariate is delivered beside X.
        SCVI.setup_anndata(adata, continuous_covariate_keys=["row"] if with_rows else None)
        manager = SCVI._get_most_recent_anndata_manager(adata, required=True)
        self.loader = self._loader(manager, settings)

    def _loader(self, manager: Any, settings: Settings) -> Any:
        common = {"batch_size": settings.batch, "shuffle": True}
        if self.options["loader"] == "stock":
            from scvi.dataloaders import AnnDataLoader

            return AnnDataLoader(manager, **common)
        from annfeed import AnnDataLoader

        cache = {"off": 0, "on": settings.cache}[self.cache]
        return AnnDataLoader(manager, **common, window=settings.window, cache=cache)

    def epoch(self) -> Iterator[Batch]:
        for batch in self.loader:
            rows = batch.get("extra_continuous_covs")
            yield batch["X"], None if rows is None else rows.numpy().ravel().astype(int)


def contender(data: str, loader: str, cache: str, epochs: str) -> ScviLoader:
    """Return one of them."""
    options = {"data": data, "loader": loader}
    return ScviLoader(f"{loader}, {data}", needs="scvi", cache=cache, epochs=epochs, options=options)


def main() -> None:
    """Check, measure round after round, and write bench-data/scvi_loader.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_rounds(parser)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        *which, seconds = json.loads(given.one)
        print("\n" + json.dumps(measure(contender(*which), Settings.from_json(given.settings), seconds)), flush=True)
        return
    label, settings = chosen(given)
    warm(settings.file)
    rows: list[dict[str, Any]] = []
    for turn in range(given.rounds):
        for data, loader, batch, cache, epochs in SETTINGS:
            meter, of_batch = OthersMeter(), replace(settings, batch=batch)
            which = contender(data, loader, cache, epochs)
            if turn == 0:
                check(which, of_batch)
            command = [sys.executable, "-W", "ignore", __file__, "--settings", of_batch.as_json()]
            command += ["--one", json.dumps([data, loader, cache, epochs, seconds_of(given)])]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found = json.loads(answer.strip().splitlines()[-1])
            row = {"data": label, "round": turn, "of": data, "loader": loader, "batch": batch}
            row |= {"cache": settings.cache if cache == "on" else "off", "epochs": epochs, "window": settings.window}
            rows.append(row | {k: found[k] for k in ("cells_per_s", "grown_mb")} | {"others": meter.share()})
    keep("scvi loader", label, rows, file=layout(settings.file), rounds=given.rounds, seconds=seconds_of(given))
    print(table(pd.DataFrame(rows)))


def table(rows: pd.DataFrame) -> str:
    """Medians over the rounds; ratios to the stock class in memory are taken within a round."""
    lines = [
        "| loader | data | batch | cache | cells/s | / stock in memory | memory, MB |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    stock = rows[rows["loader"] == "stock"].set_index("round")["cells_per_s"]
    for (loader, data, batch, cache, epochs), found in rows.groupby(
        ["loader", "of", "batch", "cache", "epochs"], sort=False
    ):
        ratio = (found.set_index("round")["cells_per_s"] / stock).median()
        epoch = {"first": ", first epoch", "later": ", second epoch"}.get(epochs, "")
        lines.append(
            f"| {loader} | {data} | {batch} | {cache}{epoch} | {found['cells_per_s'].median():,.0f} | {ratio:.2f} "
            f"| {found['grown_mb'].median():,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
