"""Reports as HTML for notebooks: inline styles, no scripts, colours that are readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from annfeed.display.report import Bars, Facts, Report, Table, Tone
from annfeed.display.text import printable

_COLOURS: dict[Tone, str] = {"": "#3b82f6", "good": "#16a34a", "fair": "#d97706", "bad": "#dc2626"}
_CELL = "text-align:left;vertical-align:top;padding:1px 14px 1px 0;border:0"
_NUMBER = "text-align:right;vertical-align:top;padding:1px 14px 1px 0;border:0;font-variant-numeric:tabular-nums"
_DIM = "opacity:0.65"
_LINE = "white-space:nowrap"
#: Width of the longest bar.
_BAR_EM = 14


def as_html(report: Report) -> str:
    """Return the report as HTML; every text is escaped.

    Examples
    --------
    >>> "a &lt;b&gt; c" in as_html(Report("a <b> c", []))
    True
    """
    parts = [f'<div style="font-weight:600">{_text(report.title)}</div>']
    for part in report.parts:
        parts += _lines(part)
    return '<div style="font-size:13px;line-height:1.45;overflow-x:auto">' + "".join(parts) + "</div>"


def _lines(part: Facts | Table | Bars) -> Iterator[str]:
    if isinstance(part, Facts):
        rows = []
        for name, texts in part.facts.items():
            style = _CELL + _of_tone(part.tones.get(name, ""))
            rows.append([_cell(name, f"{_CELL};{_DIM};{_LINE}"), f'<td style="{style}">{_all(texts)}</td>'])
        yield _table(rows)
    elif isinstance(part, Table):
        styles = [f"{_NUMBER if name in part.numbers else _CELL};{_LINE}" for name in part.header]
        header = [_cell(name, f"{style};{_DIM}") for name, style in zip(part.header, styles, strict=True)]
        yield _table([header, *(_row(row, styles) for row in part.rows)])
        if part.note:
            yield f'<div style="{_DIM}">{_text(part.note)}</div>'
    else:
        yield f'<div style="{_DIM};margin-top:4px">{_text(part.heading)}</div>'
        end = max([part.least_end, *(bar.value for bar in part.bars)], default=0.0) or 1.0
        yield _table(
            [
                (
                    _cell(bar.name, f"{_CELL};{_LINE}"),
                    _cell(bar.shown, f"{_NUMBER};{_LINE}"),
                    f'<td style="{_CELL};vertical-align:middle"><div style="height:0.7em;border-radius:2px;'
                    f'width:{_BAR_EM * bar.value / end:.2f}em;background:{_COLOURS[bar.tone]}"></div></td>',
                )
                for bar in part.bars
            ]
        )


def _table(rows: Sequence[Sequence[str]]) -> str:
    body = "".join(f'<tr style="background:none">{"".join(cells)}</tr>' for cells in rows)
    return (
        f'<table style="border:0;border-collapse:collapse;margin:2px 0;color:inherit;font-size:inherit">{body}</table>'
    )


def _row(row: Sequence[str], styles: Sequence[str]) -> list[str]:
    cells = [_cell(cell, style) for cell, style in zip(row, styles, strict=False)]
    if left := len(styles) - len(row):
        cells[-1] = f'<td colspan="{left + 1}" style="{_CELL}">{_text(row[-1])}</td>'
    return cells


def _cell(text: str, style: str) -> str:
    return f'<td style="{style}">{_text(text)}</td>'


def _all(texts: str | Sequence[str]) -> str:
    return "<br>".join(_text(text) for text in ([texts] if isinstance(texts, str) else texts))


def _text(text: str) -> str:
    return escape(printable(text))


def _of_tone(tone: Tone) -> str:
    return f";color:{_COLOURS[tone]}" if tone else ""
