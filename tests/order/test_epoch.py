"""The order of an epoch: tables of exact orders, and properties that hold for every plan."""

import pickle
import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.orders import epoch_plan

from annfeed.order.epoch import EpochPlan
from annfeed.order.orders import PERMUTED, SPREAD
from annfeed.order.random import hashes
from annfeed.order.weights import Weighting


def orders(**fields: Any) -> list[list[int]]:
    """The rows of each window, windows of 4 (the first of 2) and batches of 2 unless told otherwise."""
    plan = epoch_plan(**{"n_rows": 10, "batch_size": 2, "window": 4, "first_window": 2, **fields})
    return [window.positions.tolist() for window in plan.windows()]


def delivered(plan: EpochPlan) -> list[int]:
    return [row for window in plan.windows() for row in window.positions.tolist()]


def ranks(**fields: Any) -> list[EpochPlan]:
    return [epoch_plan(**fields, rank=rank) for rank in range(fields["world"])]


# --- tables of exact orders: a change here is a change of every user's order ------------------------------------------


WITHOUT_REPLACEMENT = Weighting(range(10), n_samples=4, replacement=False)
WEIGHTING = Weighting([0, 1, 2, 0, 0, 4, 0, 1, 0, 0], n_samples=8)
EXACT = [
    ({"shuffle": False}, [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]),
    ({"shuffle": False, "block_size": 4, "seed": 5}, [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]),
    ({}, [[1, 9], [0, 8, 4, 6], [7, 2, 3, 5]]),
    ({"batch_size": 3, "window": 8, "first_window": 1}, [[1, 9, 0], [8, 4, 6, 7, 2, 3], [5]]),
    ({"epoch": 1}, [[6, 3], [1, 5, 4, 0], [8, 2, 7, 9]]),
    ({"seed": 2**64 - 1}, [[0, 6], [4, 2, 1, 7], [9, 3, 8, 5]]),
    ({"block_size": 4}, [[5, 4], [8, 9, 7, 6], [0, 1, 3, 2]]),
    ({"block_starts": [0, 1, 5, 8]}, [[9, 8], [6, 7, 5, 0], [1, 2, 4, 3]]),
    # As in states without "block_order".
    ({"block_size": 4, "block_order": PERMUTED}, [[5, 4], [0, 1, 7, 6], [2, 3, 9, 8]]),
    ({"block_starts": [0, 1, 5, 8], "block_order": PERMUTED}, [[2, 1], [0, 5, 4, 3], [6, 7, 9, 8]]),
    ({"weighting": WEIGHTING}, [[5, 2], [2, 5, 5, 7], [5, 1]]),
    ({"weighting": WEIGHTING, "block_size": 2}, [[7, 1], [5, 5, 5, 5], [2, 2]]),
    ({"weighting": WITHOUT_REPLACEMENT}, [[9, 8], [5, 4]]),
    ({"positions": np.array([7, 7, 0, 9, 3])}, [[7, 7], [0, 9, 3]]),
]
EXACT_RANKS = [
    ({"world": 3}, [[[1, 9], [0, 8]], [[4, 6], [7]], [[2, 3], [5]]]),
    ({"world": 3, "block_size": 2, "first_window": 4}, [[[9, 7, 8, 6]], [[2, 3, 0]], [[4, 1, 5]]]),
    (
        {"world": 3, "block_size": 2, "first_window": 4, "block_order": PERMUTED},
        [[[1, 3, 0, 2]], [[8, 9, 4]], [[6, 5, 7]]],
    ),
    ({"world": 3, "batch_size": 3, "uneven": "pad"}, [[[1, 9, 0], [8]], [[4, 6, 7], [1]], [[2, 3, 5], [9]]]),
    ({"world": 3, "batch_size": 3, "uneven": "drop"}, [[[1, 9, 0]], [[4, 6, 7]], [[2, 3, 5]]]),
    ({"world": 3, "shuffle": False, "batch_size": 3}, [[[0, 1, 2], [3]], [[4, 5, 6], [0]], [[7, 8, 9], [1]]]),
    ({"world": 3, "shuffle": False, "drop_last": True}, [[[0, 1]], [[4, 5]], [[7, 8]]]),
    ({"world": 3, "n_rows": 2, "shuffle": False}, [[[0]], [[1]], [[0]]]),
    ({"world": 4, "n_rows": 1, "shuffle": False}, [[[0]], [[0]], [[0]], [[0]]]),
    ({"world": 3, "n_rows": 2, "uneven": "drop"}, [[], [], []]),
    ({"world": 3, "n_rows": 2, "drop_last": True}, [[], [], []]),
]


