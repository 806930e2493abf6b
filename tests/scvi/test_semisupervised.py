"""Loaders side by side: what the stock ones deliver, and the two defects of theirs that ours do not have."""

from __future__ import annotations

import gc
import json
import weakref
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("scvi.dataloaders", reason="scvi-tools is not installed")

from scvi.data import AnnDataManager
from scvi.data.fields import LabelsWithUnlabeledObsField, LayerField
from scvi.dataloaders import ConcatDataLoader as StockConcat
from scvi.dataloaders import SemiSupervisedDataLoader as StockSemi
from tests.support.processes import run_ranks
from tests.support.scvi_toys import assert_same, backed, cells, manager, toy

from annfeed.scvi import ConcatDataLoader, SemiSupervisedDataLoader

N = 43
LISTS = [[9, 2, 30, 4, 5, 6, 7], [1, 0], [40, 41, 42]]


def semi(adata: Any) -> Any:
    """A manager with labels, of which "unknown" stands for no label."""
    fields = [LayerField("X", None), LabelsWithUnlabeledObsField("labels", "type", "unknown")]
    registered = AnnDataManager(fields=fields)
    registered.register_fields(adata)
    return registered


@pytest.fixture(params=["memory", "backed"])
def adata(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """43 cells, in memory and backed."""
    return toy(N) if request.param == "memory" else backed(toy(N), tmp_path)


def steps(loader: Any) -> list[list[list[int]]]:
    return [[cells(batch) for batch in step] for step in loader]


@pytest.mark.parametrize("batches", [0, 1])
def test_a_loader_that_ends_early_ends_the_epoch(adata: Any, batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one with a sampler of the user's may."""
    loader = ConcatDataLoader(manager(adata), LISTS, batch_size=2)
    passes = iter([list(loader.dataloaders[1])[:batches]])
    monkeypatch.setattr(loader.dataloaders[1], "epoch_of", lambda _: iter(next(passes, [])))
    assert steps(loader) == [[[9, 2], [1, 0], [40, 41]]][:batches]


def test_steps_of_lists_of_unequal_length(adata: Any) -> None:
    loader = ConcatDataLoader(manager(adata), LISTS, batch_size=2)
    assert len(loader) == 4
    expected = [
        [[9, 2], [1, 0], [40, 41]],
        [[30, 4], [1, 0], [42]],
        [[5, 6], [1, 0], [40, 41]],
        [[7], [1, 0], [42]],
    ]
    for _ in range(2):
        # A plain for loop ends here; with the stock class it ends in "zip() argument 2 is longer".
        assert steps(loader) == expected


def test_the_stock_class_still_has_the_defect_of_the_plain_loop() -> None:
    """Else the remark above is out of date."""
    with pytest.raises(ValueError, match="zip"):
        list(StockConcat(manager(toy(N)), LISTS, batch_size=2))


@pytest.mark.parametrize("arguments", [{}, {"shuffle": True}, {"drop_last": True, "data_and_attributes": ["X"]}])
def test_first_passes_are_the_stock_class_s(arguments: dict[str, Any]) -> None:
    registered = manager(toy(N))
    lists = [list(range(20)), list(range(20, 43)), list(range(12))]
    ours = ConcatDataLoader(registered, lists, batch_size=8, **arguments)
    stock = StockConcat(registered, lists, batch_size=8, **arguments)
    assert len(ours) == len(stock)
    torch.manual_seed(0)
    mine = [step for _, step in zip(range(2), ours, strict=False)]
    torch.manual_seed(0)
    theirs = [step for _, step in zip(range(2), stock, strict=False)]
    for a, b in zip(chain(*mine), chain(*theirs), strict=True):
        assert_same(a, b)


def test_shorter_loaders_take_a_new_order_on_each_pass(adata: Any) -> None:
    loader = ConcatDataLoader(manager(adata), [range(40), range(10)], batch_size=5, shuffle=True)
    torch.manual_seed(0)
    labelled = [step[1] for step in steps(loader)]
    passes = [list(chain(*labelled[i : i + 2])) for i in range(0, 8, 2)]
    assert all(sorted(cells) == list(range(10)) for cells in passes)
    assert len({tuple(cells) for cells in passes}) == 4


def test_no_batch_is_kept_alive(adata: Any) -> None:
    loader = ConcatDataLoader(manager(adata), [range(24), range(4)], batch_size=2)
    seen: list[weakref.ref[Any]] = []
    alive = []
    gc.collect()
    gc.freeze()  # what is there already need not be gone through each time
    for step in loader:
        seen += [weakref.ref(batch["X"]) for batch in step]
        del step
        gc.collect()
        alive.append(sum(ref() is not None for ref in seen))
    gc.unfreeze()
    assert len(alive) == 12
    assert max(alive[6:]) <= max(alive[:5]) <= 8


def test_errors() -> None:
    registered = manager(toy(N))
    with pytest.raises(ValueError, match="indices_list is empty"):
        ConcatDataLoader(registered, [])
    with pytest.raises(ValueError, match=r"\[1, 0\] batches"):
        ConcatDataLoader(registered, [[1], []])
    with pytest.raises(TypeError, match="nonsense"):
        ConcatDataLoader(registered, [[1]], nonsense=1)
    assert steps(ConcatDataLoader(registered, [[], []])) == []


def test_loaders_share_what_is_open(adata: Any) -> None:
    loader = ConcatDataLoader(manager(adata), LISTS, batch_size=2, window=4)
    first = loader.dataloaders[0].dataset.dataset
    assert all(other.dataset.dataset is first for other in loader.dataloaders)
    assert {other.window for other in loader.dataloaders} == {4}


def test_all_cells_with_labelled_ones(adata: Any) -> None:
    labels = adata.obs["type"].to_numpy()
    loader = SemiSupervisedDataLoader(semi(adata), indices=np.arange(N)[::-1], batch_size=4)
    everything = list(chain(*(step[0] for step in steps(loader))))
    assert everything == list(range(N))[::-1]
    labelled = set(chain(*(step[1] for step in steps(loader))))
    assert labelled == set(np.flatnonzero(labels != "unknown").tolist())


@pytest.mark.parametrize("n_samples", [None, 3, 100])
def test_labelled_cells_are_the_stock_class_s(n_samples: int | None) -> None:
    registered = semi(toy(N))
    indices = np.random.default_rng(0).permutation(N)[:30]
    arguments = {"n_samples_per_label": n_samples, "indices": indices, "batch_size": 4}
    np.random.seed(0)
    ours = SemiSupervisedDataLoader(registered, **arguments)
    mine = [ours.dataloaders[1].indices, (ours.resample_labels(), ours.dataloaders[1].indices)[1]]
    np.random.seed(0)
    stock = StockSemi(registered, **arguments)
    theirs = [stock.dataloaders[1].indices, (stock.resample_labels(), stock.dataloaders[1].indices)[1]]
    np.testing.assert_array_equal(mine, theirs)
    assert len(ours) == len(stock)
    if n_samples == 3:
        assert len(mine[0]) == 6
        assert not np.array_equal(*mine)


def test_resampling_changes_the_next_epoch_not_the_running_one(adata: Any) -> None:
    np.random.seed(0)
    loader = SemiSupervisedDataLoader(semi(adata), n_samples_per_label=2, batch_size=4)
    before = set(loader.dataloaders[1].indices.tolist())
    running = iter(loader)
    loader.resample_labels()
    after = set(loader.dataloaders[1].indices.tolist())
    assert before != after
    assert set(chain(*(cells(step[1]) for step in running))) == before
    assert set(chain(*(step[1] for step in steps(loader)))) == after


def test_without_any_label(adata: Any) -> None:
    unlabelled = np.flatnonzero(adata.obs["type"].to_numpy() == "unknown")
    with pytest.raises(ValueError, match="none of the"):
        SemiSupervisedDataLoader(semi(adata), indices=unlabelled)


RANK = """
import json
import anndata, numpy as np
import torch.distributed as dist
from annfeed.scvi import ConcatDataLoader

dist.init_process_group("gloo")

class Manager:
    adata = anndata.AnnData(np.arange(40, dtype="float32")[:, None])
    data_registry = {"X": {"attr_name": "X", "attr_key": None}}
    def get_from_registry(self, key):
        return self.adata.X

loader = ConcatDataLoader(
    Manager(), [range(32), range(32, 40)], batch_size=4, shuffle=True, distributed_sampler=True
)
epochs = []
for epoch in (0, 1, 0):
    loader.sampler.set_epoch(epoch)
    epochs.append([[batch["X"][:, 0].int().tolist() for batch in step] for step in loader])
print(json.dumps([len(loader), epochs]))
dist.destroy_process_group()
"""


def test_ranks(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    ranks = run_ranks(2, tmp_path / "rank.py")
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    results = [json.loads(rank.stdout.splitlines()[-1]) for rank in ranks]
    assert [length for length, _ in results] == [4, 4]
    (first, second, again), (of_other, _, _) = results[0][1], results[1][1]
    assert first == again != second
    assert len(first) == len(of_other) == 4
    # Over both ranks: each of the many cells once, each of the few once in each of the four passes.
    assert sorted(chain(*(step[0] for step in first + of_other))) == list(range(32))
    for mine, theirs in zip(first, of_other, strict=True):
        assert sorted(mine[1] + theirs[1]) == list(range(32, 40))
    assert len({tuple(step[1]) for step in first}) > 1
