"""The optimized loader: keywords of torch's DataLoader, each with its effect or refused."""

import inspect
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.loading.steps_of_loaders import UNSORTED, Plus
from tests.support.orders import planned
from tests.support.toys import assert_same, flat, hand_over, rows_of, toy
from torch.utils.data import DataLoader, RandomSampler

from annfeed import AnnDataset, Collate, Transform, WindowLoader
from annfeed.loading.keywords import TorchKeywords

# --- keywords of torch's DataLoader ----------------------------------------------------------------------------------


def test_it_is_a_torch_loader_with_its_attributes(dataset: AnnDataset) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, drop_last=True, seed=5, block_size=2, prefetch_batches=3)
    assert isinstance(loader, DataLoader)
    assert isinstance(loader, WindowLoader)
    assert loader.dataset is dataset
    assert (loader.batch_size, loader.drop_last, loader.num_workers, loader.pin_memory) == (4, True, 0, False)
    assert (loader.seed, loader.block_size, loader.prefetch_batches, loader.shuffle) == (5, 2, 3, True)
    assert loader.batch_sampler.batch_size == 4
    assert isinstance(loader.collate_fn, Collate)
    assert isinstance(loader.sampler, torch.utils.data.DistributedSampler)
    assert len(loader.sampler) == 40
    assert list(loader.sampler) == flat(planned(seed=5, block_size=2))


def test_defaults_are_the_contracts() -> None:
    loader = AnnDataset(toy()).get_optimized_dataloader()
    assert (loader.batch_size, loader.shuffle, loader.num_workers, loader.drop_last) == (32, True, 0, False)
    signature = inspect.signature(AnnDataset.get_optimized_dataloader)
    assert next(iter(signature.parameters.values())).name == "self"
    with pytest.raises(TypeError, match="positional"):
        AnnDataset(toy()).get_optimized_dataloader(32, True)


