"""What tests of inputs are given."""

from __future__ import annotations

import gc
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.inputs.shards import ROWS, SHARDS


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Many small files; row i of all holds i in its first gene and in obs."""
    folder = tmp_path_factory.mktemp("shards")
    paths = []
    for i in range(SHARDS):
        x = np.zeros((ROWS, 4), "float32")
        x[:, 0] = numbers = np.arange(i * ROWS, (i + 1) * ROWS)
        x[:, 1 + i % 3] = 1
        obs = pd.DataFrame({"row": numbers}, index=[f"cell{n}" for n in numbers])
        paths.append(folder / f"{i:02}.h5ad")
        anndata.AnnData(sp.csr_matrix(x), obs=obs).write_h5ad(paths[-1], compression="gzip")
    return paths


@pytest.fixture
def nothing_is_left() -> None:
    """Files are counted in the process: those of datasets that tests before have left go first."""
    gc.collect()
