"""States that do not fit, and what may differ between a stop and its continuation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.loading.stops import loader_on, stop_after, through_a_file
from tests.support.toys import hand_over, rows_of, toy
from torch.utils.data import SequentialSampler

from annfeed import AnnDataset, WindowLoader

# --- what does not fit -----------------------------------------------------------------------------------------------


DIFFERENT = [
    ({"batch_size": 5}, "batch_size is 5, the state has 4"),
    ({"seed": 4}, "seed is 4, the state has 3"),
    ({"seed": None}, "seed is None, the state has 3"),
    ({"shuffle": False}, "shuffle is False, the state has True"),
    ({"block_size": 3}, "block_size is 3, the state has 1; window is 8, the state has None"),
    ({"drop_last": True}, "drop_last is True, the state has False"),
    ({"subset": None}, "n_rows is 40, the state has 39"),
    ({"subset": range(1, 40)}, "obs_subset is '"),
    ({"sampler": SequentialSampler(range(39))}, "sampler is 'SequentialSampler', the state has None"),
    ({"batch_size": 5, "seed": 4}, r"batch_size is 5, the state has 4.*seed is 4, the state has 3"),
]


@pytest.mark.parametrize(("settings", "message"), DIFFERENT, ids=lambda value: str(value)[:40])
def test_a_state_of_another_order_is_refused(path: Path, settings: dict, message: str) -> None:
    _, state = stop_after(loader_on(path), 2)
    loader = loader_on(path, **settings)
    with pytest.raises(ValueError, match=f"{path}.*does not fit: .*{message}.*begin anew"):
        loader.load_state_dict(state)
    # And it is as it was.
    if "sampler" not in settings:
        assert rows_of(loader) == rows_of(loader_on(path, **settings)) or settings.get("seed", 3) is None


def test_the_window_counts_where_rows_are_shuffled_in_it(path: Path) -> None:
    for settings in ({}, {"shuffle": False}):
        before, state = stop_after(loader_on(path, **settings), 3)
        loader = loader_on(path, window=16, **settings)
        loader.load_state_dict(state)
        assert before + rows_of(loader) == rows_of(loader_on(path, **settings))
    _, state = stop_after(loader_on(path, block_size=3), 3)
    with pytest.raises(ValueError, match="window is 16, the state has 8"):
        loader_on(path, window=16, block_size=3).load_state_dict(state)


def test_a_state_of_an_earlier_block_order_goes_on_in_that_order(path: Path) -> None:
    block_size = 3
    new = loader_on(path, block_size=block_size)
    _, state = stop_after(new, 3)
    assert state["order"].pop("block_order") == 2
    old = loader_on(path, block_size=block_size)
    old.load_state_dict(state)
    rest, after = rows_of(old), rows_of(old)
    again = loader_on(path, block_size=block_size)
    again.load_state_dict({**state, "batch": 0})
    before, same = stop_after(again, 3)
    assert same == state
    assert sorted(row for batch in before + rest for row in batch) == list(range(39))
    assert before + rest != rows_of(loader_on(path, block_size=block_size))
    assert sorted(row for batch in after for row in batch) == list(range(39))
    # The loader itself goes on in the order of the state that it loaded last.
    assert "block_order" not in old.state_dict()["order"]
    old.load_state_dict(loader_on(path, block_size=block_size).state_dict())
    assert rows_of(old) == rows_of(loader_on(path, block_size=block_size))
    state["order"]["block_order"] = 3
    with pytest.raises(ValueError, match="block_order is 2, the state has 3"):
        old.load_state_dict(state)


def test_another_file_is_refused_and_the_same_cells_elsewhere_are_not(path: Path, tmp_path: Path) -> None:
    _, state = stop_after(loader_on(path), 3)
    rest = rows_of(loader_on(path))[3:]
    adata = toy()
    adata.write_h5ad(tmp_path / "compressed.h5ad", compression="gzip")
    loader = loader_on(tmp_path / "compressed.h5ad")
    loader.load_state_dict(state)
    assert rows_of(loader) == rest
    adata.X = adata.X * 2
    adata.write_h5ad(tmp_path / "doubled.h5ad")
    with pytest.raises(ValueError, match=r"doubled\.h5ad.*values is '\w+', the state has '\w+'"):
        loader_on(tmp_path / "doubled.h5ad").load_state_dict(state)
    with pytest.raises(ValueError, match=r"n_vars is 6, the state has 7; values is"):
        loader_on(toy(n_vars=6)).load_state_dict(state)


def test_many_files(tmp_path: Path) -> None:
    paths = []
    for name in "abc":
        adata = toy(20)
        adata.obs["source"] = name
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        paths.append(tmp_path / f"{name}.h5ad")

    def batches(loader: WindowLoader) -> list[tuple[list[int], list[str]]]:
        return [(batch["obs_row"].tolist(), batch["obs_source"]) for batch in loader]

    whole = batches(loader_on(paths, subset=None))
    loader = loader_on(paths, subset=None)
    running = iter(loader)
    before = batches([next(running) for _ in range(5)])
    again = loader_on(paths, subset=None)
    again.load_state_dict(through_a_file(loader.state_dict()))
    assert before + batches(again) == whole
    other = toy(20)
    other.obs["source"] = "in memory"
    for others in (paths[::-1], paths[:2], [paths[0], other, paths[2]]):
        with pytest.raises(ValueError, match="sources is '"):
            loader_on(others, subset=None).load_state_dict(loader.state_dict())


def test_a_part_is_not_its_whole(path: Path) -> None:
    dataset = AnnDataset(path)
    whole = dataset.get_optimized_dataloader(batch_size=4, seed=1).state_dict()
    part = dataset.subset(range(5, 40)).subset(range(30)).get_optimized_dataloader(batch_size=4, seed=1)
    assert part.state_dict()["data"]["obs_subset"] != whole["data"]["obs_subset"]
    same = AnnDataset(path, obs_subset=range(5, 35)).get_optimized_dataloader(batch_size=4, seed=1)
    assert part.state_dict() == same.state_dict()


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_what_is_delivered_may_change(path: Path, kind: str, tmp_path: Path) -> None:
    # dtype, output and cache are no part of the order; nor is the form in which the file has its matrix.
    _, state = stop_after(loader_on(path), 3)
    data = hand_over(toy(kind=kind), "path", tmp_path)
    options = {"dtype": torch.float64, "output": "csr", "cache": "1MiB", "obs_columns": ["row", "text"]}
    dataset = AnnDataset(data, obs_subset=range(39), window=8, **options)
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=3)
    loader.load_state_dict(state)
    assert rows_of(loader) == rows_of(loader_on(path))[3:]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"\{\} is no state of a loader"),
        (None, "None is no state of a loader"),
        ([1], r"\[1\] is no state"),
        ({"version": 2}, "version 2 and keys.*expected version 1"),
        ({"version": 1, "epoch": 0}, r"keys \['epoch', 'version'\]"),
    ],
)
def test_what_is_no_state(path: Path, state: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader_on(path).load_state_dict(state)


def test_batches_in_no_order_have_no_state(path: Path) -> None:
    loader = loader_on(path, num_workers=2, in_order=False)
    with pytest.raises(ValueError, match="in_order=True"):
        loader.state_dict()
    with pytest.raises(ValueError, match="in_order=True"):
        loader.load_state_dict(loader_on(path).state_dict())
