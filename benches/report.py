"""Renders bench-data/*.csv: the tables between the markers of docs/benchmarks.md, and the charts
docs/benchmarks.png and docs/speed.png.

    python benches/report.py

Every kind of benchmark and every label of data has a section. A section whose results are not in bench-data stays as it
is on the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import chart
import first_batch
import gpu
import memory
import pandas as pd
import quality
import rates
import scvi_loader
import sets
import storage
import tokens
import training
from keep import MACHINES, heading
from make_atlas import FOLDER
from page import PAGE, headings, with_sections

#: The kinds of benchmark, each with what makes a table of its results.
TABLES: dict[str, Callable[[pd.DataFrame], str]] = {
    "results": rates.table,
    "first batch": first_batch.table,
    "storage": storage.table,
    "training": training.table,
    "gpu": gpu.table,
    "memory": memory.table,
    "scvi loader": scvi_loader.table,
    "tokens": tokens.table,
    "sets": sets.table,
    "quality": quality.table,
}
#: Versions that matter where annfeed is alone.
_ALONE = ("python", "annfeed", "torch", "numpy", "anndata")


def main() -> None:
    """Render what is there."""
    machines = json.loads(MACHINES.read_text()) if MACHINES.exists() else {}
    text = PAGE.read_text()
    for kind, table in TABLES.items():
        path = FOLDER / f"{kind.replace(' ', '_')}.csv"
        if not path.exists():
            continue
        results = pd.read_csv(path)
        sections = {}
        for label in results["data"].unique():
            found = _of(results, label)
            about = _about(found, machines.get(heading(kind, label)), alone=kind != "results")
            sections[heading(kind, label)] = "\n\n".join([*about, table(found)])
        text = with_sections(text, kind, sections)
        PAGE.write_text(text)
        if kind == "results" and (first := headings(text, kind)[0]) in sections:
            chart.draw(first, chart.rates_of_rounds(_of(results, first)))
    print("rendered docs/benchmarks.md")


def _of(results: pd.DataFrame, label: str) -> pd.DataFrame:
    return results[results["data"] == label]


def _about(results: pd.DataFrame, machine: dict[str, Any] | None, alone: bool) -> list[str]:
    """On what it was measured, a paragraph; none where nobody knows."""
    if machine is None or "file" not in machine:
        return []
    others = results["others"].median()
    busy = "" if pd.isna(others) else f" other programs took {others:.0%} of the cores meanwhile (median);"
    found = {name: version for name, version in machine["versions"].items() if not alone or name in _ALONE}
    versions = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    missing = [name for name, version in found.items() if version is None]
    window = f" Windows of {results['window'].iloc[0]:,}, batches" if alone else " Batches"
    rounds = f" {machine['rounds']} rounds" if "rounds" in machine else ""
    rounds += f" of {machine['seconds']:g} s" if "seconds" in machine else ""
    rounds += "," if rounds else ""
    batch = results["batch"].iloc[0] if "batch" in results else "several sizes"
    device = f" on an {machine['device']};" if "device" in machine else ""
    return [
        f"{machine['file']}.{window} of {batch}; warm page cache; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; annfeed on "
        f"{machine['cores']} threads;{device}{busy}{rounds} {machine['date']}; "
        + versions
        + (f"; not installed: {', '.join(missing)}." if missing else ".")
    ]


if __name__ == "__main__":
    main()
