"""`AnnDataset.preload`: the same batches, in the same order, without reading; in memory, or on a device.

torch's CPU stands for the device here (`on`); tests/batches/test_gpu.py has a real one.
"""

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tests.support.toys import FORMS, assert_same, dense, flat, hand_over, rows_of, toy, write

from annfeed import AnnDataset, CellSets, Compose, Controls, Log1p, NormalizeTotal, Scale
from annfeed.sources.file import FileSource

DEVICES = [None, "cpu"]


def on(device: str | None, dataset: AnnDataset) -> AnnDataset:
    """Preload a dataset, and return it."""
    if device is None:
        return dataset.preload()
    dataset.reader.preload(torch.device(device))
    return dataset


def epoch(dataset: AnnDataset, **options: Any) -> list[dict[str, Any]]:
    return list(dataset.get_optimized_dataloader(5, seed=3, **options))


def check_same(dataset: AnnDataset, preloaded: AnnDataset, **options: Any) -> None:
    for found, wanted in zip(epoch(preloaded, **options), epoch(dataset, **options), strict=True):
        assert_same(found, wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_rows_are_those_of_anndata_and_nothing_is_read(
    tmp_path: Path, kind: str, form: str, device: str | None
) -> None:
    dataset = AnnDataset(hand_over(toy(kind=kind), form, tmp_path), window=20)
    assert on(device, dataset) is dataset
    before = dataset.stats()["bytes_decoded"]
    rows = rows_of(epoch(dataset))
    assert sorted(flat(rows)) == list(range(40))
    for batch in epoch(dataset):
        wanted = dense(toy(kind=kind).X)[batch["obs_row"].numpy()]
        np.testing.assert_array_equal(batch["X"].numpy(), wanted)
    assert dataset.stats()["bytes_decoded"] == before


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize(
    "options", [{}, {"block_size": "auto"}, {"block_size": 4}, {"shuffle": False}, {"balance": "label"}]
)
def test_orders_and_batches_are_those_of_the_file(
    tmp_path: Path, options: dict[str, Any], output: Any, device: str | None
) -> None:
    path = write(toy(), tmp_path / "toy.h5ad", compression="gzip")
    kind: dict[str, Any] = {"output": output, "window": 15, "return_index": True}
    check_same(AnnDataset(path, **kind), on(device, AnnDataset(path, **kind)), **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("in_file", [True, False])
def test_modalities_that_lack_cells(tmp_path: Path, in_file: bool, device: str | None) -> None:
    mudata_toys = pytest.importorskip("tests.support.mudata_toys")
    mdata = mudata_toys.cite()
    source = mudata_toys.written(mdata, tmp_path / "cite.h5mu") if in_file else mdata
    elems = {"rna": "mod/rna/X", "prot": "mod/prot/layers/clr"}
    check_same(AnnDataset(source, elem=elems), on(device, AnnDataset(source, elem=elems)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("output", ["dense", "csr"])
def test_sets_with_controls(output: Any, device: str | None) -> None:
    kind: dict[str, Any] = {"output": output, "return_index": True}
    sets = CellSets(by="label", size=4, controls=Controls(where={"flag": True}, match=[]))
    check_same(AnnDataset(toy(), **kind), on(device, AnnDataset(toy(), **kind)), sets=sets)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64])
@pytest.mark.parametrize("output", ["dense", "csr"])
def test_dtypes(dtype: torch.dtype, output: Any, device: str | None) -> None:
    dataset = AnnDataset(toy(), dtype=dtype, output=output)
    check_same(AnnDataset(toy(), dtype=dtype, output=output), on(device, dataset))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "choice",
    [
        {"obs_subset": [30, 2, 2, 17]},
        {"var_subset": ["gene5", "gene0", "gene3"]},
        {"elem": "raw/X"},
        {"elem": {"X": "layers/counts", "pca": "obsm/X_pca"}},
    ],
)
def test_choices_of_rows_genes_and_matrices(tmp_path: Path, choice: dict[str, Any], device: str | None) -> None:
    path = write(toy(), tmp_path / "toy.h5ad")
    check_same(AnnDataset(path, **choice), on(device, AnnDataset(path, **choice)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("join", ["inner", "outer"])
def test_several_files_that_lack_genes_and_an_anndata(tmp_path: Path, join: Any, device: str | None) -> None:
    sources = [
        write(toy()[:, :5].copy(), tmp_path / "a.h5ad"),
        write(toy(kind="dense"), tmp_path / "b.h5ad"),
        toy()[5:9],
    ]
    check_same(AnnDataset(sources, join=join), on(device, AnnDataset(sources, join=join)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("genes", [None, ["gene1", "gene4"]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transforms_give_the_same_within_rounding(
    output: Any, genes: list[str] | None, dtype: torch.dtype, device: str | None
) -> None:
    n_genes = 7 if genes is None else 2
    steps = [NormalizeTotal(10), Log1p(), *([Scale([1.0] * n_genes, [2.0] * n_genes)] if output == "dense" else [])]
    kind: dict[str, Any] = {"transform": Compose(steps), "output": output, "var_subset": genes, "dtype": dtype}
    preloaded = on(device, AnnDataset(toy(), **kind))
    for found, wanted in zip(epoch(preloaded), epoch(AnnDataset(toy(), **kind)), strict=True):
        torch.testing.assert_close(dense_of(found), dense_of(wanted))
        assert found["X"].dtype is dtype


def dense_of(batch: dict[str, Any]) -> torch.Tensor:
    return batch["X"].to_dense()


@pytest.mark.parametrize("device", DEVICES)
def test_a_transform_set_later_that_needs_totals_of_rows_asks_to_preload_again(device: str | None) -> None:
    dataset = on(device, AnnDataset(toy(), var_subset=["gene1"]))
    dataset.transform = NormalizeTotal(10)
    with pytest.raises(ValueError, match=r"preloaded without their totals over all genes.*Call preload"):
        epoch(dataset)
    check_same(AnnDataset(toy(), var_subset=["gene1"], transform=NormalizeTotal(10)), on(device, dataset))


def test_another_dtype_set_later_asks_to_preload_again_on_a_device() -> None:
    dataset = on("cpu", AnnDataset(toy(), dtype=torch.float16))
    dataset.dtype = torch.float32
    with pytest.raises(ValueError, match=r"preloaded as torch.float16; expected torch.float32.*preload\(\) again"):
        epoch(dataset)
    check_same(AnnDataset(toy()), on("cpu", dataset))


@pytest.mark.parametrize("device", DEVICES)
def test_parts_items_and_head(tmp_path: Path, device: str | None) -> None:
    path = write(toy(), tmp_path / "toy.h5ad")
    dataset, preloaded = AnnDataset(path), on(device, AnnDataset(path))
    for name, part in dataset.split({"a": 0.5, "b": 0.5}, seed=1).items():
        found = preloaded.split({"a": 0.5, "b": 0.5}, seed=1)[name]
        assert found.reader.preloaded_bytes
        check_same(part, found)
    assert_same(preloaded[-3], dataset[-3])
    assert_same(preloaded.head(3), dataset.head(3))
    part = AnnDataset(path).subset([7, 3])
    check_same(dataset.subset([7, 3]), on(device, part))


@pytest.mark.parametrize("device", DEVICES)
def test_resume_goes_from_the_file_to_what_is_preloaded(tmp_path: Path, device: str | None) -> None:
    path = write(toy(), tmp_path / "toy.h5ad")
    loader = AnnDataset(path).get_optimized_dataloader(5, seed=1)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state, rest = loader.state_dict(), list(batches)
    again = on(device, AnnDataset(path)).get_optimized_dataloader(5, seed=1)
    again.load_state_dict(state)
    for found, wanted in zip(again, rest, strict=True):
        assert_same(found, wanted)


def test_a_loader_made_before_takes_what_is_preloaded_and_the_file_may_go(tmp_path: Path) -> None:
    path = write(toy(), tmp_path / "toy.h5ad")
    dataset = AnnDataset(path)
    loader, other = (each.get_optimized_dataloader(5, seed=3) for each in (dataset, AnnDataset(path)))
    list(loader)
    list(other)
    wanted = list(other)  # the second epoch
    dataset.preload()
    os.remove(path)
    for found, batch in zip(loader, wanted, strict=True):
        assert_same(found, batch)


def test_workers(tmp_path: Path) -> None:
    path = write(toy(), tmp_path / "toy.h5ad")
    dataset, preloaded = AnnDataset(path), AnnDataset(path).preload()
    check_same(dataset, preloaded, num_workers=1, persistent_workers=False)


def test_a_copy_for_another_process_reads_the_file(tmp_path: Path) -> None:
    dataset = AnnDataset(write(toy(), tmp_path / "toy.h5ad")).preload()
    there = pickle.loads(pickle.dumps(dataset))
    assert there.reader.preloaded_bytes is None
    check_same(dataset, there)


def test_workers_cannot_make_batches_on_a_device(tmp_path: Path) -> None:
    dataset = on("cpu", AnnDataset(write(toy(), tmp_path / "toy.h5ad")))
    with pytest.raises(ValueError, match="num_workers=2 and rows preloaded on cpu; expected num_workers=0"):
        epoch(dataset, num_workers=2)


def test_edits_of_an_anndata_are_seen_when_it_is_preloaded_again() -> None:
    adata = toy()
    dataset = AnnDataset(adata).preload()
    before = copy.deepcopy(adata)
    adata.X = adata.X * 3
    check_same(AnnDataset(before), dataset)
    check_same(AnnDataset(adata), dataset.preload())


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_shown_and_how_it_ends(tmp_path: Path, device: str | None) -> None:
    dataset = on(device, AnnDataset(write(toy(), tmp_path / "toy.h5ad")))
    where = "memory" if device is None else "the memory of cpu"
    assert f"preloaded: {dataset.reader.preloaded_bytes:,} bytes in {where}" in repr(dataset)
    assert dataset.inspect().cost
    part = dataset.subset([1, 2])
    dataset.close()
    with pytest.raises(ValueError, match="is closed"):
        part.head()
    assert "preloaded" not in repr(dataset)
    with pytest.raises(ValueError, match="is closed"):
        epoch(dataset)
    with pytest.raises(ValueError, match="is closed"):
        on(device, dataset)


def test_memory_is_that_of_the_rows_that_are_wanted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = sp.random(4000, 300, 0.1, "csr", np.float32, rng)
    x.data = np.ceil(x.data * 9).astype(np.float32)
    path = tmp_path / "x.h5ad"
    anndata.AnnData(x).write_h5ad(path, compression="gzip")
    # Column in two bytes, count in one; offset and place 8 bytes each a row.
    assert AnnDataset(path).preload().reader.preloaded_bytes < 1.02 * (3 * x.nnz + 16 * 4000)
    few = AnnDataset(path, obs_subset=range(0, 4000, 40)).preload()
    assert few.reader.preloaded_bytes < 1.3 * (3 * x[::40].nnz + 16 * 100)


def test_what_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AnnDataset(write(toy(), tmp_path / "toy.h5ad"))
    monkeypatch.setattr("annfeed.batches.preload.free_memory", lambda: 100)
    monkeypatch.setattr("annfeed.batches.preload._pieces", None)  # nothing is read
    with pytest.raises(MemoryError, match=r"40 rows take .* GiB or more; found .* GiB of free memory.*obs_subset"):
        dataset.preload()
    assert dataset.reader.preloaded_bytes is None
    assert len(epoch(dataset)) == 8


def test_what_does_not_fit_on_the_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("10 bytes are free")

    dataset = AnnDataset(toy())
    monkeypatch.setattr("annfeed.batches.preload._copied", full)
    with pytest.raises(MemoryError, match=r"40 rows do not fit into the memory of cpu \(10 bytes are.*var_subset"):
        on("cpu", dataset)
    assert dataset.reader.preloaded_bytes is None


def test_a_device_without_csr_is_refused() -> None:
    with pytest.raises(ValueError, match="device is mps; expected one that takes CSR tensors"):
        AnnDataset(toy()).preload("mps")


@pytest.mark.parametrize(
    ("device", "what"),
    [("gpu", "expected one that torch knows"), ("meta", "takes CSR tensors"), ("cuda:99", "torch cannot use here")],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(device: str, what: str) -> None:
    dataset = AnnDataset(toy())
    with pytest.raises(ValueError, match=f"device is '?{device}'?.*{what}"):
        dataset.preload(device)
    assert dataset.stats()["bytes_decoded"] == 0


def test_cpu_means_the_hosts_memory() -> None:
    assert AnnDataset(toy()).preload("cpu").reader.device is None


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """3,000 sparse rows of floats, which take twice what headers say, and 400 dense rows, which take more each."""
    rng = np.random.default_rng(1)
    paths = [tmp_path / "floats.h5ad", tmp_path / "dense.h5ad"]
    anndata.AnnData(sp.random(3000, 200, 0.1, "csr", np.float32, rng)).write_h5ad(paths[0])
    anndata.AnnData(rng.random((400, 200), np.float32)).write_h5ad(paths[1])
    return paths


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
@pytest.mark.parametrize(("share", "fits"), [(0.5, True), (0.05, False)])
def test_several_files_go_on_while_there_is_room(
    files: list[Path], order: list[int], share: float, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = AnnDataset([files[i] for i in order])
    wanted = dataset.preload().reader.preloaded_bytes
    assert wanted is not None
    dataset.reader.forget_preloaded()
    monkeypatch.setattr("annfeed.batches.preload._PIECE", 1 << 18)  # 327 rows
    # At any time, beside what is held already. At the rate of the dense ones, all rows would take four times `wanted`.
    monkeypatch.setattr("annfeed.batches.preload.free_memory", lambda: int(share * wanted))
    if fits:
        assert dataset.preload().reader.preloaded_bytes == pytest.approx(wanted, rel=0.05)
    else:
        with pytest.raises(MemoryError, match=r"3,400 rows take .* or more; found"):
            dataset.preload()
        assert dataset.reader.preloaded_bytes is None


def test_one_file_of_floats_is_refused_after_its_first_rows(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = AnnDataset(files[0])
    wanted = dataset.preload().reader.preloaded_bytes
    assert wanted is not None
    dataset.reader.forget_preloaded()
    pieces: list[int] = []
    read = FileSource.read

    def counted(self: FileSource, rows: Any, threads: int) -> Any:
        pieces.append(len(rows))
        return read(self, rows, threads)

    monkeypatch.setattr(FileSource, "read", counted)
    monkeypatch.setattr("annfeed.batches.preload._PIECE", 1 << 18)
    monkeypatch.setattr("annfeed.batches.preload.free_memory", lambda: int(0.7 * wanted))
    with pytest.raises(MemoryError, match=r"3,000 rows take .* or more; found"):
        dataset.preload()
    assert len([n for n in pieces if n > 4]) == 1  # not the few rows of the digest


def test_states_of_preloaded_rows_need_no_file(tmp_path: Path) -> None:
    path = write(toy(), tmp_path / "toy.h5ad")

    def begun(dataset: AnnDataset) -> Any:
        loader = dataset.subset(range(0, 40, 2)).get_optimized_dataloader(5, seed=1)
        next(iter(loader))
        return loader

    wanted = begun(AnnDataset(path, obs_subset=range(40))).state_dict()
    loader = begun(AnnDataset(path, obs_subset=range(40)).preload())
    os.remove(path)
    assert loader.state_dict() == wanted


def test_errors_name_the_file_of_the_row(tmp_path: Path) -> None:
    bad = toy()
    bad.X[2, 1] = 0.5
    paths = [write(toy(), tmp_path / "good.h5ad"), write(bad, tmp_path / "bad.h5ad")]
    dataset = AnnDataset(paths, dtype=torch.int32).preload()
    with pytest.raises(ValueError, match=r"bad\.h5ad.*0\.5"):
        epoch(dataset)
