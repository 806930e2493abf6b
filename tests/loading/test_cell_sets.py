"""Batches of sets: cells of one group beside matching controls, from every kind of source, loader and output."""

import pickle
import warnings
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.loading.test_ranks import on_rank
from tests.support.toys import FORMS, hand_over, write

from annfeed import AnnDataset, AnnfeedWarning, CellSets, Compose, Controls, Log1p, NormalizeTotal, Tokens, Transform
from annfeed.errors import UnknownNameError

LINES, DRUGS, PLATES = ["A549", "K562", "MCF7"], ["DMSO", "x", "y", "z"], ["p1", "p2", "p3"]


def screen(n: int = 240, seed: int = 0, missing: bool = False) -> anndata.AnnData:
    """A screen of drugs in cell lines on plates; row i has i in X[:, 0]. MCF7 has no control on plate p3."""
    random = np.random.default_rng(seed)
    x = random.poisson(0.7, (n, 6)).astype("float32")
    x[:, 0] = np.arange(n)
    obs = pd.DataFrame(
        {
            "cell_line": pd.Categorical(random.choice(LINES, n)),
            "drug": random.choice(DRUGS, n, p=[0.4, 0.3, 0.2, 0.1]),
            "plate": random.choice(PLATES, n),
            "row": np.arange(n),
        },
        index=[f"cell{row}" for row in range(n)],
    )
    obs.loc[(obs["cell_line"] == "MCF7") & (obs["plate"] == "p3") & (obs["drug"] == "DMSO"), "plate"] = "p1"
    if missing:
        obs["cell_line"] = obs["cell_line"].where(np.arange(n) % 10 != 4)
    return anndata.AnnData(sp.csr_matrix(x), obs=obs, var=pd.DataFrame(index=[f"g{gene}" for gene in range(6)]))


