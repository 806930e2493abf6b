"""docs/architecture.md: its rooms are those that there are, what it names exists, a batch takes the walk it tells."""

import ast
import html
import re
import sys
import threading
from itertools import pairwise
from pathlib import Path

import anndata
import numpy as np
import pytest

import annfeed
from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal
from tests.support.places import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text()
PACKAGE = Path(annfeed.__file__).parent
ROOMS, WALK = TEXT.split("## The walk of a row")
#: Python files of the walk, with the function or class that it names there, if it names one.
STEPS = re.findall(r"`(\w+/\w+\.py)`(?: \(`([\w.]+)`\))?", WALK.split("With `num_workers > 0`")[0])
#: Files that this or that dataset goes through: blocks, orders by weight, several sources, an AnnData in memory, sets.
OTHER_WAYS = {
    *("order/spread.py", "order/weighted.py", "sources/concat.py", "sources/mapped.py", "sources/memory.py"),
    *("batches/preload.py", "batches/preloaded.py", "batches/tokens.py", "batches/token_matrix.py"),
    *("order/sets.py", "batches/sets.py"),
}


def test_the_rooms_are_those_of_the_package() -> None:
    told = set(re.findall(r"`(\w+)`", "".join(line.split("|")[2] for line in ROOMS.splitlines() if line[:2] == "| ")))
    there = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert told == there - {"__init__", "__main__", "__pycache__"}


def test_each_room_says_what_lives_there() -> None:
    for room in PACKAGE.iterdir():
        if room.is_dir() and room.name != "__pycache__":
            told = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
            assert told and len(told.splitlines()) >= 3


def test_the_picture_is_what_its_text_says() -> None:
    text, picture = ((ROOT / "docs" / f"way-of-a-batch.{kind}").read_text() for kind in ("dot", "svg"))
    nodes = {name: label for name, label in re.findall(r'^ +(\w+) \[label="(.*?)"', text, re.M)}
    arrows = {
        pair for chain in re.findall(r"^ +(\w+(?: -> \w+)+)$", text, re.M) for pair in pairwise(chain.split(" -> "))
    }
    drawn = html.unescape(picture)
    assert sorted(re.findall(r"<text .*?>(.*?)</text>", drawn)) == sorted(nodes.values())
    assert set(re.findall(r"<title>(\w+)->(\w+)</title>", drawn)) == arrows


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_what_the_walk_names_exists(file: str, name: str) -> None:
    tree: ast.AST = ast.parse((PACKAGE / file).read_text())
    for part in name.split(".") if name else ():
        members = {node.name: node for node in ast.iter_child_nodes(tree) if hasattr(node, "name")}
        assert part in members
        tree = members[part]


def test_the_walk_names_each_file_once() -> None:
    files = [file for file, _ in STEPS]
    assert len(files) == len(set(files))


def test_folders_of_the_core_exist() -> None:
    named = re.findall(r"`(rust/\w*/?)`", TEXT)
    assert len(named) > 3
    assert all((ROOT / folder).is_dir() for folder in named)


def test_a_batch_takes_the_walk(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    anndata.AnnData(np.eye(40, dtype="float32"), obs={"kind": ["a", "b"] * 20}).write_h5ad(path, compression="gzip")
    dataset = AnnDataset(path, window=8, transform=Compose([NormalizeTotal(), Log1p()]))
    loader = dataset.get_optimized_dataloader(4, seed=0)
    entered: set[str] = set()

    def note(frame, event, arg) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and PACKAGE in file.parents:
            entered.add(file.relative_to(PACKAGE).as_posix())

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        n_batches = sum(1 for _ in loader)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert n_batches == 10
    assert {file for file, _ in STEPS} - OTHER_WAYS <= entered
    assert not OTHER_WAYS & entered
    assert not {file for file in entered if file.startswith(("scvi/", "results/", "inputs/"))}
