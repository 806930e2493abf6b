"""What `inspect` and the command line say about files whose layout is known."""

import glob
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem
from tests.support import h5ad_files as h5ad

import annfeed
from annfeed import AnnDataset, AnnfeedWarning, StaleFileError, UnknownNameError, UnsupportedError
from annfeed.cli import main
from annfeed.h5ad.headers import read_headers
from annfeed.inspection import inspect_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    m = sp.random(5000, 200, 0.25, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    adata = anndata.AnnData(m, layers={"dense": m.toarray(), "columns": m.tocsc()})
    adata.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    return tmp_path / "a.h5ad"


def test_a_csr_matrix(path: Path) -> None:
    found = AnnDataset(path, window=1000).inspect()
    with h5py.File(path) as file:
        data, indices = file["X/data"], file["X/indices"]
        assert (found.encoding, found.shape, found.nnz) == ("csr", (5000, 200), 250_000)
        assert (found.chunk, found.filters, found.reader) == (data.chunks, ("gzip",), "rust")
        stored = data.id.get_storage_size() + indices.id.get_storage_size()
        assert found.stored_bytes_per_row == pytest.approx(stored / 5000)
        assert found.rows_per_chunk == pytest.approx(indices.chunks[0] / 50)
    assert found.cost["file order"] == 1.0
    assert found.cost["exact random"] > found.cost["block_size=16"] > found.cost["block_size=64"] > 1.0


@pytest.mark.parametrize("order", ["exact random", "block_size=16", "block_size=64"])
def test_costs_are_what_reading_costs(path: Path, order: str) -> None:
    # The formula speaks of whole chunks; reading stops within a chunk where it can, so it may cost less, never more.
    block = {"exact random": 1, "block_size=16": 16, "block_size=64": 64}[order]
    dataset = AnnDataset(path, window=1000, cache=0)
    plan = dataset.get_optimized_dataloader(100, block_size=block, seed=0).sampler
    rows = np.fromiter(plan, int).reshape(5, 1000)
    for window in rows:
        dataset.__getitems__(window)
    cost = dataset.stats()["bytes_decoded"] / (250_000 * 8)
    assert 0.6 * dataset.inspect().cost[order] < cost < 1.1 * dataset.inspect().cost[order]


def test_other_elements(path: Path) -> None:
    dense = inspect_file(path, "layers/dense")
    assert (dense.encoding, dense.nnz) == ("dense", 1_000_000)
    assert dense.rows_per_chunk == dense.chunk[0]
    columns = inspect_file(path, "layers/columns")
    assert (columns.encoding, columns.cost) == ("csc", {})
    assert "CSR" in columns.advice[0]
    assert "decoded for each byte" not in str(columns)  # a heading with nothing under it
    assert "rows a chunk" not in str(columns)


def test_the_memory_that_csc_takes_is_what_reading_it_asks_for(path: Path) -> None:
    needed = inspect_file(path, "layers/columns").conversion_bytes
    assert needed == 250_000 * 24 + 5000 * 8
    assert f"{needed:,} bytes of cache=" in str(inspect_file(path, "layers/columns"))
    with pytest.raises(MemoryError, match=f"needs {needed} bytes .*larger cache="):
        AnnDataset(path, elem="layers/columns", cache=needed - 1)
    dataset = AnnDataset(path, elem="layers/columns", cache=needed)
    assert dataset.stats()["bytes_read"] < 10_000  # turned into rows at the first read
    with h5py.File(path) as file:
        wanted = file["layers/dense"][3]
    assert np.array_equal(dataset[3]["X"].numpy(), wanted)
    assert dataset.stats()["bytes_read"] > 500_000


FOREIGN_LAYOUTS = {
    "compact": (h5ad.Storage(compact=True), "compact layout"),
    "another filter": (h5ad.Storage(chunks=(4, 4), filters=h5ad.FOREIGN["blosc2"]), "32026"),
    "szip": (h5ad.Storage(chunks=(4, 4), filters=h5ad.FOREIGN["szip"]), "szip"),
}


@pytest.mark.parametrize("name", FOREIGN_LAYOUTS)
def test_what_the_core_declines_is_said_to_go_through_h5py(name: str, tmp_path: Path) -> None:
    storage, reason = FOREIGN_LAYOUTS[name]
    file = h5ad.write_h5ad(tmp_path / "a.h5ad", np.eye(8, dtype=np.float32), h5ad.Layout(storage))
    found = inspect_file(file)
    assert (found.reader, found.encoding, found.shape) == ("h5py", "dense", (8, 8))
    assert reason in str(found.declined)
    assert f"because of {found.declined}" in str(found)
    with pytest.warns(AnnfeedWarning, match="read through h5py"):  # as the dataset has it
        AnnDataset(file)


def test_other_storage_and_types_go_through_h5py(tmp_path: Path) -> None:
    file = h5ad.write_h5ad(tmp_path / "a.h5ad", np.eye(4, dtype=np.float32))
    with h5py.File(file, "a") as f:
        layout = h5py.VirtualLayout((4, 4), "f4")
        layout[:] = h5py.VirtualSource(str(file), "X", (4, 4))
        f.create_virtual_dataset("layers/virtual", layout)
        f["layers"].create_dataset("external", (4, 4), "f4", external=[(str(tmp_path / "raw"), 0, 64)])
        odd = h5py.h5t.STD_I32LE.copy()
        odd.set_precision(31)
        h5py.h5d.create(f["layers"].id, b"odd", odd, h5py.h5s.create_simple((4, 4)))
    for name in ("virtual", "external", "odd"):
        assert inspect_file(file, f"layers/{name}").reader == "h5py", name


def test_attributes_stored_as_bytes(tmp_path: Path) -> None:
    m = sp.csc_matrix(np.eye(3, dtype=np.float32))
    file = h5ad.write_h5ad(tmp_path / "a.h5ad", h5ad.Stored.of(m))
    with h5py.File(file, "a") as f:
        for attributes in (f["X"].attrs, f["obs"].attrs):
            kind = attributes["encoding-type"]
            attributes["encoding-type"] = np.bytes_(kind.encode())
    assert inspect_file(file).encoding == "csc"


def test_obs_columns_are_listed(tmp_path: Path) -> None:
    obs = pd.DataFrame(
        {"n": [1, 2, 3], "type": pd.Categorical(list("aba")), "name": list("xyz"), "maybe": pd.array([1, None, 2])},
        index=list("123"),
    )
    anndata.AnnData(np.eye(3, dtype=np.float32), obs=obs).write_h5ad(tmp_path / "a.h5ad")
    found = inspect_file(tmp_path / "a.h5ad")
    assert list(found.obs_columns) == ["n", "type", "name", "maybe"]
    assert found.obs_columns["n"] == "int64"
    assert found.obs_columns["type"] == "categorical (2 categories)"
    assert found.obs_columns["maybe"] == "int64 with missing values"
    assert "type: categorical (2 categories)" in str(found)


@pytest.mark.parametrize("elem", ["layers/count", "raw/X", "layer/x", "X/y"])
def test_errors_are_those_of_a_dataset(path: Path, elem: str) -> None:
    told = []
    for ask in (inspect_file, lambda path, elem: AnnDataset(path, elem=elem)):
        with pytest.raises(UnknownNameError) as error:
            ask(path, elem)
        told.append(str(error.value))
    assert told[0] == told[1]


def test_mudata_is_told_with_its_modalities(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5mu", "w") as file:
        file.attrs["encoding-type"] = "MuData"
        write_elem(file.create_group("mod"), "rna", anndata.AnnData(np.eye(3, dtype=np.float32)))
    with pytest.raises(UnknownNameError, match=r"'rna'.*mod/<modality>/X"):
        inspect_file(tmp_path / "a.h5mu")
    assert inspect_file(tmp_path / "a.h5mu", "mod/rna/X").shape == (3, 3)


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, check=False, **options)


#: Nothing that takes seconds to import.
PROBE = "import sys; from annfeed.cli import main; assert main(sys.argv[1:]) == 0; print(*sys.modules, file=sys.stderr)"


@pytest.mark.parametrize("command", ["inspect", "rewrite"])
def test_a_command_does_without_torch_and_anndata(path: Path, tmp_path: Path, command: str) -> None:
    arguments = [str(path), str(tmp_path / "out.h5ad")] if command == "rewrite" else [str(path)]
    done = run(sys.executable, "-c", PROBE, command, *arguments)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.split())
    assert {"inspect": "annfeed.inspection", "rewrite": "annfeed.rewriting.write"}[command] in loaded
    assert loaded.isdisjoint({"torch", "anndata", "pandas", "scipy", "tqdm"})