@pytest.mark.parametrize(("fields", "expected"), EXACT)
def test_exact_orders(fields: dict[str, Any], expected: list[list[int]]) -> None:
    assert orders(**fields) == expected


@pytest.mark.parametrize(("fields", "expected"), EXACT_RANKS)
def test_exact_orders_per_rank(fields: dict[str, Any], expected: list[list[list[int]]]) -> None:
    assert [orders(**fields, rank=rank) for rank in range(fields["world"])] == expected


def test_exact_order_of_a_large_file() -> None:
    rows = epoch_plan(n_rows=100_000_000, batch_size=2, window=6, first_window=2)
    assert rows.n_windows == 16_666_668
    assert rows.window_at(5).positions.tolist() == [72275616, 32964905, 56634920, 7251346, 47323009, 43329200]
    assert rows.window_at(16_666_667).positions.tolist() == [99643719, 41360834, 86910125, 71953654]
    for version, first in ((PERMUTED, 564920), (SPREAD, 73825896)):
        blocks = epoch_plan(n_rows=100_000_000, batch_size=4, window=8, block_size=16, block_order=version)
        assert (blocks.window_at(5).positions - first).tolist() == [0, 3, 4, 5, 1, 2, 7, 6]


def test_hashes_are_splitmix64() -> None:
    # Published outputs of splitmix64 for this seed (rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64).
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert hashes(1234567, 0, 4).tolist() == published
    assert hashes(1234567, 2, 4).tolist() == published[2:]


EDGES = [
    ({"n_rows": 0}, []),
    ({"n_rows": 0, "block_size": 3}, []),
    ({"n_rows": 0, "block_starts": []}, []),
    ({"n_rows": 0, "weighting": Weighting([])}, []),
    ({"n_rows": 3, "positions": np.array([], dtype=np.int64)}, []),
    ({"n_rows": 1}, [[0]]),
    ({"n_rows": 1, "drop_last": True}, []),
    ({"n_rows": 1, "block_size": 50}, [[0]]),
    ({"n_rows": 3, "batch_size": 1, "window": 1, "shuffle": False}, [[0], [1], [2]]),
    ({"n_rows": 3, "batch_size": 5, "window": 1, "shuffle": False}, [[0, 1, 2]]),
    ({"n_rows": 5, "batch_size": 2, "shuffle": False, "drop_last": True}, [[0, 1], [2, 3]]),
]


@pytest.mark.parametrize(("fields", "expected"), EDGES)
def test_edges(fields: dict[str, Any], expected: list[list[int]]) -> None:
    assert orders(**fields) == expected


def test_windows_ramp_from_first_window_up_to_window() -> None:
    def sizes(**fields: Any) -> list[int]:
        plan = epoch_plan(**{"n_rows": 20_000, "batch_size": 100, **fields})
        return [len(window.positions) for window in plan.windows()]

    assert sizes(window=6050) == [1000, 2000, 4000, 6000, 6000, 1000]
    assert sizes(window=8000) == [1000, 2000, 4000, 8000, 5000]
    assert sizes(window=500)[:3] == [500, 500, 500]
    assert sizes(window=500, first_window=200)[:4] == [200, 400, 500, 500]
    assert sizes(window=6000, first_window=1)[:4] == [100, 200, 400, 800]
    assert sizes(window=6000, first_window=10**6) == [6000, 6000, 6000, 2000]
    # No short window at the end of an order that is spread.
    assert sizes(window=6050, block_size=16) == [1000, 2000, 4000, 4300, 4300, 4400]
    assert sizes(window=6000, first_window=10**6, block_size=16) == [5000, 5000, 5000, 5000]
    assert sizes(window=6000, block_size=16, n_rows=3500) == [1000, 2500]
    assert sizes(window=6000, block_size=16, n_rows=3500, block_order=PERMUTED) == [1000, 2000, 500]


