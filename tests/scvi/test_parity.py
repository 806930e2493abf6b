"""The stock class and ours, side by side: in memory every batch is the same; on disk it is the one from memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("scvi.dataloaders", reason="scvi-tools is not installed")

from scvi.dataloaders import AnnDataLoader as Stock
from tests.support.scvi_toys import assert_same, backed, cells, manager, toy

from annfeed import AnnDataLoader

N = 43
SCATTERED = [7, 3, 3, 15, 0, 42, -1, 20]
MASK = np.arange(N) % 4 == 1

#: Arguments that the stock class honours.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "batches of 5": {"batch_size": 5},
    "one batch": {"batch_size": 64},
    "batches of 1": {"batch_size": 1, "indices": [4, 2]},
    "indices": {"indices": SCATTERED, "batch_size": 3},
    "indices as an array": {"indices": np.array(SCATTERED, dtype=np.int32), "batch_size": 3},
    "no indices": {"indices": []},
    "mask": {"indices": MASK, "batch_size": 4},
    "shuffled": {"shuffle": True, "batch_size": 8},
    "shuffled indices": {"shuffle": True, "indices": SCATTERED, "batch_size": 3},
    "drop_last": {"batch_size": 8, "drop_last": True},
    "drop_last of less than a batch": {"batch_size": 64, "drop_last": True},
    "drop_dataset_tail without ranks": {"batch_size": 8, "drop_dataset_tail": True},
    "keys as a list": {"data_and_attributes": ["batch", "X"], "batch_size": 8},
    "no keys": {"data_and_attributes": [], "batch_size": 8},
    "keys with dtypes": {
        "data_and_attributes": {"X": np.float64, "labels": np.float32, "batch": np.int32, "size_factor": np.float16},
        "batch_size": 8,
    },
    "X as integers": {"data_and_attributes": {"X": np.int64}, "batch_size": 8},
    "X as uint16": {"data_and_attributes": {"X": np.uint16}, "batch_size": 8},
    "numpy": {"iter_ndarray": True, "batch_size": 8},
    "sparse": {"load_sparse_tensor": True, "batch_size": 8},
    "sparse, scattered": {"load_sparse_tensor": True, "batch_size": 3, "indices": SCATTERED},
    "sparse numpy": {"load_sparse_tensor": True, "iter_ndarray": True, "batch_size": 8},
    "collate": {"collate_fn": len, "batch_size": 8},
}
ATTRIBUTES = (
    "multiprocessing_context",
    "batch_size",
    "num_workers",
    "pin_memory",
    "drop_last",
    "timeout",
    "pin_memory_device",
    "prefetch_factor",
    "persistent_workers",
    "generator",
    "batch_sampler",
)


def epochs(loader: Any, n: int = 2) -> tuple[list[Any], torch.Tensor]:
    """The batches of n epochs after the same seed, and what is left of the generator."""
    torch.manual_seed(3)
    batches = [batch for _ in range(n) for batch in loader]
    return batches, torch.get_rng_state()


def assert_same_epochs(ours: Any, stock: Any) -> None:
    assert len(ours) == len(stock)
    (mine, my_state), (theirs, their_state) = epochs(ours), epochs(stock)
    assert len(mine) == len(theirs) == 2 * len(stock)
    for a, b in zip(mine, theirs, strict=True):
        if isinstance(b, dict):
            assert_same(a, b)
        else:
            assert a == b
    assert torch.equal(my_state, their_state), "another use of torch's generator"


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_in_memory_batches_are_the_stock_class_s(kind: str, layer: str | None, name: str) -> None:
    registered = manager(toy(N, kind=kind), layer=layer)
    assert_same_epochs(AnnDataLoader(registered, **ARGUMENTS[name]), Stock(registered, **ARGUMENTS[name]))


@pytest.mark.parametrize("layer", [None, "counts"])
# A CSC matrix on disk gives CSR tensors: the next test.
@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in ("csr", "csc", "dense") for n in ARGUMENTS if k != "csc" or "sparse" not in n]
)
def test_batches_from_disk_are_those_from_memory(kind: str, layer: str | None, name: str, tmp_path: Path) -> None:
    adata = toy(N, kind=kind)
    on_disk, in_memory = manager(backed(adata, tmp_path), layer=layer), manager(adata, layer=layer)
    # Windows of two batches: several in an epoch.
    ours = AnnDataLoader(on_disk, window=16, cache="1MiB", **ARGUMENTS[name])
    assert_same_epochs(ours, Stock(in_memory, **ARGUMENTS[name]))
    keys = ARGUMENTS[name].get("data_and_attributes")
    # anndata holds the layers of a backed AnnData in memory: what they are there is delivered.
    assert ours.dataset.dataset.streamed == (layer is None and (keys is None or "X" in keys))


@pytest.mark.parametrize("layer", [None, "counts"])
def test_csc_on_disk_gives_csr_tensors(layer: str | None, tmp_path: Path) -> None:
    adata = toy(N, kind="csc")
    on_disk, in_memory = manager(backed(adata, tmp_path), layer=layer), manager(adata, layer=layer)
    ours = list(AnnDataLoader(on_disk, load_sparse_tensor=True, batch_size=8))
    in_order = Stock(in_memory, batch_size=8)
    # anndata holds the layers of a backed AnnData in memory, where they are what the stock loader makes of them.
    layout = torch.sparse_csr if layer is None else next(iter(Stock(in_memory, load_sparse_tensor=True)))["X"].layout
    for mine, theirs in zip(ours, in_order, strict=True):
        assert mine["X"].layout is layout
        assert layer is not None or mine["X"].crow_indices().dtype is torch.int32
        assert torch.equal(mine["X"].to_dense(), theirs["X"])


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float64", "int32"])
@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_dtypes_on_disk(kind: str, dtype: str, tmp_path: Path) -> None:
    adata = toy(N, kind=kind, dtype=dtype)
    on_disk, in_memory = manager(backed(adata, tmp_path)), manager(adata)
    for wanted in (None, {"X": np.float64}, {"X": np.int32}, {"X": np.uint8}):
        assert_same_epochs(
            AnnDataLoader(on_disk, data_and_attributes=wanted), Stock(in_memory, data_and_attributes=wanted)
        )


@pytest.mark.parametrize("form", ["memory", "backed"])
def test_attributes_are_the_stock_class_s(form: str, tmp_path: Path) -> None:
    registered = manager(toy(N) if form == "memory" else backed(toy(N), tmp_path))
    ours = AnnDataLoader(registered, indices=MASK, batch_size=8, shuffle=True, drop_last=True)
    stock = Stock(registered, indices=MASK, batch_size=8, shuffle=True, drop_last=True)
    for name in ATTRIBUTES:
        assert getattr(ours, name) == getattr(stock, name), name
    np.testing.assert_array_equal(ours.indices, stock.indices)
    assert ours.kwargs.keys() == stock.kwargs.keys()
    assert type(ours.sampler) is type(stock.sampler)
    assert isinstance(ours.dataset, torch.utils.data.Subset)
    assert len(ours.dataset) == len(stock.dataset)
    assert len(ours.dataset.dataset) == len(stock.dataset.dataset)
    assert ours.dataset.dataset.keys_and_dtypes == stock.dataset.dataset.keys_and_dtypes
    ours.check_worker_number_rationality()
    with pytest.raises(ValueError, match="batch_size"):
        ours.batch_size = 3


def test_the_dataset_gives_batches_as_the_stock_one() -> None:
    registered = manager(toy(N))
    ours, stock = AnnDataLoader(registered, indices=SCATTERED), Stock(registered, indices=SCATTERED)
    assert_same(ours.dataset[[0, 2]], stock.dataset[[0, 2]])
    for index in (5, [5, 2, 2], slice(3, 9)):
        assert_same(ours.dataset.dataset[index], stock.dataset.dataset[index])


def test_covariates_need_no_key() -> None:
    adata = toy(N)
    registered = manager(adata, **dict.fromkeys(("size_factor_key", "labels_key", "batch_key")))
    assert_same_epochs(AnnDataLoader(registered), Stock(registered))


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "stock"])
def test_errors_of_the_stock_class(stock: bool) -> None:
    registered = manager(toy(N))
    make = Stock if stock else AnnDataLoader
    with pytest.raises(KeyError, match="nothing"):
        make(registered, data_and_attributes=["X", "nothing"])
    for wrong in (("X",), "X", 3):
        with pytest.raises(ValueError, match="list"):
            make(registered, data_and_attributes=wrong)
    for size in (0, None, -1, 2.5):
        with pytest.raises(ValueError, match="batch_size"):
            make(registered, batch_size=size)
    with pytest.raises(ValueError, match="num_samples"):
        make(registered, indices=[], shuffle=True)
    with pytest.raises(ValueError, match="sampler"):
        make(registered, sampler=[1, 2], distributed_sampler=True)
    with pytest.raises(ValueError, match="process group"):
        make(registered, distributed_sampler=True)
    with pytest.raises(ValueError, match="persistent_workers"):
        make(registered, persistent_workers=True)
    with pytest.raises(ValueError, match="prefetch_factor"):
        make(registered, prefetch_factor=2)
    with pytest.raises(ValueError, match="batch_sampler"):
        make(registered, batch_sampler=[[1]])
    with pytest.raises(TypeError, match="nonsense"):
        make(registered, nonsense=1)
    registered.adata = None
    with pytest.raises(ValueError, match=r"register_fields|setup_anndata"):
        make(registered, indices=[1])


def test_settings_of_scvi_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    import scvi

    registered = manager(toy(N))
    monkeypatch.setattr(scvi.settings, "dl_num_workers", 1)
    monkeypatch.setattr(scvi.settings, "dl_persistent_workers", True)
    for make in (Stock, AnnDataLoader):
        loader = make(registered)
        assert (loader.num_workers, loader.persistent_workers) == (1, True)
    assert AnnDataLoader(registered, num_workers=0, persistent_workers=False).num_workers == 0


def test_default_keys_and_dtypes_are_those_of_scvi() -> None:
    from scvi import REGISTRY_KEYS
    from scvi.data._utils import registry_key_to_default_dtype

    from annfeed.scvi.registry import keys_and_dtypes

    class Every:
        data_registry = dict.fromkeys(REGISTRY_KEYS)

    assert keys_and_dtypes(Every, None) == {key: registry_key_to_default_dtype(key) for key in REGISTRY_KEYS}


def test_stock_sorts_what_is_on_disk_and_ours_does_not(tmp_path: Path) -> None:
    """The reason for this loader; it also shows that `cells` can tell."""
    registered = manager(backed(toy(N), tmp_path))
    assert [cells(b) for b in Stock(registered, indices=[7, 3, 15, 0], batch_size=3)] == [[3, 7, 15], [0]]
    assert [cells(b) for b in AnnDataLoader(registered, indices=[7, 3, 15, 0], batch_size=3)] == [[7, 3, 15], [0]]
