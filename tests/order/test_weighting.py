"""Draws by weight: each row as often as it is due, classes in their shares, copies apart, at any size."""

import tracemalloc
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.orders import epoch_plan
from tests.support.toys import FORMS, flat, hand_over, rows_of, toy

from annfeed import AnnDataset
from annfeed.loading.weighting import class_weights
from annfeed.order.epoch import EpochPlan
from annfeed.order.permutation import EvenMix
from annfeed.order.weighted import WeightedStream, interleaved
from annfeed.order.weights import Weighting, multiplicity_of


def drawn(weighting: Weighting, key: int, block_size: int = 1) -> np.ndarray:
    return WeightedStream(weighting, key, block_size).take(0, weighting.n_samples)


def due(weights: Any, n: int) -> np.ndarray:
    """The oracle: how often each row is due in n draws."""
    weights = np.asarray(weights, dtype=np.float64)
    return n * (weights / weights.sum())


# --- as often as they are due -----------------------------------------------------------------------------------------


@given(st.integers(1, 700), st.integers(1, 1500), st.sampled_from([1, 2, 7, 16]), st.integers(0, 2**32), st.booleans())
def test_every_row_comes_as_often_as_it_is_due(n: int, n_samples: int, block: int, seed: int, zeros: bool) -> None:
    random = np.random.default_rng(seed)
    weights = random.pareto(0.7, n) * (random.random(n) < 0.5 if zeros else 1)
    weights[random.integers(n)] += 1
    weighting = Weighting(weights, n_samples=n_samples)
    order = WeightedStream(weighting, seed, block)
    rows = order.take(0, n_samples)
    counts, wanted = np.bincount(rows, minlength=n), due(weights, n_samples)
    assert len(rows) == n_samples and len(counts) == n
    # Rounded down or up, but for what is whole up to rounding errors.
    assert (counts >= np.floor(wanted + 1e-9)).all() and (counts <= np.ceil(wanted - 1e-9)).all()
    np.testing.assert_allclose(weighting.expected_counts(np.arange(n)), wanted)
    start, stop = sorted(random.integers(0, n_samples + 1, 2).tolist())
    assert order.take(start, stop).tolist() == rows[start:stop].tolist()


