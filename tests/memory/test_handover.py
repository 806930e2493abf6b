"""Batches in shared memory that goes round: what is kept stays as it was, whoever keeps it."""

import copy
import errno
import gc
import os
import pickle
import time
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tests.support.processes import run
from torch.utils.data import DataLoader, Dataset

from annfeed import AnnDataset, Transform
from annfeed.memory import shared_batches as shared_memory
from annfeed.memory import transport as handover

N, WIDTH, BATCH = 64, 20_000, 8


@pytest.fixture(scope="module")
def x() -> sp.csr_matrix:
    return sp.random(N, WIDTH, density=0.4, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, x: sp.csr_matrix) -> Path:
    """Batches of it take 640 kB, and 300 kB for each part of CSR: more than what travels as bytes."""
    adata = anndata.AnnData(x)
    adata.obs["row"] = np.arange(N)
    file = tmp_path_factory.mktemp("handover") / "a.h5ad"
    adata.write_h5ad(file, compression="gzip")
    return file


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    shared_memory._received.clear()
    yield
    gc.collect()
    assert not shared_memory._in_use, "every segment was given back"


def is_right(batch: dict[str, Any], x: sp.csr_matrix) -> bool:
    rows, wanted = batch["X"], x[batch["obs_row"].numpy()]
    if rows.layout is torch.strided:
        return np.array_equal(rows, wanted.toarray())
    # scipy takes a tenth of the time that torch takes to make it dense.
    parts = (rows.values().numpy(), rows.col_indices().numpy(), rows.crow_indices().numpy())
    return np.array_equal(sp.csr_matrix(parts, rows.shape).toarray(), wanted.toarray())


def loader_of(dataset: AnnDataset, kind: str, num_workers: int = 2, **options: Any) -> DataLoader[Any]:
    options = {"batch_size": BATCH, "num_workers": num_workers, **options}
    if kind == "optimized":
        return dataset.get_optimized_dataloader(seed=0, **options)
    collate = dataset.get_collate_fn() if kind == "plain" else None
    return DataLoader(dataset, shuffle=True, collate_fn=collate, **options)


# torch's default_collate does not know CSR tensors.
@pytest.mark.parametrize(
    ("kind", "output"),
    [
        ("optimized", "dense"),
        ("optimized", "csr"),
        ("plain", "dense"),
        ("plain", "csr"),
        ("plain, torch's collate", "dense"),
    ],
)
@pytest.mark.parametrize("persistent_workers", [True, False])
def test_kept_batches_stay(path: Path, x: sp.csr_matrix, kind: str, output: str, persistent_workers: bool) -> None:
    loader = loader_of(AnnDataset(path, output=output), kind, persistent_workers=persistent_workers)
    kept = [batch for _ in range(3) for batch in loader]
    assert all(is_right(batch, x) for batch in kept)
    assert sorted(torch.cat([batch["obs_row"] for batch in kept]).tolist()) == sorted([*range(N)] * 3)
    assert {type(batch) for batch in kept} == {dict}
    # Some are dropped, their memory is written to again; the others are what they were.
    kept = kept[::3]
    more = list(loader)
    assert all(is_right(batch, x) for batch in kept + more)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_memory_goes_round_and_is_given_back(path: Path, x: sp.csr_matrix, method: str) -> None:
    n_workers = 1 if method == "spawn" else 2  # it takes seconds to start one
    loader = loader_of(AnnDataset(path), "plain", n_workers, persistent_workers=True, multiprocessing_context=method)
    for _ in range(4):
        for batch in loader:
            assert is_right(batch, x)
    # In flight are, for each worker, what it makes, prefetch_factor=2 that are made, and what is here.
    assert 0 < len(shared_memory._received) <= 5 * n_workers
    del loader
    gc.collect()
    time.sleep(0.1)
    del batch
    gc.collect()
    assert all(segment.is_over for segment in shared_memory._received.values())
    list(loader_of(AnnDataset(path), "plain"))
    workers = {segment._worker for segment in shared_memory._received.values()}
    assert len(workers) <= 2, "what workers that are gone had made is forgotten when new ones send"


class Keeps(Transform):
    """Puts the batch before into each, which it keeps itself."""

    batched = True

    def __init__(self) -> None:
        self.before: dict[str, Any] | None = None

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        before, self.before = self.before or data_dict, data_dict
        return {**data_dict, "before": before["X"], "before_row": before["obs_row"]}


