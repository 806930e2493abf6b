"""Renders bench-data/*.csv: the tables between the markers of docs/benchmarks.md, and the chart docs/benchmarks.png.

    python benches/report.py

Rates are medians over the rounds. Ratios are taken within a round, between contenders that ran minutes apart at most,
and the median of those is shown: the machine's load then cancels out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
from contenders import COMPARISONS
from make_atlas import FOLDER

DOCS = Path(__file__).resolve().parent.parent / "docs"
#: Against which the first table gives every rate.
REFERENCE = "anndata backed"


def main() -> None:
    """Render what is there."""
    results = pd.read_csv(FOLDER / "results.csv")
    machines = json.loads((FOLDER / "machine.json").read_text())
    # Large data last measured or not, it is what a reader wants to see first.
    labels = sorted(results["data"].unique(), key=lambda label: -results.loc[results["data"] == label, "window"].max())
    parts = [_section(label, results[results["data"] == label], machines[label]) for label in labels]
    text = _between((DOCS / "benchmarks.md").read_text(), "results", "\n\n".join(parts))
    if (FOLDER / "quality.csv").exists():
        text = _between(text, "quality", _quality(pd.read_csv(FOLDER / "quality.csv")))
    (DOCS / "benchmarks.md").write_text(text)
    _chart(labels[0], _medians(results[results["data"] == labels[0]]), DOCS / "benchmarks.png")
    print("rendered docs/benchmarks.md")


def ratio(results: pd.DataFrame, ours: str, theirs: str) -> float | None:
    """Median over the rounds of ours / theirs within the round; None where one of them did not run."""
    ratios = _ratios(results, ours, theirs)
    return None if ratios is None else float(ratios.median())


def _ratios(results: pd.DataFrame, ours: str, theirs: str) -> pd.Series | None:
    rates = results.pivot_table(index="round", columns="name", values="cells_per_s")
    return rates[ours] / rates[theirs] if ours in rates and theirs in rates else None


def _medians(results: pd.DataFrame) -> pd.DataFrame:
    names = list(dict.fromkeys(results["name"]))
    fixed = results.drop_duplicates("name").set_index("name").loc[names]
    measured = ["cells_per_s", "first_batch_s", "peak_mb", "grown_mb"]
    fixed[measured] = results.groupby("name")[measured].median().loc[names]
    # Rounds begin at different places; the table has the order of the first round.
    return fixed


def _section(label: str, results: pd.DataFrame, machine: dict) -> str:
    others = results["others"].median()
    busy = "" if pd.isna(others) else f" other programs took {others:.0%} of the cores meanwhile (median);"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    missing = [name for name, version in machine["versions"].items() if version is None]
    about = (
        f"{machine['file']}. Batches of {results['batch'].iloc[0]}; warm page cache; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; annfeed on "
        f"{machine['cores']} threads;{busy} {machine['rounds']} rounds of {machine['seconds']:g} s, {machine['date']}; "
        + versions
        + (f"; not installed: {', '.join(missing)}." if missing else ".")
    )
    return "\n\n".join([f"### {label}", about, _rates(results), _comparisons(results)])


def _rates(results: pd.DataFrame) -> str:
    lines = [
        f"| | order | block | window | out | cache | cells/s | × {REFERENCE} | first batch, s | memory, MB |",
        "|---|---|--:|--:|---|---|--:|--:|--:|--:|",
    ]
    for name, row in _medians(results).iterrows():
        times = ratio(results, str(name), REFERENCE)
        window = "" if str(name).startswith("limit") else f"{row['window']:,}"
        block = row["block"] if row["order"] == "blocks" else ""
        lines.append(
            f"| {name} | {row['order']} | {block} | {window} | {row['output']} "
            f"| {row['cache']} | {row['cells_per_s']:,.0f} | {_times(times)} | {_number(row['first_batch_s'], '.2f')} "
            f"| {_number(row['grown_mb'], ',.0f')} |"
        )
    return "\n".join(lines)


def _comparisons(results: pd.DataFrame) -> str:
    lines = ["| ours | against | ratio | in the rounds | aim |", "|---|---|--:|--:|--:|"]
    for ours, theirs, aim in COMPARISONS:
        found = _ratios(results, ours, theirs)
        if found is None:
            continue
        spread = f"{_times(found.min())} to {_times(found.max())}"
        wanted = "" if aim is None else f"{aim:g}×"
        lines.append(f"| {ours} | {theirs} | {_times(found.median())} | {spread} | {wanted} |")
    return "\n".join(lines)


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.3g}×"


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)


def _quality(quality: pd.DataFrame) -> str:
    lines = ["| data | window | order | cell_type, bits | donor_id, bits |", "|---|--:|---|--:|--:|"]
    for row in quality.itertuples():
        lines.append(f"| {row.data} | {row.window:,} | {row.order} | {row.cell_type:.3f} | {row.donor_id:.3f} |")
    return "\n".join(lines)


def _between(text: str, marker: str, body: str) -> str:
    """The text with what lies between a pair of markers replaced."""
    begin, end = f"<!-- {marker}: begin -->", f"<!-- {marker}: end -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"docs/benchmarks.md has no {begin} … {end}")
    return pattern.sub(lambda _: f"{begin}\n{body}\n{end}", text)


def _chart(label: str, medians: pd.DataFrame, path: Path) -> None:
    try:
        import matplotlib
    except ImportError as error:
        print(f"no chart ({error})")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [("dense", "dense batches"), ("csr", "CSR batches")]
    counts = [int((medians["output"] == output).sum()) for output, _ in panels]
    figure, axes = plt.subplots(
        2, 1, figsize=(9, 0.27 * sum(counts) + 1.6), height_ratios=counts, sharex=True, layout="constrained"
    )
    for axis, (output, title) in zip(axes, panels, strict=True):
        part = medians[medians["output"] == output].sort_values("cells_per_s")
        colors = [
            "#c2410c" if n.startswith("annfeed") else "#d6d3d1" if n.startswith("limit") else "#78716c"
            for n in part.index
        ]
        bars = axis.barh(part.index, part["cells_per_s"], color=colors, height=0.75)
        axis.bar_label(bars, [f" {rate:,.0f}" for rate in part["cells_per_s"]], fontsize=8)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xscale("log")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15, y=0.01)
    axes[-1].set_xlabel("cells/s, logarithmic", fontsize=9)
    figure.suptitle(f"{label}: annfeed (orange), peers (grey), inflating alone (light)", fontsize=10)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
