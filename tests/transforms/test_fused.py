"""Transforms done in Rust: the same numbers as the transforms themselves and as scanpy, and only where that holds."""

from pathlib import Path

import anndata
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch

from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal, Scale, Transform
from annfeed.transforms.fuse import fuse

RNG = np.random.default_rng(0)
MEAN, STD = RNG.random(120), RNG.random(120) + 0.1


class Double(Transform):
    batched = True

    def __call__(self, data_dict):
        return {**data_dict, "X": data_dict["X"] * 2}


class MyLog(Log1p):
    """Does more than Log1p, so it must be called."""

    def __call__(self, data_dict):
        return {**super().__call__(data_dict), "logged": data_dict["X"].to_dense().sum(-1)}


def counts(kind: str) -> sp.csr_matrix:
    m = sp.random(90, 120, 0.3, format="csr", dtype=np.float32, random_state=np.random.default_rng(1))
    high = {"bytes": 200, "words": 40_000, "fractions": 1}[kind]
    m.data = (m.data * high + (kind != "fractions")).astype(np.float32)
    if kind != "fractions":
        m.data = np.floor(m.data)
    keep = np.ones(90, np.float32)
    keep[7] = 0  # a cell without counts
    return sp.csr_matrix(sp.diags(keep).astype(np.float32) @ m)


@pytest.fixture(params=["bytes", "words", "fractions"])
def adata(request: pytest.FixtureRequest) -> anndata.AnnData:
    return anndata.AnnData(counts(request.param))


@pytest.mark.parametrize("stored", ["csr", "dense"])
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize(
    "steps",
    [
        [NormalizeTotal(1e4)],
        [Log1p()],
        [NormalizeTotal(500), Log1p()],
        [NormalizeTotal(), Log1p(), Double()],
        [NormalizeTotal(), Log1p(), Scale(MEAN, STD, max_value=3)],
        [Scale(MEAN, STD)],
        [Log1p(), NormalizeTotal()],
        [NormalizeTotal(), NormalizeTotal(10)],
        [MyLog()],
    ],
    ids=repr,
)
def test_fused_equals_the_transforms(
    adata: anndata.AnnData, stored: str, output: str, steps: list[Transform], tmp_path: Path
) -> None:
    if output == "csr" and any(isinstance(s, Scale) for s in steps):
        pytest.skip("centring fills rows")
    if stored == "dense":
        adata = anndata.AnnData(adata.X.toarray())
    adata.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    rows = np.random.default_rng(2).integers(0, 90, 64)
    plain = AnnDataset(tmp_path / "a.h5ad", output=output).__getitems__(rows).batch
    expected = Compose(steps)(plain)
    got = AnnDataset(tmp_path / "a.h5ad", output=output, transform=Compose(steps)).__getitems__(rows).batch
    assert got.keys() == expected.keys()
    x, y = got["X"].to_dense(), expected["X"].to_dense()
    torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


def test_fused_equals_scanpy(adata: anndata.AnnData, tmp_path: Path) -> None:
    adata.write_h5ad(tmp_path / "a.h5ad")
    wanted = adata.copy()
    sc.pp.normalize_total(wanted, target_sum=1e4)
    sc.pp.log1p(wanted)
    steps = Compose([NormalizeTotal(1e4), Log1p()])
    got = AnnDataset(tmp_path / "a.h5ad", transform=steps).__getitems__(range(90)).batch["X"]
    np.testing.assert_allclose(got.numpy(), wanted.X.toarray(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("transform", "output", "dtype", "in_rust", "left"),
    [
        (None, "dense", torch.float32, False, None),
        (Log1p(), "dense", torch.float32, True, None),
        (Log1p(), "dense", torch.float64, False, "Log1p"),
        (Log1p(), "dense", torch.float16, True, None),
        (Log1p(), "dense", torch.int32, False, "Log1p"),
        (Compose([Log1p(), Double()]), "dense", torch.float32, True, "Double"),
        (Compose([Double(), Log1p()]), "dense", torch.float32, False, "Double"),
        (Compose([Compose([NormalizeTotal()]), Log1p()]), "csr", torch.float32, True, None),
        (Compose([Log1p(), Scale(MEAN, STD)]), "csr", torch.float32, True, "Scale"),
        (MyLog(), "dense", torch.float32, False, "MyLog"),
    ],
)
def test_what_is_fused(transform, output: str, dtype: torch.dtype, in_rust: bool, left: str | None) -> None:
    fused = fuse(transform, output, dtype)
    assert (fused.ops is not None) == in_rust
    assert fused.rest is None if left is None else left in repr(fused.rest)


def test_scale_of_another_number_of_genes_is_an_error(adata: anndata.AnnData) -> None:
    dataset = AnnDataset(adata, transform=Scale(MEAN[:5], STD[:5]))
    with pytest.raises(ValueError, match=r"5 values.*120 columns"):
        dataset[0]


def test_a_new_transform_takes_effect(adata: anndata.AnnData) -> None:
    dataset = AnnDataset(adata)
    before = dataset[0]["X"]
    dataset.transform = Log1p()
    torch.testing.assert_close(dataset[0]["X"], torch.log1p(before))