@given(st.integers(1, 700), st.floats(0.01, 1), st.sampled_from([1, 2, 7, 16]), st.integers(0, 2**32))
def test_without_replacement_no_row_comes_twice(n: int, fraction: float, block: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.pareto(1.0, n) * (random.random(n) < 0.8)
    weights[random.integers(n)] += 1
    n_samples = max(1, int(fraction * np.count_nonzero(weights)))
    weighting = Weighting(weights, n_samples=n_samples, replacement=False)
    rows = drawn(weighting, seed, block)
    assert len(np.unique(rows)) == len(rows) == n_samples
    assert (weights[rows] > 0).all()
    copies = weighting.expected_counts(np.arange(n))
    assert copies.max() <= 1 and copies.sum() == pytest.approx(n_samples)
    # Those that are not certain are due in proportion to their weights.
    ratio = copies[(copies < 1) & (weights > 0)] / weights[(copies < 1) & (weights > 0)]
    assert ratio.size == 0 or ratio.max() == pytest.approx(ratio.min())


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("block_size", [1, 16])
def test_over_epochs_the_mean_is_exact(block_size: int, replacement: bool) -> None:
    weights = np.random.default_rng(0).pareto(1.5, 600)
    weighting = Weighting(weights, n_samples=150, replacement=replacement)
    chance = weighting.expected_counts(np.arange(600)) % 1
    total = sum(np.bincount(drawn(weighting, key, block_size), minlength=600) for key in range(1000))
    odd = (chance > 0.02) & (chance < 0.98)
    errors = (total / 1000 - weighting.expected_counts(np.arange(600)))[odd] / np.sqrt(chance * (1 - chance) / 1000)[
        odd
    ]
    assert odd.sum() > 300
    assert abs(errors).max() < 5 and 0.85 < errors.std() < 1.15


@pytest.mark.parametrize("n_samples", [50, 3000, 10_000])
@pytest.mark.parametrize("period", [2, 3, 64, 128, 2048, 5000])
def test_shares_of_classes_are_right_within_the_binomial_error(period: int, n_samples: int) -> None:
    """Of any regular pattern of classes in the file, in every epoch."""
    classes = np.arange(10_000) // (period // 2 or 1) % 2
    weights = np.where(classes == 1, 3.0, 1.0)
    wanted = weights[classes == 1].sum() / weights.sum()
    found = np.array(
        [
            classes[drawn(Weighting(weights, n_samples=n_samples), key, block)].mean()
            for key in range(60)
            for block in (1, 9)
        ]
    )
    error = np.sqrt(wanted * (1 - wanted) / n_samples)
    assert abs(found - wanted).max() < 4.5 * error
    assert abs(found.mean() - wanted) < 5 * error / np.sqrt(60)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
def test_weights_of_any_real_dtype(dtype: str) -> None:
    weights = np.zeros(50_000, dtype=dtype)
    weights[[7, 100, 30_000, 49_999]] = [1, 2, 3, 4]
    found, counts = np.unique(drawn(Weighting(weights), 3), return_counts=True)
    assert found.tolist() == [7, 100, 30_000, 49_999]  # zero weights are never drawn
    assert counts.tolist() == due(weights[found], 50_000).tolist()


@pytest.mark.parametrize("weight", [5e-324, 1e-310, 1e308])
def test_extreme_weights(weight: float) -> None:
    assert set(drawn(Weighting([0, weight] + [0] * 498), 0).tolist()) == {1}
    assert sorted(drawn(Weighting([weight] * 500), 0).tolist()) == list(range(500))


@pytest.mark.parametrize("replacement", [True, False])
def test_equal_weights_give_each_row_once(replacement: bool) -> None:
    weighting = Weighting(np.full(10_007, 0.1), replacement=replacement)
    assert sorted(drawn(weighting, 5).tolist()) == list(range(10_007))


def test_the_same_rows_for_any_block_size_and_others_for_another_key() -> None:
    weighting = Weighting(np.random.default_rng(1).random(3000), n_samples=1000)
    samples = {tuple(sorted(drawn(weighting, 1, block).tolist())) for block in (1, 2, 16, 5000)}
    assert len(samples) == 1
    assert tuple(sorted(drawn(weighting, 2).tolist())) not in samples


# --- copies apart, neighbours together --------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(1, 20), st.sampled_from([2, 4, 8, 64, 1024]))
def test_dealing_is_a_bijection_that_parts_neighbours(n: int, block_size: int, most: int) -> None:
    cards = interleaved(np.arange(n), n, block_size, most)
    assert sorted(cards.tolist()) == list(range(n))
    # Each group of cards by itself: the last card of one is a neighbour of the first of the next.
    n_groups = max(1, n // (block_size * most))
    for begin, end in pairwise([group * n // n_groups for group in range(n_groups + 1)]):
        blocks = np.split(cards[begin:end], range(-begin % block_size, end - begin, block_size))
        nearest = [np.diff(np.sort(block)).min() for block in blocks if len(block) > 1]
        assert min(nearest, default=most) >= min(most, (end - begin) // block_size) - 1


@pytest.mark.parametrize("n", [12, 13, 4097 * 16])
def test_an_even_mix_has_every_class_in_its_share_everywhere(n: int) -> None:
    starts = np.array([0, n // 2, n // 2, n - n // 8, n])
    mix = EvenMix(starts, key=3)
    order = mix.forward(np.arange(n))
    assert sorted(order.tolist()) == list(range(n))
    assert mix.inverse(order).tolist() == list(range(n))
    for first, end in pairwise(starts.tolist()):
        there = np.append(0, np.cumsum((order >= first) & (order < end)))
        drift = there - np.arange(n + 1) * (end - first) / n
        assert drift.max() - drift.min() < 10  # by chance it would be about 160 of 65,552 places
        within = order[(order >= first) & (order < end)]
        assert len(within) < 9 or abs(np.corrcoef(within, np.arange(len(within)))[0, 1]) < 0.6


@pytest.mark.parametrize("block_size", [1, 16])
def test_copies_are_spread_over_the_epoch(block_size: int) -> None:
    """Pitfall 7: weighted draws of one row do not cluster, neither side by side nor in one part of the epoch."""
    weights = np.ones(20_000)
    often = np.arange(50, 20_000, 100)
    weights[often] = 40
    plan = epoch_plan(
        n_rows=20_000, batch_size=50, window=500, block_size=block_size, seed=2, weighting=Weighting(weights)
    )
    rows = np.concatenate([window.positions for window in plan.windows()])
    gaps, tenths = [], np.zeros(10)
    for row in often.tolist():
        places = np.flatnonzero(rows == row)
        assert len(places) in (28, 29)  # 40 * 20,000 / 27,800 = 28.8
        tenths += np.bincount(places // 2000, minlength=10)
        gaps.extend(np.diff(places))
    # 576 of the 5,755 copies are expected in each tenth, standard deviation below 23.
    assert abs(tenths - 576).max() < 5 * 23
    # Of 28.8 places among 20,000 at random, one gap of 70 is below 10.
    assert np.mean(np.array(gaps) < 10) < 0.03
    per_batch = [n for window in plan.windows() for batch in window.batches for n in Counter(batch.tolist()).values()]
    assert max(per_batch) <= 4


def test_blocks_of_draws_are_neighbours_in_the_file() -> None:
    weights = np.where(np.arange(100_000) % 1000 < 20, 5.0, 0.5)
    plan = epoch_plan(n_rows=100_000, batch_size=100, window=6000, seed=1, weighting=Weighting(weights))
    single, blocks = (
        len(np.unique(plan_of.window_at(5).positions // 64))
        for plan_of in (plan, epoch_plan(n_rows=100_000, batch_size=100, window=6000, block_size=16, seed=1,
                                        weighting=Weighting(weights)))
    )  # fmt: skip
    # 6,000 draws touch nearly all of the 1,563 runs of 64 rows; 375 blocks touch far fewer.
    assert single > 1400
    assert blocks < 600


def test_levels_are_powers_of_two() -> None:
    copies = np.array([0, 0.2, 1, 1.0001, 2, 3, 7.9, 8.1])
    assert multiplicity_of(copies).tolist() == [0, 0, 0, 1, 2, 2, 3, 4]


# --- ranks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 4])
def test_ranks_share_one_sample(block_size: int) -> None:
    """Pitfall 2: with weights, ranks together deliver what one rank alone draws, no row more or less."""
    weighting = Weighting(np.arange(1000) % 7, n_samples=805)
    fields: dict[str, Any] = {"n_rows": 1000, "batch_size": 10, "window": 100, "weighting": weighting, "seed": 4}

    def delivered(plan: EpochPlan) -> list[int]:
        return [row for window in plan.windows() for row in window.positions.tolist()]

    alone = delivered(epoch_plan(**fields, block_size=block_size))
    shares = [delivered(epoch_plan(**fields, block_size=block_size, rank=rank, world=4)) for rank in range(4)]
    assert sorted(flat(shares)) == sorted(alone)
    assert len({tuple(share) for share in shares}) == 4
    assert len({-(-len(share) // 10) for share in shares}) == 1


# --- size -------------------------------------------------------------------------------------------------------------


def test_20_million_weights() -> None:
    """Pitfall 30: torch.multinomial refuses more than 2**24 weights; rows beyond come as often as others."""
    n_rows = 20_000_000
    weights = np.ones(n_rows, dtype=np.float32)
    weights[2**24 :] = 3
    with pytest.raises(RuntimeError, match=r"2\^24"):
        torch.multinomial(torch.from_numpy(weights), 10, replacement=True)
    plan = epoch_plan(n_rows=n_rows, batch_size=500, window=20_000, weighting=Weighting(weights), first_window=20_000)
    window = np.concatenate([plan.window_at(i).positions for i in range(5)])
    beyond = weights[2**24 :].sum(dtype=np.float64) / weights.sum(dtype=np.float64)
    assert abs((window >= 2**24).mean() - beyond) < 5 * np.sqrt(beyond * (1 - beyond) / 100_000)
    assert window.max() > 19_990_000


@pytest.mark.parametrize("temperature", [0.0, 0.3, 0.5, 1.0])
def test_weights_of_classes_are_the_same_on_every_processor(temperature: float) -> None:
    # Each bit is part of what a saved state must fit; NumPy's own power is one bit off where the processor has AVX-512.
    codes = np.repeat(np.arange(300), np.arange(1, 301))
    exact = [float(Decimal(count) ** -Decimal(temperature)) for count in range(1, 301)]
    assert class_weights(codes, 300, temperature).tolist() == exact


def test_no_draw_is_held() -> None:
    """Pitfall 19: 8 bytes a draw would be 16 MB here; what is held is some numbers for 64 rows."""
    n_rows = 2_000_000
    codes = np.zeros(n_rows, dtype=np.int8)
    codes[::1000] = 1
    weights = class_weights(codes, 2, 1.0)
    tracemalloc.start()
    try:
        weighting = Weighting(weights, codes=codes)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        plan = epoch_plan(n_rows=n_rows, batch_size=128, window=6000, block_size=16, seed=1, weighting=weighting)
        plan.window_at(plan.n_windows // 2)
        planned = tracemalloc.get_traced_memory()[1] - held
    finally:
        tracemalloc.stop()
    assert held < n_rows  # one number for 64 rows and level would be 0.3 MB
    assert planned < 12_000_000  # the cells of the epoch, and one window's rows, 64 numbers for each cell


# --- from a dataset ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", FORMS)
def test_a_loader_delivers_the_rows_drawn(shelf: Path, form: str, num_workers: int) -> None:
    dataset = AnnDataset(hand_over(toy(), form, shelf), window=8)
    weights = np.arange(40) % 5
    loader = dataset.get_optimized_dataloader(
        batch_size=4, weights=weights, n_samples=30, seed=3, num_workers=num_workers
    )
    assert len(loader) == 8 and len(loader.sampler) == 30
    for epoch in range(2):
        plan = epoch_plan(
            n_rows=40, batch_size=4, window=8, seed=3, epoch=epoch, weighting=Weighting(weights, n_samples=30)
        )
        assert rows_of(loader) == [batch.tolist() for window in plan.windows() for batch in window.batches]


@pytest.mark.parametrize("kind", [list, torch.tensor, np.asarray, lambda values: pd.Series(values)])
def test_weights_are_of_the_datasets_rows(shelf: Path, kind: Any) -> None:
    """Pitfall 11: with obs_subset, weight i is that of the dataset's row i, not of the file's."""
    dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=[30, 2, 17, 5])
    loader = dataset.get_optimized_dataloader(batch_size=10, weights=kind([0.0, 2.0, 0.0, 1.0]), n_samples=9, seed=0)
    assert Counter(flat(rows_of(loader))) == {2: 6, 5: 3}


def test_weights_under_the_names_of_cells_are_theirs(shelf: Path) -> None:
    """Pitfall 11: weights that say whose they are go to these rows; those of other rows are refused."""
    dataset = AnnDataset(hand_over(toy(), "path", shelf))
    weights = pd.Series(np.arange(40.0), index=dataset.obs_names)
    loader = dataset.get_optimized_dataloader(weights=weights, seed=0)
    assert 0 not in flat(rows_of(loader))
    again = dataset.get_optimized_dataloader(weights=weights.sort_index(), seed=0)
    assert rows_of(again) == rows_of(dataset.get_optimized_dataloader(weights=weights, seed=0))
    for others in (weights.add_suffix("x"), weights.reset_index(drop=True).sort_index(ascending=False)):
        with pytest.raises(ValueError, match=r"reindex\(dataset.obs_names\)"):
            dataset.get_optimized_dataloader(weights=others)


WRONG_WEIGHTS = [
    ({"weights": np.ones(39)}, ValueError, r"weights have shape \(39,\); expected \(40,\)"),
    ({"weights": np.ones(41)}, ValueError, r"shape \(41,\); expected \(40,\)"),
    ({"weights": np.ones((40, 1))}, ValueError, r"shape \(40, 1\)"),
    ({"weights": 1.0}, ValueError, r"shape \(\)"),
    ({"weights": [1.0] * 39 + [np.nan]}, ValueError, r"weights\[39\] is nan"),
    ({"weights": [1.0] * 3 + [np.inf] * 37}, ValueError, r"weights\[3\] is inf"),
    ({"weights": [1] * 39 + [-2]}, ValueError, r"weights\[39\] is -2"),
    ({"weights": np.zeros(40)}, ValueError, "all 40 weights are 0"),
    ({"weights": ["a"] * 40}, TypeError, "weights have dtype"),
    ({"weights": np.ones(40), "shuffle": False}, ValueError, "shuffle=False"),
    ({"weights": np.ones(40), "balance": "label"}, ValueError, "weights and balance given"),
    ({"weights": np.ones(40), "sampler": [1]}, ValueError, "weights given with a sampler"),
    ({"weights": np.ones(40), "order": range}, ValueError, "order excludes weights"),
    ({"weights": np.ones(40), "n_samples": 0}, ValueError, "n_samples is 0"),
    ({"weights": np.ones(40), "n_samples": 2.5}, TypeError, "n_samples is 2.5"),
    ({"weights": np.ones(40), "n_samples": 41, "replacement": False}, ValueError, "only 40 rows have a weight"),
    ({"weights": np.arange(40), "n_samples": 40, "replacement": False}, ValueError, "only 39 rows have a weight"),
    ({"weights": np.ones(40), "replacement": "no"}, TypeError, "replacement is 'no'"),
    ({"weights": np.ones(40), "temperature": 0.5}, ValueError, "temperature=0.5 given without balance"),
    ({"n_samples": 5}, ValueError, "n_samples=5 given without weights= or balance="),
    ({"replacement": False}, ValueError, "replacement=False given without"),
    ({"balance": "labels"}, KeyError, "Did you mean 'label'"),
    ({"balance": "label", "temperature": 5}, ValueError, r"temperature is 5; .* n \*\* \(1 - temperature\)"),
    ({"balance": "label", "temperature": -0.1}, ValueError, "temperature is -0.1"),
    ({"balance": "label", "temperature": "hot"}, TypeError, "temperature is 'hot'"),
    ({"balance": "part"}, ValueError, "balance='part': 2 of 40 rows have no value"),
    ({"balance": "label", "batch_sampler": [[1]]}, ValueError, "balance given with a sampler"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG_WEIGHTS)
def test_options_that_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """Pitfall 11: weights shorter or longer than the dataset, or no weights at all, are errors at once."""
    adata = toy()
    adata.obs["part"] = [None, None, *"ab" * 19]
    with pytest.raises(error, match=message):
        AnnDataset(adata).get_optimized_dataloader(**options)


# --- balance ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unsorted_gzip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 cells of 5 types, the rarest 1 in 100, in no order, in gzip chunks."""
    adata = toy(6000, 4)
    random = np.random.default_rng(3)
    adata.obs["cell_type"] = pd.Categorical.from_codes(
        random.choice(5, 6000, p=[0.01, 0.04, 0.15, 0.3, 0.5]), list("edcba")
    )
    adata.obs["cluster"] = adata.obs["cell_type"].cat.codes.astype("int64") * 10
    path = tmp_path_factory.mktemp("unsorted") / "unsorted.h5ad"
    adata.write_h5ad(path, compression="gzip")
    return path


@pytest.mark.parametrize("block_size", [1, 16, "auto"])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_balanced_shares_of_unsorted_gzip_data(unsorted_gzip: Path, temperature: float, block_size: Any) -> None:
    dataset = AnnDataset(unsorted_gzip, obs_columns=["row", "text", "cell_type"], window=1000, cache="1GiB")
    counts = dataset.obs_column("cell_type").value_counts()
    wanted = counts ** (1 - temperature) / (counts ** (1 - temperature)).sum()
    loader = dataset.get_optimized_dataloader(
        batch_size=100, balance="cell_type", temperature=temperature, block_size=block_size, seed=1
    )
    for _ in range(2):
        batches = [batch for batch in loader]
        rows_of(batches)
        found = Counter(name for batch in batches for name in batch["obs_cell_type"])
        assert found.total() == 6000
        of_batches = np.array([[batch["obs_cell_type"].count(name) for name in wanted.index] for batch in batches])
        for name, share in wanted.items():
            assert abs(found[name] / 6000 - share) < 4 * np.sqrt(share * (1 - share) / 6000)
        # In batches, too, as well as 100 draws at random can have it: chi-square by the number of batches.
        statistic = ((of_batches - 100 * wanted.to_numpy()) ** 2 / (100 * wanted.to_numpy())).sum()
        assert statistic < 60 * 4 + 6 * np.sqrt(2 * 60 * 4)


def test_balance_without_replacement_takes_all_of_the_rarest(unsorted_gzip: Path) -> None:
    dataset = AnnDataset(unsorted_gzip, obs_columns=["row", "text"])
    types = dataset.obs_column("cell_type").to_numpy()
    loader = dataset.get_optimized_dataloader(batch_size=10, balance="cell_type", replacement=False, seed=2)
    epochs = [flat(rows_of(loader)) for _ in range(2)]
    n_rarest = int((types == "e").sum())
    for rows in epochs:
        assert len(set(rows)) == len(rows) == len(loader.sampler) == 5 * n_rarest
        assert set(np.flatnonzero(types == "e")) <= set(rows)
        assert all(abs(n - n_rarest) < 4.5 * np.sqrt(n_rarest * 0.8) for n in Counter(types[rows]).values())
    assert set(epochs[0]) != set(epochs[1])


def test_columns_of_numbers_balance_as_their_names_do(unsorted_gzip: Path) -> None:
    dataset = AnnDataset(unsorted_gzip, obs_columns=["row", "text"])
    by_name, by_number = (
        flat(rows_of(dataset.get_optimized_dataloader(batch_size=100, balance=column, seed=1)))
        for column in ("cell_type", "cluster")
    )
    assert by_name == by_number


def test_a_part_is_balanced_by_its_own_counts(unsorted_gzip: Path) -> None:
    """Pitfall 11: weights of a subset are counted in the subset."""
    part = AnnDataset(unsorted_gzip, obs_columns=["row", "text", "cell_type"]).split({"a": 0.3, "b": 0.7})["a"]
    batches = list(part.get_optimized_dataloader(batch_size=50, balance="cell_type", seed=1))
    assert set(flat(rows_of(batches))) <= set(part.obs_column("row"))
    found = Counter(name for batch in batches for name in batch["obs_cell_type"])
    assert found.total() == len(part)
    assert all(abs(n - len(part) / 5) < 4.5 * np.sqrt(len(part) * 0.2 * 0.8) for n in found.values())


def test_windows_of_one_batch_still_find_every_draw(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=1)
    loader = dataset.get_optimized_dataloader(batch_size=1, weights=np.arange(40), seed=3, n_samples=100)
    counts = Counter(flat(rows_of(loader)))
    for row, wanted in enumerate(due(np.arange(40), 100)):
        assert counts[row] in (int(np.floor(wanted)), int(np.ceil(wanted)))


def test_a_place_in_a_weighted_epoch_is_found_again(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8)
    make: dict[str, Any] = {"batch_size": 4, "weights": np.arange(40.0), "seed": 3}
    whole = rows_of(dataset.get_optimized_dataloader(**make))
    loader = dataset.get_optimized_dataloader(**make)
    batches = iter(loader)
    assert rows_of(next(batches) for _ in range(3)) == whole[:3]
    state = loader.state_dict()
    again = dataset.get_optimized_dataloader(**make)
    again.load_state_dict(state)
    assert rows_of(again) == whole[3:]
    other = dataset.get_optimized_dataloader(**{**make, "weights": np.arange(40.0)[::-1]})
    with pytest.raises(ValueError, match="weighting is"):
        other.load_state_dict(state)
