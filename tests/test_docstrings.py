"""Public docstrings have examples, which pytest runs, and name the parameters of their functions; files named exist."""

import doctest
import importlib
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import annfeed
from annfeed import AnnDataset, WindowLoader
from tests.support.places import ROOT

#: Public modules, with the package that each needs.
MODULES = {"annfeed": None, "annfeed.scvi": "scvi", "annfeed.lightning": "lightning"}
NAMES = [
    *(("annfeed", name) for name in annfeed.__all__ if name != "__version__"),
    *(("annfeed.scvi", name) for name in annfeed.scvi.__all__),
    ("annfeed.lightning", "AnnDataModule"),
    ("annfeed.inspection", "Inspection"),
    ("annfeed.inspection", "ManyInspections"),
]
METHODS = [
    member
    for kind in (AnnDataset, WindowLoader)
    for name, member in inspect.getmembers(kind, inspect.isfunction)
    if not name.startswith("_") and member.__module__.startswith("annfeed.") and name != "close"
]


def public(module: str, name: str) -> Any:
    if needed := MODULES.get(module):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    return getattr(importlib.import_module(module), name)


def check(what: Any, doc: str | None) -> None:
    assert doc
    assert re.match(r"[^\n]+\.(\n\n|$)", doc), "the first line is one sentence"
    assert doctest.DocTestParser().get_examples(doc), "there is no example"


def documented(doc: str) -> set[str]:
    """The parameters that a numpydoc docstring describes."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", doc, re.DOTALL | re.MULTILINE)
    names = re.findall(r"^\S.*", section[1], re.MULTILINE) if section else []
    return {name.strip("* ") for line in names for name in line.split(",")}


def parameters(function: Any) -> set[str]:
    return {name for name in inspect.signature(function).parameters if name != "self" and not name.startswith("_")}


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_public_names(module: str, name: str) -> None:
    what = public(module, name)
    doc = inspect.getdoc(what)
    check(what, doc)
    if isinstance(what, type) and issubclass(what, Exception):
        return
    takes = set() if what is annfeed.Transform or what is WindowLoader else parameters(what)
    assert documented(doc or "") == takes


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__qualname__)
def test_public_methods(method: Any) -> None:
    doc = inspect.getdoc(method)
    check(method, doc)
    assert documented(doc or "") in (parameters(method), set())
    if len(parameters(method)) > 1:
        assert documented(doc or "")


def test_the_loader_takes_what_is_described_and_what_torchs_does() -> None:
    torchs = parameters(WindowLoader.__mro__[1])
    assert parameters(WindowLoader) - torchs <= documented(inspect.getdoc(AnnDataset.get_optimized_dataloader) or "")


def test_pytest_runs_the_examples() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--doctest-modules" in settings["addopts"].split()
    assert "python" in settings["testpaths"]


def files_of_the_project() -> list[str]:
    folders = [ROOT / name for name in ("benches", "docs", "examples", "fuzz", "packaging", "python", "rust", "tests")]
    files = [file for folder in folders for file in folder.rglob("*") if "target" not in file.parts]
    return [f"/{file.relative_to(ROOT).as_posix()}" for file in [*ROOT.iterdir(), *files] if file.is_file()]


def without_code(file: Path) -> str:
    """The text of a file; of a page without its code, where users' files have names."""
    return re.sub(r"^```.*?^```", "", file.read_text(), flags=re.DOTALL | re.MULTILINE if file.suffix == ".md" else 0)


def test_files_that_are_named_exist() -> None:
    files = files_of_the_project()
    endings = {file[place:] for file in files for place, letter in enumerate(file) if letter == "/"}
    missing = [
        (file, named)
        for file in files
        if re.match(r"/(python|rust|docs|benches|examples|[A-Z]\w+\.md)", file)
        and Path(file).suffix in (".py", ".rs", ".md")
        for named in re.findall(r"(?<![\w/.$-])[\w/-]+\.(?:py|rs|md)\b(?!\()", without_code(ROOT / file[1:]))
        if f"/{named}" not in endings and not named.startswith("anndata/")
    ]
    assert not missing
