"""An order that a user's sampler gives, cut as our own are."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.orders import epoch_plan

from annfeed.order.sampler_plan import SamplerPlan
from annfeed.order.windows import Window

# --- a user's sampler -------------------------------------------------------------------------------------------------


def sampled(sampler: Any, **fields: Any) -> list[list[list[int]]]:
    """The batches of each window."""
    plan = SamplerPlan(**{"sampler": sampler, "n_rows": 100, "batch_size": 2, "window": 4, "first_window": 2, **fields})
    windows = list(plan.windows())
    for index, window in enumerate(windows):
        assert (window.index, window.first_batch) == (index, sum(before.n_batches for before in windows[:index]))
        assert window.positions.dtype == window.offsets.dtype == np.int64
    assert len(plan) == sum(window.n_batches for window in windows)
    return [[batch.tolist() for batch in window.batches] for window in windows]


SAMPLERS = [
    ([], {}, []),
    ([9, 9, 3], {}, [[[9, 9]], [[3]]]),
    ([9, 9, 3], {"drop_last": True}, [[[9, 9]]]),
    (range(11), {}, [[[0, 1]], [[2, 3], [4, 5]], [[6, 7], [8, 9]], [[10]]]),
    (np.array([5, 0, 99]), {}, [[[5, 0]], [[99]]]),
    ([[1, 2], [3]], {"batch_size": None}, [[[1, 2]], [[3]]]),
    ([[1], [2, 3, 4, 5, 6], [7], (8,), np.array([9, 0, 9])], {"batch_size": None},
     [[[1], [2, 3, 4, 5, 6]], [[7], [8], [9, 0, 9]]]),
]  # fmt: skip


@pytest.mark.parametrize(("sampler", "fields", "expected"), SAMPLERS)
def test_exact_windows_of_a_sampler(sampler: Any, fields: dict[str, Any], expected: list[list[list[int]]]) -> None:
    assert sampled(sampler, **fields) == expected


@given(st.integers(0, 150), st.integers(1, 12), st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_a_sampler_is_cut_as_a_plan_is(n: int, batch_size: int, window: int, first: int, drop_last: bool) -> None:
    fields: dict[str, Any] = {
        "n_rows": n,
        "batch_size": batch_size,
        "window": window,
        "first_window": first,
        "drop_last": drop_last,
    }

    def cut(windows: Iterator[Window]) -> list[tuple[int, int, list[int], list[int]]]:
        return [(w.index, w.first_batch, w.positions.tolist(), w.offsets.tolist()) for w in windows]

    plan = epoch_plan(**fields, shuffle=False)
    assert cut(SamplerPlan(sampler=range(n), **fields).windows()) == cut(plan.windows())


@pytest.mark.parametrize("batch_size", [2, None])
def test_a_sampler_is_read_only_as_far_as_needed(batch_size: int | None) -> None:
    taken = []

    def endless() -> Iterator[Any]:
        while True:
            taken.append(len(taken))
            yield taken[-1] if batch_size else [taken[-1], taken[-1]]

    plan = SamplerPlan(sampler=endless(), n_rows=100, batch_size=batch_size, window=4, first_window=2)
    windows = plan.windows()
    assert not taken
    assert len(next(windows).positions) == 2
    assert len(taken) == (2 if batch_size else 1)
    assert len(next(windows).positions) == 4
    assert len(taken) == (6 if batch_size else 3)
    with pytest.raises(TypeError):
        len(plan)


def test_a_sampler_plan_can_be_iterated_twice() -> None:
    plan = SamplerPlan(sampler=[3, 1, 2], n_rows=4, batch_size=2, window=2)
    assert [[w.positions.tolist() for w in plan.windows()] for _ in range(2)] == [[[3, 1], [2]]] * 2


SAMPLERS_REFUSED = [
    ([1, 100], {}, IndexError, "position 100; the dataset has rows 0..99"),
    ([1, -1], {}, IndexError, "position -1"),
    ([0.5], {}, TypeError, r"gave \[0.5\]; expected integers"),
    ([[1, 2]], {}, TypeError, "batch_sampler"),
    ([1, 2], {"batch_size": None}, TypeError, "gave 1; expected sequences of integers"),
    ([[1], []], {"batch_size": None}, ValueError, "empty batch"),
    ([1], {"batch_size": 0}, ValueError, "batch_size is 0"),
    ([1], {"window": 0}, ValueError, "window is 0"),
    ([[1]], {"batch_size": None, "drop_last": True}, ValueError, "drop_last"),
]


@pytest.mark.parametrize(("sampler", "fields", "error", "message"), SAMPLERS_REFUSED)
def test_bad_samplers(sampler: Any, fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sampled(sampler, **fields)
