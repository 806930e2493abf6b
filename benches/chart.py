"""The charts: docs/benchmarks.png with every contender, docs/speed.png with those that the README shows.

    python benches/chart.py    # draws both again from the table on the page

A dot is the median over the rounds; the line through it goes from the slowest round to the fastest, where the rounds
are at hand (bench-data/results.csv, with which `report.py` draws). Each picture has its figures in its metadata, so
that a test can compare them with the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from page import PAGE, headings, section

OURS, CACHED, PEERS, YARDSTICKS = "#c2410c", "#f59e0b", "#57534e", "#a8a29e"
KINDS = {OURS: "annfeed, from the file", CACHED: "annfeed, from its cache", PEERS: "others", YARDSTICKS: "limits"}
#: Groups of the long chart, each with the order and block of its contenders.
ORDERS = [
    ("exact random order", "exact random", None),
    ("blocks of 16", "blocks", "16"),
    ("blocks cut at chunks", "blocks", "auto"),
    ("blocks of 64", "blocks", "64"),
    ("blocks of 512", "blocks", "512"),
    ("file order", "file", None),
]
#: Groups of the short chart: the contenders, and what they are called there.
SHORT: list[tuple[str, dict[str, str]]] = [
    (
        "random order, dense batches",
        {
            "annfeed random dense": "annfeed, no cache",
            "annfeed random dense, cache, first epoch": "annfeed, cache, first epoch",
            "annfeed random dense, cache, later epochs": "annfeed, cache, later epochs",
            "anndata backed": "anndata, backed",
            "AnnLoader backed": "AnnLoader, backed",
        },
    ),
    (
        "blocks of 16, dense batches",
        {"annfeed block 16 dense": "annfeed", "scDataset block 16 dense": "scDataset"},
    ),
    (
        "blocks, CSR batches",
        {
            "annfeed block 16 CSR": "annfeed, 16",
            "annbatch block 16 CSR": "annbatch, 16",
            "scDataset block 16 CSR": "scDataset, 16",
            "annfeed block 64 CSR": "annfeed, 64",
            "annbatch block 64 CSR": "annbatch, 64",
            "annfeed block 512 CSR": "annfeed, 512",
            "annbatch block 512 CSR": "annbatch, 512",
        },
    ),
    (
        "in memory, dense batches",
        {
            "annfeed random dense, cache, later epochs": "annfeed, cache, random order",
            "annfeed plain DataLoader, cache, later epochs": "annfeed, cache, plain DataLoader",
            "scipy in memory": "scipy, random order",
            "copy in memory, block 16": "numpy's take of dense rows",
        },
    ),
]


def rates_of_rounds(results: pd.DataFrame) -> pd.DataFrame:
    """Median, slowest and fastest round of each contender."""
    rates = results.groupby("name", sort=False)["cells_per_s"]
    fixed = results.drop_duplicates("name").set_index("name")[["order", "block", "output", "cache"]]
    return fixed.assign(median=rates.median().round(), least=rates.min().round(), most=rates.max().round())


def rates_of_page(label: str) -> pd.DataFrame:
    """Medians of the table on the page; the rounds are not there."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section(PAGE.read_text(), "results", label).splitlines()
        if line.startswith("| ") and line.count("|") == 11
    ]
    found = pd.DataFrame(
        [(row[0], row[1], row[2], row[4], row[5], float(row[6].replace(",", ""))) for row in rows if row[0]],
        columns=["name", "order", "block", "output", "cache", "median"],
    ).set_index("name")
    return found.assign(least=float("nan"), most=float("nan"))


def draw(label: str, rates: pd.DataFrame) -> None:
    """Write both pictures; without matplotlib there are none."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        print(f"no charts ({error})")
        return
    short = [(title, {new: old for old, new in names.items() if old in rates.index}) for title, names in SHORT]
    _draw(short, rates, PAGE.with_name("speed.png"), f"Cells per second, {_about(label)}", 6.8)
    groups = []
    for title, order, block in ORDERS:
        part = rates[rates["order"] == order]
        part = part if block is None else part[part["block"].astype(str) == block]
        groups.append((title, {name: name for name in part.sort_values("median", ascending=False).index}))
    _draw(groups, rates, PAGE.with_suffix(".png"), f"Cells per second, {label}", 9.5)


def _about(label: str) -> str:
    """What was read on what, from the first paragraph of the section."""
    text = section(PAGE.read_text(), "results", label).partition("\n")[0]
    shape = re.match(r"([\d,]+) x ([\d,]+) (CSR) .*?, (gzip|uncompressed)", text)
    cores = re.search(r"(\d+) cores", text)
    if shape is None or cores is None:
        return label
    return f"{shape[1]} cells x {shape[2]} genes, {shape[4]} {shape[3]}, {cores[1]} cores"


def _draw(
    groups: Sequence[tuple[str, dict[str, str]]], rates: pd.DataFrame, path: Path, title: str, width: float
) -> None:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    groups = [(name, members) for name, members in groups if members]
    heights = [len(members) for _, members in groups]
    figure = Figure(
        figsize=(width, 0.21 * sum(heights) + 0.34 * len(heights) + 1.1), layout="constrained", facecolor="white"
    )
    axes = figure.subplots(len(groups), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axis, (name, members) in zip(axes, groups, strict=True):
        for place, found in enumerate(members.values()):
            row, colour = rates.loc[found], _colour(found, rates.loc[found])
            axis.plot([row["least"], row["most"]], [place, place], color=colour, linewidth=2.2, alpha=0.55)
            axis.plot([row["median"]], [place], "o", color=colour, markersize=5.5, clip_on=False, zorder=3)
            right = max(row["median"], row["most"] if row["most"] == row["most"] else 0)
            axis.annotate(
                f"{row['median']:,.0f}", (right, place), (7, 0), textcoords="offset points", va="center", fontsize=7.5
            )
        axis.set_yticks(range(len(members)), list(members), fontsize=8)
        axis.set_ylim(len(members) - 0.4, -0.6)
        axis.set_title(name, loc="left", fontsize=8.5, fontweight="bold", pad=3)
        axis.grid(axis="both", color="#e7e5e4", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.tick_params(axis="both", length=0, labelsize=8)
        axis.spines[:].set_visible(False)
    drawn = [found for _, members in groups for found in members.values()]
    axes[-1].set_xlim(0, 1.16 * max(rates.loc[drawn, ["median", "most"]].max()))
    axes[-1].xaxis.set_major_formatter("{x:,.0f}")
    there = {_colour(found, rates.loc[found]) for found in drawn}
    figure.legend(
        handles=[Line2D([], [], marker="o", linestyle="", color=c, label=KINDS[c]) for c in KINDS if c in there],
        loc="outside lower center",
        ncols=len(there),
        fontsize=8,
        frameon=False,
    )
    what = "medians of the rounds" if rates.loc[drawn, "most"].isna().all() else "medians and ranges of the rounds"
    figure.suptitle(f"{title};\n{what}", fontsize=9, x=0.01, ha="left")
    shown = {found: [None if x != x else x for x in rates.loc[found, ["least", "median", "most"]]] for found in drawn}
    figure.savefig(path, dpi=130, metadata={"Description": json.dumps(shown), "Software": None})


def _colour(name: str, row: pd.Series) -> str:
    if name.startswith(("limit", "copy")):
        return YARDSTICKS
    if not name.startswith("annfeed"):
        return PEERS
    return CACHED if row["cache"] == "2GiB" and "later epochs" in name else OURS


if __name__ == "__main__":
    first = headings(PAGE.read_text(), "results")[0]
    draw(first, rates_of_page(first))
