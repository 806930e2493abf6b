"""`rewrite`: the new file holds what the old one holds, as h5py, anndata and scipy read both, or it is not there."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import anndata
import h5py
import hdf5plugin  # noqa: F401  (registers its filters with h5py)
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.rewriting.trees import assert_same_adata, assert_same_tree, refused_alike_or_read
from tests.support.corpus import FILES

from annfeed import FormatError, StaleFileError, rewrite
from annfeed.rewriting import layout, matrix, target, write

#: By codec: HDF5's numbers of the filters of values of four bytes.
FILTERS = {"zstd": [2, 32015], "bitshuffle": [32008], "lz4": [2, 32004], "gzip": [2, 1], "lzf": [2, 32000]}


def filters(dataset: Any) -> list[int]:
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]


def cells(n_obs: int = 300, n_vars: int = 90, seed: int = 0) -> anndata.AnnData:
    """An AnnData with a matrix of each kind in each place."""
    rng = np.random.default_rng(seed)

    def counts(columns: int, density: float, dtype: str) -> Any:
        values = sp.random(n_obs, columns, density, "csr", random_state=rng, data_rvs=lambda n: rng.integers(1, 9, n))
        return values.astype(dtype)

    adata = anndata.AnnData(counts(n_vars, 0.3, "float32"))
    adata.obs["kind"] = pd.Categorical(rng.choice(["B", "NK", "ätwas"], n_obs))
    adata.obs["depth"] = rng.random(n_obs)
    adata.obs["maybe"] = pd.array(rng.choice([1, 2, None], n_obs), dtype="Int64")
    adata.var["name"] = [f"gene {i}" for i in range(n_vars)]
    adata.raw = adata.copy()
    adata.layers["dense"] = rng.random((n_obs, n_vars)).astype("float64")
    adata.layers["columns"] = counts(n_vars, 0.1, "int64").tocsc()
    adata.layers["none"] = sp.csr_matrix((n_obs, n_vars), dtype="float32")
    adata.obsm["pca"] = rng.random((n_obs, 5)).astype("float32")
    adata.obsm["sparse"] = counts(12, 0.5, "int16")
    adata.obsm["protein"] = pd.DataFrame(rng.random((n_obs, 3)), columns=list("abc"), index=adata.obs_names)
    adata.obsm["cube"] = rng.random((n_obs, 2, 3))
    adata.obsp["all"] = rng.random((n_obs, n_obs)).astype("float32")
    adata.obsp["near"] = counts(n_obs, 0.05, "float64")
    adata.varm["loadings"] = rng.random((n_vars, 4))
    adata.uns["colours"] = {"kind": np.array(["red", "green"]), "n": 3, "of": {"pca": np.arange(4)}}
    return adata


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewrite") / "cells.h5ad"
    cells().write_h5ad(path, compression="gzip")
    return path


@pytest.mark.parametrize("codec", FILTERS)
def test_each_codec_holds_the_same(codec: str, source: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.h5ad"
    rewrite(source, new, codec=codec)
    assert_same_tree(source, new)
    assert_same_adata(anndata.read_h5ad(source), anndata.read_h5ad(new))
    with h5py.File(new) as file:
        for place in ("X/data", "raw/X/indices", "obsp/near/indptr", "layers/dense", "obsm/pca"):
            assert filters(file[place]) == FILTERS[codec], place
        assert filters(file["obs/depth"]) == [1], "copied as it is"
    assert list(tmp_path.iterdir()) == [new]


@pytest.mark.corpus
@pytest.mark.parametrize("name", FILES)
def test_real_files(name: str, corpus: Path, tmp_path: Path) -> None:
    source, new = corpus / f"{name}.h5ad", tmp_path / "new.h5ad"
    rewrite(source, new, codec="bitshuffle" if len(name) % 2 else "zstd")
    assert_same_tree(source, new)
    with h5py.File(source) as a, h5py.File(new) as b:
        assert a.userblock_size == b.userblock_size
    if both := refused_alike_or_read(source, new):
        assert_same_adata(*both)


@pytest.mark.parametrize("chunk_rows", [None, 1, 7, 10_000])
@pytest.mark.parametrize("window", [100, 5000, 8 << 20])
def test_windows_and_chunks_of_any_length(
    chunk_rows: int | None, window: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "WINDOW", window)
    rewrite(source, tmp_path / "new.h5ad", chunk_rows=chunk_rows, threads=3)
    assert_same_tree(source, tmp_path / "new.h5ad")
    with h5py.File(tmp_path / "new.h5ad") as file:
        n, per_row = len(file["X/data"]), len(file["X/data"]) / 300
        if chunk_rows is not None:
            assert file["X/data"].chunks == (min(n, round(chunk_rows * per_row)),)
            assert file["layers/dense"].chunks == (min(300, chunk_rows), 90)


def test_levels(source: Path, tmp_path: Path) -> None:
    sizes = []
    for level in (1, 9):
        rewrite(source, tmp_path / f"{level}.h5ad", codec="gzip", level=level)
        sizes.append(os.path.getsize(tmp_path / f"{level}.h5ad"))
        with h5py.File(tmp_path / f"{level}.h5ad") as file:
            assert file["X/data"].compression_opts == level
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codec": "rar"}, "codec is 'rar'; expected one of 'zstd', 'bitshuffle', 'lz4', 'gzip', 'lzf'"),
        ({"level": 23}, "level is 23; expected 1 to 22"),
        ({"codec": "lzf", "level": 1}, "expected None, as it has no levels"),
        ({"chunk_rows": 0}, "chunk_rows"),
        ({"threads": 0}, "threads"),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        rewrite(source, tmp_path / "new.h5ad", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays_unless_told(source: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.h5ad"
    new.write_text("mine")
    with pytest.raises(FileExistsError):
        rewrite(source, new)
    assert new.read_text() == "mine"
    rewrite(source, new, overwrite=True)
    assert_same_tree(source, new)
    before = source.read_bytes()
    os.link(source, tmp_path / "same.h5ad")
    for same in (source, tmp_path / "same.h5ad"):
        with pytest.raises(ValueError, match="one file"):
            rewrite(source, same, overwrite=True)
    assert source.read_bytes() == before


def test_a_file_that_comes_meanwhile_stays(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = tmp_path / "new.h5ad"
    monkeypatch.setattr(write, "_check", lambda *_: new.write_text("mine"))
    with pytest.raises(FileExistsError):
        rewrite(source, new)
    assert new.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [new]


@pytest.mark.parametrize("part", ["X/data", "X/indices", "raw/X/data", "obsp/near/indices", "layers/dense", "obsm/pca"])
def test_what_is_damaged_on_its_way_gets_no_name(
    part: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(self: Any, elements: Any) -> None:
        if self.dataset.name == f"/{part}":
            elements = elements.copy()
            elements[-3] ^= 4
        ours(self, elements)

    ours = matrix.ArrayWriter.add
    monkeypatch.setattr(matrix.ArrayWriter, "add", add)
    with pytest.raises(OSError, match=r"row \d+ of '.*' reads otherwise than it was written"):
        rewrite(source, tmp_path / "new.h5ad")
    assert not list(tmp_path.iterdir())


def test_a_damaged_source_is_told(source: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.h5ad"
    bad.write_bytes(source.read_bytes())
    with h5py.File(bad, "r+") as file:
        file["X/indptr"][5] = 10**6
    with pytest.raises(FormatError, match="indptr"):
        rewrite(bad, tmp_path / "new.h5ad")
    bad.write_bytes(source.read_bytes())
    with h5py.File(bad) as file:
        offset = file["X/data"].id.get_chunk_info(0).byte_offset
    with open(bad, "rb+") as raw:
        raw.seek(offset + 40)
        raw.write(b"\0\xff\0\xff")
    with pytest.raises(FormatError, match="damaged"):
        rewrite(bad, tmp_path / "new.h5ad")
    assert list(tmp_path.iterdir()) == [bad]


def test_a_source_that_changes_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old.h5ad"
    old.write_bytes(source.read_bytes())
    monkeypatch.setattr(write, "_check", lambda *_: os.utime(old, (1, 1)))
    with pytest.raises(StaleFileError):
        rewrite(old, tmp_path / "new.h5ad")
    assert list(tmp_path.iterdir()) == [old]


SCRIPT = """
import os, resource, signal, sys
import annfeed.rewriting.write as write
how, source, new = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background ignores it
if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
else:
    check = write._check
    def stopped(*arguments):
        os.kill(os.getpid(), getattr(signal, how))
        check(*arguments)
    write._check = stopped
