"""`densify`: the same numbers as dense output, whatever else is in the batch."""

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.overrides import TorchFunctionMode

from annfeed import AnnDataset, densify


@pytest.fixture
def adata() -> anndata.AnnData:
    m = sp.random(40, 30, 0.3, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    return anndata.AnnData(m, obs={"n": np.arange(40), "name": [f"c{i}" for i in range(40)]})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_equals_dense_output(adata: anndata.AnnData, dtype: torch.dtype, device: object) -> None:
    sparse = AnnDataset(adata, output="csr", dtype=dtype).get_optimized_dataloader(16, seed=0)
    dense = AnnDataset(adata, dtype=dtype).get_optimized_dataloader(16, seed=0)
    for a, b in zip(sparse, dense, strict=True):
        got = densify(a, device)
        assert got["X"].layout is torch.strided
        torch.testing.assert_close(got["X"], b["X"], rtol=0, atol=0)
        torch.testing.assert_close(got["obs_n"], b["obs_n"])
        assert got["obs_name"] == b["obs_name"]


def test_moves_what_is_dense(adata: anndata.AnnData) -> None:
    batch = densify({"X": torch.ones(2, 3), "obs_name": ["a", "b"]}, "meta")
    assert batch["X"].device.type == "meta"
    assert batch["obs_name"] == ["a", "b"]


def test_one_tensor() -> None:
    x = torch.eye(4)
    assert torch.equal(densify(x.to_sparse_csr()), x)


class Moves(TorchFunctionMode):
    """Stands in for devices that are not there: what is moved there lands on "meta", and is written down.

    It tells what torch is asked for, not what a device does with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, torch.layout, bool]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.to:
            tensor, device = args
            self.asked.append((torch.device(device).type, tensor.layout, kwargs["non_blocking"]))
            args = (tensor, "meta")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("device", ["mps", "mps:0", torch.device("mps"), "hpu"])
def test_devices_without_csr_get_dense_tensors(adata: anndata.AnnData, device: object) -> None:
    """torch cannot move a CSR tensor to "mps"."""
    batch = next(iter(AnnDataset(adata, output="csr").get_optimized_dataloader(16, seed=0)))
    with Moves() as moves:
        moved = densify(batch, device, non_blocking=True)
    assert moves.asked == [(torch.device(device).type, torch.strided, True)] * 2  # X and obs_n
    assert moved["X"].layout is torch.strided and moved["X"].shape == (16, 30)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "xpu", "cpu"])
def test_devices_with_csr_get_the_fewer_bytes(adata: anndata.AnnData, device: str) -> None:
    batch = next(iter(AnnDataset(adata, output="csr").get_optimized_dataloader(16, seed=0)))
    with Moves() as moves:
        densify(batch["X"], device)
    assert [layout for _, layout, _ in moves.asked] == [torch.sparse_csr]