def test_each_parameter_is_an_attribute_so_that_lightning_can_make_it_again(dataset: AnnDataset) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=5, drop_last=True)
    names = [n for n, p in inspect.signature(WindowLoader.__init__).parameters.items() if p.kind is not p.VAR_KEYWORD]
    keywords = {name: getattr(loader, name) for name in names if name not in ("self", "batch_sampler")}
    assert rows_of(WindowLoader(**keywords)) == planned(seed=5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_sampler(dataset: AnnDataset, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, sampler=UNSORTED, num_workers=num_workers)
    wanted = [UNSORTED[i : i + 4] for i in range(0, 15, 4)]
    assert rows_of(loader) == rows_of(loader) == wanted
    assert len(loader) == 4
    dropping = dataset.get_optimized_dataloader(batch_size=4, sampler=UNSORTED, drop_last=True, num_workers=num_workers)
    assert rows_of(dropping) == wanted[:3]
    assert len(dropping) == 3


def test_sampler_with_a_generator_of_its_own(dataset: AnnDataset) -> None:
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(1))
    wanted = list(RandomSampler(range(40), generator=torch.Generator().manual_seed(1)))
    assert flat(rows_of(dataset.get_optimized_dataloader(batch_size=4, sampler=sampler))) == wanted


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batch_sampler(dataset: AnnDataset, num_workers: int) -> None:
    batches = [[3, 1], [39], [7, 7, 7, 0, 2, 11, 12, 13, 14], [5]]
    loader = dataset.get_optimized_dataloader(batch_sampler=batches, num_workers=num_workers)
    assert rows_of(loader) == rows_of(loader) == batches
    assert len(loader) == 4
    assert loader.batch_sampler is batches


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"sampler": [0, 40]}, IndexError, "40"),
        ({"sampler": [0, -1]}, IndexError, "-1"),
        ({"sampler": ["a"]}, TypeError, "integers"),
        ({"batch_sampler": [[0], [40]]}, IndexError, "40"),
        ({"batch_sampler": [[]]}, ValueError, "empty batch"),
        ({"batch_sampler": [1, 2]}, TypeError, "sequences"),
    ],
)
def test_sampler_that_gives_no_rows(dataset: AnnDataset, keywords: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(dataset.get_optimized_dataloader(**keywords))


def first_rows(items) -> tuple[int, list[int], list[str]]:
    return len(items), [int(item["obs_row"]) for item in items], [type(item["obs_text"]).__name__ for item in items]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_collate_fn_sees_items(dataset: AnnDataset, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(
        batch_size=4, shuffle=False, collate_fn=first_rows, num_workers=num_workers
    )
    assert list(loader) == [(4, rows, ["str"] * 4) for rows in planned(shuffle=False)]
    assert loader.collate_fn.__wrapped__ is first_rows


def test_default_collate_equals_ours(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8, transform=Plus())
    ours = list(dataset.get_optimized_dataloader(batch_size=3, shuffle=False))
    torchs = list(
        dataset.get_optimized_dataloader(batch_size=3, shuffle=False, collate_fn=torch.utils.data.default_collate)
    )
    assert len(ours) == len(torchs) == 14
    for found, wanted in zip(ours, torchs, strict=True):
        assert_same(found, wanted)
        assert "sum" in found


def note_worker(worker: int) -> None:
    torch.set_num_threads(worker + 3)


class Threads(Transform):
    """Tells what `note_worker` set."""

    def __call__(self, data_dict):
        return {**data_dict, "threads": torch.get_num_threads()}


def test_worker_init_fn(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8, transform=Threads())
    loader = dataset.get_optimized_dataloader(batch_size=8, num_workers=2, worker_init_fn=note_worker, shuffle=False)
    # Worker w takes windows w, w + 2, …
    assert [batch["threads"].unique().tolist() for batch in loader] == [[3], [4], [3], [4], [3]]


class Slow(Transform):
    """Takes longer than anyone waits."""

    def __call__(self, data_dict):
        time.sleep(1.5)
        return data_dict


def test_timeout(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=[0], transform=Slow())
    loader = dataset.get_optimized_dataloader(batch_size=4, num_workers=1, timeout=0.5)
    with pytest.raises(RuntimeError, match="timed out"):
        list(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pin_memory(dataset: AnnDataset, num_workers: int) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, pin_memory=True, num_workers=num_workers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")  # torch's word where there is no accelerator
        batches = list(loader)
    assert rows_of(batches) == planned(shuffle=False)
    assert {batch["X"].is_pinned() for batch in batches} == {torch.cuda.is_available()}


@pytest.mark.parametrize("output", ["dense", "csr"])
def test_pinned_batches_are_made_in_pinned_memory(shelf: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    """Where there is a GPU; here torch is only asked what it would have been asked for."""
    pinned: list[int] = []
    real_empty = torch.empty

    def empty(*size: Any, pin_memory: bool = False, **keywords: Any) -> torch.Tensor:
        pinned.extend([*size] if pin_memory else [])
        return real_empty(*size, **keywords)

    dataset = AnnDataset(hand_over(toy(), "path", shelf), output=output)
    loaders = [dataset.get_optimized_dataloader(batch_size=4, pin_memory=pin, seed=0) for pin in (True, False)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.utils.data._utils.pin_memory, "pin_memory", lambda batch: batch)
    first = list(loaders[0])
    n_matrices = {"dense": 1, "csr": 3}[output]
    assert len(pinned) == n_matrices * len(first)
    assert rows_of(list(loaders[1])) == rows_of(first)
    assert len(pinned) == n_matrices * len(first), "the other loader's are not"


@pytest.mark.parametrize("in_order", [True, False])
def test_in_order(dataset: AnnDataset, in_order: bool) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, num_workers=2, in_order=in_order)
    found = rows_of(loader)
    assert loader.in_order is in_order
    assert (found if in_order else sorted(found)) == planned(shuffle=False)


def test_multiprocessing_context_reaches_the_workers(dataset: AnnDataset) -> None:
    loader = dataset.get_optimized_dataloader(batch_size=4, num_workers=1, multiprocessing_context="fork")
    assert loader.multiprocessing_context.get_start_method() == "fork"
    assert sorted(flat(rows_of(loader))) == list(range(40))


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"batch_size": None}, ValueError, "batch_size is None"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": -3}, ValueError, "batch_size"),
        ({"batch_size": "4"}, TypeError, "batch_size"),
        ({"batch_size": 4.0}, TypeError, "batch_size is 4.0; expected a positive integer"),
        ({"batch_size": True}, TypeError, "batch_size is True"),
        ({"batch_size": torch.tensor(4.0)}, TypeError, "batch_size"),
        ({"batch_size": 4.0, "sampler": [1]}, TypeError, "batch_size"),
        ({"block_size": 0}, ValueError, "block_size"),
        ({"block_size": "best"}, ValueError, "block_size is 'best'; expected a positive integer or 'auto'"),
        ({"block_size": 2.5}, TypeError, "block_size"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 2**64}, ValueError, "seed"),
        ({"seed": "1"}, TypeError, "seed"),
        ({"prefetch_batches": -1}, ValueError, "prefetch_batches"),
        ({"prefetch_batches": 1.5}, TypeError, "prefetch_batches is 1.5; expected an integer"),
        ({"num_workers": -1}, ValueError, "num_workers"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"prefetch_factor": 2}, ValueError, "prefetch_factor"),
        ({"persistent_workers": True}, ValueError, "persistent_workers"),
        ({"multiprocessing_context": "fork"}, ValueError, "multiprocessing_context"),
        ({"num_workers": 1, "multiprocessing_context": "thread"}, ValueError, "multiprocessing_context"),
        ({"sampler": [1], "batch_sampler": [[1]]}, ValueError, "batch_sampler"),
        ({"batch_sampler": [[1]], "drop_last": True}, ValueError, "batch_sampler"),
        ({"batch_sampler": [[1]], "batch_size": 5}, ValueError, "batch_sampler"),
        ({"batchsize": 4}, TypeError, "batchsize"),
        ({"dataset": None}, TypeError, "dataset"),
    ],
)
def test_keywords_that_are_refused(dataset: AnnDataset, keywords: dict, error, message: str) -> None:
    with pytest.raises(error, match=message):
        dataset.get_optimized_dataloader(**keywords)


