"""The picture of ``annfeed bench --plot``, drawn by matplotlib, which annfeed does not install."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from annfeed.display.text import printable


def check_plot(path: str) -> None:
    """Check that a picture can be written to ``path``, before anything is measured for it.

    Raises
    ------
    ValueError
        If matplotlib is missing, or does not know the ending of ``path``.
    FileNotFoundError
        If there is no such folder.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"--plot {path}: there is no folder {folder}")
    endings = sorted(_figure().canvas.get_supported_filetypes())
    if (ending := os.path.splitext(path)[1].lstrip(".").lower()) not in endings:
        raise ValueError(f"--plot {path}: found the ending {ending!r}; expected one of {', '.join(endings)}")


def plot_rates(rates: Mapping[str, float], title: str, path: str) -> None:
    """Write a picture with a bar for each order, the first at the top."""
    figure = _figure(figsize=(6.4, 0.45 * len(rates) + 1.1), layout="constrained")
    axis = figure.subplots()
    bars = axis.barh(list(rates), list(rates.values()), color="#c2410c", height=0.7)
    axis.bar_label(bars, [f" {rate:,.0f}" for rate in rates.values()], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * max(rates.values(), default=1.0))
    axis.set_xlabel("cells/s")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(printable(title), fontsize=9, loc="left", parse_math=False)
    figure.savefig(path, dpi=150)


def _figure(**options: Any) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            f"--plot needs matplotlib, which cannot be imported ({error}). Install it (pip install matplotlib), or "
            "leave --plot out: the chart is printed, too"
        ) from error
    return Figure(**options)
