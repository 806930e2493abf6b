"""Messages have one form: what was found; expected what; what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.places import ROOT

SOURCES = [path for folder in ("python", "rust", "examples") for path in sorted((ROOT / folder).rglob("*.*"))
           if path.suffix in (".py", ".rs")]  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_expectations_have_one_form(path: Path) -> None:
    found = re.findall(r".*, where .*\b(?:was|were) (?:expected|wanted).*", path.read_text())
    assert not found, "write '…; expected …'"
