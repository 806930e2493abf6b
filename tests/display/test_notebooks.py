"""What a notebook shows of a dataset and of a loader."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.support.pages import Page, check_shows_what_it_prints

from annfeed import AnnDataset

NAME = "a<b>&'\"<script>alert(1)"


@pytest.fixture
def dataset(tmp_path: Path) -> AnnDataset:
    obs = pd.DataFrame({"<i>kind": [1, 2, 3]}, index=list("abc"))
    anndata.AnnData(np.eye(3, dtype=np.float32), obs=obs).write_h5ad(tmp_path / f"{NAME}.h5ad")
    return AnnDataset(tmp_path / f"{NAME}.h5ad")


@pytest.mark.parametrize("kind", ["dataset", "closed dataset", "part", "loader", "workers"])
def test_all_that_print_tells_is_there_and_escaped(kind: str, dataset: AnnDataset) -> None:
    shown: Any = dataset
    if kind == "closed dataset":
        dataset.close()
    elif kind == "part":
        shown = dataset.subset([2, 0])
    elif kind == "loader":
        shown = dataset.get_optimized_dataloader(2, block_size=2)
    elif kind == "workers":
        shown = dataset.get_optimized_dataloader(2, num_workers=2)
    check_shows_what_it_prints(shown)
    assert any(NAME in text for text in Page(shown._repr_html_()).texts)