def test_as_a_module_with_json_and_a_version(path: Path) -> None:
    done = run(sys.executable, "-m", "annfeed", "inspect", str(path), "--json")
    found = json.loads(done.stdout)
    assert (found["encoding"], found["shape"], found["reader"]) == ("csr", [5000, 200], "rust")
    assert run(sys.executable, "-m", "annfeed", "--version").stdout.strip() == f"annfeed {annfeed.__version__}"


@pytest.mark.parametrize("arguments", [["inspect", "FILE"], ["--help"]])
def test_a_reader_that_has_enough_is_left_in_peace(path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "annfeed", *(str(path) if a == "FILE" else a for a in arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait() != 1


def test_the_text_for_people(path: Path) -> None:
    text = str(inspect_file(path))
    for word in ("csr", "gzip", "rows a chunk", "exact random", "block_size='auto'", "cache="):
        assert word in text


GZIP = {"compression": "gzip"}


@pytest.mark.parametrize(
    ("data", "indices", "decoded_whole"),
    [
        ({"chunks": (200,), **GZIP}, {"chunks": (500,), **GZIP}, 500),
        ({"chunks": (200,), **GZIP}, {}, 200),
        ({"chunks": (200,), **GZIP}, {"chunks": (500,)}, 200),
        ({}, {"chunks": (500,), **GZIP}, 500),
        ({"chunks": (200,)}, {"chunks": (500,)}, 0),
        ({}, {}, 0),
    ],
)
def test_loaders_and_inspections_tell_the_same_of_a_file(
    data: dict[str, Any], indices: dict[str, Any], decoded_whole: int, tmp_path: Path
) -> None:
    m = sp.random(100, 80, 0.25, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    anndata.AnnData(m, layers={"dense": m.toarray()}).write_h5ad(tmp_path / "a.h5ad", **GZIP)
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        for name, how in (("data", data), ("indices", indices)):
            values = file["X"][name][:]
            del file["X"][name]
            file["X"].create_dataset(name, data=values, **how)
        rows_of_dense = file["layers/dense"].chunks[0]
    for elem, rows_per_chunk in (("X", decoded_whole / 20), ("layers/dense", rows_of_dense)):
        found, headers = inspect_file(tmp_path / "a.h5ad", elem), read_headers(str(tmp_path / "a.h5ad"), elem)
        assert headers is not None
        assert found.rows_per_chunk == headers.rows_per_chunk == rows_per_chunk
        assert found.decoded_bytes_per_row == headers.decoded_bytes == (20 * 8 if elem == "X" else 80 * 4)
        assert found.held_bytes == headers.held_bytes * 100


def test_what_no_header_can_raise_is_not_passed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any) -> None:
        raise MemoryError

    assert read_headers(str(path), "layers/missing") is None
    monkeypatch.setattr("annfeed.h5ad.headers.sparse_format", no_memory)
    with pytest.raises(MemoryError):
        read_headers(str(path), "X")


def test_in_memory_there_is_nothing_to_inspect() -> None:
    with pytest.raises(ValueError, match="in memory"):
        AnnDataset(anndata.AnnData(np.eye(3, dtype=np.float32))).inspect()


@pytest.mark.parametrize("window", [0, -5])
def test_a_window_has_rows(path: Path, window: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=f"window is {window}; expected a positive integer"):
        inspect_file(path, "X", window)
    assert main(["inspect", str(path), "--window", str(window)]) == 1
    assert f"window is {window}" in capsys.readouterr().err


def test_a_dataframe_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adata = anndata.AnnData(np.eye(3, dtype=np.float32))
    adata.obsm["p"] = pd.DataFrame(np.eye(3), index=adata.obs_names, columns=["a", "b", "c"])
    adata.write_h5ad(tmp_path / "p.h5ad")
    path = str(tmp_path / "p.h5ad")
    words = r"p.h5ad: 'obsm/p' is a DataFrame.*AnnDataset reads it"
    for given in (path, [path, path]):
        with pytest.raises(UnsupportedError, match=words):
            AnnDataset(given, elem="obsm/p", obs_columns=[]).inspect()
    assert main(["inspect", path, "--elem", "obsm/p"]) == 1
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize("elem", ["X", "obsm/p"])
def test_a_file_that_was_replaced_is_not_described_as_the_one_before(tmp_path: Path, elem: str) -> None:
    adata = anndata.AnnData(np.eye(3, dtype=np.float32), obsm={"p": np.eye(3)})
    adata.write_h5ad(tmp_path / "a.h5ad")
    one, several = (AnnDataset(given, elem=elem) for given in (tmp_path / "a.h5ad", [tmp_path / "a.h5ad"] * 2))
    assert one.inspect().shape == (3, 3)
    adata[:2].copy().write_h5ad(tmp_path / "b.h5ad")
    os.replace(tmp_path / "b.h5ad", tmp_path / "a.h5ad")
    for dataset in (one, several):
        with pytest.raises(StaleFileError, match="the file changed"):
            dataset.inspect()


def test_no_such_element(path: Path) -> None:
    with pytest.raises(UnknownNameError, match="layers/nothing"):
        inspect_file(path, "layers/nothing")


def test_the_command(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(inspect_file(path))
    for cold, pages in ((["--cold", "--io-depth", "4"], "the file's pages dropped"), ([], "page cache as it was")):
        assert main(["bench", str(path), "--seconds", "0.2", "--window", "1000", *cold]) == 0
        out = capsys.readouterr().out
        lines = out.splitlines()
        rows = [line.split("  ")[0] for line in lines[1:5]]
        assert rows == ["file order", "block_size='auto'", "block_size=16", "exact random"]
        assert pages in lines[5]


@pytest.fixture
def folder(path: Path) -> Path:
    folder = path.parent / "atlas[1]"
    folder.mkdir()
    for name, start, stop in (("a", 0, 1000), ("b", 1000, 5000)):
        anndata.read_h5ad(path)[start:stop].copy().write_h5ad(folder / f"{name}.h5ad", compression="gzip")
    return folder


def test_the_command_takes_files_patterns_and_folders(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: object) -> str:
        assert main(["inspect", *map(str, arguments)]) == 0
        return capsys.readouterr().out.strip()

    files = [folder / "a.h5ad", folder / "b.h5ad"]
    several = str(AnnDataset(files).inspect())
    assert "2 files, 5,000 rows" in several
    assert told(*files) == told(folder) == told(f"{glob.escape(str(folder))}/*.h5ad") == several
    assert told(f"{glob.escape(str(folder))}/b*") == str(inspect_file(files[1]))
    found = json.loads(told("--json", *files))
    assert [tuple(file["shape"]) for file in found["files"]] == [(1000, 200), (4000, 200)]
    assert main(["bench", str(folder), "--seconds", "60", "--cold"]) == 0
    assert re.search(r"file order .* 5,000\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("nothing*.h5ad", "annfeed: no file matches the pattern 'nothing*.h5ad'"),
        ("FOLDER", "annfeed: there are no .h5ad or Cell Ranger .h5 files in the folder 'FOLDER'"),
        ("FOLDER", "expected at least one. Pass files or a pattern: 'FOLDER/**/*.h5ad'"),
        ("s3://bucket/a.h5ad", "s3://bucket/a.h5ad is a remote address (s3://); expected an .h5ad file. Download"),
        ("s3://bucket/*.h5ad", "s3://bucket/*.h5ad is a remote address (s3://); expected an .h5ad file. Download"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "bench"])
def test_the_command_tells_what_is_no_file(
    command: str, argument: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, argument.replace("FOLDER", str(tmp_path))]) == 1
    assert told.replace("FOLDER", str(tmp_path)) in capsys.readouterr().err


def test_a_pattern_of_a_remote_store_is_told_to_a_dataset() -> None:
    with pytest.raises(UnsupportedError, match=r"s3://bucket/\*.h5ad is a remote address .*Download the file"):
        AnnDataset("s3://bucket/*.h5ad")


def test_the_command_tells_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nothing.h5ad")]) == 1
    assert "nothing.h5ad" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["inspect"])
