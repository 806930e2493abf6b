"""HTML as a browser would see it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def check_is_harmless(self) -> None:
        """No scripts, no links, nothing but what lays out text."""
        assert self.tags <= {"div", "table", "tr", "td", "br"}
        assert {"style"} <= self.attributes <= {"style", "colspan"}


def check_shows_what_it_prints(shown: Any) -> None:
    """The HTML of a dataset or loader has title and facts of its ``repr``."""
    page = Page(shown._repr_html_())
    page.check_is_harmless()
    title, *facts = repr(shown).splitlines()
    assert page.texts[0] == title
    pairs = zip(page.texts[1::2], page.texts[2::2], strict=True)
    assert [": ".join(pair) for pair in pairs] == [fact.strip() for fact in facts]
