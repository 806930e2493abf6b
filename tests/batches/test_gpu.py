"""What only a GPU can show: page-locked batches, CSR filled out on the device, copies under way, results back."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.support.toys import rows_of

from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal, Scale, densify, write_obs, write_obsm

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

#: Batches of this many rows and genes are larger than what torch's allocator gives in one piece of recycled memory.
N_ROWS, N_GENES = 600, 3000


@pytest.fixture(scope="module")
def counts() -> sp.csr_matrix:
    x = sp.random(N_ROWS, N_GENES, 0.05, "csr", np.float32, np.random.default_rng(0))
    x.data = np.ceil(x.data * 200).astype(np.float32)
    return x


@pytest.fixture(scope="module")
def atlas(counts: sp.csr_matrix, tmp_path_factory: pytest.TempPathFactory) -> Path:
    obs = pd.DataFrame({"n": np.arange(N_ROWS), "name": [f"c{i}" for i in range(N_ROWS)]})
    obs.index = obs.index.astype(str)
    path = tmp_path_factory.mktemp("atlas") / "atlas.h5ad"
    anndata.AnnData(counts, obs=obs).write_h5ad(path, compression="gzip")
    return path


def tensors(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda")])
@pytest.mark.parametrize("pin", [False, True])
def test_densify_gives_the_numbers_of_dense_output(
    atlas: Path, counts: sp.csr_matrix, dtype: torch.dtype, device: Any, pin: bool
) -> None:
    sparse = AnnDataset(atlas, output="csr", dtype=dtype).get_optimized_dataloader(64, seed=0, pin_memory=pin)
    dense = AnnDataset(atlas, dtype=dtype).get_optimized_dataloader(64, seed=0)
    for a, b in zip(sparse, dense, strict=True):
        got = densify(a, device, non_blocking=pin)
        assert got["X"].layout is torch.strided and got["X"].dtype is dtype
        assert {value.device.type for value in tensors(got).values()} == {"cuda"}
        assert torch.equal(got["X"].cpu(), b["X"])
        assert np.array_equal(b["X"].double().numpy(), counts[b["obs_n"].numpy()].toarray())
        assert torch.equal(got["obs_n"].cpu(), b["obs_n"])
        assert got["obs_name"] == b["obs_name"]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("prefetch_batches", [0, None])
def test_every_tensor_is_in_page_locked_memory(
    atlas: Path, output: str, num_workers: int, prefetch_batches: int | None
) -> None:
    dataset = AnnDataset(atlas, output=output, return_index=True)
    loader = dataset.get_optimized_dataloader(
        64, pin_memory=True, num_workers=num_workers, prefetch_batches=prefetch_batches
    )
    for batch in loader:
        for value in tensors(batch).values():
            csr = value.layout is torch.sparse_csr
            parts = [value.crow_indices(), value.col_indices(), value.values()] if csr else [value]
            assert all(part.is_pinned() for part in parts)


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_memory_is_not_used_again_while_a_copy_from_it_is_under_way(
    atlas: Path, counts: sp.csr_matrix, output: str, num_workers: int
) -> None:
    """The copies wait behind work on the device, until all batches have been made and dropped."""
    loader = AnnDataset(atlas, output=output, return_index=True).get_optimized_dataloader(
        32, seed=0, pin_memory=True, num_workers=num_workers
    )
    torch.cuda.synchronize()
    torch.cuda._sleep(3_000_000_000)  # cycles: two seconds or so
    moved = []
    for batch in loader:
        moved.append({key: value.to("cuda", non_blocking=True) for key, value in tensors(batch).items()})
        del batch
    torch.cuda.synchronize()
    found = {int(row): x for batch in moved for row, x in zip(batch["index"], batch["X"].to_dense().cpu(), strict=True)}
    assert sorted(found) == list(range(N_ROWS))
    for row, x in found.items():
        assert np.array_equal(x.numpy(), counts[row].toarray()[0])


def test_transforms_run_on_the_device(atlas: Path) -> None:
    """On a batch that is there already, a step of the model's own."""
    mean, std = np.linspace(0, 1, N_GENES), np.linspace(1, 2, N_GENES)
    steps = Compose([NormalizeTotal(1e4), Log1p(), Scale(mean, std)])
    raw = AnnDataset(atlas, output="csr").get_optimized_dataloader(64, seed=0)
    done = AnnDataset(atlas, transform=steps).get_optimized_dataloader(64, seed=0)
    for a, b in zip(raw, done, strict=True):
        found = steps(densify(a, "cuda"))["X"]
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), b["X"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_batches_are_made_on_the_cpu_whatever_the_default_device_is(path: Path, num_workers: int, context: str) -> None:
    """CUDA is in use here, which a forked worker must not touch."""
    torch.ones(1, device="cuda")
    torch.set_default_device("cuda")
    try:
        loader = AnnDataset(path).get_optimized_dataloader(
            4, num_workers=num_workers, multiprocessing_context=context if num_workers else None
        )
        batches = list(loader)
        item = AnnDataset(path)[3]
    finally:
        torch.set_default_device(None)
    assert {value.device.type for batch in [*batches, item] for value in tensors(batch).values()} == {"cpu"}
    assert sorted(row for rows in rows_of(batches) for row in rows) == list(range(40))


def test_results_on_the_device_are_written(path: Path, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(path)
    mine = tmp_path / "mine.h5ad"
    adata.write_h5ad(mine)
    vectors, classes = [], []
    for batch in AnnDataset(mine).predict_loader(7, pin_memory=True):
        x = batch["X"].to("cuda", non_blocking=True)
        index = batch["index"].to("cuda")
        vectors.append((index, torch.stack([x[:, 0], x.sum(1)], dim=1)))
        classes.append((index, (x[:, 0] % 2).long()))
    write_obsm(mine, "X_sums", vectors)
    write_obs(mine, "parity", classes, categories=["even", "odd"])
    found = anndata.read_h5ad(mine)
    assert np.array_equal(found.obsm["X_sums"][:, 0], np.arange(40))
    assert np.array_equal(found.obsm["X_sums"][:, 1], np.asarray(adata.X.sum(axis=1)).ravel())
    assert list(found.obs["parity"]) == ["even", "odd"] * 20


@pytest.mark.parametrize("output", ["dense", "csr"])
def test_accelerate_puts_batches_on_the_gpu(path: Path, output: str) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator()
    try:
        assert accelerator.device.type == "cuda"
        dataset = AnnDataset(path, output=output, return_index=True)
        batches = list(accelerator.prepare(dataset.get_optimized_dataloader(4, seed=0, pin_memory=True)))
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerate.state.GradientState._reset_state()
    assert {value.device.type for batch in batches for value in tensors(batch).values()} == {"cuda"}
    rows = [(int(row), float(x[0])) for b in batches for row, x in zip(b["index"], b["X"].to_dense(), strict=True)]
    assert sorted(rows) == [(row, float(row)) for row in range(40)]


def test_lightning_puts_batches_on_the_gpu(path: Path, tmp_path: Path) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from annfeed.lightning import AnnDataModule

    seen: list[tuple[str, list[int], list[float]]] = []

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(7, 1)

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            seen.append((batch["X"].device.type, batch["obs_row"].tolist(), batch["X"][:, 0].tolist()))
            return self.layer(batch["X"] / 40).mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = AnnDataModule(path, splits={"train": range(40)}, batch_size=8, seed=1, pin_memory=True)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    pl.Trainer(default_root_dir=tmp_path, accelerator="gpu", devices=1, max_epochs=2, **quiet).fit(Model(), data)
    assert {device for device, _, _ in seen} == {"cuda"}
    assert all(rows == first for _, rows, first in seen)
    assert sorted(row for _, rows, _ in seen for row in rows) == sorted([*range(40), *range(40)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("pin", [False, True])
def test_preloaded_rows_make_the_batches_of_the_file_on_the_gpu(
    atlas: Path, output: Any, dtype: torch.dtype, pin: bool
) -> None:
    kind: dict[str, Any] = {"output": output, "dtype": dtype, "return_index": True}
    on_gpu = AnnDataset(atlas, **kind).preload("cuda").get_optimized_dataloader(64, seed=0, pin_memory=pin)
    of_file = AnnDataset(atlas, **kind).get_optimized_dataloader(64, seed=0)
    for _ in range(2):
        for found, wanted in zip(on_gpu, of_file, strict=True):
            assert {value.device.type for value in tensors(found).values()} == {"cuda"}
            assert found["X"].layout is wanted["X"].layout and found["X"].dtype is dtype
            for key, value in tensors(wanted).items():
                assert torch.equal(found[key].to_dense().cpu(), value.to_dense()), key


def test_transforms_of_preloaded_rows_run_on_the_gpu(atlas: Path) -> None:
    kind: dict[str, Any] = {"transform": Compose([NormalizeTotal(10), Log1p()]), "var_subset": range(0, N_GENES, 3)}
    on_gpu = AnnDataset(atlas, **kind).preload("cuda").get_optimized_dataloader(64, seed=0)
    for found, wanted in zip(on_gpu, AnnDataset(atlas, **kind).get_optimized_dataloader(64, seed=0), strict=True):
        torch.testing.assert_close(found["X"].cpu(), wanted["X"])
