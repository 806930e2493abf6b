"""What README and docs say is true: their Python runs, their tables are the signatures, their links lead somewhere."""

import inspect
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import annfeed
from annfeed import AnnDataset
from tests.support.places import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = PAGES[0].read_text()
#: Blocks of "py" are code of others, which is only shown.
WITH_PYTHON = [page for page in PAGES if "```python\n" in page.read_text()]


@pytest.fixture
def atlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with the ``atlas.h5ad`` of which the pages speak."""
    random = np.random.default_rng(0)
    counts = sp.csr_matrix(random.poisson(0.5, (600, 50)).astype(np.float32))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(random.choice(["B", "NK", "T"], 600)),
            "donor": pd.Categorical(random.choice(["d1", "d2"], 600)),
            "n_genes": counts.getnnz(axis=1),
        },
        index=[f"cell{i}" for i in range(600)],
    )
    var = pd.DataFrame(index=["CD3E", "CD8A", *(f"gene{i}" for i in range(48))])
    adata = anndata.AnnData(counts, obs=obs, var=var, layers={"counts": counts.copy()})
    adata.obsm["X_pca"] = random.normal(size=(600, 5))
    adata.write_h5ad(tmp_path / "atlas.h5ad", compression="gzip")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_of_a_page_runs_from_top_to_bottom(page: Path, atlas: Path) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    torch.manual_seed(0)
    if "import scvi" in page.read_text():
        pytest.importorskip("scvi.model", reason="scvi-tools is not installed")
    if "import lightning" in page.read_text():
        pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    if "import Accelerator" in page.read_text():
        pytest.importorskip("accelerate", reason="accelerate is not installed")
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)


def test_readme_has_the_minimal_example() -> None:
    assert README.count("```python") >= 3


@pytest.mark.parametrize(
    ("heading", "function"),
    [("`AnnDataset(", AnnDataset.__init__), ("`dataset.get_opt", AnnDataset.get_optimized_dataloader)],
)
def test_parameter_tables_are_the_signatures(heading: str, function: object) -> None:
    table = README[README.index(f"\n{heading}") :].split("\n\n")[1]
    told = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", table, re.MULTILINE))
    parameters = inspect.signature(function).parameters.values()
    there = {p.name: p.default for p in parameters if p.kind != p.VAR_KEYWORD and p.default is not p.empty}
    assert {name: eval(default) for name, default in told.items()} == there


#: What loaders ask of a dataset, and users do not.
INNER = {"reader"}


def test_readme_names_all_that_a_dataset_has() -> None:
    table = README[README.index("A dataset also has:") :].split("\n\n")[1]
    told = set(re.findall(r"`(\w+)", " ".join(line.split("|")[1] for line in table.splitlines())))
    dataset = AnnDataset(anndata.AnnData(np.eye(2, dtype=np.float32)))
    has = {name for name in dir(dataset) if not name.startswith("_")} - set(dir(torch.utils.data.Dataset))
    in_other_tables = {*inspect.signature(AnnDataset.__init__).parameters, "get_optimized_dataloader"}
    assert has - INNER - in_other_tables <= told
    assert told - {"len", "with"} <= has


def test_readme_names_all_errors() -> None:
    told = README[README.index("\n## Errors") : README.index("\n## Limits")]
    errors = [value for value in vars(annfeed).values() if isinstance(value, type) and issubclass(value, Exception)]
    for error in errors:
        if not issubclass(error, Warning):
            assert f"`annfeed.{error.__name__}` (a" in told.replace("\n", " ")
            assert any(f"`{base.__name__}`" in told for base in error.__bases__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
