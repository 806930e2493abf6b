"""Reading many files: windows that cross them, caches, workers, files that change or are damaged."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import torch.distributed as dist
from tests.inputs.shards import ROWS, SHARDS, rows_of
from tests.support.atlas import FILES, adata_of, write
from tests.support.toys import dense

from annfeed import AnnDataset, AnnfeedWarning, StaleFileError
from annfeed.errors import FormatError

pytestmark = [pytest.mark.filterwarnings("ignore:obs columns that not all"), pytest.mark.usefixtures("nothing_is_left")]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the atlas's files."""
    folder = tmp_path_factory.mktemp("atlas")
    write(folder)
    return folder


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 7, "auto"])
@pytest.mark.parametrize("settings", [{}, {"window": 10}, {"threads": 1, "max_open_files": 1}], ids=str)
def test_each_row_once_and_the_order_that_one_file_has(
    shards: list[Path], tmp_path: Path, block_size: Any, settings: dict[str, Any]
) -> None:
    dataset = AnnDataset(shards, **settings)
    loader = dataset.get_optimized_dataloader(batch_size=16, seed=4, block_size=block_size)
    first, second = rows_of(loader), rows_of(loader)
    assert sorted(first) == sorted(second) == list(range(SHARDS * ROWS))
    assert first != second
    if block_size != "auto":  # which is cut where the files' chunks are
        whole = AnnDataset(anndata.concat([anndata.read_h5ad(path) for path in shards]), **{**settings})
        assert first == rows_of(whole.get_optimized_dataloader(batch_size=16, seed=4, block_size=block_size))


def test_blocks_are_cut_at_the_borders_of_files(atlas: Path) -> None:
    dataset = AnnDataset([*write(atlas, "a"), adata_of("b"), *write(atlas, "d")])
    starts = dataset.reader.unit_starts()
    assert starts is not None
    in_a = AnnDataset(write(atlas, "a")[0]).reader.unit_starts()
    assert in_a is not None
    # Rows in memory can be read singly: there are borders every 16 rows.
    assert starts.tolist() == [*in_a.tolist(), 40, 56, 70]
    assert AnnDataset([adata_of("a"), adata_of("b")]).reader.unit_starts() is None
    subset = AnnDataset([*write(atlas, "a"), adata_of("b")], obs_subset=[0, 1, 39, 40, 41, 69, 3])
    assert 3 in subset.reader.unit_starts().tolist()


def test_plain_dataloader(shards: list[Path]) -> None:
    dataset = AnnDataset(shards)
    loader = torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True, collate_fn=dataset.get_collate_fn())
    assert sorted(rows_of(loader)) == list(range(SHARDS * ROWS))


def test_rows_know_their_file(shards: list[Path]) -> None:
    dataset = AnnDataset(shards, obs_subset=range(299, -1, -1))
    assert dataset.source_rows == [range(i * ROWS, (i + 1) * ROWS) for i in range(SHARDS)]
    for batch in dataset.predict_loader(batch_size=64):
        assert batch["index"].tolist() == batch["obs_row"].tolist()


def test_split_of_many_files(shards: list[Path]) -> None:
    parts = AnnDataset(shards).split({"train": 0.7, "test": 0.3}, seed=1)
    found = [rows_of(part.get_optimized_dataloader(32, seed=0)) for part in parts.values()]
    assert sorted(found[0] + found[1]) == list(range(SHARDS * ROWS))


# --- workers, pitfall 17 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_pitfall_17(shards: list[Path], method: str) -> None:
    # Row 17: handles shared through fork; the parent has files open already.
    dataset = AnnDataset([*shards[:-1], anndata.read_h5ad(shards[-1], backed="r")], max_open_files=5, window=60)
    alone = rows_of(dataset.get_optimized_dataloader(batch_size=20, seed=2))
    loader = dataset.get_optimized_dataloader(
        batch_size=20,
        seed=2,
        num_workers=1 if method == "spawn" else 2,  # it takes seconds to start
        multiprocessing_context=multiprocessing.get_context(method),
    )
    assert rows_of(loader) == alone
    assert rows_of(dataset.get_optimized_dataloader(batch_size=20, seed=2)) == alone


