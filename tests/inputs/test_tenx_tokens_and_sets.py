"""Cell Ranger's files as tokens and in sets of cells, compared with scanpy's reader."""

from collections import Counter
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scanpy as sc
import torch
from tests.batches.token_twin import check_batch
from tests.support.tenx_files import counts, features_of, write_tenx_3

from annfeed import AnnDataset, CellSets, Controls, Tokens

pytestmark = pytest.mark.filterwarnings("ignore:Variable names are not unique")

#: Two features have the name "CD3E"; the third and the last two are antibodies.
NAMES = [f"g{i}" for i in range(9)] + ["CD3E", "CD3E", "CD4"]
TYPES = ["Antibody Capture" if i in (2, 10, 11) else "Gene Expression" for i in range(12)]
N = 26


def write(path: Path, seed: int) -> Path:
    """A file whose column ``filtered_barcodes`` says which barcodes are cells."""
    is_cell = np.random.default_rng(seed).random(N) < 0.6
    return write_tenx_3(
        path, counts(N, 12, seed), features_of(NAMES, TYPES), obs={"filtered_barcodes": is_cell.astype("u1")}
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tenx")
    return [write(folder / f"run{seed}.h5", seed) for seed in range(2)]


def table(path: Path) -> anndata.AnnData:
    adata = sc.read_10x_h5(path, gex_only=False)
    adata.var_names = adata.var["gene_ids"].to_numpy()
    return adata


def genes_of(adata: anndata.AnnData) -> anndata.AnnData:
    return adata[:, adata.var["feature_types"] == "Gene Expression"]


MEDIANS = {f"ENSG_g{i}_1": 0.5 + i for i in range(8)} | {"ENSG_CD3E_1": 2.0, "ENSG_of_another": 1.0}
RECIPES = {
    "geneformer": Tokens(length=3, scale=MEDIANS, vocabulary={gene: 2 + i for i, gene in enumerate(MEDIANS)}),
    "scgpt": Tokens(length=4, choose="random", order="random", values="binned", bins=10, cls_id=90, pad_id=91, zeros=1),
    "normalized": Tokens(length=12, choose="weighted", values="log1p", pad_to="length"),
}


@pytest.mark.parametrize("what", ["all", "genes", "some genes", "made unique", "preloaded"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_tokens_are_of_the_features_that_are_chosen(files: list[Path], recipe: str, what: str) -> None:
    tokens, adata = RECIPES[recipe], table(files[0])
    options: dict[str, Any] = {"var_names": "gene_ids"}
    # Repeated symbols are told apart before genes are looked up by their ids.
    if what == "made unique":
        options = {"make_unique": True} | ({"var_column": "gene_ids"} if tokens.vocabulary else {})
    chosen = wanted = genes_of(adata) if what in ("genes", "some genes", "preloaded") else adata
    if wanted is not adata:
        options["feature_types"] = "Gene Expression"
    if what == "some genes":
        wanted = chosen[:, ["ENSG_CD3E_1", "ENSG_g7_1", "ENSG_g0_1", "ENSG_g4_1"]]
        options["var_subset"] = list(wanted.var_names)
    dataset = AnnDataset(files[0], output=tokens, obs_columns=[], window=8, **options)
    if what == "preloaded":
        dataset.preload()
    x, all_genes = wanted.X.toarray(), chosen.X.toarray()
    loader = dataset.get_optimized_dataloader(batch_size=5, seed=3, return_index=True)
    for epoch in range(2):
        seen: list[int] = []
        for batch in loader:
            rows = batch["index"].tolist()
            names = list(wanted.var_names)
            check_batch(batch, x[rows], tokens, rows, all_genes=all_genes[rows], names=names, seed=3, epoch=epoch)
            seen += rows
        assert sorted(seen) == list(range(N))


@pytest.mark.parametrize("output", ["dense", Tokens(length=12, order="gene", pad_to="length")], ids=["dense", "tokens"])
def test_sets_of_joined_runs_with_controls(files: list[Path], output: Any) -> None:
    tables = [table(path) for path in files]
    x = np.concatenate([adata.X.toarray() for adata in tables])
    is_cell = np.concatenate([np.random.default_rng(seed).random(N) < 0.6 for seed in range(2)])
    run = np.repeat(["a", "b"], N)
    sets = CellSets(
        by="run", size=4, controls=Controls(where={"filtered_barcodes": False}, match="run", size=3)
    )  # cells beside empty droplets of their run
    dataset = AnnDataset(dict(zip("ab", files, strict=True)), label="run", output=output, window=16)
    loader = dataset.get_optimized_dataloader(batch_size=2, sets=sets, seed=1, return_index=True)

    def values(batch: dict[str, Any], part: str) -> Any:
        if output == "dense":
            return batch[f"{part}X"].numpy()
        made = torch.zeros(len(batch[f"{part}genes"]), 12)
        # Padding has the value 0 at the gene 0.
        return made.scatter_add_(1, batch[f"{part}genes"], batch[f"{part}values"]).numpy()

    first, n_sets = list(loader), 0
    for batch in first:
        rows, controls = batch["index"].numpy(), batch["control_index"].numpy()
        np.testing.assert_array_equal(values(batch, ""), x[rows])
        np.testing.assert_array_equal(values(batch, "control_"), x[controls])
        assert batch["obs_run"] == run[rows].tolist() and is_cell[rows].all() and not is_cell[controls].any()
        for number in range(int(batch["set"][-1]) + 1):
            (of_set,) = set(run[rows[batch["set"] == number]])
            beside = controls[batch["control_set"] == number]
            assert set(run[beside]) == {of_set} and len(set(beside)) == 3
            n_sets += 1
    once = Counter(row for batch in first for row in batch["index"][~batch["is_repeat"]].tolist())
    assert once == Counter(np.flatnonzero(is_cell).tolist())
    assert n_sets == sum(-(-int((is_cell & (run == name)).sum()) // 4) for name in "ab")

    # From a state in mid-epoch, and preloaded, the rest comes as it would have come.
    batches = iter(loader)
    next(batches)
    state, rest = loader.state_dict(), list(batches)
    dataset.preload()
    again = dataset.get_optimized_dataloader(batch_size=2, sets=sets, seed=1, return_index=True)
    again.load_state_dict(state)
    for batch, wanted in zip(again, rest, strict=True):
        assert batch.keys() == wanted.keys()
        assert all(torch.equal(batch[key], wanted[key]) for key in batch if isinstance(batch[key], torch.Tensor))
