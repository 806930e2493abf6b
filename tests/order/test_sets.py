"""Sets of cells: each cell once, sets of one group, controls of the right pool and none twice before all have come."""

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annfeed.order.epoch import EpochPlan
from annfeed.order.groups import Groups, WithinGroups, joined_codes, ranks_among_equals
from annfeed.order.sets import Pools, Sets


class Set(NamedTuple):
    """A set that was delivered."""

    cells: list[int]
    repeats: list[bool]
    controls: list[int]
    is_padding: bool


def sets_of_batches(plan: EpochPlan, n_done: int = 0) -> list[list[Set]]:
    """The batches of a plan after some, each as the sets in it, told from the marks of its windows."""
    batches = []
    for window in plan.windows(n_done):
        marks = window.sets
        assert marks is not None and len(marks.set_of) == len(window.positions)
        for number, rows in enumerate(window.batches):
            start = int(window.offsets[number])
            n_cells = len(rows) if marks.n_cells is None else int(marks.n_cells[number])
            set_of = marks.set_of[start : start + len(rows)]
            padding = None if marks.is_padding is None else marks.is_padding[start : start + len(rows)]
            found = []
            for of in range(int(set_of.max()) + 1):
                here = np.flatnonzero(set_of == of)
                cells, controls = here[here < n_cells], here[here >= n_cells]
                is_padding = False
                if padding is not None:
                    assert len(set(padding[here].tolist())) == 1
                    is_padding = bool(padding[here[0]])
                repeats = marks.is_repeat[start:][cells].tolist()
                assert not marks.is_repeat[start:][controls].any()
                found.append(Set(rows[cells].tolist(), repeats, rows[controls].tolist(), is_padding))
            batches.append(found)
    return batches


def flat_sets(batches: list[list[Set]]) -> list[Set]:
    return [found for batch in batches for found in batch]


class Case(NamedTuple):
    """An order of sets and what it is made of: the group of each row (-1: none), the pool of each row."""

    order: Sets
    groups: list[int]
    pool_of_cell: list[int]
    pool_of_control: list[int]

    def plan(self, **fields: Any) -> EpochPlan:
        return EpochPlan(**{"n_rows": len(self.groups), "order": self.order, "batch_size": 3, "window": 40, **fields})


