"""Prints reports: in colour on a terminal, plain elsewhere, or as JSON."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from annfeed.display.report import Report
from annfeed.display.text import as_text, in_colour, is_terminal, print_text


def show(report: Report, as_json: dict[str, Any] | None = None) -> None:
    """Print a report to stdout, as wide as the terminal, or what it is about as JSON."""
    if as_json is not None:
        print(json.dumps(as_json, indent=2))
    else:
        most = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
        print_text(as_text(report, in_colour(sys.stdout), most), sys.stdout)
