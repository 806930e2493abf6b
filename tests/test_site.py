"""The pages of docs/ as a site (`make docs`): each is in a toctree, links lead to headings, the API is described."""

import re
import subprocess
import unicodedata
from functools import cache
from pathlib import Path

import pytest

import annfeed
from tests.support.places import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
#: Public names that are not functions or classes of their own.
PLAIN = {"__version__"}


def entries(page: str) -> list[str]:
    """The pages in the toctrees of a page."""
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    names = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    return [(Path(page).parent / f"{name}.md").as_posix() for name in names]


def test_each_page_is_in_one_toctree() -> None:
    found = [entry for page in PAGES for entry in entries(page)]
    assert sorted([*found, "index.md"]) == PAGES


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts and Sphinx's Markdown make it."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    kept = (c for c in text if c in " -_" or unicodedata.category(c)[0] in "LNM")
    return "".join(kept).replace(" ", "-")


@cache
def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", ["../README.md", "../CONTRIBUTING.md", *PAGES])
def test_links_lead_to_headings(page: str) -> None:
    links = re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", (DOCS / page).read_text())
    missing = []
    for file, anchor in links:
        target = (DOCS / page).parent / file if file else DOCS / page
        if target.suffix == ".md" and anchor not in anchors(target.resolve()):
            missing.append(f"{file}#{anchor}")
    assert not missing


@pytest.mark.parametrize("page", ["../README.md", "../CONTRIBUTING.md", *PAGES])
def test_scripts_are_scripts(page: str) -> None:
    scripts = re.findall(r"^```(?:sh|bash)\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    if scripts:
        done = subprocess.run(["bash", "-n"], input="\n".join(scripts), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_api_is_all_public_names() -> None:
    text = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    described, module = set(), ""
    for kind, name in re.findall(r"^\.\. (currentmodule|auto\w+):: ([\w.]+)$", text, re.MULTILINE):
        if kind == "currentmodule":
            module = name
        elif kind != "autosummary":
            described.add(name if name.startswith("annfeed.") else f"{module}.{name}")
    public = {f"annfeed.{name}" for name in annfeed.__all__ if name not in PLAIN}
    public |= {f"annfeed.scvi.{name}" for name in annfeed.scvi.__all__ if name not in annfeed.__all__}
    assert public <= described
    summed_up = set(re.findall(r"^   ([\w.]+)$", (DOCS / "api/index.md").read_text(), re.MULTILINE))
    assert {f"annfeed.{name}" for name in summed_up} == described
