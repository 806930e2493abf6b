"""What people and scripts get of an inspection: tables, JSON, HTML."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.pages import Page

from annfeed import AnnDataset
from annfeed.cli import main
from annfeed.inspection import Inspection, ManyInspections, inspect_file, inspect_files

#: The keys that docs/cli.md promises to scripts.
KEYS = {"place", "file", "elem", "encoding", "shape", "dtype", "nnz", "chunk", "rows_per_chunk", "chunk_bytes"}
KEYS |= {"filters", "stored_bytes_per_row", "decoded_bytes_per_row", "held_bytes", "reader", "window", "cost"}
KEYS |= {"declined", "conversion_bytes", "obs_columns", "kind", "advice"}


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[str, str]]:
    """Gzip CSR, gzip dense, uncompressed CSR, and CSC."""
    x = sp.random(400, 30, 0.25, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    made: dict[str, tuple[Any, str | None]] = {"a": (x, "gzip"), "b": (x.toarray(), "gzip")}
    made |= {"c": (x, None), "d": (x.tocsc(), "gzip")}
    for name, (matrix, compression) in made.items():
        obs = pd.DataFrame({"kind": pd.Categorical(["x", "y"] * 200)}, index=[f"c{i}" for i in range(400)])
        anndata.AnnData(matrix, obs=obs).write_h5ad(tmp_path / f"{name}.h5ad", compression=compression)
    return [(str(tmp_path / f"{name}.h5ad"), "X") for name in made]


def test_a_table_of_files_names_their_folder_once(files: list[tuple[str, str]], tmp_path: Path) -> None:
    lines = str(inspect_files(files)).splitlines()
    assert lines[0] == f"4 files, 1,600 rows of 'X', in {tmp_path}"
    assert lines[1].split()[:6] == ["file", "encoding", "dtype", "rows", "columns", "filters"]
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["a.h5ad", "csr"],
        ["b.h5ad", "dense"],
        ["c.h5ad", "csr"],
        ["d.h5ad", "csc"],
    ]
    assert sum(str(tmp_path) in line for line in lines) == 1


def test_files_whose_matrices_lie_in_different_places_say_where(files: list[tuple[str, str]]) -> None:
    one, two = inspect_files(files[:2]).files
    lines = str(ManyInspections((one, replace(two, elem="raw.X")))).splitlines()
    assert lines[0].startswith("2 files, 800 rows, in ")
    assert [line.split()[-1] for line in lines[1:4]] == ["matrix", "X", "raw.X"]


def test_advice_for_many_files_is_that_of_each_taken_together(files: list[tuple[str, str]]) -> None:
    found = inspect_files(files)
    both = [file for file in found.files if file.encoding != "csc" and file.filters]
    assert len(both) == 2
    advice = "\n".join(found.advice)
    assert "each file once" in advice and "block_size='auto'" in advice
    needed = inspect_file(files[3][0]).conversion_bytes
    assert "d.h5ad: stored by columns" in advice and f"{needed:,} bytes" in advice
    assert "no filters" not in advice
    twice = inspect_files([files[3]] * 3)
    assert "d.h5ad and 2 others: stored by columns" in twice.advice[0] and f"{3 * needed:,} bytes" in twice.advice[0]
    plain = inspect_files([files[2]] * 2)
    assert plain.advice == inspect_file(files[2][0]).advice


def test_the_cache_that_is_advised_is_for_all_files(files: list[tuple[str, str]]) -> None:
    one = inspect_file(files[0][0])
    large = [Inspection(**{**vars(one), "held_bytes": 3 << 30}) for _ in range(2)]
    assert "cache='5GiB'" in large[0].advice[0]
    assert "cache='9GiB'" in type(inspect_files(files))(tuple(large)).advice[0]


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_nothing_is_advised_for_a_file_without_values(form: str, files: list[tuple[str, str]], tmp_path: Path) -> None:
    x = np.zeros((0, 5), np.float32)
    empty = (str(tmp_path / "empty.h5ad"), "X")
    adata = anndata.AnnData(x if form == "dense" else sp.csr_matrix(x).asformat(form))
    adata.write_h5ad(empty[0], compression="gzip")
    found = inspect_file(*empty)
    assert found.advice == () and "advice" not in str(found)
    assert inspect_files([empty] * 2).advice == ()
    assert inspect_files([files[0], empty]).advice[0] == inspect_file(*files[0]).advice[0].replace(
        "the file", "each file"
    )
    assert inspect_files([files[3], empty]).advice[0].startswith("d.h5ad: stored by columns")


def test_windows_of_many_files_are_shared_by_their_rows(files: list[tuple[str, str]]) -> None:
    found = inspect_files(files[:2], window=100)
    assert [file.window for file in found.files] == [50, 50]
    for file, (path, elem) in zip(found.files, files, strict=False):
        assert file == inspect_file(path, elem, 50)


def test_json_of_one_file(files: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", files[0][0], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == KEYS
    told = inspect_file(files[0][0])
    for key, value in found.items():
        there = getattr(told, key)
        assert value == (list(there) if isinstance(there, tuple) else there), key
    assert found["advice"]


def test_json_of_many_files(files: list[tuple[str, str]]) -> None:
    many = inspect_files(files)
    found = json.loads(json.dumps(many.as_dict()))
    assert set(found) == {"n_rows", "cost", "advice", "files", "unreadable"}
    assert [set(file) for file in found["files"]] == [KEYS] * 4
    assert (found["n_rows"], found["cost"]) == (1600, many.cost)


class Terminal:
    """Stdout that is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_the_command_is_in_colour_on_a_terminal_only(
    files: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert main(["inspect", files[0][0]]) == 0
    plain = capsys.readouterr().out
    assert plain.strip() == str(inspect_file(files[0][0])) and "\x1b" not in plain
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal := Terminal())
        assert main(["inspect", files[0][0]]) == 0
    assert "\x1b[1m" in terminal.text
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal := Terminal())
        patch.setenv("NO_COLOR", "1")
        assert main(["inspect", files[0][0]]) == 0
    assert terminal.text == plain


@pytest.mark.parametrize("many", [False, True])
def test_html_is_escaped_and_has_no_scripts(tmp_path: Path, many: bool) -> None:
    name = "a<b>&'\"<script>alert(1)"
    (tmp_path / "x").mkdir()
    path = tmp_path / "x" / f"{name}.h5ad"
    obs = pd.DataFrame({"<i>kind": [1, 2, 3]}, index=list("abc"))
    anndata.AnnData(np.eye(3, dtype=np.float32), obs=obs).write_h5ad(path)
    found = AnnDataset([path, path] if many else path, obs_columns=[]).inspect()
    page = Page(found._repr_html_())
    page.check_is_harmless()
    assert any(name in text for text in page.texts)
    assert many or "<i>kind: int64" in page.texts


def test_names_in_a_file_do_not_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    obs = pd.DataFrame({"kind\x1b[2J": [1, 2, 3]}, index=list("abc"))
    adata = anndata.AnnData(np.eye(3, dtype=np.float32), obs=obs, layers={"c\x1b[2Jounts": np.eye(3)})
    adata.write_h5ad(tmp_path / "a.h5ad")
    path = str(tmp_path / "a.h5ad")
    assert main(["inspect", path]) == 0
    assert main(["inspect", path, "--elem", "layers/counts"]) == 1
    told = "".join(capsys.readouterr()) + repr(AnnDataset(path))
    assert told.count("kind\\x1b[2J") == 2 and "c\\x1b[2Jounts" in told
    assert "\x1b" not in told
