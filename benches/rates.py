"""The tables of results.csv: the rate of every contender, and the ratios.

Rates are medians over the rounds. Ratios are taken within a round, between contenders that ran minutes apart at most,
and the median of those is shown: the machine's load then cancels out.
"""

from __future__ import annotations

import pandas as pd
from lineup import COMPARISONS

#: Against which the first table gives every rate.
REFERENCE = "anndata backed"


def table(results: pd.DataFrame) -> str:
    """Both tables."""
    return "\n\n".join([_rates(results), _comparisons(results)])


def ratio(results: pd.DataFrame, ours: str, theirs: str) -> float | None:
    """Median over the rounds of ours / theirs within the round; None where one of them did not run."""
    ratios = _ratios(results, ours, theirs)
    return None if ratios is None else float(ratios.median())


def _ratios(results: pd.DataFrame, ours: str, theirs: str) -> pd.Series | None:
    rates = results.pivot_table(index="round", columns="name", values="cells_per_s")
    return rates[ours] / rates[theirs] if ours in rates and theirs in rates else None


def medians(results: pd.DataFrame) -> pd.DataFrame:
    """What each contender is and, over the rounds, measured."""
    names = list(dict.fromkeys(results["name"]))
    fixed = results.drop_duplicates("name").set_index("name").loc[names]
    measured = ["cells_per_s", "first_batch_s", "peak_mb", "grown_mb"]
    fixed[measured] = results.groupby("name")[measured].median().loc[names]
    # Rounds begin at different places; the table has the order of the first round.
    return fixed


def _rates(results: pd.DataFrame) -> str:
    lines = [
        f"| | order | block | window | out | cache | cells/s | × {REFERENCE} | first batch, s | memory, MB |",
        "|---|---|--:|--:|---|---|--:|--:|--:|--:|",
    ]
    for name, row in medians(results).iterrows():
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
