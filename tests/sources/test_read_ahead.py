"""Files that are not in the page cache, and files on slow storage: the rows are h5py's, read ahead of decoding or not.

What a source may do wrong (short reads, signals, errors, changes while reads are in flight) is in tests/rust/slow.rs.
"""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from tests.sources.layouts import FORMATS, deliver, layout_of, row_patterns
from tests.support.h5ad_files import PIPELINES, dense, dense_matrix, write_h5ad
from tests.support.toys import hand_over, toy

from annfeed import AnnDataset
from annfeed.cli.bench import drop_pages
from annfeed.h5ad.file import open_h5py
from annfeed.h5ad.slow_file import SlowFile
from annfeed.process.threads import reads_in_flight

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


def is_cold(path: Path) -> bool:
    """Whether the system says that the middle of a file is not in its page cache."""
    with path.open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], path.stat().st_size // 2, os.RWF_NOWAIT)
        except BlockingIOError:
            return True
        except (AttributeError, OSError):
            pass
    return False


def long_file(folder: Path, n_rows: int = 3000) -> tuple[Path, sp.csr_matrix]:
    """Write a file of some hundred chunks; also return its rows."""
    counts = sp.random(n_rows, 400, 0.2, "csr", random_state=1, data_rvs=lambda n: np.arange(n) % 97 + 1)
    path = folder / "long.h5ad"
    anndata.AnnData(counts.astype("float32")).write_h5ad(path, compression="gzip")
    with h5py.File(path, "r+") as file:  # in smaller chunks than anndata writes
        for name in ("data", "indices"):
            values = file[f"X/{name}"][:]
            del file[f"X/{name}"]
            file["X"].create_dataset(name, data=values, chunks=(2000,), compression="gzip")
    return path, counts.astype("float32")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("filters", ["none", "gzip4", "shuffle, gzip, fletcher32"])
def test_cold_files_give_the_rows_of_h5py(form: str, filters: str, tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS[form], layout_of(form, PIPELINES[filters]))
    for io_depth in (0, 3, "auto"):
        for rows in row_patterns(60):
            drop_pages(str(path))
            found = deliver(path, rows, io_depth=io_depth)
            np.testing.assert_array_equal(found, dense_matrix(path)[rows])


@pytest.mark.parametrize("order", [{"shuffle": False}, {"block_size": 16}, {"block_size": "auto"}, {}], ids=str)
def test_every_order_of_a_cold_file(order: dict[str, Any], tmp_path: Path) -> None:
    path, expected = long_file(tmp_path)
    for io_depth, num_workers in ((0, 0), (8, 0), ("auto", 1)):
        drop_pages(str(path))
        with AnnDataset(path, window=500, output="csr", cache=0, io_depth=io_depth, return_index=True) as dataset:
            loader = dataset.get_optimized_dataloader(64, seed=3, num_workers=num_workers, **order)
            seen = []
            for batch in loader:
                seen.append(batch["index"].numpy())
                np.testing.assert_array_equal(dense(batch["X"]), expected[seen[-1]].toarray())
        np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(3000))


def test_bytes_of_cold_files_are_read_ahead_and_counted(tmp_path: Path) -> None:
    path, _ = long_file(tmp_path)
    with AnnDataset(path, obs_columns=[], cache=0, window=500) as dataset:
        drop_pages(str(path))
        cold = is_cold(path)
        list(dataset.get_optimized_dataloader(64, shuffle=False))
        first = dataset.stats()
        assert 0 <= first["bytes_ahead"] <= first["bytes_read"]
        # The system reads ahead, too: what it has read by then is not asked for.
        assert not cold or first["bytes_ahead"] + first["waits"] > 0
        for _ in range(3):
            path.read_bytes()
            list(dataset.get_optimized_dataloader(64, shuffle=False))
        later = dataset.stats()
    # What is in the page cache is not waited for, and each thread reads what it decodes. (The system may drop some.)
    read, ahead = later["bytes_read"] - first["bytes_read"], later["bytes_ahead"] - first["bytes_ahead"]
    assert read > 2 * first["bytes_read"]
    assert not cold or ahead < read / 2
    assert later["waited_us"] >= first["waited_us"]