SETS = CellSets(
    by=["cell_line", "drug"],
    size=8,
    controls=Controls(where={"drug": "DMSO"}, match=["cell_line", "plate"], fallback=["cell_line"]),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(screen(), tmp_path_factory.mktemp("screen") / "screen.h5ad")


@pytest.fixture
def dataset(path: Path) -> AnnDataset:
    return quiet(path)


def quiet(*args: Any, **options: Any) -> AnnDataset:
    """A dataset that has told of the fallback of the screen."""
    made = AnnDataset(*args, **{"window": 64, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnnfeedWarning)
        made.get_optimized_dataloader(4, sets=SETS, seed=0)
    return made


def values(batch: dict[str, Any]) -> dict[str, Any]:
    return {
        key: (value.to_dense() if value.layout is torch.sparse_csr else value).tolist()
        if isinstance(value, torch.Tensor)
        else value
        for key, value in batch.items()
    }


def numbers(batches: Any) -> list[dict[str, Any]]:
    return [values(batch) for batch in batches]


def check(batches: list[dict[str, Any]], adata: anndata.AnnData, n_sets: int) -> None:
    """Compare an epoch of batches with the cells that it is made of, and with what `SETS` says."""
    x, obs = adata.X.toarray(), adata.obs
    seen: Counter[int] = Counter()
    use: dict[tuple[str, ...], list[int]] = {}
    for number, batch in enumerate(batches):
        cells, controls = np.array(batch["obs_row"]), np.array(batch["control_obs_row"])
        assert batch["X"] == x[cells].tolist() and batch["control_X"] == x[controls].tolist()
        assert batch["control_index"] == controls.tolist()
        for name in ("cell_line", "drug", "plate"):
            assert batch[f"obs_{name}"] == obs[name].iloc[cells].tolist()
            assert batch[f"control_obs_{name}"] == obs[name].iloc[controls].tolist()
        assert batch["set"] == batch["control_set"]
        assert batch["set"] == np.repeat(np.arange(len(cells) // 8), 8).tolist()
        assert len(cells) == 8 * (n_sets if number < len(batches) - 1 else len(cells) // 8)
        groups = obs[["cell_line", "drug"]].iloc[cells].assign(set=batch["set"]).drop_duplicates()
        assert groups["set"].tolist() == list(range(len(cells) // 8))  # one group a set
        assert (obs["drug"].iloc[controls] == "DMSO").all() and (obs["drug"].iloc[cells] != "DMSO").all()
        seen.update(cells[~np.array(batch["is_repeat"])].tolist())
        for cell, control in zip(cells, controls, strict=True):
            line, plate = obs["cell_line"].iloc[cell], obs["plate"].iloc[cell]
            has_own = ((obs["drug"] == "DMSO") & (obs["cell_line"] == line) & (obs["plate"] == plate)).any()
            assert obs["cell_line"].iloc[control] == line
            assert not has_own or obs["plate"].iloc[control] == plate
            use.setdefault((line, plate) if has_own else (line,), []).append(control)
    assert seen == Counter(np.flatnonzero(obs["drug"] != "DMSO").tolist())
    for pool, controls in use.items():
        of_pool = (obs["drug"] == "DMSO") & (obs["cell_line"] == pool[0])
        n = int((of_pool & (obs["plate"] == pool[1]) if len(pool) > 1 else of_pool).sum())
        for start in range(len(controls) - n + 1):
            assert len(set(controls[start : start + n])) == n  # each before any comes again


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("form", FORMS)
def test_an_epoch_is_what_a_table_of_the_cells_says(form: str, output: str, tmp_path: Path) -> None:
    adata = screen()
    dataset = quiet(hand_over(adata, form, tmp_path), output=output)
    loader = dataset.get_optimized_dataloader(batch_size=5, sets=SETS, seed=3)
    epochs = [numbers(loader) for _ in range(2)]
    assert [len(epoch) for epoch in epochs] == [len(loader)] * 2 and epochs[0] != epochs[1]
    for epoch in epochs:
        check(epoch, adata, n_sets=5)


def test_files_matrices_and_workers_give_the_same(path: Path, tmp_path: Path) -> None:
    adata = screen()
    wanted = numbers(quiet(path).get_optimized_dataloader(4, sets=SETS, seed=7))
    check(wanted, adata, n_sets=4)
    parts = [write(adata[some].copy(), tmp_path / f"{some.start}.h5ad") for some in (slice(0, 90), slice(90, 240))]
    assert numbers(quiet(parts).get_optimized_dataloader(4, sets=SETS, seed=7)) == wanted
    for options in ({"num_workers": 2}, {"prefetch_batches": 0}):
        assert numbers(quiet(path, threads=1).get_optimized_dataloader(4, sets=SETS, seed=7, **options)) == wanted
    for window in (1, 1000):
        assert numbers(quiet(path, window=window).get_optimized_dataloader(4, sets=SETS, seed=7)) == wanted
    two = quiet(path, elem={"X": "X", "again": "X"}).get_optimized_dataloader(4, sets=SETS, seed=7)
    for batch, expected in zip(numbers(two), wanted, strict=True):
        assert batch.pop("again") == expected["X"] and batch.pop("control_again") == expected["control_X"]
        assert batch == expected
    assert pickle.loads(pickle.dumps(two)).sets == SETS


class Centred(Transform):
    """Takes the mean of the batch off it."""

    batched = True

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        assert not any(key.startswith(("control_", "set", "is_", "index")) for key in data_dict)
        return {**data_dict, "X": data_dict["X"] - data_dict["X"].mean(0), "n": len(data_dict["X"])}


class Doubled(Transform):
    """Doubles each cell."""

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return {**data_dict, "X": data_dict["X"] * 2}


@pytest.mark.parametrize("steps", [[NormalizeTotal(1e4), Log1p()], [NormalizeTotal(1e4), Doubled(), Centred()]])
def test_transforms_are_applied_to_cells_and_to_controls(path: Path, steps: list[Transform]) -> None:
    plain = list(quiet(path).get_optimized_dataloader(4, sets=SETS, seed=7))
    transform = Compose(steps)
    for batch, given in zip(
        quiet(path, transform=transform).get_optimized_dataloader(4, sets=SETS, seed=7), plain, strict=True
    ):
        for part in ("", "control_"):
            x = given[f"{part}X"].double()
            expected = x / x.sum(1, keepdim=True) * 1e4
            expected = expected.log1p() if len(steps) == 2 else expected * 2 - (expected * 2).mean(0)
            torch.testing.assert_close(batch[f"{part}X"].double(), expected, rtol=1e-5, atol=1e-2)
        assert torch.equal(batch["set"], given["set"])


def test_a_collate_function_sees_pairs_of_cell_and_control(dataset: AnnDataset) -> None:
    def pairs(items: Any) -> list[tuple[int, int]]:
        return [(int(item["X"][0]), int(item["control_X"][0])) for item in items]

    found = list(dataset.get_optimized_dataloader(4, sets=SETS, seed=7, collate_fn=pairs))
    expected = dataset.get_optimized_dataloader(4, sets=SETS, seed=7)
    assert found == [
        list(zip(batch["obs_row"].tolist(), batch["control_obs_row"].tolist(), strict=True)) for batch in expected
    ]


def test_the_index_comes_if_it_is_wanted(dataset: AnnDataset) -> None:
    batch = next(iter(dataset.get_optimized_dataloader(4, sets=SETS, seed=7, return_index=True)))
    assert torch.equal(batch["index"], batch["obs_row"]) and torch.equal(
        batch["control_index"], batch["control_obs_row"]
    )
    plain = CellSets(by="plate", size=8)
    assert "index" not in next(iter(dataset.get_optimized_dataloader(4, sets=plain, seed=7)))
    assert "index" in next(iter(dataset.get_optimized_dataloader(4, sets=plain, seed=7, return_index=True)))


def test_bags_are_whole_groups(dataset: AnnDataset) -> None:
    bags = CellSets(by="plate", size=None, controls=Controls(where={"drug": "DMSO"}, match="plate", size=5))
    obs = screen().obs.query("drug != 'DMSO'")
    (batch,) = dataset.get_optimized_dataloader(8, sets=bags, seed=7)
    assert Counter(batch["set"].tolist()) == Counter(
        dict(
            enumerate(
                obs["plate"].value_counts()[
                    [batch["obs_plate"][batch["set"].tolist().index(number)] for number in range(3)]
                ]
            )
        )
    )
    assert sorted(batch["obs_row"].tolist()) == obs["row"].tolist() and not batch["is_repeat"].any()
    assert batch["control_set"].tolist() == np.repeat([0, 1, 2], 5).tolist()


def test_tokens_of_cells_and_of_controls(path: Path) -> None:
    dataset = quiet(path, output=Tokens(length=4, choose="top", pad_to="length"))
    plain = quiet(path, obs_columns=["row"])
    expected = list(plain.get_optimized_dataloader(4, sets=SETS, seed=7))
    found = list(dataset.get_optimized_dataloader(4, sets=SETS, seed=7))
    for batch, other in zip(found, expected, strict=True):
        assert "X" not in batch
        for part in ("", "control_"):
            x = other[f"{part}X"]
            wanted = x.topk(4).values * (x.topk(4).values > 0)
            assert torch.equal(batch[f"{part}values"], wanted)
            assert torch.equal(batch[f"{part}n_expressed"], (x > 0).sum(1))
            here = batch[f"{part}mask"]
            assert torch.equal(x.gather(1, batch[f"{part}genes"])[here], batch[f"{part}values"][here])
        assert torch.equal(batch["set"], other["set"])


def test_preloaded_rows_give_the_same(path: Path) -> None:
    dataset = quiet(path)
    wanted = numbers(dataset.get_optimized_dataloader(4, sets=SETS, seed=7))
    dataset.preload()
    assert numbers(dataset.get_optimized_dataloader(4, sets=SETS, seed=7)) == wanted


@pytest.mark.parametrize(("stop", "num_workers"), [(0, 0), (1, 0), (3, 0), (100, 0), (2, 2)])
def test_the_rest_is_what_would_have_come(path: Path, stop: int, num_workers: int) -> None:
    make = {"batch_size": 4, "sets": SETS, "seed": 5, "num_workers": num_workers}
    whole = quiet(path).get_optimized_dataloader(**make)
    epochs = [numbers(whole) for _ in range(3)]
    first, second = (quiet(path).get_optimized_dataloader(**make) for _ in range(2))
    list(first)
    batches = iter(first)
    before = [values(batch) for batch in islice(batches, stop)]
    second.load_state_dict(first.state_dict())
    assert before + (numbers(second) if 0 < stop < len(first) else []) == (epochs[1] if stop else [])
    assert numbers(second) == epochs[2 if stop else 1]


OTHERS = {
    "size": CellSets(by=SETS.by, size=9, controls=SETS.controls),
    "short": CellSets(by=SETS.by, size=8, short="keep", controls=SETS.controls),
    "by": CellSets(by=["drug", "cell_line"], size=8, controls=SETS.controls),
    "controls": CellSets(by=SETS.by, size=8, controls=Controls(where={"drug": "DMSO"}, match=["cell_line"])),
    "no controls": CellSets(by=SETS.by, size=8),
    "rows": None,
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_state_of_other_sets_is_refused(dataset: AnnDataset, what: str) -> None:
    state = dataset.get_optimized_dataloader(4, sets=SETS, seed=5).state_dict()
    with pytest.raises(ValueError, match="sets is "):
        dataset.get_optimized_dataloader(4, sets=OTHERS[what], seed=5).load_state_dict(state)


def test_a_state_of_other_labels_is_refused(tmp_path: Path) -> None:
    adata = screen()
    state = quiet(adata).get_optimized_dataloader(4, sets=SETS, seed=5).state_dict()
    adata.obs["drug"] = adata.obs["drug"].replace({"z": "y"})
    with pytest.raises(ValueError, match="set_groups is "):
        quiet(adata).get_optimized_dataloader(4, sets=SETS, seed=5).load_state_dict(state)


@pytest.mark.parametrize("uneven", ["pad", "drop"])
def test_ranks_get_whole_sets_and_equally_many_batches(
    path: Path, uneven: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = numbers(quiet(path).get_optimized_dataloader(1, sets=SETS, seed=5))
    found = []
    for rank in range(4):
        on_rank(monkeypatch, rank, 4)
        found.append(numbers(quiet(path).get_optimized_dataloader(1, sets=SETS, seed=5, uneven=uneven)))
    assert len({len(batches) for batches in found}) == 1
    own = [batch for batches in found for batch in batches if not any(batch["is_padding"])]
    assert all(len(set(batch["is_padding"])) == 1 for batches in found for batch in batches)
    for batch in own:
        batch.pop("is_padding")
    assert len(whole) % 4 and len(own) == (len(whole) if uneven == "pad" else len(whole) // 4 * 4)
    assert all(batch in whole for batch in own)


# --- shares ----------------------------------------------------------------------------------------------------------


def n_sets_by(batches: Any, column: str) -> Counter[str]:
    """How many sets have each value of an obs column."""
    found: Counter[str] = Counter()
    for batch in batches:
        for number in range(int(batch["set"].max()) + 1):
            here = (batch["set"] == number).nonzero().ravel().tolist()
            (value,) = {batch[f"obs_{column}"][row] for row in here}
            found[value] += 1
    return found


def test_balance_gives_values_equal_shares_of_sets(dataset: AnnDataset) -> None:
    options: dict[str, Any] = {"batch_size": 4, "sets": SETS, "seed": 0}
    natural = n_sets_by(dataset.get_optimized_dataloader(**options), "drug")
    assert natural["x"] > natural["y"] > natural["z"]
    balanced = dataset.get_optimized_dataloader(**options, balance="drug", n_samples=60)
    assert n_sets_by(balanced, "drug") == {"x": 20, "y": 20, "z": 20}
    assert "drawn by weight, sets of 8 cells" in repr(balanced) and "batch size: 4 sets" in repr(balanced)
    once = n_sets_by(dataset.get_optimized_dataloader(**options, balance="drug", replacement=False), "drug")
    assert once == dict.fromkeys("xyz", natural["z"])
    same = n_sets_by(dataset.get_optimized_dataloader(**options, balance="drug", temperature=0.0), "drug")
    assert same == natural


def test_every_cell_of_a_group_comes_before_any_comes_again(dataset: AnnDataset) -> None:
    sets = CellSets(by="drug", size=8, short="keep")
    loader = dataset.get_optimized_dataloader(4, sets=sets, seed=0, balance="drug", n_samples=200)
    seen: Counter[int] = Counter()
    unmarked: Counter[int] = Counter()
    drugs = screen().obs["drug"].to_numpy()
    for batch in loader:
        seen.update(batch["obs_row"].tolist())
        unmarked.update(batch["obs_row"][~batch["is_repeat"]].tolist())
    assert unmarked == Counter(list(seen))
    for drug in DRUGS:
        counts = {seen[row] for row in np.flatnonzero(drugs == drug).tolist()}
        assert max(counts) - min(counts) <= 1


def test_weights_are_of_groups(dataset: AnnDataset) -> None:
    sets = CellSets(by="drug", size=8, controls=Controls(where={"drug": "DMSO"}))
    for weights in ({"x": 1, "y": 3, "z": 0}, pd.Series([3, 0, 1], index=["y", "z", "x"])):
        loader = dataset.get_optimized_dataloader(4, sets=sets, seed=0, weights=weights, n_samples=40)
        assert n_sets_by(loader, "drug") == {"x": 10, "y": 30}
    pairs = {(line, drug): 1.0 for line in LINES for drug in "xyz"}
    loader = dataset.get_optimized_dataloader(4, sets=SETS, seed=0, weights=pairs, n_samples=45)
    assert n_sets_by(loader, "drug") == {"x": 15, "y": 15, "z": 15}


SHARES = [
    ({"balance": "plate"}, ValueError, "have several values there, or none"),
    ({"balance": "drg"}, UnknownNameError, "Did you mean 'drug'"),
    ({"balance": "drug", "shuffle": False}, ValueError, "shuffle=False"),
    ({"weights": np.ones(240)}, TypeError, "expected, with sets=, a dict or a Series"),
    ({"weights": {("A549", "x"): 1}}, ValueError, r"no number for the group \('\w+', '\w'\)"),
    ({"weights": {**{(line, drug): 1 for line in LINES for drug in "xyz"}, "x": 1}}, ValueError, "'x', no group"),
    ({"weights": {(line, drug): float("nan") for line in LINES for drug in "xyz"}}, ValueError, "has nan; expected"),
    (
        {"weights": {(line, drug): "1" for line in LINES for drug in "xyz"}},
        TypeError,
        r"weights\[\('\w+', '\w'\)\] is '1'; expected a number",
    ),
    (
        {"weights": {(line, drug): 0 for line in LINES for drug in "xyz"}},
        ValueError,
        "weights are 0 for each of 9 groups",
    ),
    ({"balance": "drug", "replacement": False, "n_samples": 999}, ValueError, r"only \d+ sets have a weight"),
    ({"weights": pd.Series([1, 5, 2], index=list("aab"))}, ValueError, "repeats 'a'; expected each group once"),
    ({"weights": pd.DataFrame({"a": [1]})}, TypeError, "weights is a DataFrame; expected, with sets="),
    ({"n_samples": 3}, ValueError, "without weights= or balance="),
]


@pytest.mark.parametrize(("options", "error", "message"), SHARES, ids=[message for _, _, message in SHARES])
def test_shares_that_make_no_sense(dataset: AnnDataset, options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        dataset.get_optimized_dataloader(4, sets=SETS, **options)


# --- what is wrong, and what is left out -----------------------------------------------------------------------------


def test_rows_without_a_group_are_left_out_and_told_of_once() -> None:
    adata = screen(missing=True)
    dataset = AnnDataset(adata, window=64)
    with pytest.warns(AnnfeedWarning) as told:
        loader = dataset.get_optimized_dataloader(4, sets=CellSets(by="cell_line", size=8), seed=0)
    assert [str(warning.message).partition(": ")[2].partition(": ")[2] for warning in told] == [
        "24 rows without a value in 'cell_line' are in no set"
    ]
    assert told[0].filename == __file__
    rows = {row for batch in loader for row in batch["obs_row"].tolist()}
    assert rows == set(np.flatnonzero(adata.obs["cell_line"].notna()).tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset.get_optimized_dataloader(4, sets=CellSets(by="cell_line", size=8), seed=0)


def test_a_fallback_is_told_of_and_counted(path: Path) -> None:
    dataset, obs = AnnDataset(path, window=64), screen().obs
    n = int(((obs["cell_line"] == "MCF7") & (obs["plate"] == "p3") & (obs["drug"] != "DMSO")).sum())
    with pytest.warns(AnnfeedWarning, match=f"{n} cells have no control with their 'cell_line', 'plate'; theirs have "):
        loader = dataset.get_optimized_dataloader(4, sets=SETS, seed=0)
    assert dataset.stats()["fallback_controls"] == 0
    batches = list(loader)
    drawn = sum(
        (line, plate) == ("MCF7", "p3")
        for batch in batches
        for line, plate in zip(batch["obs_cell_line"], batch["obs_plate"], strict=True)
    )
    assert dataset.stats()["fallback_controls"] == drawn >= n


WRONG = [
    (CellSets(by="celline"), UnknownNameError, "Did you mean 'cell_line'"),
    (CellSets(by="plate", controls=Controls(where={"drg": "DMSO"})), UnknownNameError, "Did you mean 'drug'"),
    (CellSets(by="plate", controls=Controls(where={"drug": "dmso"})), ValueError, "Did you mean 'DMSO'"),
    (CellSets(by="plate", controls=Controls(where={"drug": ["DMSO", "w"]})), ValueError, "no row has 'w' in obs"),
    (CellSets(by="plate", controls=Controls(where={"drug": "DMSO"}, match="plat")), UnknownNameError, "'plate'"),
    (CellSets(by="plate", controls=Controls(where={"drug": "DMSO", "row": 0})), ValueError, "no row has all of"),
    (
        CellSets(by=["plate"], controls=Controls(where={"drug": "DMSO"}, match=["plate", "cell_line"])),
        ValueError,
        r"cells of 1 of 3 groups \('p3'\) have no control with their 'plate', 'cell_line'; .*fallback",
    ),
    (CellSets(by="row", short="drop"), ValueError, "makes no set of 240 rows"),
    (CellSets(by="row", controls=Controls(where={"drug": DRUGS})), ValueError, "no set .*240 rows are controls"),
    ("drug", TypeError, "sets is a str; expected annfeed.CellSets"),
]


@pytest.mark.parametrize(("sets", "error", "message"), WRONG)
def test_what_does_not_fit_the_data_is_an_error(dataset: AnnDataset, sets: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        dataset.get_optimized_dataloader(4, sets=sets)


ARGUMENTS = [
    (lambda: CellSets(by=[]), ValueError, "by is empty"),
    (lambda: CellSets(by=["a", "a"]), ValueError, "each column once"),
    (lambda: CellSets(by=3), TypeError, "expected an obs column"),
    (lambda: CellSets(by="a", size=0), ValueError, "size is 0"),
    (lambda: CellSets(by="a", short="cut"), ValueError, '"repeat", "drop" or "keep"'),
    (lambda: CellSets(by="a", controls={"drug": "DMSO"}), TypeError, "expected annfeed.Controls"),
    (lambda: Controls(where={}), TypeError, "expected a dict"),
    (lambda: Controls(where={"a": []}), ValueError, r"where\['a'\] has no value"),
    (lambda: Controls(where={"a": 1}, match=[1]), TypeError, "match is"),
    (lambda: Controls(where={"a": 1}, fallback=[["a"], 1]), TypeError, "fallback is 1"),
    (lambda: Controls(where={"a": 1}, size=0), ValueError, "size is 0"),
]


@pytest.mark.parametrize(("make", "error", "message"), ARGUMENTS)
def test_arguments_are_checked(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_fallbacks_are_columns_or_lists_of_them() -> None:
    of = [Controls(where={"a": 1}, fallback=given).fallback for given in ("b", ["b", "c"], [["b", "c"], []], [])]
    assert of == [(("b",),), (("b", "c"),), (("b", "c"), ()), ()]


@pytest.mark.parametrize(
    "options",
    [{"block_size": 4}, {"block_size": "auto"}, {"order": lambda epoch: [0]}, {"sampler": [0, 1]}],
    ids=lambda options: "-".join(options),
)
def test_what_sets_exclude(dataset: AnnDataset, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="sets"):
        dataset.get_optimized_dataloader(4, sets=SETS, **options)