@pytest.mark.parametrize("kind", ["optimized", "plain"])
def test_what_a_worker_keeps_stays(path: Path, x: sp.csr_matrix, kind: str) -> None:
    for batch in loader_of(AnnDataset(path, transform=Keeps()), kind):
        assert is_right(batch, x)
        assert is_right({"X": batch["before"], "obs_row": batch["before_row"]}, x)


class Views(Transform):
    """The same memory under several keys, in several shapes."""

    batched = True

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        x = data_dict["X"]
        return {
            **data_dict,
            "again": x,
            "part": x[2:, 5:7],
            "turned": x.T,
            "every": x[:, ::100],
            "new": x + 1,
            "bits": x.view(torch.int32),
            "none": x[:0],
            "small": torch.tensor([True, False]),
            "number": torch.tensor(3, dtype=torch.bfloat16),
            "list": ["a", None, {"b": 1}],
            "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "conjugate": torch.complex(x[:, :2], x[:, :2]).conj(),
        }


def test_views_and_what_is_not_in_shared_memory(path: Path, x: sp.csr_matrix) -> None:
    n = 0
    for batch in loader_of(AnnDataset(path, transform=Views()), "plain"):
        assert is_right(batch, x)
        expected = Views()({"X": batch["X"], "obs_row": batch["obs_row"]})
        assert list(batch) == list(expected)
        nested = batch.pop("nested"), expected.pop("nested")
        assert [part.tolist() for part in nested[0]] == [part.tolist() for part in nested[1]]
        for key, value in expected.items():
            same = torch.equal(batch[key], value) if isinstance(value, torch.Tensor) else batch[key] == value
            assert same, key
        assert batch["turned"].stride() == (1, WIDTH)
        n += 1
    assert n == N // BATCH


def test_tensors_that_are_more_than_elements_at_strides_are_left_to_torch() -> None:
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.quint8)
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    learned = torch.ones(3, requires_grad=True)
    for value in (quantized, nested, learned, torch.eye(3).to_sparse_coo(), "text", None):
        assert handover._serialized(value, {}) is value


def test_what_a_forked_process_sees_stays(path: Path, x: sp.csr_matrix) -> None:
    loader = loader_of(AnnDataset(path), "plain", persistent_workers=True)
    batches = iter(loader)
    batch = next(batches)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell)
        os.read(told, 1)
        os._exit(0 if is_right(batch, x) else 1)
    os.close(told)
    del batch
    assert all(is_right(batch, x) for batch in batches)
    held = [segment for segment in shared_memory._received.values() if segment.n_forks > 0]
    assert held and all(segment._all[shared_memory._TAKEN] == 1 for segment in held)
    assert len(shared_memory._forks) == 1
    os.close(tell)
    assert os.waitpid(child, 0)[1] == 0
    # It goes round again.
    assert all(is_right(batch, x) for batch in loader)
    assert shared_memory._forks == [] and not any(segment.n_forks for segment in held)


def test_forks_in_each_epoch_cost_no_memory(path: Path, x: sp.csr_matrix) -> None:
    training = loader_of(AnnDataset(path), "plain", persistent_workers=True)
    validation = loader_of(AnnDataset(path), "plain", persistent_workers=False)
    for _ in range(8):
        for batch in training:
            assert is_right(batch, x)
        for other in validation:
            assert is_right(other, x)
    assert len(shared_memory._received) <= 25
    assert len(shared_memory._forks) <= 4


def test_only_queues_between_processes_see_more_than_a_dict(x: sp.csr_matrix) -> None:
    pool = shared_memory.SharedPool()
    tensor = pool.empty(5 * WIDTH, torch.float32).view(5, WIDTH)
    tensor.copy_(torch.from_numpy(x[:5].toarray()))
    batch = handover.SentBatch({"X": tensor, "obs_n": torch.arange(5)})
    for other in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert isinstance(other, dict) and torch.equal(other["X"], tensor)
    first = pickle.loads(ForkingPickler.dumps(batch))
    # It is received once: a second time, and while that is kept, it is a copy.
    second = pickle.loads(ForkingPickler.dumps(batch))
    assert first["X"].data_ptr() != second["X"].data_ptr()
    assert torch.equal(first["X"], tensor) and torch.equal(second["X"], tensor)
    del batch, tensor, other
    assert pool.empty(5 * WIDTH, torch.float32).zero_().sum() == 0
    assert torch.equal(first["X"], second["X"]), "the receiver still has it"
    del first
    both = [pool.empty(5 * WIDTH, torch.float32) for _ in range(2)]
    assert len(both) == len(pool._segments) == 2, "no memory is made where there is some that nobody needs"


