"""What `annfeed inspect` makes of its arguments: one file or several, some of which cannot be read."""

import json
import shutil
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
from tests.support import h5ad_files as h5ad
from tests.support.pages import Page

from annfeed.cli import main
from annfeed.inspection import inspect_file, inspect_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, n_rows in (("a", 4), ("b", 6)):
        anndata.AnnData(np.eye(n_rows, 5, dtype=np.float32)).write_h5ad(folder / f"{name}.h5ad", compression="gzip")
    return folder


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> Any:
    assert main(["inspect", "--json", *map(str, arguments)]) == status
    return json.loads(capsys.readouterr().out)


def test_the_form_of_the_json_is_that_of_the_arguments(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = inspect_file(folder / "a.h5ad").as_dict()
    assert as_json(capsys, folder / "a.h5ad") == one
    (folder / "b.h5ad").unlink()
    for arguments in ([folder], [folder / "*.h5ad"], [folder / "a.h5ad"] * 2, [folder, folder / "a.h5ad"]):
        found = as_json(capsys, *arguments)
        assert found["files"] == [one] and found["n_rows"] == 4
    shutil.copy(folder / "a.h5ad", folder / "a[1].h5ad")  # a name, not a pattern
    assert as_json(capsys, folder / "a[1].h5ad")["shape"] == [4, 5]


def test_a_file_that_is_given_twice_counts_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "link.h5ad").symlink_to(folder / "b.h5ad")
    monkeypatch.chdir(folder)
    given = [folder / "b.h5ad", "b.h5ad", folder.parent / "link.h5ad", folder, "*.h5ad"]
    found = as_json(capsys, *given)
    assert [file["file"] for file in found["files"]] == [str(folder / name) for name in ("b.h5ad", "a.h5ad")]
    assert found["n_rows"] == 10


@pytest.mark.parametrize("order", ["first", "last"])
def test_files_that_cannot_be_read_are_told_beside_those_that_can(
    order: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = folder / ("0.h5ad" if order == "first" else "z.h5ad")
    bad.write_bytes(b"nothing of that kind")
    no_x = folder / "no_x.h5ad"
    with h5py.File(no_x, "w") as file:
        file.create_group("obs")
    assert main(["inspect", str(folder)]) == 1
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0] == f"2 files, 10 rows of 'X', in {folder}"
    assert [line.split()[:2] for line in lines[2:4]] == [["a.h5ad", "dense"], ["b.h5ad", "dense"]]
    for path in (bad, no_x):
        with pytest.raises((OSError, ValueError, KeyError)) as error:
            inspect_file(path)
        message = str(error.value).removeprefix(f"{path}: ")
        (line,) = [line for line in lines if line.split()[0] == path.name]
        assert line.split(maxsplit=1)[1] == f"cannot be read: {message}"
    assert max(map(len, lines[1:4])) < 100  # the messages do not make the columns wide
    found = as_json(capsys, folder, status=1)
    assert [file["file"] for file in found["files"]] == [str(folder / name) for name in ("a.h5ad", "b.h5ad")]
    assert set(found["unreadable"]) == {str(bad), str(no_x)}
    page = Page(inspect_files([(str(path), "X") for path in (bad, folder / "a.h5ad")], strict=False)._repr_html_())
    page.check_is_harmless()
    assert any(text.startswith("cannot be read: ") for text in page.texts)


def test_where_no_file_can_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folder), "--elem", "layers/no"]) == 1
    assert capsys.readouterr().out.count("cannot be read: ") == 2
    found = as_json(capsys, folder, "--elem", "layers/no", status=1)
    assert found["files"] == [] and len(found["unreadable"]) == 2
    with pytest.raises(KeyError, match="layers/no"):  # as a dataset has it
        inspect_files([(str(folder / "a.h5ad"), "layers/no")])


@pytest.mark.filterwarnings("default")
def test_warnings_are_told_as_errors_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = h5ad.Storage(chunks=(4, 4), filters=h5ad.FOREIGN["blosc2"])
    path = h5ad.write_h5ad(tmp_path / "a.h5ad", np.eye(8, dtype=np.float32), h5ad.Layout(storage))
    assert main(["bench", str(path), "--seconds", "0.01"]) == 0
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if "read through h5py" in line]
    assert line.startswith(f"annfeed: {path}: ")
    assert "AnnfeedWarning" not in "".join(lines)
