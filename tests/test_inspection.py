"""What `inspect` and the command line say about files whose layout is known."""

from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from annfeed import AnnDataset, UnknownNameError
from annfeed.cli import main
from annfeed.inspection import inspect_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    m = sp.random(5000, 200, 0.25, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    adata = anndata.AnnData(m, layers={"dense": m.toarray(), "columns": m.tocsc()})
    adata.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    return tmp_path / "a.h5ad"


def test_a_csr_matrix(path: Path) -> None:
    found = AnnDataset(path, chunk_size=1000).inspect()
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
    dataset = AnnDataset(path, chunk_size=1000, cache=0)
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


def test_the_text_for_people(path: Path) -> None:
    text = str(inspect_file(path))
    for word in ("csr", "gzip", "rows a chunk", "exact random", "block_size='auto'", "cache="):
        assert word in text


def test_in_memory_there_is_nothing_to_inspect() -> None:
    with pytest.raises(ValueError, match="in memory"):
        AnnDataset(anndata.AnnData(np.eye(3, dtype=np.float32))).inspect()


def test_no_such_element(path: Path) -> None:
    with pytest.raises(UnknownNameError, match="layers/nothing"):
        inspect_file(path, "layers/nothing")


def test_the_command(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(inspect_file(path))
    assert main(["bench", str(path), "--seconds", "0.2", "--window", "1000"]) == 0
    out = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in out.splitlines()[1:-1]]
    assert rows == ["file order", "block_size='auto'", "block_size=16", "exact random"]


def test_the_command_tells_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nothing.h5ad")]) == 1
    assert "nothing.h5ad" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["inspect"])
