"""Models of several modalities on a backed MuData through `annfeed.scvi.use`, against the stock classes in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.mudata_toys import as_new, read, written

pytest.importorskip("scvi.model", reason="scvi-tools is not installed")

import mudata
import scvi

from annfeed.scvi import use

N, GENES, OTHERS = 150, 14, 6
TRAIN: dict[str, Any] = {
    "max_epochs": 2,
    "train_size": 0.9,
    "batch_size": 48,
    "check_val_every_n_epoch": 1,
    "accelerator": "cpu",
    "enable_progress_bar": False,
}

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice, and mudata's


def paired(second: str) -> mudata.MuData:
    rng = np.random.default_rng(4)
    cells = [f"cell{i}" for i in range(N)]
    obs = pd.DataFrame({"donor": pd.Categorical([f"donor {i % 2}" for i in range(N)])}, index=cells)
    rna = anndata.AnnData(sp.csr_matrix(rng.poisson(2, (N, GENES)).astype("float32")), obs=obs)
    other = anndata.AnnData(rng.poisson(4, (N, OTHERS)).astype("float32"), obs=pd.DataFrame(index=cells))
    rna.var_names, other.var_names = [f"g{i}" for i in range(GENES)], [f"{second}{i}" for i in range(OTHERS)]
    other.layers["counts"] = other.X + 1
    with as_new():
        return mudata.MuData({"rna": rna, second: other})


def totalvi(mdata: mudata.MuData) -> Any:
    scvi.model.TOTALVI.setup_mudata(
        mdata,
        rna_layer=None,
        protein_layer="counts",
        batch_key="donor",
        modalities={"rna_layer": "rna", "protein_layer": "prot", "batch_key": "rna"},
    )
    scvi.settings.seed = 0
    return scvi.model.TOTALVI(mdata, n_latent=3, n_hidden=8, empirical_protein_background_prior=False)


def multivi(mdata: mudata.MuData) -> Any:
    scvi.model.MULTIVI.setup_mudata(
        mdata,
        rna_layer=None,
        atac_layer=None,
        batch_key="donor",
        modalities={"rna_layer": "rna", "atac_layer": "atac", "batch_key": "rna"},
    )
    scvi.settings.seed = 0
    return scvi.model.MULTIVI(mdata, n_genes=GENES, n_regions=OTHERS, n_latent=3, n_hidden=8)


@pytest.mark.parametrize(("make", "second"), [(totalvi, "prot"), (multivi, "atac")])
def test_the_history_is_that_of_memory(make: Any, second: str, tmp_path: Path) -> None:
    in_memory = paired(second)
    file = written(in_memory, tmp_path / "cells.h5mu")
    stock, ours = make(in_memory), use(make(read(file, backed=True)), window=64)
    for model in (stock, ours):
        scvi.settings.seed = 1
        model.train(**TRAIN, **({"adversarial_mixing": False} if make is multivi else {}))
    assert ours.history.keys() == stock.history.keys()
    assert {"elbo_train", "elbo_validation"} <= ours.history.keys()
    for key, values in stock.history.items():
        found = ours.history[key].astype(float)
        np.testing.assert_allclose(found, values.astype(float), atol=5e-4, rtol=0, err_msg=key)
    expected = stock.get_latent_representation()
    np.testing.assert_allclose(ours.get_latent_representation(), expected, atol=1e-4)
    picked = [70, 3, 3, 17]
    np.testing.assert_allclose(ours.get_latent_representation(indices=picked), expected[picked], atol=1e-4)