try:
    write.rewrite(source, new)
except BaseException as error:
    print(type(error).__name__, getattr(error, "errno", None), error)
    raise SystemExit(3)
"""


@pytest.mark.parametrize(("how", "status"), [("full", 3), ("SIGINT", 3), ("SIGKILL", -signal.SIGKILL)])
def test_whatever_ends_it_there_is_no_half_file(how: str, status: int, source: Path, tmp_path: Path) -> None:
    import subprocess

    before = source.read_bytes()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "out"
    folder.mkdir()
    command = [sys.executable, str(script), how, str(source), str(folder / "new.h5ad")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    left = [path.name for path in folder.iterdir()]
    if how == "SIGKILL":
        assert len(left) == 1
        assert target.UNFINISHED in left[0]
        assert not left[0].endswith(".h5ad")
    else:
        assert left == []
        assert ("KeyboardInterrupt" if how == "SIGINT" else "File too large") in done.stdout
    assert source.read_bytes() == before


def test_links_references_and_orders_are_kept(tmp_path: Path) -> None:
    source, new = tmp_path / "odd.h5ad", tmp_path / "new.h5ad"
    cells(40, 9).write_h5ad(source)
    with h5py.File(source, "r+", track_order=True) as file:
        file["uns/soft"] = h5py.SoftLink("/obs/depth")
        file["layers/also"] = h5py.SoftLink("/X")
        file["uns"].attrs["of"] = file["uns/colours"].ref
        file["uns/refs"] = np.array([file["X"].ref, file["obs/depth"].ref], h5py.ref_dtype)
        file["uns"].attrs["nothing"] = h5py.Empty("f4")
        file["uns"].attrs["fixed"] = np.bytes_("text")
        file["uns"].attrs.create("texts", ["a", "bc"], dtype=h5py.string_dtype())
        ordered = file.create_group("obsp/z", track_order=True)
        ordered["b"], ordered["a"] = 1, 2
    rewrite(source, new)
    assert_same_tree(source, new)
    with h5py.File(new) as file:
        assert [file[ref].name for ref in file["uns/refs"]] == ["/X", "/obs/depth"]


@pytest.mark.parametrize("codec", FILTERS)
def test_values_that_do_not_compress(codec: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source, new = tmp_path / "noise.h5ad", tmp_path / "new.h5ad"
    anndata.AnnData(rng.random((50, 301))).write_h5ad(source)
    rewrite(source, new, codec=codec)
    assert_same_tree(source, new)
