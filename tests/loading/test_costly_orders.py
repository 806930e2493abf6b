"""An order that decodes far more than another would is told once, with what to set."""

import re
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from tests.support.toys import write

from annfeed import AnnDataset, AnnfeedWarning
from annfeed.loading import costly_orders

WORDS = "this order decodes up to"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    m = sp.random(5000, 200, 0.25, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    adata = anndata.AnnData(m, layers={"dense": m.toarray(), "columns": m.tocsc()})
    return write(adata, tmp_path / "a.h5ad", compression="gzip")


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of tests are small: an epoch of them costs little in any order."""
    monkeypatch.setattr(costly_orders, "_LEAST_BYTES", 1)


def given(dataset: AnnDataset, n_epochs: int = 1, **settings: Any) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        loader = dataset.get_optimized_dataloader(50, seed=0, **settings)
        for _ in range(n_epochs):
            for _ in loader:
                pass
    return [one for one in found if issubclass(one.category, AnnfeedWarning)]


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("elem", ["X", "layers/dense"])
@pytest.mark.parametrize("several", [False, True])
def test_what_is_told_is_what_reading_costs(path: Path, elem: str, several: bool) -> None:
    source = [path, path] if several else path
    settings: dict[str, Any] = {"elem": elem, "window": 200, "cache": 0, "obs_columns": []}
    dataset = AnnDataset(source, **settings)
    (told,) = given(dataset, 2)
    assert told.filename == __file__
    words = str(told.message)
    assert words.startswith(repr(dataset).splitlines()[0])
    numbers = re.search(
        r"up to (\S+) times .* block_size='auto' to the loader \((\S+) instead of (\S+) times\), or a larger window",
        words,
    )
    assert numbers
    cost, in_blocks, again = map(float, numbers.groups())
    assert cost == again
    delivered = len(dataset) * (200 * 4 if elem != "X" else 50 * 8)
    decoded = dataset.stats()["bytes_decoded"] / delivered / 2
    assert 0.5 * cost < decoded < 1.1 * cost
    blocks = AnnDataset(source, **settings)
    assert len(given(blocks, block_size="auto")) == (in_blocks > 3)
    assert 0.5 * in_blocks < blocks.stats()["bytes_decoded"] / delivered < 1.3 * in_blocks
    kept = re.search(r"cache='(.*?)'", words)
    assert kept
    assert given(AnnDataset(source, **(settings | {"cache": kept[1]}))) == []


@pytest.mark.usefixtures("any_size")
def test_it_is_told_once_for_a_dataset_and_its_parts(path: Path) -> None:
    dataset = AnnDataset(path, window=200, cache=0)
    parts = dataset.split({"train": 0.8, "val": 0.2})
    assert len(given(parts["train"])) == 1
    assert given(dataset) == given(parts["val"]) == given(parts["train"], block_size=2) == []


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(
    "settings",
    [{"block_size": 2}, {"weights": np.ones(5000)}, {"num_workers": 1, "multiprocessing_context": "fork"}],
)
def test_other_orders_that_cost_much(path: Path, settings: dict[str, Any]) -> None:
    (told,) = given(AnnDataset(path, window=200, cache=0), **settings)
    assert WORDS in str(told.message)


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(
    ("settings", "loader"),
    [
        ({}, {"shuffle": False}),
        ({}, {"block_size": 64}),
        ({}, {"order": lambda epoch: range(5000)}),
        ({}, {"sampler": range(4999, -1, -1)}),
        ({"cache": "auto"}, {}),
        ({"window": 5000}, {}),
        ({"elem": "layers/columns", "cache": "100MiB"}, {}),
        ({"obs_subset": range(0, 5000, 100), "window": 20}, {}),
    ],
)
def test_orders_that_cost_little(path: Path, settings: dict[str, Any], loader: dict[str, Any]) -> None:
    assert given(AnnDataset(path, **({"window": 200, "cache": 0} | settings)), **loader) == []


@pytest.mark.usefixtures("any_size")
def test_rows_that_can_be_read_alone(path: Path, tmp_path: Path) -> None:
    plain = write(anndata.read_h5ad(path), tmp_path / "plain.h5ad")
    for source in (plain, anndata.read_h5ad(path), [anndata.read_h5ad(path)] * 2):
        assert given(AnnDataset(source, window=200, cache=0)) == []


def test_few_draws_cost_little_whatever_the_data(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costly_orders, "_LEAST_BYTES", 2 << 20)
    for n_samples, n_told in ((100, 0), (5000, 1)):
        dataset = AnnDataset(path, window=200, cache=0)
        assert len(given(dataset, weights=np.ones(5000), n_samples=n_samples)) == n_told


@pytest.mark.usefixtures("any_size")
def test_headers_are_those_of_the_file(path: Path, tmp_path: Path) -> None:
    plain = write(anndata.read_h5ad(path), tmp_path / "plain.h5ad")
    with_backed = AnnDataset([anndata.read_h5ad(plain, backed="r"), path], window=200, cache=0)
    described = with_backed.reader.file_with_headers()
    assert described is not None and described.path == str(path)
    assert len(given(with_backed)) == 1


def test_small_files_are_read_at_once_in_any_order(path: Path) -> None:
    assert given(AnnDataset(path, window=200, cache=0)) == []


@pytest.mark.usefixtures("any_size")
def test_it_recommends_the_cache_that_inspections_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annfeed.inspection.costs._ROOM", 1e5)  # a toy needs the least that there is
    dataset = AnnDataset(path, window=200, cache=0)
    (told,) = given(dataset)
    cache = re.search(r"cache='(\d+)GiB'", str(told.message))
    assert cache
    assert int(cache[1]) > 1
    assert cache[0] in dataset.inspect().advice[0]
