"""Reports as text: colours where there is a terminal, and nothing that commands one."""

import io
import re
from typing import Any

import pytest

from annfeed.display.report import Bar, Bars, Facts, Report, Table
from annfeed.display.text import as_text, in_colour, print_text

REPORT = Report(
    "a.h5ad",
    [
        Facts({"filters": "gzip", "advice": ["one", "two"]}, {"filters": "bad"}),
        Table(("file", "rows"), [("a", "1"), ("long name", "1,000")], frozenset({"rows"}), "and 3 more"),
        Bars("cells/s", [Bar("file order", 10.0, "10"), Bar("random", 5.0, "5", "bad")]),
    ],
)
CODE = re.compile(r"\x1b\[\d*m")


class Stream(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize(
    ("environment", "is_terminal", "wanted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),  # as no-color.org has it
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_where_there_is_colour(
    environment: dict[str, str], is_terminal: bool, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert in_colour(Stream(is_terminal)) is wanted


def test_colours_change_nothing_else() -> None:
    coloured = as_text(REPORT, colour=True)
    assert len(CODE.findall(coloured)) > 10
    assert CODE.sub("", coloured) == as_text(REPORT)
    assert "\x1b" not in as_text(REPORT)


def test_columns_and_bars_stand_below_each_other() -> None:
    lines = as_text(REPORT).splitlines()
    at = lines.index("  file        rows")
    assert lines[at + 1 : at + 4] == ["  a              1", "  long name  1,000", "  and 3 more"]
    bars = lines[-2:]
    assert [line.count("█") for line in bars] == [24, 12]
    assert len({line.index("█") for line in bars}) == 1


@pytest.mark.parametrize("most", [36, 50, 200])
def test_long_facts_are_wrapped_below_each_other(most: int) -> None:
    sentence = "the first read turns it into rows in memory, in each worker; better written as CSR"
    lines = as_text(Report("a.h5ad", [Facts({"advice": [sentence, "short"]})]), most=most).splitlines()[1:]
    assert all(len(line) <= most for line in lines)
    assert " ".join(line[14:] for line in lines) == f"{sentence} short"
    assert {line[:14] for line in lines[1:]} == {" " * 14}


@pytest.mark.parametrize("name", ["a\x1b[2J\x1b]0;owned\x07b", "a\nb", "a\rb", "a\x9bm", "\udcff.h5ad", "\u202egpj"])
def test_names_do_not_command_the_terminal(name: str) -> None:
    report = Report(
        name, [Facts({"obs": [f"{name}: text"]}), Table(("file",), [(name,)]), Bars("", [Bar(name, 1, "1")])]
    )
    text = as_text(report)
    assert all(c.isprintable() for line in text.split("\n") for c in line)
    assert len(text.splitlines()) == 6
    text.encode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_can_be_printed_to(encoding: str) -> None:
    raw = io.BytesIO()
    stream: Any = io.TextIOWrapper(raw, encoding=encoding)
    print_text(as_text(Report("数.h5ad", [Bars("x", [Bar("a", 2.0, "2"), Bar("b", 1.3, "1.3")])])), stream)
    lines = raw.getvalue().decode(encoding).splitlines()
    full = "█" if encoding == "utf-8" else "#"
    assert full * 24 in lines[-2] and full * 15 in lines[-1]