def test_threads_that_read_end_when_there_is_nothing_to_read(tmp_path: Path) -> None:
    path, _ = long_file(tmp_path)
    drop_pages(str(path))
    with AnnDataset(path, obs_columns=[], cache=0, window=500, io_depth=16) as dataset:
        next(iter(dataset.get_optimized_dataloader(64, seed=0)))
    deadline = time.monotonic() + 30
    while _n_reading() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _n_reading() == 0


def _n_reading() -> int:
    folder = Path("/proc/self/task")
    if not folder.exists():
        return 0
    names = []
    for task in folder.iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:
            continue
    return names.count("annfeed-io")


def test_io_depth_travels_with_the_dataset(tmp_path: Path) -> None:
    path = hand_over(toy(), "path", tmp_path)
    dataset = pickle.loads(pickle.dumps(AnnDataset(path, obs_columns=[], io_depth=5)))
    drop_pages(str(path))
    np.testing.assert_array_equal(dense(dataset[list(range(40))].batch["X"])[:, 0], np.arange(40))


@pytest.mark.parametrize(
    ("io_depth", "error"),
    [(-1, ValueError), (5000, ValueError), ("many", TypeError), (2.5, TypeError), (True, TypeError)],
)
def test_what_is_no_number_of_reads_is_refused(io_depth: Any, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error, match=r"io_depth is .*; expected"):
        AnnDataset(hand_over(toy(), "path", tmp_path), io_depth=io_depth)
    assert reads_in_flight(np.int64(4)) == 4


# Looking things up on slow storage. -----------------------------------------------------------------------------------


def test_a_dataset_opens_its_file_with_h5py_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = hand_over(toy(), "path", tmp_path), []
    real = h5py.File.__init__

    def note(self: h5py.File, *args: Any, **kwargs: Any) -> None:
        opened.append(args)
        real(self, *args, **kwargs)

    monkeypatch.setattr(h5py.File, "__init__", note)
    dataset = AnnDataset(path, var_subset=["gene2", "gene0"], elem={"X": "X", "counts": "layers/counts"})
    assert sum(isinstance(args[0], str) for args in opened) == 1  # the others are of what has the file open
    assert list(dataset.var_names) == ["gene2", "gene0"]
    with open_h5py(str(path)) as file, open_h5py(str(path)) as again:
        assert file is not again, "outside of a dataset's making each opening is one"


def test_what_is_read_in_blocks_is_what_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    raw = np.random.default_rng(0).bytes(700_001)
    path.write_bytes(raw)
    with SlowFile(str(path)) as file:
        for start, n in (
            (0, 10),
            (262_140, 10),
            (1, 700_000),
            (262_144, 300_000),
            (699_990, 100),
            (700_001, 5),
            (800_000, 1),
        ):
            assert file.seek(start) == start
            assert file.read(n) == raw[start : start + n]
        assert file.seek(-3, os.SEEK_END) == 699_998
        assert file.read() == raw[-3:]
        assert file.seek(1) == 1
        assert file.seek(2, os.SEEK_CUR) == file.tell() == 3
    path.write_bytes(raw[::-1])
    with SlowFile(str(path)) as file:
        assert file.read(100) == raw[::-1][:100], "blocks of what the file was are not used"


def test_datasets_on_storage_that_is_slow_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hand_over(toy(), "path", tmp_path)
    expected = AnnDataset(path)
    monkeypatch.setattr(SlowFile, "is_slow", lambda self: True)
    found = AnnDataset(path)
    assert found.obs.equals(expected.obs)
    assert found.var_names.equals(expected.var_names)
    np.testing.assert_array_equal(dense(found[list(range(40))].batch["X"]), dense(expected[list(range(40))].batch["X"]))
    for raw in (b"", b"no HDF5", path.read_bytes()[:2000]):
        damaged = tmp_path / "damaged.h5ad"
        damaged.write_bytes(raw)
        monkeypatch.setattr(SlowFile, "is_slow", lambda self: False)
        with pytest.raises(ValueError, match=r"damaged\.h5ad") as direct:
            AnnDataset(damaged)
        monkeypatch.setattr(SlowFile, "is_slow", lambda self: True)
        with pytest.raises(type(direct.value), match=r"damaged\.h5ad"):
            AnnDataset(damaged)
