"""``torch.set_default_device``: batches are made on the CPU whatever it says; "meta" stands in for a GPU here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal, Scale, Transform, densify


class PerItem(Transform):
    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return {**data_dict, "count": 1, "array": np.float32(2), "vector": np.ones(2)}


class Batched(Transform):
    batched = True

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return data_dict


@pytest.fixture
def elsewhere() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def adata(n: int = 12, genes: int = 6) -> anndata.AnnData:
    rng = np.random.default_rng(0)
    x = sp.csr_matrix(rng.poisson(1.0, (n, genes)).astype(np.float32))
    obs = pd.DataFrame({"n": np.arange(n), "f": rng.random(n), "kind": pd.Categorical(list("ab" * (n // 2)))})
    obs.index = obs.index.astype(str)
    return anndata.AnnData(x, obs=obs)


STEPS: dict[str, Transform | None] = {
    "nothing": None,
    "in Rust": Compose([NormalizeTotal(), Log1p()]),
    "in torch": Compose([Log1p(), NormalizeTotal()]),
    "for items": Compose([PerItem(), NormalizeTotal(), Log1p()]),
}


def ways(source: Any) -> dict[str, Callable[[], Any]]:
    def first(loader: Any) -> Any:
        return next(iter(loader))

    found: dict[str, Callable[[], Any]] = {}
    for name, transform in STEPS.items():
        for output in ("dense", "csr"):
            dataset = AnnDataset(source, transform=transform, output=output, categories="code", return_index=True)
            found |= {
                f"{name}, {output}, an item": lambda d=dataset: d[3],
                f"{name}, {output}, items": lambda d=dataset: d.__getitems__([3, 1]).batch,
                f"{name}, {output}, read ahead": lambda d=dataset: first(d.get_optimized_dataloader(4, block_size=2)),
                f"{name}, {output}, in turn": lambda d=dataset: first(
                    d.get_optimized_dataloader(4, prefetch_batches=0, seed=0)
                ),
                f"{name}, {output}, weighted": lambda d=dataset: first(d.get_optimized_dataloader(4, balance="kind")),
            }
    dataset = AnnDataset(source, transform=Scale(np.zeros(6), np.ones(6)), dtype=torch.float16)
    found["scaled"] = lambda: dataset[0]
    found["generator"] = lambda: first(dataset.get_optimized_dataloader(4, generator=torch.Generator().manual_seed(1)))
    found["predict"] = lambda: first(dataset.predict_loader(5))
    found["densified"] = lambda: densify(AnnDataset(source, output="csr")[0])
    found["mask"] = lambda: {"mask": dataset.var_mask}
    found["a Scale made now"] = lambda: Scale([1.0, 2.0], [1.0, 1.0])({"X": torch.ones(2, device="cpu")})
    return found


def flat(batch: dict[str, Any]) -> dict[str, Any]:
    return {k: v.to_dense() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def test_batches_do_not_follow_the_default_device(tmp_path: Path) -> None:
    adata().write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    for source in (tmp_path / "a.h5ad", adata(), [adata(), tmp_path / "a.h5ad"]):
        torch.manual_seed(0)
        wanted = {name: flat(way()) for name, way in ways(source).items()}
        torch.manual_seed(0)
        torch.set_default_device("meta")
        try:
            got = {name: flat(way()) for name, way in ways(source).items()}
        finally:
            torch.set_default_device(None)
        for name, batch in wanted.items():
            assert batch.keys() == got[name].keys()
            for key, value in batch.items():
                if isinstance(value, torch.Tensor):
                    assert got[name][key].device.type == "cpu", (name, key)
                    assert torch.equal(got[name][key], value), (name, key)
                else:
                    assert got[name][key] == value


@pytest.mark.usefixtures("elsewhere")
def test_large_batches_and_workers(tmp_path: Path) -> None:
    wide = adata(64, 3000)
    x = wide.X.toarray()
    for workers in (0, 1):
        loader = AnnDataset(wide, return_index=True).get_optimized_dataloader(64, num_workers=workers, seed=0)
        (batch,) = list(loader)
        assert batch["X"].device.type == "cpu"
        assert np.array_equal(batch["X"].numpy(), x[batch["index"].numpy()])


@pytest.mark.usefixtures("elsewhere")
def test_padding_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    batches = list(AnnDataset(adata(10)).get_optimized_dataloader(3, seed=0))
    assert {batch["is_padding"].device.type for batch in batches} == {"cpu"}
    assert sum(int(batch["is_padding"].sum()) for batch in batches) <= 1
