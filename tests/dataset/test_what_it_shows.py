"""What a dataset, its loader and its sampler show of themselves: repr, head, completion."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from tests.support.toys import FORMS, assert_same, hand_over, toy, write

import annfeed
from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal


def facts(dataset: AnnDataset) -> dict[str, str]:
    head, *lines = repr(dataset).splitlines()
    assert head.startswith("AnnDataset(")
    return dict(line.strip().split(": ", 1) for line in lines)


def test_a_dataset_says_what_it_is(tmp_path: Path) -> None:
    path = write(toy(), tmp_path / "toy.h5ad", compression="gzip")
    dataset = AnnDataset(
        path,
        obs_columns=["label", "row"],
        transform=Compose([NormalizeTotal(), Log1p()]),
        categories="code",
        cache="2MiB",
    )
    said = {
        "sources": str(path),
        "obs columns": "label, row",
        "batches": "dense, float32, categories='code'",
        "transform": "NormalizeTotal(target_sum=10000.0), Log1p()",
        "cache": "2MiB (holds 0 bytes)",
        "state": "open",
    }
    assert facts(dataset) == said == facts(pickle.loads(pickle.dumps(dataset)))
    _ = dataset[:]
    held = dataset.stats()["cache_bytes"]
    assert held > 0
    assert facts(dataset)["cache"] == f"2MiB (holds {held:,} bytes)"
    dataset.close()
    assert facts(dataset)["state"] == "closed"
    path.unlink()  # nothing is read for it
    assert facts(dataset)["obs columns"] == "label, row"


def test_a_dataset_of_several_or_of_an_anndata(tmp_path: Path) -> None:
    paths = [hand_over(toy(), "path", tmp_path, name) for name in "abcde"]
    dataset = AnnDataset(paths, obs_columns=[], output="csr", threads=1)
    said = facts(dataset)
    assert said["sources"] == f"{paths[0]}, {paths[1]}, {paths[2]} and 2 more"
    assert (said["obs columns"], said["batches"], said["transform"]) == ("none", "csr, float32", "none")
    dataset.close()
    assert facts(dataset)["state"] == "closed"
    adata = toy()
    of_memory = AnnDataset(adata, obs_columns=["row"])
    del adata.obs["row"]
    assert repr(of_memory).splitlines()[0] == "AnnDataset(40 x 7, X=AnnData: 'X')"
    assert facts(of_memory)["state"] == "open"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 5, 100])
def test_head_is_the_beginning_of_a_loader_without_shuffling(form: str, n: int, tmp_path: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), form, tmp_path), obs_subset=[7, 3, 3, 0, 21, 9], transform=Log1p())
    assert_same(dataset.head(n), next(iter(dataset.get_optimized_dataloader(n, shuffle=False))))
    assert dataset.head()["obs_row"].tolist() == [7, 3, 3, 0, 21]
    assert [item["obs_row"].item() for item in dataset[:2]] == [7, 3]
    assert dataset.head(0)["X"].shape == (0, dataset.n_vars)
    for wrong, error in ((-1, ValueError), (2.5, TypeError)):
        with pytest.raises(error, match=f"n is {wrong}; expected an integer of 0 or more"):
            dataset.head(wrong)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": 3}, "40 of 40 rows, shuffled, single rows; seed 3; epoch 0 comes next"),
        (
            {"block_size": 5, "seed": 1, "drop_last": True},
            "36 of 40 rows, shuffled, blocks of 5 neighbouring rows",
        ),
        ({"shuffle": False}, "40 of 40 rows, that of the dataset; epoch 0 comes next"),
        ({"order": sorted}, "positions of sorted; epoch 0 comes next"),
    ],
)
def test_a_sampler_says_what_it_is(settings: dict[str, Any], said: str) -> None:
    loader = AnnDataset(toy()).get_optimized_dataloader(12, **settings)
    assert repr(loader.sampler).startswith(f"PlanSampler({said}")
    loader.set_epoch(4)
    assert repr(loader.sampler).endswith("; epoch 4 comes next)")


def test_what_the_data_have_is_not_set() -> None:
    class Mine(AnnDataset):
        def __init__(self, adata: Any) -> None:
            super().__init__(adata)
            self.my_name = "mine"
            self.n_vars = 7  # type: ignore[misc]

    with pytest.raises(
        AttributeError, match=r"Mine\.n_vars says what the data have, .*Give an attribute of your own another"
    ):
        Mine(toy())

    class Other(AnnDataset):
        n_vars = 7

    assert (Other(toy()).n_vars, Other(toy()).shape) == (7, AnnDataset(toy()).shape)


def test_completion_lists_what_is_public() -> None:
    listed = {name for name in dir(annfeed) if not name.startswith("__")}
    assert listed - {"lightning"} == {*annfeed.__all__, "scvi"} - {"__version__"}  # where somebody has imported it
    dataset = AnnDataset(toy())
    loader = dataset.get_optimized_dataloader(4)
    for one, some in (
        (dataset, {"var", "obs", "head", "n_obs", "get_optimized_dataloader", "split"}),
        (loader, {"state_dict", "sampler", "set_epoch", "dataset"}),
        (loader.sampler, {"set_epoch", "blocks", "epoch"}),
    ):
        listed = dir(one)
        assert some <= set(listed)
        assert not [name for name in listed if name.startswith("_") and not name.startswith("__")]
        assert not {"reader", "begin", "progress"} & set(listed)
        for name in some:
            getattr(one, name)