@st.composite
def cases(draw: st.DrawFn, shuffle: bool = True, of_groups: bool | None = None) -> Case:
    n, n_groups, n_pools = draw(st.integers(1, 300)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    groups = random.integers(-1, n_groups, n)
    groups[random.integers(n)] = 0
    size, short = draw(st.sampled_from([None, 1, 2, 5, 16])), draw(st.sampled_from(["repeat", "keep", "drop"]))
    if short == "drop" and size is not None and np.bincount(groups[groups >= 0]).max() < size:
        size = 1
    pools = None
    controls = np.where(groups < 0, random.integers(0, n_pools, n), -1)
    pool_of = random.integers(0, n_pools, n)
    if draw(st.booleans()) and set(controls[groups < 0].tolist()) == set(range(n_pools)):
        by_group = draw(st.booleans()) if of_groups is None else of_groups
        if by_group:
            pool_of = groups % n_pools
        first = random.integers(1, n_pools + 1)
        known = np.arange(n_groups) % n_pools if by_group else pool_of
        pools = Pools(Groups(controls, n_pools), known, by_group, int(first), draw(st.sampled_from([None, 1, 4, 40])))
    order = Sets(Groups(groups, n_groups), n, size, short, shuffle, pools)
    return Case(order, groups.tolist(), pool_of.tolist(), controls.tolist())


def expected_set_lengths(case: Case) -> Counter[tuple[int, int]]:
    """How many sets of which length each group makes, by hand."""
    lengths: Counter[tuple[int, int]] = Counter()
    size, short = case.order.size, case.order.short
    for group, cells in pd.Series(range(len(case.groups))).groupby(np.array(case.groups)):
        if group < 0:
            continue
        left = len(cells)
        while left:
            if size is None:
                lengths[group, left] += 1
                break
            if left >= size or short == "repeat":
                lengths[group, size] += 1
            elif short == "keep":
                lengths[group, left] += 1
            left -= min(left, size)
    return lengths


@given(cases(), st.integers(0, 2**64 - 1), st.integers(0, 3))
def test_every_cell_comes_once_in_sets_of_its_group(case: Case, seed: int, epoch: int) -> None:
    sets = flat_sets(sets_of_batches(case.plan(seed=seed, epoch=epoch)))
    lengths: Counter[tuple[int, int]] = Counter()
    seen: Counter[int] = Counter()
    for found in sets:
        group = {case.groups[cell] for cell in found.cells}
        assert len(group) == 1 and -1 not in group  # pure, and no control
        lengths[group.pop(), len(found.cells)] += 1
        seen.update(cell for cell, again in zip(found.cells, found.repeats, strict=True) if not again)
    assert lengths == expected_set_lengths(case)
    assert set(seen.values()) <= {1}
    cells = {row for row, group in enumerate(case.groups) if group >= 0}
    if case.order.short == "drop" and case.order.size is not None:
        assert set(seen) <= cells and not any(any(found.repeats) for found in sets)
    else:
        assert set(seen) == cells
    if case.order.short != "repeat" or case.order.size is None:
        assert not any(any(found.repeats) for found in sets)
    sizes = Counter(group for group in case.groups if group >= 0)
    for found in sets:  # no cell twice in a set whose group has enough
        if sizes[case.groups[found.cells[0]]] >= len(found.cells):
            assert len(set(found.cells)) == len(found.cells)


@given(cases(), st.integers(0, 2**64 - 1))
def test_controls_match_and_none_comes_again_before_all_have(case: Case, seed: int) -> None:
    pools = case.order.pools
    sets = flat_sets(sets_of_batches(case.plan(seed=seed)))
    if pools is None:
        assert not any(found.controls for found in sets)
        return
    drawn = defaultdict(list)
    for found in sets:
        n = len(found.cells) if pools.size is None else pools.size
        assert len(found.controls) == n
        for number, control in enumerate(found.controls):
            pool = case.pool_of_cell[found.cells[number % len(found.cells)]]
            assert case.pool_of_control[control] == pool
            drawn[pool].append(control)
    for pool, controls in drawn.items():
        n = case.pool_of_control.count(pool)
        # Any n successive draws are different, all of the pool if there are so many.
        for start in range(0, len(controls), max(1, n // 2)):
            assert len(set(controls[start : start + n])) == len(controls[start : start + n])


@given(cases(), st.data())
def test_ranks_share_the_sets_of_one_rank(case: Case, data: st.DataObject) -> None:
    world, batch_size = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 7))
    fields = {"seed": data.draw(st.integers(0, 99)), "epoch": data.draw(st.integers(0, 3)), "batch_size": batch_size}
    uneven, drop_last = data.draw(st.sampled_from(["pad", "drop", "keep"])), data.draw(st.booleans())
    whole = flat_sets(sets_of_batches(case.plan(**fields, window=200)))
    ranks = [
        sets_of_batches(case.plan(**fields, rank=rank, world=world, uneven=uneven, drop_last=drop_last, window=window))
        for rank, window in zip(range(world), [1, 30, 300, 30, 1], strict=False)
    ]
    delivered = [found for batches in ranks for found in flat_sets(batches)]
    own = [found for found in delivered if not found.is_padding]
    assert [len(found) for batches in ranks for found in batches[:-1]] == [
        batch_size for batches in ranks for _ in batches[:-1]
    ]
    if uneven != "keep" or drop_last:
        assert len({len(batches) for batches in ranks}) == 1
    left = iter(whole)
    assert all(any(found == other for other in left) for found in own)  # in the order of one rank
    assert all(found._replace(is_padding=False) in whole for found in delivered)
    if not drop_last and (uneven == "pad" or uneven == "keep"):
        assert own == whole


@given(cases(), st.data())
def test_windows_workers_and_places_change_nothing(case: Case, data: st.DataObject) -> None:
    fields = {"seed": data.draw(st.integers(0, 99)), "world": data.draw(st.integers(1, 2)), "batch_size": 2}
    plan = case.plan(**fields, window=data.draw(st.integers(1, 400)))
    batches = sets_of_batches(plan)
    assert len(plan) == len(batches)
    other = case.plan(**fields, window=data.draw(st.integers(1, 400)), first_window=data.draw(st.integers(1, 50)))
    assert sets_of_batches(other) == batches
    n_done = data.draw(st.integers(0, len(batches)))
    assert sets_of_batches(other, n_done) == batches[n_done:]
    # In any order, as the windows of an epoch are computed alone.
    indices = data.draw(st.permutations(range(plan.n_windows)))
    alone = {index: plan.window_at(index) for index in indices}
    again = {window.index: window for window in case.plan(**fields, window=plan.window).windows()}
    for index, window in alone.items():
        assert window.positions.tolist() == again[index].positions.tolist()


@given(cases(shuffle=False))
def test_without_shuffling_groups_follow_each_other_in_file_order(case: Case) -> None:
    found = flat_sets(sets_of_batches(case.plan(seed=1, epoch=2)))
    assert found == flat_sets(sets_of_batches(case.plan(seed=3)))
    expected: list[list[int]] = []
    rows = pd.Series(range(len(case.groups)))
    for group, cells in rows.groupby(np.array(case.groups)):
        if group < 0:
            continue
        size = case.order.size or len(cells)
        for start in range(0, len(cells), size):
            some = cells.iloc[start : start + size].tolist()
            if len(some) < size and case.order.short == "drop":
                continue
            if len(some) < size and case.order.short == "repeat":
                some = np.resize(np.append(some, cells), size).tolist() if start else np.resize(some, size).tolist()
            expected.append(some)
    assert [one.cells for one in found] == expected
    if case.order.pools is not None and case.order.pools.size is None:
        next_of = Counter[int]()
        for one in found:
            for cell, control in zip(one.cells, one.controls, strict=True):
                pool = case.pool_of_cell[cell]
                members = [row for row, of in enumerate(case.pool_of_control) if of == pool]
                assert control == members[next_of[pool] % len(members)]
                next_of[pool] += 1


def test_each_epoch_and_seed_divides_the_cells_anew() -> None:
    groups = np.repeat([0, 1], [900, 100])
    order = Sets(Groups(groups, 2), 1000, 10)
    case = Case(order, groups.tolist(), [], [])
    epochs = [flat_sets(sets_of_batches(case.plan(seed=seed, epoch=epoch))) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    together = [{frozenset((a, b)) for one in sets for a in one.cells for b in one.cells if a < b} for sets in epochs]
    # Two cells of a group of 900 are in one set with probability 9 / 899, in one of 100 with 9 / 99.
    for other in together[1:]:
        assert len(together[0] & other) < 130  # 4,500 pairs; 80 are expected to meet again
    firsts = [[case.groups[one.cells[0]] for one in sets] for sets in epochs]
    assert firsts[0] != firsts[1] and all(first.count(1) == 10 for first in firsts)
    assert all(0 < first[:50].count(1) < 10 for first in firsts)  # over the whole epoch


@given(st.lists(st.integers(1, 600), min_size=1, max_size=8), st.integers(0, 2**64 - 1))
def test_the_order_within_a_group_is_a_permutation_and_differs_between_groups(sizes: list[int], key: int) -> None:
    order = WithinGroups(np.array(sizes), key)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    places = np.concatenate([np.arange(size) for size in sizes])
    mixed = np.random.default_rng(0).permutation(len(groups))
    found = np.empty(len(groups), np.int64)
    found[mixed] = order.forward(groups[mixed], places[mixed])
    for group, size in enumerate(sizes):
        assert sorted(found[groups == group].tolist()) == list(range(size))
        if size > 50:
            assert found[groups == group].tolist() != list(range(size))
            assert (
                found[groups == group].tolist()
                != WithinGroups(np.array([size] * 99), key).forward(np.full(size, 98), np.arange(size)).tolist()
            )


def test_the_order_within_groups_stays_what_it_is() -> None:
    # Saved states depend on it. What it was first, by a table and by a network.
    found = [WithinGroups(np.array([n]), 5).forward(np.zeros(6, np.int64), np.arange(6)).tolist() for n in (40, 1000)]
    assert found == [[30, 37, 39, 18, 15, 21], [303, 545, 409, 214, 230, 480]]


@pytest.mark.parametrize("size", [3, 300])
def test_every_cell_is_equally_likely_at_every_place(size: int) -> None:
    n_groups = 3000
    order = WithinGroups(np.full(n_groups, size), key=7)
    place = size // 2
    found = order.forward(np.arange(n_groups), np.full(n_groups, place))
    counts = np.bincount(found * 3 // size, minlength=3)
    assert abs(counts - n_groups / 3).max() < 5 * (n_groups * 2 / 9) ** 0.5


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 7)), max_size=60))
def test_codes_are_joined_as_pandas_joins_them(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, dtype=np.int8).reshape(-1, 2).T
    codes, n = joined_codes(first, second, 8)
    expected = pd.Series([pair if min(pair) >= 0 else None for pair in pairs], dtype=object).factorize()[0]
    assert codes.tolist() == expected.tolist() and n == len(set(expected[expected >= 0]))


