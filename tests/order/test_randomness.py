"""How random the orders are: every row equally likely at every place."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.orders import epoch_plan

from annfeed.order.permutation import Permutation, shuffled

# --- randomness -------------------------------------------------------------------------------------------------------


def assert_uniform(counts: np.ndarray, freedom: int) -> None:
    """Chi-square within five standard deviations of its mean: neither too uneven nor too even."""
    expected = counts.sum() / counts.size
    assert expected > 20
    statistic = ((counts - expected) ** 2).sum() / expected
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_permutations_of_few_rows_are_equally_likely(n: int) -> None:
    number = {order: i for i, order in enumerate(permutations(range(n)))}
    found = [number[tuple(Permutation(n, seed).take(0, n).tolist())] for seed in range(6000)]
    assert_uniform(np.bincount(found, minlength=len(number)), len(number) - 1)


# 5,000 and 100,003 rows come from the network, the others from the table.
@pytest.mark.parametrize(("n", "seeds", "bins"), [(5, 4000, 5), (10, 4000, 10), (100, 2000, 20), (1000, 300, 50)])
@pytest.mark.parametrize("as_epochs", [False, True])
def test_every_row_is_equally_likely_at_every_place(n: int, seeds: int, bins: int, as_epochs: bool) -> None:
    counts = np.zeros((bins, bins))
    for number in range(seeds):
        key = {"epoch": number} if as_epochs else {"seed": number}
        plan = epoch_plan(n_rows=n, batch_size=n, window=n, first_window=n, **key)
        np.add.at(counts, (np.arange(n) * bins // n, plan.window_at(0).positions * bins // n), 1)
    # Within one order the rows and columns of this table have fixed sums.
    assert_uniform(counts, (bins - 1) ** 2)


@pytest.mark.parametrize(("n", "seeds", "bins"), [(4097, 200, 40), (5000, 200, 40), (100_003, 20, 100)])
def test_the_network_is_as_random_as_a_sort_by_random_numbers(n: int, seeds: int, bins: int) -> None:
    places, steps = np.zeros((bins, bins)), np.zeros(bins)
    first = np.zeros((bins, bins))
    for seed in range(seeds):
        order = Permutation(n, seed).take(0, n)
        np.add.at(places, (np.arange(n) * bins // n, order * bins // n), 1)
        np.add.at(steps, np.diff(order) % n * bins // n, 1)
        np.add.at(first, (order[:-1:2] * bins // n, order[1::2] * bins // n), 1)
    assert_uniform(places, (bins - 1) ** 2)
    assert_uniform(steps, bins - 1)
    assert_uniform(first, bins**2 - 1)


@given(st.one_of(st.integers(1, 50), st.integers(4090, 4103), st.integers(4097, 20_000)), st.integers(0, 2**64 - 1))
def test_permutation_is_a_bijection_and_knows_its_inverse(n: int, key: int) -> None:
    permutation = Permutation(n, key)
    order = permutation.take(0, n)
    assert np.sort(order).tolist() == list(range(n))
    assert permutation.inverse(order).tolist() == list(range(n))
    assert permutation.take(n // 3, n // 2).tolist() == order[n // 3 : n // 2].tolist()


@pytest.mark.parametrize("n", [2**31 + 1, 10**12 + 39, 2**63 - 1])
def test_permutation_of_more_than_2_31_rows(n: int) -> None:
    permutation = Permutation(n, 5)
    places = np.concatenate([np.arange(1000), n - 1 - np.arange(1000)])
    order = permutation.forward(places)
    assert order.min() >= 0 and order.max() < n and len(np.unique(order)) == 2000
    assert (permutation.inverse(order) == places).all()
    assert_uniform(np.bincount((order / n * 20).astype(int), minlength=20), 19)


def test_window_shuffle_is_uniform() -> None:
    number = {order: i for i, order in enumerate(permutations(range(4)))}
    found = [number[tuple(shuffled(4, seed).tolist())] for seed in range(5000)]
    assert_uniform(np.bincount(found, minlength=24), 23)
