"""Arguments that are wrong, and reads that are interrupted."""

import signal
import subprocess
import sys
import time
import zlib

import h5py
import numpy as np
import pytest
import torch
from tests.sources.layouts import FORMATS
from tests.support.h5ad_files import (
    put_frame,
    write_h5ad,
)
from tests.support.toys import toy

from annfeed import (
    AnnDataset,
    Compose,
    Transform,
)

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


# Arguments. ----------------------------------------------------------------------------------------------------------


class Nothing(Transform):
    def __call__(self, data_dict):
        data_dict["X"] += 1


class NothingAtAll(Nothing):
    batched = True


ARGUMENTS = [
    ({"transform": lambda item: item}, TypeError, "transform must be a Transform", "annfeed.Transform"),
    ({"transform": Nothing}, TypeError, "transform must be a Transform", "instance"),
    ({"obs_subset": [0, -1]}, IndexError, "obs_subset holds -1", "0 to 59"),
    ({"obs_subset": [60]}, IndexError, "obs_subset holds 60", "0 to 59"),
    ({"obs_subset": np.ones(59, bool)}, ValueError, "mask of length 59", "60 rows"),
    ({"chunk_size": 0}, ValueError, "chunk_size is 0", "positive integer"),
    ({"chunk_size": -5}, ValueError, "chunk_size is -5", "positive integer"),
    ({"chunk_size": 2.5}, TypeError, "chunk_size is 2.5", "positive integer"),
    ({"threads": 0}, ValueError, "threads is 0", "positive integer"),
    ({"elem": "layers/spliced"}, KeyError, "'layers/spliced' does not exist", "'layers/counts'", "elem="),
    ({"elem": "counts"}, KeyError, "elem is 'counts'", "layers/<name>"),
    ({"elem": 7}, TypeError, "elem is 7", "'X'"),
    ({"elem": {}}, ValueError, "elem is empty"),
    ({"obs_columns": ["n_gene"]}, KeyError, "'n_gene'", "n_genes"),
    ({"var_subset": ["1", "gene"]}, KeyError, "no gene 'gene'", "There are 41"),
    ({"var_subset": ["4O"]}, KeyError, "no gene '4O'", "Did you mean"),
    ({"var_subset": [3, 3]}, ValueError, "column 3 twice"),
    ({"var_subset": ["3", "5", "3"]}, ValueError, "column 3 twice"),
    ({"var_subset": [41]}, IndexError, "var_subset holds 41", "41 columns"),
    ({"var_subset": np.ones(40, bool)}, ValueError, "mask of length 40", "41 columns"),
    ({"dtype": torch.complex64}, TypeError, "dtype is torch.complex64", "torch.float32"),
    ({"dtype": "float32"}, TypeError, "dtype is 'float32'", "torch.float32"),
    ({"dtype": np.float32}, TypeError, "dtype is", "torch.float32"),
    ({"output": "coo"}, ValueError, "output is 'coo'", "'dense'", "'csr'"),
    ({"categories": "int"}, ValueError, "categories is 'int'", "'str'", "'code'"),
    ({"cache": "much"}, ValueError, "cache is 'much'", "'4GiB'"),
    ({"cache": -1}, ValueError, "cache is -1"),
    ({"cache": 1.5}, TypeError, "cache is 1.5"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "kind", "parts"), [(o, k, p) for o, k, *p in ARGUMENTS])
def test_arguments(tmp_path, options, kind, parts):
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"], obs={"n_genes": np.arange(60)})
    with h5py.File(path, "r+") as file:
        file["layers/counts"] = file["X"]
    with pytest.raises(kind) as caught:
        AnnDataset(path, **options)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("transform", "workers"), [(Nothing(), 0), (NothingAtAll(), 0), (Compose([Nothing()]), 0), (Nothing(), 1)]
)
def test_a_transform_that_returns_nothing(tmp_path, transform, workers):
    dataset = AnnDataset(write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"]), transform=transform)
    with pytest.raises(TypeError, match=r"Nothing.*returned.*None.*not a dict.*return data_dict"):
        dataset[0]
    with pytest.raises(TypeError, match=r"Nothing.*returned.*None.*not a dict.*return data_dict"):
        list(dataset.get_optimized_dataloader(num_workers=workers))


# Ctrl-C. -------------------------------------------------------------------------------------------------------------


READ_FOR_LONG = """
import signal
# A shell that starts something in the background lets it ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from annfeed import AnnDataset

dataset = AnnDataset(sys.argv[1], obs_columns=[], var_subset=[0], threads=int(sys.argv[2]), cache=0, chunk_size=2**16)
print("reading", flush=True)
try:
    if sys.argv[3] == "rows":
        dataset.__getitems__(range(len(dataset)))
    else:
        for batch in dataset.get_optimized_dataloader(batch_size=2**16, shuffle=False):
            pass
except KeyboardInterrupt:
    print(dataset.stats()["bytes_read"], float(dataset[5]["X"]), flush=True)
    raise
print("finished", flush=True)
"""


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    """Return a file that takes long to read and little room: 64 GiB of zeros, in chunks that are all the same."""
    path = tmp_path_factory.mktemp("long") / "x.h5ad"
    n_rows, chunk = 2**18, (64, 2**16)
    deflated = zlib.compress(bytes(chunk[0] * chunk[1] * 4), 1)
    with h5py.File(path, "w", libver="latest") as file:
        put_frame(file, "obs", n_rows)
        put_frame(file, "var", chunk[1])
        array = file.create_dataset("X", (n_rows, chunk[1]), "f4", chunks=chunk, compression="gzip")
        for row in range(0, n_rows, chunk[0]):
            array.id.write_direct_chunk((row, 0), deflated)
    yield path
    path.unlink()


@pytest.mark.parametrize(("threads", "how"), [(1, "rows"), (2, "rows"), (2, "loader")])
def test_ctrl_c_ends_a_long_read(long_file, threads, how):
    command = [sys.executable, "-c", READ_FOR_LONG, str(long_file), str(threads), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "reading\n"
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=100)
    assert "finished" not in out
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    assert child.returncode in (-signal.SIGINT, 130)
    bytes_read, value = out.split()
    # It stopped in the middle of the read, and the dataset is as good as before.
    assert int(bytes_read) < long_file.stat().st_size
    assert float(value) == 0


@pytest.mark.parametrize("elem", ["X", "layers/counts", "obsm/X_pca"])
def test_a_masked_array_is_refused(elem):
    adata = toy(kind="dense")
    masked = np.ma.masked_less(adata.X.copy(), 3)
    if elem == "X":
        adata.X = masked
    else:
        kind, name = elem.split("/")
        getattr(adata, kind)[name] = masked
    with pytest.raises(TypeError, match=rf"AnnData: '{elem}' is a masked array.*filled\(0\)"):
        AnnDataset(adata, elem=elem)
