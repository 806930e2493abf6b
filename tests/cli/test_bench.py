"""What `annfeed bench` prints and draws."""

import re
import shutil
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from matplotlib import image

from annfeed.cli import main
from annfeed.cli.bench import ORDERS

QUICK = ("--seconds", "0.01", "--window", "20", "--batch-size", "5")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "a $x^2$.h5ad"
    anndata.AnnData(np.eye(60, 5, dtype=np.float32)).write_h5ad(path)
    return path


def rates_of(lines: list[str], orders: dict[str, object]) -> dict[str, float]:
    found = {}
    for line in lines:
        for order in orders:
            if number := re.match(rf" *{re.escape(order)} +([\d,]+)", line):
                found[order] = float(number[1].replace(",", ""))
    return found


def test_a_chart_at_the_end_has_the_rates_of_the_table(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(path), *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    chart = lines[lines.index("  cells/s") + 1 :]
    assert lines[lines.index("  cells/s") - 1] == path.name
    assert len(chart) == len(ORDERS)
    rates = rates_of(chart, ORDERS)
    assert rates == rates_of(lines[1 : 1 + len(ORDERS)], ORDERS)
    lengths = {order: line.count("█") for order, line in zip(rates, chart, strict=True)}
    assert max(lengths.values()) == 24
    for order, rate in rates.items():
        assert abs(lengths[order] - 24 * rate / max(rates.values())) <= 1


def test_a_picture(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = shutil.copy(path, tmp_path / "b.h5ad")
    for name in ("out.png", "out.svg"):
        assert main(["bench", str(path), str(other), *QUICK, "--plot", str(tmp_path / name)]) == 0
    assert "2 files" in capsys.readouterr().out
    pixels = image.imread(tmp_path / "out.png")[..., :3]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
    assert "<svg" in (tmp_path / "out.svg").read_text()


def test_tokens(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(path), *QUICK, "--output", "tokens"]) == 0
    out = capsys.readouterr().out
    assert "batch 5, tokens, cache 0" in out
    assert len(rates_of(out.splitlines(), ORDERS)) == len(ORDERS)


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("no/such/out.png", "there is no folder"),
        ("out.xyz", "found the ending 'xyz'; expected one of .*png"),
        ("out", "''"),
    ],
)
def test_what_cannot_be_drawn_is_told_before_anything_is_measured(
    out: str, words: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(path), *QUICK, "--plot", str(tmp_path / out)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert re.search(words, told.err)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--io-depth", "abc"), "io_depth is .*'abc'.*or 'auto'"),
        (("--io-depth", "-1"), "io_depth is -1; expected "),
        (("--cache", "-4"), "cache is -4; expected a number of bytes from 0 on"),
        (("--cache", "much"), "cache is 'much'; expected bytes, a text like '4GiB', or 'auto'"),
        (("--batch-size", "0"), "batch_size is 0; expected "),
    ],
)
def test_wrong_options_are_told_before_anything_is_printed(
    option: tuple[str, str], words: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(path), *QUICK, *option]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert re.search(f"^annfeed: {words}", told.err)


def test_matplotlib_is_optional(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", str(path), *QUICK]) == 0
    capsys.readouterr()
    assert main(["bench", str(path), *QUICK, "--plot", "out.png"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and "needs matplotlib" in told.err and "pip install matplotlib" in told.err
