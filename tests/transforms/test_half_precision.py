"""Narrow floats: what overflows is told, and built-in transforms compute in float32 and round once."""

import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal, Scale, Transform
from annfeed.errors import AnnfeedWarning

STORED = {"csr": sp.csr_matrix, "dense": np.asarray}


class Nothing(Transform):
    batched = True

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return data_dict


def batch(x: np.ndarray, stored: str = "csr", **options: Any) -> np.ndarray:
    found = AnnDataset(anndata.AnnData(STORED[stored](x)), **options).__getitems__(range(len(x))).batch["X"]
    return found.to_dense().double().numpy()


@pytest.mark.parametrize("stored", ["csr", "dense"])
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (100_000.5, torch.float16),
        (65_520.0, torch.float16),
        (-70_000.25, torch.float16),
        (1e300, torch.float32),
        (3.4e38, torch.bfloat16),
        (1e39, torch.bfloat16),
    ],
)
def test_numbers_beyond_a_dtype_are_told_once(value: float, dtype: torch.dtype, stored: str, output: str) -> None:
    x = np.array([[0, 1.5], [0, value], [0, value]])
    with pytest.warns(AnnfeedWarning, match=rf"(?s)column 1\) is too large for {dtype} and becomes infinite") as told:
        got = batch(x, stored, output=output, dtype=dtype)
    assert len(told) == 1
    assert np.isinf(got[1:, 1]).all()
    assert got[0, 1] == 1.5


@pytest.mark.parametrize("value", [65_519.9, np.inf, -np.inf, np.nan, 0.1])
def test_what_does_not_overflow_is_not_told(value: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", AnnfeedWarning)
        batch(np.array([[1.0, value]]), dtype=torch.float16)


def test_a_number_too_large_is_told_after_one_that_was_rounded() -> None:
    dataset = AnnDataset(anndata.AnnData(np.array([[2049.0], [1e6], [2051.0]])), dtype=torch.float16)
    with pytest.warns(AnnfeedWarning, match="2049 .* is rounded"):
        dataset[0]
    with pytest.warns(AnnfeedWarning, match="1000000 .* is too large"):
        dataset[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", AnnfeedWarning)
        dataset[2], dataset[1]


COUNTS = np.array([[500, 500, 0], [1, 0, 0], [900, 50, 50], [70_000, 3, 2049], [0, 0, 0]], "float32")
MEAN, STD = np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.0, 4.0])


def expected(steps: list[Transform]) -> np.ndarray:
    x = COUNTS.astype(np.float64)
    for step in steps:
        if isinstance(step, NormalizeTotal):
            sums = x.sum(1, keepdims=True)
            x = x * np.where(sums == 0, 1, step.target_sum / np.where(sums == 0, 1, sums))
        elif isinstance(step, Log1p):
            x = np.log1p(x)
        elif isinstance(step, Scale):
            x = (x - MEAN) / STD
    return x


CHAINS = {
    "log of counts per million": [NormalizeTotal(1e6), Log1p()],
    "log": [Log1p()],
    "log, then the total": [Log1p(), NormalizeTotal(10)],
    "twice": [NormalizeTotal(1e6), NormalizeTotal(10)],
    "scaled": [NormalizeTotal(1e6), Log1p(), Scale(MEAN, STD)],
    "scaled first": [Scale(MEAN, STD), NormalizeTotal(100)],
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("stored", ["csr", "dense"])
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32])
def test_computed_wide_and_rounded_once(name: str, stored: str, output: str, dtype: torch.dtype) -> None:
    steps = CHAINS[name]
    if output == "csr" and any(isinstance(s, Scale) for s in steps):
        return  # Scale refuses sparse rows; test_transforms.py
    with warnings.catch_warnings():
        warnings.simplefilter("error", AnnfeedWarning)
        got = batch(COUNTS, stored, output=output, dtype=dtype, transform=Compose(steps))
    wanted = expected(steps)
    if dtype in (torch.float16, torch.bfloat16):
        # Half a step of the dtype, and what float32 does.
        rounded = torch.from_numpy(wanted).to(torch.float32).to(dtype).double().numpy()
        step = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}[dtype]
        np.testing.assert_allclose(got, wanted, rtol=step / 2 * 1.01, atol=1e-6)
        assert (got == rounded).mean() > 0.9
    else:
        np.testing.assert_allclose(got, wanted, rtol=1e-12 if dtype == torch.float64 else 3e-6, atol=1e-6)


@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_outside_of_a_dataset_too(layout: str, dtype: torch.dtype) -> None:
    x = torch.tensor([[500.0, 500.0, 0.0], [1.0, 0.0, 0.0]], dtype=dtype)
    x = x.to_sparse_csr() if layout == "csr" else x
    wanted = np.log1p(np.array([[5e5, 5e5, 0], [1e6, 0, 0]]))
    for transform in (Compose([NormalizeTotal(1e6), Log1p()]), Compose([Compose([NormalizeTotal(1e6)]), Log1p()])):
        got = transform({"X": x})["X"]
        assert got.dtype == dtype
        np.testing.assert_allclose(got.to_dense().double().numpy(), wanted, rtol=4e-3)


@pytest.mark.parametrize("first", [[], [Nothing()]], ids=["in Rust", "in torch"])
@pytest.mark.parametrize("stored", ["csr", "dense"])
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize(
    ("steps", "dtype"),
    [
        ([NormalizeTotal(1e6)], torch.float16),
        ([NormalizeTotal(1e40), Log1p()], torch.float32),
        ([NormalizeTotal(1e40), Log1p()], torch.bfloat16),
    ],
)
def test_what_a_transform_makes_too_large_is_told(
    steps: list[Transform], dtype: torch.dtype, output: str, stored: str, first: list[Transform]
) -> None:
    x = np.array([[3.0, 1.0, 0.0]], np.float32)
    with pytest.warns(AnnfeedWarning, match=rf"too large for {dtype}"):
        got = batch(x, stored, output=output, dtype=dtype, transform=Compose([*first, *steps]))
    assert np.isinf(got[0, :2]).all()
    assert got[0, 2] == 0


@pytest.mark.parametrize("first", [[], [Nothing()]], ids=["in Rust", "in torch"])
def test_scaled_beyond_a_dtype_is_told_unless_clipped(first: list[Transform]) -> None:
    x = np.array([[3.0, 1.0, 0.0]], np.float32)
    small = Scale(np.zeros(3), np.full(3, 1e-5))
    with pytest.warns(AnnfeedWarning, match="too large for torch.float16"):
        batch(x, dtype=torch.float16, transform=Compose([*first, small]))
    clipped = Scale(np.zeros(3), np.full(3, 1e-5), max_value=10)
    assert batch(x, dtype=torch.float16, transform=Compose([*first, clipped])).tolist() == [[10, 10, 0]]


@pytest.mark.parametrize("output", ["dense", "csr"])
def test_from_a_file_in_a_loader(output: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).poisson(0.5, (300, 40)).astype(np.float32) * 40
    anndata.AnnData(sp.csr_matrix(x)).write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    dataset = AnnDataset(
        tmp_path / "a.h5ad",
        output=output,
        dtype=torch.float16,
        transform=Compose([NormalizeTotal(1e6), Log1p()]),
        return_index=True,
    )
    sums = x.sum(1, keepdims=True)
    wanted = np.log1p(x * (1e6 / np.where(sums == 0, 1, sums)))
    for found in dataset.get_optimized_dataloader(64, seed=0):
        got = found["X"].to_dense().double().numpy()
        np.testing.assert_allclose(got, wanted[found["index"].numpy()], rtol=2**-11 * 1.01, atol=1e-6)
