"""`Report`: a title, facts, tables and bars, before they become text or HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

#: What a text says: nothing in particular, all is well, something to think about, something bad.
Tone = Literal["", "good", "fair", "bad"]


@dataclass(frozen=True)
class Facts:
    """Names, each with a text or with several, one below the other."""

    facts: Mapping[str, str | Sequence[str]]
    tones: Mapping[str, Tone] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows of cells below a header; columns in ``numbers`` are aligned at the right.

    The last cell of a row that is shorter than the header runs over the columns that are left.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[str] = frozenset()
    #: What is left out, if anything.
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A bar, with the number as people read it."""

    name: str
    value: float
    shown: str
    tone: Tone = ""


@dataclass(frozen=True)
class Bars:
    """Bars on one linear axis that begins at 0, below a heading."""

    heading: str
    bars: Sequence[Bar]
    #: The axis ends here, or at the longest bar.
    least_end: float = 0.0


@dataclass(frozen=True)
class Report:
    """What is shown of something: its name and kind, then parts."""

    title: str
    parts: Sequence[Facts | Table | Bars]
