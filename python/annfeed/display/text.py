"""Reports as text: in colour on a terminal, plain in a file or a pipe.

Colours are six escape codes, written here: a library for them (rich and the three that it needs) would take longer to
import than `annfeed inspect` takes to run.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, TextIO

from annfeed.display.report import Bars, Facts, Report, Table, Tone

#: Width of the longest bar.
BAR_WIDTH = 24
_CODES = {"title": "1", "name": "2", "good": "32", "fair": "33", "bad": "31", "": "36"}
_EIGHTHS = " ▏▎▍▌▋▊▉"
#: What stands for the characters of bars where an encoding lacks them.
_PLAINER = str.maketrans("█" + _EIGHTHS, "#" + " " * len(_EIGHTHS))


def in_colour(stream: TextIO) -> bool:
    """Return whether text for ``stream`` is coloured: as NO_COLOR and FORCE_COLOR say, or if it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_terminal(stream: object) -> bool:
    """Return whether a stream is a terminal: not if it is None, closed, or some object that others put in its place.

    Examples
    --------
    >>> is_terminal(None), is_terminal(object())
    (False, False)
    """
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError, OSError):
        return False


def as_text(report: Report, colour: bool = False, most: int | None = None) -> str:
    """Return the report as lines of text; facts are wrapped where lines are longer than ``most``.

    Examples
    --------
    >>> print(as_text(Report("a.h5ad", [Facts({"encoding": "csr", "advice": ["one", "two"]})])))
    a.h5ad
      encoding    csr
      advice      one
                  two
    """
    paint = _paint if colour else _plain
    lines = [paint(printable(report.title), "title")]
    names = [name for part in report.parts if isinstance(part, Facts) for name in part.facts]
    width = max([10, *map(len, names)]) + 2
    for part in report.parts:
        lines += _lines(part, width, most, paint)
    return "\n".join(line.rstrip() for line in lines)


def as_repr(report: Report) -> str:
    """Return a report as the ``repr`` of an object: title and facts, one on a line.

    Examples
    --------
    >>> print(as_repr(Report("Loader", [Facts({"batches": "3"})])))
    Loader
      batches: 3
    """
    facts = [part.facts for part in report.parts if isinstance(part, Facts)]
    return "\n".join(
        map(printable, [report.title, *(f"  {name}: {told}" for some in facts for name, told in some.items())])
    )


def in_gib(n_bytes: float) -> str:
    """Return a size as people read it.

    Examples
    --------
    >>> in_gib(3 << 29)
    '1.5 GiB'
    """
    return f"{n_bytes / 2**30:.3g} GiB"


def printable(text: str) -> str:
    r"""Return the text with what would command a terminal written as escapes: names in files may hold anything.

    Examples
    --------
    >>> printable("cell\x1b[2Jtype")
    'cell\\x1b[2Jtype'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def print_text(text: str, stream: TextIO) -> None:
    """Print to a stream whose encoding may lack the characters of bars."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_PLAINER).encode(encoding, "backslashreplace").decode(encoding)
    print(text, file=stream, flush=True)


def _lines(part: Facts | Table | Bars, width: int, most: int | None, paint: Any) -> Iterator[str]:
    if isinstance(part, Facts):
        yield from _of_facts(part, width, most, paint)
    elif isinstance(part, Table):
        yield from _of_table(part, paint)
    else:
        yield from _of_bars(part, paint)


def _of_facts(part: Facts, width: int, most: int | None, paint: Any) -> Iterator[str]:
    for name, texts in part.facts.items():
        tone = part.tones.get(name, "")
        lines: Iterable[str] = map(printable, [texts] if isinstance(texts, str) else texts)
        if most is not None:
            room = max(most - width - 2, 20)
            lines = chain.from_iterable(textwrap.wrap(line, room, break_on_hyphens=False) for line in lines)
        for i, shown in enumerate(lines):
            label = (name if i == 0 else "").ljust(width)
            yield f"  {paint(label, 'name')}{paint(shown, tone) if tone else shown}"


def _of_table(part: Table, paint: Any) -> Iterator[str]:
    cells = [[printable(cell) for cell in row] for row in (part.header, *part.rows)]
    n = len(part.header)
    fitting = [row if len(row) == n else row[:-1] for row in cells]
    widths = [max(len(row[i]) for row in fitting if i < len(row)) for i in range(n)]
    for i, row in enumerate(cells):
        padded = [
            cell.rjust(width) if name in part.numbers else cell.ljust(width)
            for cell, width, name in zip(row, widths, part.header, strict=False)
        ]
        line = "  ".join(padded).rstrip()
        yield f"  {paint(line, 'name') if i == 0 else line}"
    if part.note:
        yield f"  {part.note}"


def _of_bars(part: Bars, paint: Any) -> Iterator[str]:
    yield f"  {paint(part.heading, 'name')}"
    names, numbers = (max((len(text) for text in texts), default=0) for texts in _of_each(part))
    end = max([part.least_end, *(bar.value for bar in part.bars)], default=0.0)
    for bar in part.bars:
        drawn = paint(drawn_bar(bar.value, end), bar.tone)
        yield f"    {printable(bar.name).ljust(max(names, 18))}  {bar.shown.rjust(max(numbers, 8))}  {drawn}"


def _of_each(part: Bars) -> tuple[list[str], list[str]]:
    return [printable(bar.name) for bar in part.bars], [bar.shown for bar in part.bars]


def drawn_bar(value: float, end: float) -> str:
    """Return a bar of at most `BAR_WIDTH` characters, in steps of an eighth.

    Examples
    --------
    >>> drawn_bar(1, 16), drawn_bar(2, 16)
    ('█▌', '███')
    """
    eighths = round(8 * BAR_WIDTH * value / end) if end > 0 else 0
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _paint(text: str, tone: Tone | str) -> str:
    return f"\x1b[{_CODES[tone]}m{text}\x1b[0m" if text.strip() else text


def _plain(text: str, _tone: Tone | str) -> str:
    return text