@pytest.mark.parametrize("keywords", [{}, {"sampler": UNSORTED}, {"block_size": np.int32(3), "seed": np.uint64(1)}])
def test_integers_may_be_numpys(dataset: AnnDataset, keywords: dict[str, Any]) -> None:
    keywords = {"shuffle": len(keywords) > 1, **keywords}
    loader = dataset.get_optimized_dataloader(np.int64(4), prefetch_batches=np.uint8(1), **keywords)
    assert (loader.batch_size, loader.prefetch_batches) == (4, 1)
    assert {type(loader.batch_size), type(loader.prefetch_batches)} == {int}
    python = {name: v.item() if isinstance(v, np.integer) else v for name, v in keywords.items()}
    assert rows_of(loader) == rows_of(dataset.get_optimized_dataloader(4, prefetch_batches=1, **python))


def test_type_checkers_know_the_keywords_of_torchs_loader() -> None:
    named = {"self", "dataset", "batch_size", "shuffle", "num_workers", "drop_last"}
    assert inspect.signature(DataLoader.__init__).parameters.keys() - named == TorchKeywords.__optional_keys__


def test_every_keyword_of_torchs_loader_is_known(dataset: AnnDataset) -> None:
    # A keyword that we pass on wrongly would be a TypeError here; the tests above see that each has its effect.
    known = inspect.signature(DataLoader.__init__).parameters
    for name, parameter in known.items():
        if name in ("self", "dataset", "batch_sampler", "pin_memory_device"):
            continue
        loader = dataset.get_optimized_dataloader(**{"batch_size": 4, "shuffle": False, name: parameter.default})
        if name not in ("batch_size", "shuffle"):
            assert flat(rows_of(loader)) == list(range(40)), name


@pytest.mark.parametrize(
    ("settings", "order", "batches"),
    [
        ({"seed": 3}, "shuffled, single rows; seed 3", "10"),
        ({"block_size": 5}, "shuffled, blocks of 5 neighbouring rows; a new seed each epoch", "10"),
        ({"shuffle": False, "drop_last": True}, "that of the dataset", "10"),
        ({"weights": [1.0] * 40, "n_samples": 11}, "drawn by weight, single rows; a new seed each epoch", "3"),
        ({"sampler": UNSORTED}, "that of a list", str(-(-len(UNSORTED) // 4))),
        ({"sampler": iter(UNSORTED)}, "that of a list_iterator", "unknown"),
        ({"order": sorted}, "positions of sorted", "unknown"),
    ],
)
def test_a_loader_says_what_it_is(shelf: Path, settings: dict, order: str, batches: str) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=1024, cache="2MiB", threads=2)
    text = str(dataset.get_optimized_dataloader(batch_size=4, **settings))
    said = dict(line.strip().split(": ", 1) for line in text.splitlines()[1:])
    assert text.startswith("WindowLoader:")
    assert said == {
        "dataset": repr(dataset).splitlines()[0],
        "order": order,
        "batch size": "4",
        "batches": batches,
        "window": "1,024 rows",
        "cache": "2MiB",
        "threads": "2",
        "workers": "none, 4 batches made ahead by threads",
    }


def test_to_say_what_it_is_a_loader_asks_no_order_and_draws_nothing(
    dataset: AnnDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def order(epoch: int) -> list[int]:
        asked.append(epoch)
        return [epoch, 3]

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    loader = dataset.get_optimized_dataloader(batch_size=1, order=order, num_workers=1)
    before = torch.get_rng_state()
    assert "  batches: unknown\n" in repr(loader) and "  workers: 1" in repr(loader)
    assert not asked
    assert torch.equal(torch.get_rng_state(), before)
    list(loader)
    assert "  batches: 1 on rank 1 of 2\n" in repr(loader)
    assert asked == [0]
