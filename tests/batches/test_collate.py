"""Items to a batch and back: what stacks, what is refused, and in what pieces transforms see a batch."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.toys import as_csr
from torch.utils.data import DataLoader, Dataset, default_collate

from annfeed.batches.items import Collate, Items, apply_transform, split, stack
from annfeed.transforms.base import Compose, Transform


def batch_of(n=3):
    return {
        "X": torch.arange(n * 2, dtype=torch.float32).reshape(n, 2),
        "obs_n": torch.arange(n),
        "obs_b": torch.arange(n) % 2 == 0,
        "obs_t": [f"t{i}" for i in range(n)],
    }


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert found[key].layout is value.layout
            torch.testing.assert_close(found[key], value, rtol=0, atol=0)
        else:
            assert found[key] == value


# Items and split ------------------------------------------------------------------------------------------------------


def test_items_are_rows_of_the_batch():
    items = Items(batch_of(3))
    assert len(items) == 3
    wanted = {"X": torch.tensor([2.0, 3.0]), "obs_n": torch.tensor(1), "obs_b": torch.tensor(False), "obs_t": "t1"}
    assert_same(items[1], wanted)
    assert_same(items[-2], wanted)
    assert_same(list(items)[1], wanted)
    assert [item["obs_t"] for item in items[1:]] == ["t1", "t2"]
    with pytest.raises(IndexError):
        items[3]


def test_items_pickle_as_their_batch():
    items = Items(batch_of())
    before = len(pickle.dumps(items))
    _ = items[0]
    assert len(pickle.dumps(items)) == before
    assert_same(pickle.loads(pickle.dumps(items)).batch, batch_of())


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ({"X": torch.zeros(2, 1), "n": torch.zeros(3)}, "'n' is 3 entries; expected 2 entries"),
        ({"X": torch.zeros(2, 1), "n": torch.tensor(1)}, "'n' is a Tensor without rows; expected 2"),
        ({"X": torch.zeros(2, 1), "n": "ab"}, "'n' is a str without rows"),
        ({"n": 3}, "'n' is a int without rows; expected one entry a row"),
    ],
)
def test_a_batch_with_values_that_have_no_rows_cannot_be_split(batch, text):
    with pytest.raises(ValueError, match=text):
        split(batch)
    with pytest.raises(ValueError, match=text):
        len(Items(batch))


def test_sparse_items_are_one_row_each():
    x = [[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 0]]
    items = split({"X": as_csr(x)})
    for item, row in zip(items, x, strict=True):
        assert item["X"].layout is torch.sparse_csr
        assert item["X"].to_dense().tolist() == [row]
        assert item["X"].col_indices().tolist() == [i for i, v in enumerate(row) if v]


# Collate --------------------------------------------------------------------------------------------------------------


def test_a_whole_batch_passes_untouched():
    batch = batch_of()
    assert Collate()(Items(batch)) is batch
    assert Collate()(batch) is batch
    assert Collate()(Items(batch))["X"].data_ptr() == batch["X"].data_ptr()


def test_items_collate_to_the_batch_they_came_from_and_as_torch_does():
    items = Items(batch_of(4))
    assert_same(Collate()(list(items)), batch_of(4))
    assert_same(default_collate(items), batch_of(4))
    assert_same(pickle.loads(pickle.dumps(Collate()))(list(items)), batch_of(4))


STACKED = [
    ([torch.tensor(1), torch.tensor(2)], torch.tensor([1, 2])),
    ([torch.tensor([1.0]), torch.tensor([2.0])], torch.tensor([[1.0], [2.0]])),
    (["a", "b"], ["a", "b"]),
    ([1, 2], torch.tensor([1, 2])),
    ([True, False], torch.tensor([True, False])),
    ([1.5, 2], torch.tensor([1.5, 2.0], dtype=torch.float64)),
    ([np.float32(1.5), np.float32(2)], torch.tensor([1.5, 2.0])),
    ([np.int64(1), np.int64(2)], torch.tensor([1, 2])),
    ([np.array([1, 2]), np.array([3, 4])], torch.tensor([[1, 2], [3, 4]])),
    ([np.zeros(1, np.float32), torch.ones(1)], torch.tensor([[0.0], [1.0]])),
    ([None, "a"], [None, "a"]),
    ([(1, 2), (3,)], [(1, 2), (3,)]),
    ([{"a": 1}, {}], [{"a": 1}, {}]),
]


@pytest.mark.parametrize(("values", "wanted"), STACKED)
def test_table_of_types(values, wanted):
    assert_same(stack([{"k": v} for v in values]), {"k": wanted})


@pytest.mark.parametrize("values", [v for v, _ in STACKED[:8]])
def test_types_that_torch_collates_too_come_out_the_same(values):
    items = [{"k": v} for v in values]
    assert_same(stack(items), default_collate(items))


REFUSED = [
    ([{"a": 1}, {"a": 1, "b": 2}], "item 0 of the batch has no key 'b', item 1 has"),
    ([{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 1}], "item 2 of the batch has no key 'b', item 0 has"),
    (
        [{"a": torch.zeros(2)}, {"a": torch.zeros(3)}],
        r"'a' has tensors of different shapes.*\(2,\) in item 0, \(3,\) in",
    ),
    ([{"a": torch.zeros(1)}, {"a": torch.zeros(1)}, {"a": torch.zeros(())}], r"\(1,\) in item 0, \(\) in item 2"),
    ([{"a": torch.zeros(1)}, {"a": "nan"}], "'a' is a Tensor in item 0 .*'str'"),
    ([{"a": "x"}, {"a": float("nan")}], "'a' is a str in item 0 .*'float'"),
    ([{"a": as_csr([[1]])}, {"a": torch.ones(1, 1)}], "'a' is sparse in some items"),
    ([{"a": as_csr([[1]])}, {"a": as_csr([[1, 0]])}], r"\(1, 1\) in item 0, \(1, 2\) in item 1"),
    ([{"a": 1}, [1]], "item 1 of the batch is a list, not a dict"),
    ([], "no items to collate"),
]


@pytest.mark.parametrize(("items", "text"), REFUSED)
def test_what_is_never_filled_or_mixed(items, text):
    with pytest.raises(ValueError, match=text):
        Collate()(items)


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 2**32))
def test_sparse_batches_survive_splitting_and_stacking(rows, genes, seed):
    x = as_csr(np.random.default_rng(seed).integers(0, 2, (rows, genes)))
    again = stack(split({"X": x}))["X"]
    assert again.shape == (rows, genes)
    assert again.crow_indices().dtype is x.crow_indices().dtype
    torch.sparse_csr_tensor(
        again.crow_indices(), again.col_indices(), again.values(), again.shape, check_invariants=True
    )
    assert torch.equal(again.to_dense(), x.to_dense())


class Rows(Dataset):
    def __init__(self, n):
        self.batch = batch_of(n)

    def __len__(self):
        return len(self.batch["obs_t"])

    def __getitems__(self, rows):
        return Items({k: [v[i] for i in rows] if isinstance(v, list) else v[rows] for k, v in self.batch.items()})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("collate", [None, Collate()])
def test_a_torch_dataloader_gives_the_same_batches_either_way(collate, workers):
    loader = DataLoader(Rows(5), batch_size=2, collate_fn=collate, num_workers=workers)
    batches = list(loader)
    assert [len(b["obs_t"]) for b in batches] == [2, 2, 1]
    whole = {k: torch.cat([b[k] for b in batches]) for k in ("X", "obs_n", "obs_b")}
    assert_same(whole | {"obs_t": [t for b in batches for t in b["obs_t"]]}, batch_of(5))


# apply_transform ------------------------------------------------------------------------------------------------------


class Seen(Transform):
    """Notes what it is called with."""

    def __init__(self, batched, log):
        self.batched, self.log = batched, log

    def __call__(self, data_dict):
        x = data_dict["X"]
        self.log.append(("batch" if self.batched else "item", tuple(x.shape)))
        data_dict["X"] = x + 1
        return data_dict


def test_no_transform_is_the_batch_itself():
    batch = batch_of()
    assert apply_transform(None, batch) is batch


BATCH, ITEM = ("batch", (3, 2)), ("item", (2,))


@pytest.mark.parametrize(
    ("stages", "calls"),
    [
        ([True], [BATCH]),
        ([False], [ITEM] * 3),
        ([True, True], [BATCH] * 2),
        ([False, False], [ITEM] * 6),
        ([True, False, False, True], [BATCH, *[ITEM] * 6, BATCH]),
        ([False, True, False], [*[ITEM] * 3, BATCH, *[ITEM] * 3]),
        ([[True, False], [False], True], [BATCH, *[ITEM] * 6, BATCH]),
    ],
)
def test_each_transform_gets_what_it_asks_for(stages, calls):
    log = []

    def made(stage):
        return Compose(map(made, stage)) if isinstance(stage, list) else Seen(stage, log)

    batch = apply_transform(made(stages), batch_of())
    assert log == calls
    n = str(stages).count("True") + str(stages).count("False")
    assert_same(batch, batch_of() | {"X": batch_of()["X"] + n})


def test_neighbours_for_items_run_item_by_item():
    order = []

    class Named(Transform):
        def __init__(self, name):
            self.name = name

        def __call__(self, data_dict):
            order.append(self.name + data_dict["obs_t"])
            return data_dict

    apply_transform(Compose([Named("a-"), Named("b-")]), batch_of(2))
    assert order == ["a-t0", "b-t0", "a-t1", "b-t1"]


def test_a_subclass_of_compose_is_called_itself():
    class Twice(Compose):
        def __call__(self, data_dict):
            return super().__call__(super().__call__(data_dict))

    log = []
    batch = apply_transform(Twice([Seen(True, log)]), batch_of())
    assert log == [BATCH, BATCH]
    assert torch.equal(batch["X"], batch_of()["X"] + 2)


class InPlace(Transform):
    def __call__(self, data_dict):
        data_dict["X"].mul_(10)
        data_dict["obs_n"].add_(1)
        return data_dict


def test_a_transform_that_works_in_place():
    batch = apply_transform(InPlace(), batch_of())
    assert_same(batch, batch_of() | {"X": batch_of()["X"] * 10, "obs_n": batch_of()["obs_n"] + 1})


def test_keys_may_be_added_changed_and_left_out():
    class Other(Transform):
        def __call__(self, data_dict):
            return {"x": data_dict["X"], "length": len(data_dict["obs_t"]), "none": None}

    wanted = {"x": batch_of()["X"], "length": torch.tensor([2, 2, 2]), "none": [None] * 3}
    assert_same(apply_transform(Other(), batch_of()), wanted)


def test_a_key_that_only_some_items_get_is_an_error_not_zero():
    class Sometimes(Transform):
        def __call__(self, data_dict):
            if data_dict["obs_b"]:
                data_dict["extra"] = torch.tensor(1.0)
            return data_dict

    with pytest.raises(ValueError, match="item 1 of the batch has no key 'extra'"):
        apply_transform(Sometimes(), batch_of())


class Boom(Exception):
    pass


@pytest.mark.parametrize("batched", [False, True])
def test_what_a_transform_raises_comes_through_unchanged(batched):
    error = Boom("mine")

    class Raises(Transform):
        def __call__(self, data_dict):
            raise error

    Raises.batched = batched
    with pytest.raises(Boom) as caught:
        apply_transform(Compose([Raises()]), batch_of())
    assert caught.value is error


def test_sparse_items_for_a_transform_per_item():
    class Double(Transform):
        def __call__(self, data_dict):
            assert data_dict["X"].shape == (1, 3)
            return {"X": data_dict["X"] * 2}

    out = apply_transform(Double(), {"X": as_csr([[0, 1, 2], [0, 0, 0]])})["X"]
    assert out.layout is torch.sparse_csr
    assert out.to_dense().tolist() == [[0, 2, 4], [0, 0, 0]]


def test_a_batch_without_rows_stays():
    batch = {"X": torch.zeros(0, 2), "obs_t": []}
    assert apply_transform(InPlace(), batch) is batch
