"""Blocks spread over the dataset: each once, each window with its share of every part, the rest left to chance."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.orders import epoch_plan

from annfeed.order.orders import PERMUTED, SPREAD
from annfeed.order.spread import HeldPermutations, SmallPermutations, Spread, scrambled
from annfeed.order.windows import WarmUp

KEYS = st.integers(0, 2**64 - 1)
KINDS = [SmallPermutations, HeldPermutations]


def stretches_of(order: Spread, values: np.ndarray) -> np.ndarray:
    """The stretch of the ring in which each value lies."""
    return np.searchsorted(order._ends, (values - order._turn) % order._n, side="right")


# --- the order of blocks ----------------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(1, 400), KEYS, st.booleans())
def test_a_bijection_that_knows_its_inverse(n: int, n_stretches: int, key: int, held: bool) -> None:
    order = Spread(n, n_stretches, key, held=held)
    values = order.forward(np.arange(n))
    assert np.sort(values).tolist() == list(range(n))
    assert order.inverse(values).tolist() == list(range(n))
    assert order.forward(np.arange(n // 3, n // 2)).tolist() == values[n // 3 : n // 2].tolist()


@given(st.integers(1, 3000), st.integers(1, 400), KEYS, st.booleans())
def test_successive_values_are_of_different_stretches(n: int, n_stretches: int, key: int, held: bool) -> None:
    order = Spread(n, n_stretches, key, held=held)
    k = min(n, n_stretches)
    lengths = np.diff(order._ends, prepend=0)
    assert len(lengths) == k and lengths.sum() == n and np.ptp(lengths) <= 1
    stretches = stretches_of(order, order.forward(np.arange(n)))
    for start in range(0, n - k + 1, max(1, k // 3)):
        assert len(np.unique(stretches[start : start + k])) == k


@given(st.integers(2, 600), st.integers(1, 40), KEYS)
def test_any_few_successive_values_lie_evenly(n: int, part: int, key: int) -> None:
    """Of a part of a round, too: the count in any interval is what is due, to within some."""
    order = scrambled(n, key)
    assert np.sort(order).tolist() == list(range(n))
    part = min(part, n)
    for start in range(0, n - part + 1, part):
        ranks = np.sort(order[start : start + part])
        due = (np.arange(part) + 0.5) * n / part
        # Van der Corput's discrepancy grows with the logarithm of the length.
        assert abs(ranks - due).max() * part / n <= 2 + np.log2(part + 1)


def test_powers_of_two_are_dealt_exactly() -> None:
    for key in range(20):
        order = scrambled(256, key)
        for size in (1, 2, 4, 8, 64, 256):
            for start in range(0, 256 - size + 1, 3):
                assert len(np.unique(order[start : start + size] // (256 // size))) == size


# --- what chance decides ----------------------------------------------------------------------------------------------


def assert_even(counts: np.ndarray, n_draws: int) -> None:
    """Counts of independent draws with equal chances: each within five standard deviations."""
    chance = 1 / counts.shape[-1]
    errors = (counts - n_draws * chance) / np.sqrt(n_draws * chance * (1 - chance))
    assert abs(errors).max() < 5


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(("n", "n_stretches"), [(7, 3), (6, 6), (9, 1), (40, 16)])
def test_every_block_is_equally_likely_at_every_place(n: int, n_stretches: int, held: bool) -> None:
    counts = np.zeros((n, n))
    for key in range(400):
        counts[np.arange(n), Spread(n, n_stretches, key, held=held).forward(np.arange(n))] += 1
    assert_even(counts, 400)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_small_permutations_are_equally_likely(n: int, kind: Any) -> None:
    number = {order: i for i, order in enumerate(permutations(range(n)))}
    many = kind(np.full(6000, n), 11)
    found = np.stack([many.forward(np.arange(6000), np.full(6000, value)) for value in range(n)], axis=1)
    assert_even(np.bincount([number[tuple(order)] for order in found.tolist()], minlength=len(number)), 6000)


@pytest.mark.parametrize("kind", KINDS)
@given(sizes=st.lists(st.integers(1, 70), min_size=1, max_size=30), key=KEYS)
def test_small_permutations_are_bijections(kind: Any, sizes: list[int], key: int) -> None:
    many = kind(np.array(sizes), key)
    which = np.repeat(np.arange(len(sizes)), sizes)
    numbers = np.concatenate([np.arange(size) for size in sizes])
    found = many.forward(which, numbers)
    assert sorted(zip(which.tolist(), found.tolist(), strict=True)) == list(
        zip(which.tolist(), numbers.tolist(), strict=True)
    )
    assert many.inverse(which, found).tolist() == numbers.tolist()


# --- windows ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 400), st.integers(1, 200), st.integers(1, 3000))
def test_no_window_at_the_end_is_short(batch_size: int, window: int, first_window: int, n_rows: int) -> None:
    def starts(n: int | None) -> list[int]:
        cut, found = WarmUp(batch_size, window, first_window, n), [0]
        while found[-1] < n_rows:
            found.append(cut.start(len(found)))
            middle = (found[-2] + found[-1]) // 2
            assert cut.window_at(found[-2]) == cut.window_at(middle) == cut.window_at(found[-1] - 1) == len(found) - 2
        return found

    sizes = np.diff(starts(n_rows))
    assert sizes.sum() - n_rows == -n_rows % batch_size
    assert (sizes % batch_size == 0).all() and sizes.max() <= max(batch_size, window)
    # Half of the largest or more, but for the rounding to whole batches; and the first one stays small.
    assert sizes[-1] > sizes.max() / 2 - batch_size
    assert sizes[0] <= 3 * max(batch_size, first_window)
    assert len(sizes) <= len(starts(None)) - 1


def test_a_window_has_a_block_of_each_stretch_wherever_a_rank_begins() -> None:
    for world, seed in [(1, 0), (1, 1), (2, 0), (4, 5)]:
        for how in ({"block_size": 5}, {"block_starts": np.arange(0, 12_000, 5)}):
            plans = [
                epoch_plan(n_rows=12_000, batch_size=10, window=600, world=world, rank=rank, seed=seed, **how)
                for rank in range(world)
            ]
            windows = [w.positions for plan in plans for w in plan.windows() if len(w.positions) == 600]
            assert len(windows) == 20
            # 120 stretches of 20 blocks; where the first begins is drawn.
            held = [
                all((np.bincount((rows // 5 - turn) % 2400 // 20, minlength=120) == 5).all() for rows in windows)
                for turn in range(20)
            ]
            assert held.count(True) == 1


def class_drift(windows: list[np.ndarray], classes: np.ndarray) -> float:
    """The total variation distance of the shares of classes in windows from those of the whole, their mean."""
    whole = np.bincount(classes) / len(classes)
    shares = [np.bincount(classes[rows], minlength=len(whole)) / len(rows) for rows in windows]
    return float(np.mean([abs(share - whole).sum() / 2 for share in shares]))


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("how", [{"block_size": 16}, {"block_starts": np.arange(0, 100_000, 16)}, "uneven"])
def test_shares_of_a_sorted_class_drift_no_more_than_in_random_order(how: Any, world: int) -> None:
    random = np.random.default_rng(0)
    if how == "uneven":
        how = {"block_starts": np.append(0, np.cumsum(random.integers(12, 21, 6_250)))}
        how["block_starts"] = how["block_starts"][how["block_starts"] < 100_000]
    classes = np.sort(random.choice(30, 100_000, p=random.dirichlet(np.full(30, 3.0))))

    def of(**order: Any) -> float:
        cut = {"n_rows": 100_000, "batch_size": 100, "window": 6_000, "world": world, "seed": 1}
        windows = [w.positions for rank in range(world) for w in epoch_plan(rank=rank, **cut, **order).windows()]
        return class_drift([rows for rows in windows if len(rows) > 5_000], classes)

    exact = of()
    assert of(**how) < 1.25 * exact
    assert of(**how, block_order=PERMUTED) > 2 * exact


def test_windows_of_a_regular_pattern_have_its_shares() -> None:
    """Of classes that come and go as regularly as stretches do."""
    for period in (160, 320, 1_600, 3_200, 5_000):
        classes = np.arange(64_000) % period < period // 2
        for seed in range(3):
            plan = epoch_plan(n_rows=64_000, batch_size=50, window=3_200, first_window=3_200, block_size=16, seed=seed)
            shares = [classes[window.positions].mean() for window in plan.windows()]
            # 200 blocks by chance would be within 0.035 of a half.
            assert abs(np.array(shares) - 0.5).max() < 4 * 0.035


@pytest.mark.parametrize("how", [{"block_size": 16}, {"block_starts": np.arange(0, 9_000, 16)}])
def test_any_two_blocks_share_a_window_as_often_as_in_random_order(how: dict[str, Any]) -> None:
    """So neighbours are decoded together as often, too."""
    n_blocks, n_epochs = 563, 100
    windows = []
    for epoch in range(n_epochs):
        plan = epoch_plan(n_rows=9_000, batch_size=50, window=1_500, first_window=1_500, epoch=epoch, **how)
        windows += [np.bincount(window.positions // 16, minlength=n_blocks) > 0 for window in plan.windows()]
    held = np.array(windows, dtype=np.float32)
    together = held.T @ held
    # A block at the border of a window is in both.
    by_chance = len(windows) * (held.sum() / held.size) ** 2
    assert len(windows) == 6 * n_epochs
    for distance in (1, *range(20, 280, 13)):
        found = [together[i, (i + distance) % n_blocks] for i in range(n_blocks)]
        assert np.mean(found) == pytest.approx(by_chance, rel=0.1)
        assert max(found) < by_chance + 7 * np.sqrt(by_chance)


def test_orders_of_both_versions_are_other_orders() -> None:
    def order(**fields: Any) -> list[int]:
        plan = epoch_plan(n_rows=300, batch_size=10, window=60, **fields)
        return [row for window in plan.windows() for row in window.positions.tolist()]

    for how in ({"block_size": 4}, {"block_starts": np.arange(0, 300, 4)}):
        orders = [order(**how, block_order=version) for version in (PERMUTED, SPREAD)]
        assert orders[0] != orders[1] == order(**how)
        assert sorted(orders[0]) == sorted(orders[1]) == list(range(300))