def test_batches_are_the_cut_of_a_window() -> None:
    window = epoch_plan(n_rows=7, batch_size=3, window=99, shuffle=False).window_at(0)
    assert [batch.tolist() for batch in window.batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert window.offsets.tolist() == [0, 3, 6, 7]
    assert (window.positions.dtype, window.offsets.dtype) == (np.int64, np.int64)


# --- properties -------------------------------------------------------------------------------------------------------


@st.composite
def plan_fields(draw: st.DrawFn) -> dict[str, Any]:
    n_rows = draw(st.integers(0, 150))
    fields = {
        "n_rows": n_rows,
        "batch_size": draw(st.integers(1, 12)),
        "window": draw(st.integers(1, 60)),
        "first_window": draw(st.integers(1, 60)),
        "shuffle": draw(st.booleans()),
        "block_size": draw(st.sampled_from([1, 1, 2, 3, 7, 200])),
        "block_order": draw(st.sampled_from([PERMUTED, SPREAD])),
        "seed": draw(st.sampled_from([0, 1, 2**64 - 1])),
        "epoch": draw(st.integers(0, 3)),
        "world": draw(st.integers(1, 5)),
        "drop_last": draw(st.booleans()),
        "uneven": draw(st.sampled_from(["pad", "drop"])),
    }
    if n_rows and draw(st.booleans()):
        fields["block_starts"] = sorted({0, *draw(st.lists(st.integers(0, n_rows - 1), max_size=20))})
    return fields


@given(plan_fields())
def test_union_over_ranks(fields: dict[str, Any]) -> None:
    plans = ranks(**fields)
    counts = Counter(row for plan in plans for row in delivered(plan))
    n_rows, world, batch_size = fields["n_rows"], fields["world"], fields["batch_size"]
    everything = dict.fromkeys(range(n_rows), 1)
    smallest, largest = n_rows // world, -(-n_rows // world)
    if fields["drop_last"]:
        assert set(counts) <= set(everything) and max(counts.values(), default=1) == 1
        assert counts.total() == smallest // batch_size * batch_size * world
    elif -(-smallest // batch_size) == -(-largest // batch_size):
        assert counts == everything
        assert sum(plan.n_padding for plan in plans) == 0
    elif fields["uneven"] == "drop":
        assert set(counts) <= set(everything) and max(counts.values(), default=1) == 1
        assert counts.total() == smallest * world
    else:
        assert counts.total() == largest * world
        for plan in plans:
            own = delivered(plan)
            counts.subtract(own[len(own) - plan.n_padding :])
            assert plan.n_padding == 0 or own[-1] not in own[:-1]
        assert counts == everything


@given(plan_fields())
def test_every_rank_delivers_the_same_number_of_batches_and_len_tells_it(fields: dict[str, Any]) -> None:
    plans = ranks(**fields)
    for plan in plans:
        windows = list(plan.windows())
        sizes = [len(batch) for window in windows for batch in window.batches]
        assert len(plan) == plan.n_batches == len(sizes) == len(plans[0])
        assert plan.n_windows == len(windows)
        assert plan.n_delivered == sum(sizes)
        assert all(size == plan.batch_size for size in sizes[:-1])
        if sizes:
            assert (sizes[-1] == plan.batch_size) if plan.drop_last else (1 <= sizes[-1] <= plan.batch_size)


@given(plan_fields())
def test_windows_are_within_bounds_and_found_at_random(fields: dict[str, Any]) -> None:
    for plan in ranks(**fields):
        batches_before = 0
        for index, window in enumerate(plan.windows()):
            assert (window.index, window.first_batch) == (index, batches_before)
            assert 0 < len(window.positions) <= max(plan.window, plan.batch_size)
            assert {plan.window_of(batches_before + i) for i in range(window.n_batches)} == {index}
            batches_before += window.n_batches
        # A fresh plan, last window first: nothing may depend on what was computed before.
        fresh = replace(plan)
        again = [fresh.window_at(index).positions.tolist() for index in reversed(range(fresh.n_windows))][::-1]
        assert again == [window.positions.tolist() for window in plan.windows()]
        batches = [batch.tolist() for window in plan.windows() for batch in window.batches]
        for n_done in {0, 1, plan.n_batches // 2, plan.n_batches, plan.n_batches + 1}:
            rest = list(plan.windows(n_done))
            assert [batch.tolist() for window in rest for batch in window.batches] == batches[n_done:]
            assert all(n_done <= window.first_batch < plan.n_batches for window in rest)


@given(plan_fields())
def test_blocks_stay_whole_except_at_window_borders(fields: dict[str, Any]) -> None:
    plan = epoch_plan(**{**fields, "world": 1, "shuffle": True, "drop_last": False})
    starts = fields.get("block_starts", list(range(0, plan.n_rows, fields["block_size"])))
    if len(starts) == plan.n_rows:
        return
    block_of = np.searchsorted(starts, np.arange(plan.n_rows), side="right") - 1
    open_block = None
    for window in plan.windows():
        rows = np.sort(window.positions)
        begun = [block for block in np.unique(block_of[rows]) if block != open_block]
        cut = []
        for block in np.unique(block_of[rows]):
            here, whole = rows[block_of[rows] == block], np.flatnonzero(block_of == block)
            assert (np.diff(here) == 1).all()
            if block in begun:
                assert here[0] == whole[0]
            if here[-1] != whole[-1]:
                cut.append(block)
        assert len(cut) <= 1
        open_block = cut[0] if cut else None


@pytest.mark.parametrize("how", [{"block_size": 50}, {"block_starts": np.arange(0, 5000, 50)}])
def test_rows_of_a_window_of_blocks_are_reshuffled(how: dict[str, Any]) -> None:
    plan = epoch_plan(n_rows=5000, batch_size=50, window=500, first_window=500, seed=1, **how)
    patterns = set()
    for window in plan.windows():
        blocks = len(np.unique(window.positions // 50))
        assert blocks == 10
        # In block order a window would have ten runs of 50; shuffled, neighbours follow each other once in 500.
        assert np.count_nonzero(np.diff(window.positions) == 1) < 10
        assert all(len(np.unique(batch // 50)) > 5 for batch in window.batches)
        patterns.add(tuple(np.argsort(window.positions).tolist()))
    assert len(patterns) == plan.n_windows


@pytest.mark.parametrize("how", [{"block_size": 1}, {"block_size": 16}, {"block_starts": np.arange(0, 40_000, 16)}])
def test_each_rank_sees_blocks_of_the_whole_file(how: dict[str, Any]) -> None:
    for plan in ranks(n_rows=40_000, batch_size=100, window=4000, world=4, **how):
        tenths = np.bincount(np.array(delivered(plan)) // 4000, minlength=10)
        assert tenths.sum() == 10_000
        # 62.5 blocks of 16 a tenth are expected, standard deviation about 6.5.
        assert (abs(tenths - 1000) < 5 * 6.5 * 16).all()


@pytest.mark.parametrize(
    "how", [{}, {"block_size": 5}, {"block_starts": [0, 7, 9, 50]}, {"weighting": Weighting(np.ones(100))}]
)
def test_order_depends_on_seed_and_epoch_and_nothing_else(how: dict[str, Any]) -> None:
    def order(**fields: Any) -> tuple[int, ...]:
        return tuple(delivered(epoch_plan(**{"n_rows": 100, "batch_size": 7, "window": 28, **how, **fields})))

    different = [order(seed=seed, epoch=epoch) for seed in (0, 1, 2, 2**63, 2**64 - 1) for epoch in (0, 1, 2)]
    assert len(set(different)) == len(different)
    assert order(seed=1, epoch=2) == order(seed=np.uint64(1), epoch=np.int32(2))
    assert tuple(range(100)) not in different


def test_first_epoch_of_seed_1_is_not_the_second_of_seed_0() -> None:
    assert orders(seed=1, epoch=0) != orders(seed=0, epoch=1)


def test_no_generator_is_touched() -> None:
    def state() -> str:
        return repr(np.random.get_state(legacy=False))

    np.random.seed(3)
    before = state()
    first = orders(n_rows=100, block_size=3), orders(weighting=WEIGHTING)
    assert state() == before
    np.random.seed(4)
    assert state() != before
    assert (orders(n_rows=100, block_size=3), orders(weighting=WEIGHTING)) == first


def test_plans_and_windows_travel_to_workers() -> None:
    plan = epoch_plan(n_rows=10_000, batch_size=10, window=100, block_size=7, seed=9)
    window = pickle.loads(pickle.dumps(plan)).window_at(5)
    assert pickle.loads(pickle.dumps(window)).positions.tolist() == plan.window_at(5).positions.tolist()


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 16])
def test_a_plan_of_100_million_rows_holds_no_permutation(block_size: int) -> None:
    epoch_plan(n_rows=10, batch_size=2, window=4).window_at(0)  # imports and caches are not the plan's
    tracemalloc.start()
    try:
        plan = epoch_plan(
            n_rows=100_000_000, batch_size=128, window=16_384, block_size=block_size, rank=5, world=8, seed=1
        )
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        window = plan.window_at(plan.n_windows // 2)
        # The window itself is 128 KiB, and the network needs a dozen arrays of that size.
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert len(np.unique(window.positions)) == 16_384
    assert (len(np.unique(window.positions // 16)) < 1100) == (block_size == 16)


# --- refusals ---------------------------------------------------------------------------------------------------------


REFUSED = [
    ({"n_rows": -1}, ValueError, "n_rows is -1; expected an integer of 0 or more"),
    ({"n_rows": 10.0}, TypeError, "n_rows is 10.0; expected an integer"),
    ({"batch_size": 0}, ValueError, "batch_size is 0; expected a positive integer"),
    ({"batch_size": True}, TypeError, "batch_size is True"),
    ({"window": 0}, ValueError, "window is 0"),
    ({"first_window": 0}, ValueError, "first_window is 0"),
    ({"block_size": 0}, ValueError, "block_size is 0"),
    ({"block_size": "auto"}, TypeError, "block_size is 'auto'"),
    ({"seed": -1}, ValueError, "seed is -1; expected an integer from 0 to 18446744073709551615"),
    ({"seed": 2**64}, ValueError, "seed is 18446744073709551616"),
    ({"seed": None}, TypeError, "seed is None"),
    ({"epoch": -1}, ValueError, "epoch is -1"),
    ({"world": 0}, ValueError, "world is 0"),
    ({"rank": 2, "world": 2}, ValueError, "rank is 2; expected an integer from 0 to 1"),
    ({"rank": -1}, ValueError, "rank is -1"),
    ({"uneven": "wrap"}, ValueError, "uneven is 'wrap'"),
    ({"weighting": Weighting(np.ones(9))}, ValueError, "weights are of 9 rows; expected 10"),
    ({"weighting": Weighting(np.ones(11))}, ValueError, "weights are of 11 rows; expected 10"),
    ({"block_starts": []}, ValueError, r"begin with \[\]"),
    ({"block_starts": [1, 2]}, ValueError, r"begin with \[1\]"),
    ({"block_starts": [0, 4, 4]}, ValueError, r"block_starts\[2\] is 4 after 4"),
    ({"block_starts": [0, 10]}, ValueError, "end with 10; expected at most 9"),
    ({"block_starts": [0.0, 1.0]}, TypeError, "dtype float64"),
    ({"block_starts": [[0, 1]]}, ValueError, r"shape \(1, 2\)"),
    ({"n_rows": 0, "block_starts": [0]}, ValueError, r"begin with \[0\]"),
]


@pytest.mark.parametrize(("fields", "error", "message"), REFUSED)
def test_refusals_say_what_was_found(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        orders(**fields)


@pytest.mark.parametrize("index", [-1, 3])
def test_no_window_outside_the_epoch(index: int) -> None:
    plan = epoch_plan(n_rows=10, batch_size=2, window=4, first_window=2)
    with pytest.raises(IndexError, match=f"window {index} asked for; the epoch has 3 windows"):
        plan.window_at(index)
    with pytest.raises(IndexError, match="batch 5 asked for; the epoch has 5 batches"):
        plan.window_of(5)