def test_groups_of_many_rows_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(0).integers(-1, 30, 5000)
    whole, joined = Groups(codes, 30), joined_codes(codes, codes % 7, 7)
    monkeypatch.setattr("annfeed.order.groups._CHUNK", 64)
    parts, in_parts = Groups(codes, 30), joined_codes(codes, codes % 7, 7)
    monkeypatch.setattr("annfeed.order.groups._TABLE", 64)
    assert joined_codes(codes, codes % 7, 7)[0].tolist() == joined[0].tolist()
    assert parts.digest == whole.digest and in_parts[0].tolist() == joined[0].tolist()
    assert [
        parts.members[start : start + size].tolist() for start, size in zip(parts.starts, parts.sizes, strict=True)
    ] == [np.flatnonzero(codes == group).tolist() for group in range(30)]


@given(st.lists(st.integers(0, 5), max_size=40))
def test_ranks_among_equals(values: list[int]) -> None:
    assert ranks_among_equals(np.array(values, np.int64)).tolist() == [
        values[:place].count(value) for place, value in enumerate(values)
    ]


@settings(max_examples=12)
@given(st.data())
def test_no_set_has_a_control_twice_by_a_fallback_if_its_pool_has_others(data: st.DataObject) -> None:
    # Cells have pools of 10 kinds of controls each, or a fallback: one for two kinds, or one for all.
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, size, n_controls = 200, data.draw(st.sampled_from([2, 8, 30])), data.draw(st.sampled_from([None, 5, 40]))
    is_control, kind = random.random(n) < 0.3, random.integers(0, 4, n)
    is_control[:8], kind[:8] = True, np.arange(8) % 4
    levels = [kind, 4 + kind // 2, np.full(n, 6)]
    pools = Groups(np.where(is_control, levels[0], -1), 4)
    pools = pools.joined(Groups(np.where(is_control, levels[1] - 4, -1), 2))
    pools = pools.joined(Groups(np.where(is_control, 0, -1), 1))
    pool_of = np.choose(random.integers(0, 3, n), levels)
    groups = np.where(is_control, -1, random.integers(0, 2, n))
    order = Sets(
        Groups(groups, 2), n, size, shuffle=data.draw(st.booleans()), pools=Pools(pools, pool_of, False, 4, n_controls)
    )
    case = Case(order, groups.tolist(), pool_of.tolist(), [])
    members = [set(pools.rows_at(np.full(n, pool), np.arange(n)).tolist()) for pool, n in enumerate(pools.sizes)]
    fields = {"seed": data.draw(st.integers(0, 99)), "batch_size": 2}
    batches = sets_of_batches(case.plan(**fields))
    for found in flat_sets(batches):
        wanted = [pool_of[found.cells[number % len(found.cells)]] for number in range(len(found.controls))]
        assert all(control in members[pool] for control, pool in zip(found.controls, wanted, strict=True))
        counts = Counter(found.controls)
        by_match = Counter(control for control, pool in zip(found.controls, wanted, strict=True) if pool < 4)
        for pool in {pool for pool in wanted if pool >= 4}:
            of_pool = [control for control, of in zip(found.controls, wanted, strict=True) if of == pool]
            before = {control for control, of in zip(found.controls, wanted, strict=True) if of < pool}
            if len(members[pool] - before) >= len(of_pool):
                assert len(set(of_pool)) == len(of_pool) and not before & set(of_pool)
        if (
            max(by_match.values(), default=0) <= 1
            and len(members[6]) >= len(found.controls)
            and set(wanted) <= {6, *range(4)}
        ):
            assert max(counts.values()) == 1
    # The same on other ranks, in other windows, and after a saved state.
    for options in ({"window": 1}, {"window": 500}):
        assert sets_of_batches(case.plan(**fields, **options)) == batches
    n_done = data.draw(st.integers(0, len(batches)))
    assert sets_of_batches(case.plan(**fields), n_done) == batches[n_done:]
    ranks = [sets_of_batches(case.plan(**fields, rank=rank, world=2)) for rank in range(2)]
    delivered = [found._replace(is_padding=False) for rank in ranks for found in flat_sets(rank)]
    whole = flat_sets(batches)
    assert all(found in delivered for found in whole) and all(found in whole for found in delivered)


def test_matches_are_as_without_a_fallback() -> None:
    # Those of the match pool come in their order, whatever a fallback takes meanwhile.
    random = np.random.default_rng(0)
    is_control, kind = random.random(400) < 0.3, random.integers(0, 3, 400)
    own = Groups(np.where(is_control, kind, -1), 3)
    pools = own.joined(Groups(np.where(is_control, 0, -1), 1))
    pool_of = np.where(kind == 2, 3, kind)
    groups = np.where(is_control, -1, 0)
    order = Sets(Groups(groups, 1), 400, 16, pools=Pools(pools, pool_of, False, 3))
    drawn = defaultdict(list)
    for found in flat_sets(sets_of_batches(Case(order, groups.tolist(), [], []).plan(seed=1))):
        assert len(set(found.controls)) == 16
        for cell, control in zip(found.cells, found.controls, strict=True):
            drawn[int(pool_of[cell])].append(control)
    for pool in range(2):
        n = int(own.sizes[pool])
        assert all(
            len(set(drawn[pool][at : at + n])) == len(drawn[pool][at : at + n]) for at in range(len(drawn[pool]))
        )