def test_surplus_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_MAX_FREE", 3 << 20)
    pool = shared_memory.SharedPool()
    tensors = [pool.empty(1 << 20, torch.uint8) for _ in range(6)]
    del tensors
    pool.empty(9 << 20, torch.uint8)
    assert sorted(segment.size >> 20 for segment in pool._segments) == [1, 1, 1, 9]


def test_free_memory_is_given_back_before_there_is_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = shared_memory.SharedPool()
    tensors = [pool.empty(1 << 20, torch.uint8) for _ in range(3)]
    del tensors[1:]
    left = [OSError(errno.ENOSPC, "none")]

    def once_full(*_: object) -> None:
        while left:
            raise left.pop()

    monkeypatch.setattr(os, "posix_fallocate", once_full)
    monkeypatch.setattr(torch.multiprocessing, "get_sharing_strategy", lambda: "file_descriptor")
    assert pool.empty(5 << 20, torch.uint8).fill_(1).sum() == 5 << 20
    assert [segment.size >> 20 for segment in pool._segments] == [1, 5]


def test_a_piece_is_given_back_once_for_each_time_it_was_sent() -> None:
    pool = shared_memory.SharedPool()
    tensor = pool.empty(1 << 20, torch.uint8)
    segment = pool._segments[0]
    batch = handover.SentBatch({"X": tensor})
    received = pickle.loads(ForkingPickler.dumps(batch))
    there = shared_memory._received[segment.name]
    there.n_forks += 1
    del received
    assert segment.is_sent, "a forked process sees it"
    there.n_forks -= 1
    there.give_back()
    assert not segment.is_sent
    sent = ForkingPickler.dumps(batch)
    there.give_back()
    assert segment.is_sent, "what is under way is not given back"
    assert pickle.loads(sent)["X"].shape == (1 << 20,)


def test_too_little_shared_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(torch.multiprocessing, "get_sharing_strategy", lambda: "file_descriptor")
    with pytest.raises(MemoryError, match=r"bytes of shared memory for a batch .*No space left.*num_workers=0"):
        shared_memory.SharedPool().empty(1 << 20, torch.float32)


def test_torchs_other_way_of_sharing(path: Path, tmp_path: Path) -> None:
    code = """
import sys, torch
from torch.utils.data import DataLoader
from annfeed import AnnDataset
if __name__ == "__main__":
    torch.multiprocessing.set_sharing_strategy("file_system")
    dataset = AnnDataset(sys.argv[1])
    how = {"num_workers": 2, "persistent_workers": True}
    loader = DataLoader(dataset, batch_size=8, collate_fn=dataset.get_collate_fn(), **how)
    kept = [batch for _ in range(2) for batch in loader]
    for batch in kept:
        assert torch.equal(batch["X"], dataset.__getitems__(batch["obs_row"].tolist()).batch["X"])
    print(len(kept))
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    done = run(script, path)
    assert done.stdout.split() == [str(2 * N // BATCH)], done.stderr


class Raises(Dataset[Any]):
    """A dataset of a user's whose items are batches of ours."""

    def __init__(self, dataset: AnnDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return N // BATCH

    def __getitem__(self, i: int) -> Any:
        if i == 3:
            raise ValueError("the third one")
        return self.dataset.get_collate_fn()(self.dataset.__getitems__(range(i * BATCH, (i + 1) * BATCH)))


def test_an_error_loses_no_batch_before_it(path: Path, x: sp.csr_matrix) -> None:
    batches = iter(DataLoader(Raises(AnnDataset(path)), batch_size=None, num_workers=2))
    kept = [next(batches) for _ in range(3)]
    with pytest.raises(ValueError, match="the third one") as caught:
        next(batches)
    # Or torch's iterator would be part of a cycle, and wait for its workers (annfeed's own loaders see to it).
    caught.value.__traceback__ = None
    del caught
    kept.append(next(batches))
    assert all(is_right(batch, x) for batch in kept)
    assert kept[-1]["obs_row"].tolist() == list(range(4 * BATCH, 5 * BATCH))
    del batches
