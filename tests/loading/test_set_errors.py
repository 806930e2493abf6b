"""What sets of cells refuse: keys of batches that are taken, values that no control has, what is not for sets."""

from collections import Counter
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from tests.support.toys import FORMS, hand_over

from annfeed import AnnDataset, CellSets, Controls, Transform


def cells(**obs: Any) -> anndata.AnnData:
    """Rows with the number of the row in X, and twice that in a layer."""
    n = len(next(iter(obs.values())))
    x = np.arange(n, dtype="float32")[:, None].repeat(3, 1)
    return anndata.AnnData(x, obs=pd.DataFrame(obs, index=[f"c{row}" for row in range(n)]), layers={"l": 2 * x})


DRUGS = cells(drug=list("aabbDDDD"))
PLAIN = CellSets(by="drug", size=2)
BESIDE = CellSets(by="drug", size=2, controls=Controls(where={"drug": "D"}))


@pytest.mark.parametrize(
    ("key", "sets"),
    [
        ("set", PLAIN),
        ("is_repeat", PLAIN),
        ("set", BESIDE),
        ("control_X", BESIDE),
        ("control_set", BESIDE),
        ("control_index", BESIDE),
        ("control_obs_drug", BESIDE),
        ("control_other", BESIDE),
    ],
    ids=lambda of: of if isinstance(of, str) else "beside" if of.controls else "plain",
)
@pytest.mark.parametrize("form", FORMS)
def test_a_matrix_under_a_key_of_sets_is_refused(form: str, key: str, sets: CellSets, tmp_path: Path) -> None:
    dataset = AnnDataset(hand_over(DRUGS, form, tmp_path), elem={"X": "X", key: "layers/l"})
    with pytest.raises(ValueError, match=f"a matrix has the key '{key}', under which batches of sets hold .* elem="):
        dataset.get_optimized_dataloader(2, sets=sets)
    batch = next(iter(dataset.get_optimized_dataloader(8, shuffle=False)))  # without sets it is a key as any other
    np.testing.assert_array_equal(batch[key], DRUGS.layers["l"])


def test_without_controls_their_keys_are_free() -> None:
    loader = AnnDataset(DRUGS, elem={"X": "X", "control_X": "layers/l"}).get_optimized_dataloader(2, sets=PLAIN)
    for batch in loader:
        assert torch.equal(batch["control_X"], 2 * batch["X"])


class Adds(Transform):
    """Adds a key to batches, or to items."""

    def __init__(self, key: str, batched: bool) -> None:
        self.key, self.batched = key, batched

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return {**data_dict, self.key: data_dict["X"] * 3}


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(
    ("key", "sets"), [("set", PLAIN), ("is_repeat", BESIDE), ("control_X", BESIDE), ("control_set", BESIDE)]
)
def test_a_transform_that_returns_a_key_of_sets_is_refused(key: str, sets: CellSets, batched: bool) -> None:
    loader = AnnDataset(DRUGS, transform=Adds(key, batched)).get_optimized_dataloader(2, sets=sets)
    with pytest.raises(ValueError, match=f"the transform returned the key '{key}', under which batches of sets hold"):
        list(loader)


def test_a_transform_may_return_other_keys() -> None:
    for batch in AnnDataset(DRUGS, transform=Adds("new", True)).get_optimized_dataloader(2, sets=BESIDE):
        assert torch.equal(batch["new"], 3 * batch["X"])
        assert torch.equal(batch["control_new"], 3 * batch["control_X"])


@pytest.mark.parametrize(
    ("values", "wanted", "message"),
    [
        ([True, False] * 4, "True", r"no row has 'True' in .*type bool, and 'True' is of type str; expected True$"),
        ([0.0, 1.5] * 4, "0", r"no row has '0' in .*type float, and '0' is of type str; expected 0\.0$"),
        ([3, 4] * 4, "5", r"no row has '5' in .*type int, and '5' is of type str; expected one of 3, 4$"),
        (["3", "4"] * 4, 4, r"no row has 4 in .*type str, and 4 is of type int; expected '4'$"),
        (["yes", "no"] * 4, "Yes", r"no row has 'Yes' in obs\['isc'\]\. Did you mean 'yes'\?$"),
    ],
)
def test_a_value_of_another_type_is_told_from_its_like(values: list[Any], wanted: Any, message: str) -> None:
    dataset = AnnDataset(cells(drug=list("aabbccdd"), isc=values))
    with pytest.raises(ValueError, match=message):
        dataset.get_optimized_dataloader(2, sets=CellSets(by="drug", size=1, controls=Controls(where={"isc": wanted})))


def test_prediction_is_of_single_rows() -> None:
    options: dict[str, Any] = {"sets": BESIDE}
    with pytest.raises(TypeError, match=r"predict_loader got sets; .* get_optimized_dataloader\(sets="):
        AnnDataset(DRUGS).predict_loader(2, **options)


@pytest.mark.filterwarnings("ignore:.*leaves out")
def test_groups_that_make_no_set_need_no_control_and_no_share() -> None:
    # "r" has one cell; it is on a plate without controls, and its kinds differ.
    adata = cells(drug=list("aaaabbbbrrDDDD"), plate=list("pppppppp??pppp"), kind=list("kkkkllllklkkkk"))
    few = {"size": 4, "short": "drop", "by": "drug"}
    dataset = AnnDataset(adata)
    sets = CellSets(**few, controls=Controls(where={"drug": "D"}, match="plate"))
    batches = list(dataset.get_optimized_dataloader(1, sets=sets, seed=0, balance="kind"))
    assert Counter(batch["obs_drug"][0] for batch in batches) == {"a": 1, "b": 1}
    assert all(set(batch["control_obs_drug"]) == {"D"} for batch in batches)
    with pytest.raises(ValueError, match=r"cells of 1 of 3 groups \('r'\) have no control"):
        dataset.get_optimized_dataloader(1, sets=CellSets(by="drug", size=4, controls=sets.controls))
    every = CellSets(by="drug", size=4, controls=BESIDE.controls)
    with pytest.raises(ValueError, match=r"1 of 3 groups \('r'\) have several values"):
        dataset.get_optimized_dataloader(1, sets=every, balance="kind")
