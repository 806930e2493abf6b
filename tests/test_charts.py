"""The charts of the README and of the page on benchmarks show what the page says."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from PIL import Image

from tests.support.places import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"


def shown(path: Path) -> dict[str, list[float | None]]:
    """Slowest round, median and fastest round of each dot."""
    with Image.open(path) as picture:
        return json.loads(picture.text["Description"])


def rates_of_the_page() -> dict[str, float]:
    """The rates of the first section of results, by contender."""
    results = PAGE.read_text().partition("<!-- results: begin -->")[2].partition("\n### ")[2].partition("\n### ")[0]
    found = re.findall(r"^\| ([^|]+) \|(?: [^|]* \|){4} \S+ \| ([\d,]+) \|", results, re.MULTILINE)
    return {name: float(rate.replace(",", "")) for name, rate in found}


@pytest.mark.parametrize(("picture", "has_all"), [("benchmarks.png", True), ("speed.png", False)])
def test_a_chart_has_the_rates_of_the_page(picture: str, has_all: bool) -> None:
    page, dots = rates_of_the_page(), shown(ROOT / "docs" / picture)
    assert len(page) > 30
    assert set(dots) == set(page) if has_all else set(dots) < set(page)
    for name, (least, median, most) in dots.items():
        assert median == page[name]
        assert (least is None and most is None) or least <= median <= most


def test_where_others_are_faster_the_chart_of_the_readme_shows_it() -> None:
    page, dots = rates_of_the_page(), shown(ROOT / "docs" / "speed.png")
    peers = {name for name in page if name.startswith(("annbatch", "scDataset")) and "uncompressed" not in name}
    faster = {name for name in peers if page[name] > page[re.sub(r"^\w+", "annfeed", name)]}
    nearest = {name for name in peers if name.startswith("annbatch")}
    assert nearest
    assert nearest | faster <= set(dots)


@pytest.fixture
def chart(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benches")
    import chart

    yield chart
    for name in ("chart", "page"):
        sys.modules.pop(name, None)


def test_ranges_are_those_of_the_rounds(chart: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = {"annfeed block 16 dense": [30.0, 10.0, 20.0], "scDataset block 16 dense": [5.0, 7.0, 9.0]}
    fixed = {"order": "blocks", "block": 16, "output": "dense", "cache": "off"}
    rows = [{"name": name, "cells_per_s": rate, **fixed} for name, rates in rounds.items() for rate in rates]
    page = tmp_path / "benchmarks.md"
    page.write_text("<!-- results: begin -->\n### toy\n\nnothing\n<!-- results: end -->")
    monkeypatch.setattr(chart, "PAGE", page)
    chart.draw("toy", chart.rates_of_rounds(pd.DataFrame(rows)))
    wanted = {name: [min(rates), sorted(rates)[1], max(rates)] for name, rates in rounds.items()}
    assert shown(tmp_path / "benchmarks.png") == shown(tmp_path / "speed.png") == wanted
