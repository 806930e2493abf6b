"""What tests of obs are given."""

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.obs.expected import NAN


@pytest.fixture
def small_file(tmp_path):
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(["B", "T", None, "B"], categories=["T", "NK", "B"]),
            "größe": [1.5, 2.5, NAN, 4.5],
            "kommentar": ["a", "ü", "a", "c"],
            "n": [1, 2, 3, 2**60],
        },
        index=["w", "x", "y", "z"],
    )
    path = tmp_path / "small.h5ad"
    anndata.AnnData(np.zeros((4, 1), np.float32), obs=obs).write_h5ad(path, convert_strings_to_categoricals=False)
    return path


@pytest.fixture
def adata():
    obs = pd.DataFrame(
        {"n": [1, 2, 3], "t": ["a", "b", "c"], "c": pd.Categorical(["u", "v", "u"])}, index=["x", "y", "z"]
    )
    return anndata.AnnData(np.zeros((3, 2), np.float32), obs=obs)
