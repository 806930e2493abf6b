"""Puts text between the markers of docs/benchmarks.md, a section for each label; sections of other labels stay."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def with_sections(text: str, marker: str, sections: dict[str, str]) -> str:
    """The text with the sections (by heading) put between a pair of markers, those of the most rows first.

    Raises
    ------
    SystemExit
        If the text has no such markers.
    """
    begin, end = f"<!-- {marker}: begin -->", f"<!-- {marker}: end -->"
    found = re.search(re.escape(begin) + "(.*?)" + re.escape(end), text, re.DOTALL)
    if not found:
        raise SystemExit(f"docs/benchmarks.md has no {begin} … {end}")
    parts = sorted((_sections(found[1]) | sections).items(), key=lambda part: -_rows(part[1]))
    body = "\n\n".join(f"### {heading}\n\n{part}" for heading, part in parts)
    return text[: found.start()] + f"{begin}\n{body}\n{end}" + text[found.end() :]


def headings(text: str, marker: str) -> list[str]:
    """The headings of the sections between a pair of markers."""
    begin, end = f"<!-- {marker}: begin -->", f"<!-- {marker}: end -->"
    return list(_sections(text.partition(begin)[2].partition(end)[0]))


def section(text: str, marker: str, heading: str) -> str:
    """One section between a pair of markers."""
    begin, end = f"<!-- {marker}: begin -->", f"<!-- {marker}: end -->"
    return _sections(text.partition(begin)[2].partition(end)[0])[heading]


def _sections(body: str) -> dict[str, str]:
    parts = re.split(r"^### (.*)\n", body, flags=re.MULTILINE)[1:]
    return {heading.strip(): part.strip() for heading, part in zip(parts[::2], parts[1::2], strict=True)}


def _rows(part: str) -> int:
    """Rows of the data: the shape is the first that a section says, where it says on what it was measured."""
    shape = re.match(r"([\d,]+) x [\d,]+ ", part)
    return int(shape[1].replace(",", "")) if shape else 0
