"""Files that change while they are read: each way to read them finds out."""

import os
import shutil

import numpy as np
import pytest
from tests.sources.layouts import ALL, COUNTS, FORMATS, layout_of
from tests.support.h5ad_files import (
    FOREIGN,
    PIPELINES,
    dense_matrix,
    write_h5ad,
)

from annfeed import (
    AnnDataset,
    StaleFileError,
)

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


# Files that change. --------------------------------------------------------------------------------------------------


def appended(path):
    with path.open("ab") as file:
        file.write(b"\0")


def rewritten(path):
    stat = path.stat()
    raw = path.read_bytes()
    path.write_bytes(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def shortened(path):
    os.truncate(path, path.stat().st_size - 1)


def renamed_over(path):
    stat = path.stat()
    shutil.copy2(path, path.with_suffix(".new"))
    os.utime(path.with_suffix(".new"), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    path.with_suffix(".new").replace(path)


def turned_to_text(path):
    path.write_text("no longer HDF5")


def unlinked(path):
    path.unlink()


CHANGES = [appended, rewritten, shortened, renamed_over, turned_to_text, unlinked]


def ways_to_read(dataset):
    yield lambda: dataset[3]
    yield lambda: dataset.__getitems__([4, 2])
    yield lambda: list(dataset.get_optimized_dataloader(batch_size=20))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", [*FORMATS, "through h5py"])
@pytest.mark.filterwarnings("ignore::annfeed.errors.AnnfeedWarning")
def test_a_file_that_changes_is_stale(tmp_path, form, change):
    filters = FOREIGN["bzip2"] if form == "through h5py" else PIPELINES["gzip4"]
    form = "csr" if form == "through h5py" else form
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS[form], layout_of(form, filters))
    dataset = AnnDataset(path, cache="1GiB")
    np.testing.assert_array_equal(dataset.__getitems__(ALL).batch["X"], COUNTS.toarray())
    change(path)
    for read in ways_to_read(dataset):
        with pytest.raises(StaleFileError, match=r"x\.h5ad.*since.*again"):
            read()
    dataset.close()


# Either the worker has what this process had open, or it is given paths and opens them itself.
IN_WORKERS = [
    ("gzip4", "fork", appended),
    ("gzip4", "fork", unlinked),
    ("gzip4", "forkserver", renamed_over),
    ("gzip4", "forkserver", shortened),
    ("bzip2", "fork", rewritten),
    ("bzip2", "forkserver", unlinked),
]


@pytest.mark.parametrize(("name", "context", "change"), IN_WORKERS)
@pytest.mark.filterwarnings("ignore::annfeed.errors.AnnfeedWarning")
def test_a_worker_finds_a_changed_file_stale(tmp_path, name, context, change):
    layout = layout_of("csr", {**PIPELINES, **FOREIGN}[name])
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"], layout)
    dataset = AnnDataset(path)
    change(path)
    loader = dataset.get_optimized_dataloader(batch_size=20, num_workers=1, multiprocessing_context=context)
    with pytest.raises(StaleFileError, match=r"x\.h5ad.*since.*again"):
        list(loader)


def test_a_file_that_is_only_read_stays_fresh(tmp_path):
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"])
    dataset = AnnDataset(path)
    for _ in range(3):
        assert dense_matrix(path).sum() == dataset.__getitems__(ALL).batch["X"].sum()