def test_pickle_holds_no_file_and_opens_none(shards: list[Path]) -> None:
    dataset = AnnDataset(shards, obs_columns=["row"], label="file", max_open_files=4)
    rows_of(dataset.get_optimized_dataloader(64, seed=0))
    travelled = pickle.loads(pickle.dumps(dataset))
    assert travelled.stats()["opens"] == 0
    assert len(pickle.dumps(dataset)) < 20_000
    assert travelled.obs["file"].tolist() == dataset.obs["file"].tolist()
    assert rows_of([travelled.__getitems__([299, 0, 150]).batch]) == [299, 0, 150]
    assert travelled.stats()["opens"] == 3


def _rank(rank: int, world: int, paths: list[Path], port: str, results: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    loader = AnnDataset(paths, max_open_files=2).get_optimized_dataloader(batch_size=16, block_size=5, seed=3)
    torch.save([rows_of(loader), rows_of(loader)], f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch is built without torch.distributed")
def test_two_ranks_share_the_files(shards: list[Path], tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torch.multiprocessing.start_processes(
        _rank, args=(2, shards, port, str(tmp_path)), nprocs=2, start_method="forkserver"
    )
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for epoch in range(2):
        assert sorted(first[epoch] + second[epoch]) == list(range(SHARDS * ROWS))
    # Blocks are dealt over all files before ranks get their share.
    assert len({row // ROWS for row in first[0]}) == SHARDS


# --- cache, pitfall 20 ------------------------------------------------------------------------------------------------


def test_one_budget_for_all_files_pitfall_20(shards: list[Path], tmp_path: Path) -> None:
    # Row 20: caches keyed by file and element, within bounds, and no tensors of it handed out.
    shards = [Path(shutil.copy(path, tmp_path)) for path in shards]
    roomy = AnnDataset(shards, cache="10MiB")
    for _ in range(2):
        rows_of(roomy.get_optimized_dataloader(64, seed=0))
    needed = roomy.stats()["cache_bytes"]
    assert roomy.stats()["cache_misses"] == SHARDS * ROWS
    assert needed > 0
    first = roomy.__getitems__(range(300)).batch["X"]
    kept = first.clone()
    first.zero_()
    assert torch.equal(roomy.__getitems__(range(300)).batch["X"], kept)
    roomy.close()
    budget = needed // 3
    tight = AnnDataset(shards, cache=budget)
    for _ in range(2):
        rows_of(tight.get_optimized_dataloader(64, seed=0))
    assert 0 < tight.stats()["cache_bytes"] <= budget


# --- what opening reads, pitfall 21 -----------------------------------------------------------------------------------


def test_opening_reads_no_obs_and_no_layer_pitfall_21(tmp_path: Path) -> None:
    # Row 21: memory stays flat when the files have large unused columns and layers.
    n = 40_000
    obs = pd.DataFrame({"row": np.arange(n, dtype="int32"), "barcode": [f"{i:060}" for i in range(n)]})
    adata = anndata.AnnData(sp.csr_matrix((n, 3), dtype="float32"), obs=obs.set_axis([f"{i:040}" for i in range(n)]))
    adata.layers["large"] = np.ones((n, 3))
    paths = [tmp_path / f"{i}.h5ad" for i in range(3)]
    adata.write_h5ad(paths[0])
    for path in paths[1:]:
        shutil.copy(paths[0], path)
    AnnDataset(paths[:1], obs_columns=["row"])[0]  # imports
    tracemalloc.start()
    try:
        dataset = AnnDataset(paths, obs_columns=["row"])
        dataset.__getitems__([0, n, 3 * n - 1])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 3 * n * 3  # the column of int32, its parts, and little else; the barcodes would take 12 MB


def test_a_progress_bar_where_it_takes_long(
    shards: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    AnnDataset(shards)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("annfeed.display.progress.PATIENCE", 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    AnnDataset(shards)
    assert f"/{SHARDS}" in capsys.readouterr().err


# --- files that change or are damaged ---------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before it is opened", "while it is open", "while it is closed again"])
def test_a_file_that_changes_is_named_pitfall_27(shards: list[Path], tmp_path: Path, when: str) -> None:
    # Row 27: stale metadata after a file changed.
    paths = [Path(shutil.copy(path, tmp_path)) for path in shards[:3]]
    n_open = 1 if when == "while it is closed again" else 9
    dataset, with_obs = AnnDataset(paths, max_open_files=n_open, obs_columns=[]), AnnDataset(paths)
    if when != "before it is opened":
        dataset[30], dataset[0]
    shutil.copy(shards[7], paths[1])
    assert int(dataset[0]["X"][0]) == 0
    with pytest.raises(StaleFileError, match=rf"{paths[1].name}"):
        with_obs[0]  # the columns of all files are read together
    with pytest.raises(StaleFileError, match=rf"{paths[1].name}"):
        dataset[30]
    with pytest.raises(StaleFileError, match=rf"{paths[1].name}"):
        pickle.loads(pickle.dumps(dataset))[30]  # as in a worker


def test_a_damaged_file_is_named_where_its_rows_are_wanted(shards: list[Path], tmp_path: Path) -> None:
    paths = [Path(shutil.copy(path, tmp_path)) for path in shards[:3]]
    with h5py.File(paths[1], "r") as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    with paths[1].open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\0" * chunk.size)
    dataset = AnnDataset(paths)
    assert int(dataset[0]["X"][0]) == 0
    with pytest.raises(FormatError, match=r"01\.h5ad.*'X/data'"):
        dataset[30]


@pytest.mark.parametrize("missing", ["file", "matrix", "obs", "not HDF5"])
def test_a_file_that_cannot_be_opened_is_named(shards: list[Path], tmp_path: Path, missing: str) -> None:
    bad = tmp_path / "bad.h5ad"
    if missing == "not HDF5":
        bad.write_bytes(b"no HDF5" * 100)
    elif missing != "file":
        shutil.copy(shards[0], bad)
        with h5py.File(bad, "r+") as file:
            del file["X" if missing == "matrix" else "obs"]
    with pytest.raises((OSError, ValueError, KeyError), match=r"bad\.h5ad"):
        AnnDataset([shards[0], bad, shards[1]])


def test_files_read_through_h5py_are_told_once(shards: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / "odd.h5ad"
    with h5py.File(shards[1]) as file, h5py.File(odd, "w") as copy:
        for name in file:
            file.copy(name, copy)
        values = copy["X/data"][()]
        del copy["X/data"]
        copy["X"].create_dataset("data", data=values, chunks=(10,), scaleoffset=2)
        copy.attrs.update(dict(file.attrs))
    dataset = AnnDataset([shards[0], odd, shards[2]], max_open_files=1)
    with pytest.warns(AnnfeedWarning, match=r"odd\.h5ad.*h5py") as caught:
        found = rows_of(dataset.__getitems__([70, 30, 5, 49]).batch for _ in range(2))
    assert found == [70, 30, 5, 49] * 2
    assert len(caught) == 1
    with pytest.raises(FormatError, match=r"odd\.h5ad"):
        AnnDataset([shards[0], odd], strict=True).__getitems__([30])


# --- what a collection says -------------------------------------------------------------------------------------------


def test_inspect_tells_of_each_file(atlas: Path) -> None:
    many = AnnDataset(write(atlas)).inspect()
    assert [file.encoding for file in many.files] == ["csr", "dense", "csc", "csr"]
    assert many.cost["file order"] == 1
    text = str(many)
    assert "4 files, 91 rows" in text and "b.h5ad" in text and re.search(r"b\.h5ad +dense +int32 +30 +6 ", text)
    mixed = AnnDataset([write(atlas)[0], adata_of("b")]).inspect()
    assert len(mixed.files) == 1
    with pytest.raises(ValueError, match="in memory"):
        AnnDataset([adata_of("a"), adata_of("b")]).inspect()


def test_what_users_pass_that_is_wrong(tmp_path: Path, shards: list[Path]) -> None:
    wrong: list[tuple[Any, type[Exception], str]] = [
        ([], ValueError, "there are no sources"),
        ({}, ValueError, "there are no sources"),
        (str(tmp_path / "*.h5ad"), FileNotFoundError, r"no file matches the pattern.*\*\.h5ad"),
        ([shards[0], 3], TypeError, "a source is a int"),
        ({str(shards[0])}, TypeError, "a set, which has no order"),
        (tmp_path, OSError, "not a regular file|directory"),
    ]
    for sources, error, message in wrong:
        with pytest.raises(error, match=message):
            AnnDataset(sources)
    for options, error in [({"join": "left"}, ValueError), ({"label": 3}, TypeError), ({"keys": "ab"}, TypeError)]:
        with pytest.raises(error):
            AnnDataset(shards[:2], **options)  # type: ignore[arg-type]


def test_patterns_are_sorted_and_literal_names_are_kept(tmp_path: Path, shards: list[Path]) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    places = ["b.h5ad", "a.h5ad", "10.h5ad", "2.h5ad", "deep/er/c.h5ad", "[x].h5ad"]
    for place, shard in zip(places, shards, strict=False):
        shutil.copy(shard, tmp_path / place)
    found = AnnDataset(str(tmp_path / "?.h5ad")).sources
    assert [Path(path).name for path in found] == ["2.h5ad", "a.h5ad", "b.h5ad"]
    found = AnnDataset(tmp_path / "**" / "*.h5ad").sources
    assert [Path(path).name for path in found] == ["10.h5ad", "2.h5ad", "[x].h5ad", "a.h5ad", "b.h5ad", "c.h5ad"]
    assert int(AnnDataset(tmp_path / "[x].h5ad")[0]["X"][0]) == 5 * ROWS
    listed = AnnDataset([tmp_path / "b.h5ad", str(tmp_path / "*[0-9].h5ad")]).sources
    assert [Path(path).name for path in listed] == ["b.h5ad", "10.h5ad", "2.h5ad"]


def test_files_without_rows(tmp_path: Path, atlas: Path) -> None:
    empty = adata_of("a")[:0].copy()
    empty.write_h5ad(tmp_path / "empty.h5ad")
    dataset = AnnDataset([tmp_path / "empty.h5ad", *write(atlas, "ad"), tmp_path / "empty.h5ad"], keys=list("wxyz"))
    wanted = anndata.concat([adata_of("a"), adata_of("d")])
    assert dataset.shape == wanted.shape
    batch = dataset.__getitems__([40, 0, 39]).batch
    np.testing.assert_array_equal(batch["X"].numpy(), dense(wanted.X)[[40, 0, 39]])
    assert batch["obs_label"] == [str(label) for label in wanted.obs["label"].astype(object).iloc[[40, 0, 39]]]
    assert AnnDataset([empty, empty], output="csr").__getitems__([]).batch["X"].shape == (0, 6)
    assert len(FILES) == 4


@pytest.mark.parametrize("output", ["dense", "csr"])
def test_views_with_rows_in_any_order_and_twice(atlas: Path, output: Any) -> None:
    a, b = adata_of("a"), adata_of("b")
    picked = np.array([5, 0, 5, 9, 2])
    dataset = AnnDataset([a[picked], *write(atlas, "d"), b[::-1]], output=output, obs_columns=[])
    wanted = dense(anndata.concat([a[picked].copy(), adata_of("d"), b[::-1].copy()]).X)
    rows = [*np.random.default_rng(0).permutation(len(dataset)).tolist(), 2, 0, 2]
    np.testing.assert_array_equal(dense(dataset.__getitems__(rows).batch["X"]), wanted[rows])


@pytest.mark.parametrize("output", ["dense", "csr"])
def test_the_file_of_a_value_that_does_not_fit_is_named_wherever_it_is(tmp_path: Path, output: Any) -> None:
    x = np.arange(12, dtype="float32").reshape(4, 3)
    paths = [tmp_path / f"{name}.h5ad" for name in "abc"]
    for number, path in enumerate(paths):
        anndata.AnnData(x + 0.5 * (number == 1), var=pd.DataFrame(index=list("xyz"))).write_h5ad(path)
    view = anndata.read_h5ad(paths[1])[[3, 3, 1]]
    for sources, place in ((paths, str(paths[1])), ([paths[0], view, paths[2]], "AnnData")):
        dataset = AnnDataset(sources, dtype=torch.int32, output=output, threads=3)
        n = len(dataset)
        wrong = range(4, 4 + len(view)) if place == "AnnData" else range(4, 8)
        right = [row for row in range(n) if row not in wrong]
        assert len(dataset.__getitems__(right).batch["X"]) == len(right)
        for row in wrong:
            with pytest.raises(ValueError, match=r": 'X': column 0 holds the value [\d.]+5, which int32") as found:
                dataset.__getitems__([*right, row, *right])
            assert place in str(found.value)
            assert not any(str(path) in str(found.value) for path in (paths[0], paths[2]))
