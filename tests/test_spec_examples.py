"""The examples of the contract, anndata's page "PyTorch Dataset for AnnData", as they stand but for the import.

They lie here as text, because the page is not part of this repository; where it is at hand, the two are compared.
"""

import multiprocessing
import re
import sys
import types
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import annfeed
from tests.support.places import SHARED
from tests.support.toys import dense

SPEC = SHARED / "spec" / "AnnDataset.md"

CREATE = """
import anndata as ad
from annfeed import AnnDataset
from torch.utils.data import DataLoader
import scanpy as sc

# Load example adata
adata = sc.datasets.pbmc3k_processed()

# Create a basic dataset
dataset = AnnDataset(adata)

print(f"Dataset length: {len(dataset)}")
print(f"Dataset shape: {dataset.shape}")

# Get a single observation
item = dataset[0]
print(f"observation keys: {list(item.keys())}")
print(f"Expression data shape: {item['X'].shape}")
"""

FROM_PATH = """
# Load from file path (recommended for large backed datasets)
dataset = AnnDataset("/path/to/large_dataset.h5ad")

# The dataset will automatically handle backed data efficiently
dataloader = dataset.get_optimized_dataloader(batch_size=64)
"""

STANDARD_LOADER = """
# Create a DataLoader for training
dataloader = DataLoader(
    dataset,
    batch_size=32,
    shuffle=True,
    num_workers=4
)

# Iterate through batches
for batch in dataloader:
    X_batch = batch["X"]  # Shape: (batch_size, n_vars)
    # Your training code here
    break
"""

OPTIMIZED_LOADER = """
optimized_dataloader = dataset.get_optimized_dataloader(
    batch_size=32,
    shuffle=True,
    num_workers=4
)
"""

OWN_COLLATE = """
# Use standard DataLoader with optimized collate function
from torch.utils.data import DataLoader

# Alternative: pass collate function
dataloader = DataLoader(
    dataset,
    batch_size=32,
    shuffle=True,
    num_workers=4,
    collate_fn=dataset.get_collate_fn()
)
"""

METADATA = """
# Item contains both expression data and metadata
item = dataset[0]
print(f"Available keys: {list(item.keys())}")

# Expression data
X = item["X"]

# Metadata (if available) - prefixed with 'obs_'
cell_type = item["obs_cell_type"]

# Different data types are handled automatically:
# - Numeric values: converted to torch.Tensor
# - String values: kept as strings
# - Other types: converted to strings
"""

#: Not code but the structure of an item; `test_item_has_the_structure_printed` holds items against it.
STRUCTURE = """
{
    "X": torch.tensor([...]),           # Expression data
    "obs_cell_type": "T_cell",          # String metadata
    "obs_batch": torch.tensor(1),       # Numeric metadata
    "obs_n_genes": torch.tensor(2500)   # Numeric metadata
}
"""

TRANSFORMS = """
from annfeed import Transform, Compose
import torch

class NormalizeRowSum(Transform):
    def __init__(self, target_sum=1e4):
        self.target_sum = target_sum

    def __call__(self, data_dict):
        X = data_dict["X"]
        X = torch.clamp(X, min=0)  # Ensure positive values
        row_sum = torch.sum(X, dim=-1, keepdim=True) + 1e-8
        data_dict["X"] = X * (self.target_sum / row_sum)
        return data_dict

    def __repr__(self):
        return f"NormalizeRowSum(target_sum={self.target_sum})"

class LogTransform(Transform):
    def __call__(self, data_dict):
        data_dict["X"] = torch.log1p(data_dict["X"])
        return data_dict

class EncodeLabels(Transform):
    \"""Encode string labels to integers in the data dictionary.\"""
    def __init__(self, obs_key='cell_type', encoded_key=None, label_encoder=None):
        self.obs_key = obs_key
        self.encoded_key = encoded_key or f"obs_{obs_key}_encoded"
        self.label_encoder = label_encoder

    def __call__(self, data_dict):
        # Access metadata using obs_{column_name} key pattern
        obs_key = f"obs_{self.obs_key}"

        if obs_key in data_dict and self.label_encoder is not None:
            string_label = data_dict[obs_key]  # Get string label from metadata
            encoded_label = self.label_encoder.transform([string_label])[0]
            data_dict[self.encoded_key] = torch.tensor(encoded_label, dtype=torch.long)
        return data_dict

# Set up label encoder
from sklearn.preprocessing import LabelEncoder
label_encoder = LabelEncoder()
label_encoder.fit(adata.obs['cell_type'].values)

# Compose transforms
training_transform = Compose([
    NormalizeRowSum(target_sum=1e4),
    LogTransform(),
    EncodeLabels(obs_key='cell_type', label_encoder=label_encoder)
])

# Create dataset
dataset = AnnDataset(adata, transform=training_transform)

# Use optimized dataloader for backed data
dataloader = dataset.get_optimized_dataloader(batch_size=32, num_workers=4)

# Access both processed data and encoded labels
for batch in dataloader:
    X = batch["X"]  # Normalized and log-transformed expression data
    y = batch["obs_cell_type_encoded"]  # Encoded labels as integers
    # Your training code here
"""

SUBSETS = """
# Create dataset with specific observations
import numpy as np

# Select first 100 observations
subset_indices = np.arange(100)
subset_dataset = AnnDataset(adata, obs_subset=subset_indices)

print(f"Original dataset: {len(adata)} observations")
print(f"Subset dataset: {len(subset_dataset)} observations")

# Use with train/test splits
from sklearn.model_selection import train_test_split
train_idx, test_idx = train_test_split(np.arange(len(adata)), test_size=0.2)

train_dataset = AnnDataset(adata, obs_subset=train_idx, transform=transform)
test_dataset = AnnDataset(adata, obs_subset=test_idx, transform=transform)
"""

CHUNK_SIZE = """
# Adjust chunk size for memory management
dataset = AnnDataset(
    adata,
    chunk_size=1000,  # Process 1000 rows at a time (default: 6000)
    transform=transform
)
"""

PROPERTIES = """
print(f"Dataset shape: {dataset.shape}")  # (n_obs, n_vars)
print(f"Number of observations: {len(dataset)}")
print(f"Number of variables: {dataset.shape[1]}")
"""

BLOCKS = [
    CREATE,
    FROM_PATH,
    STANDARD_LOADER,
    OPTIMIZED_LOADER,
    OWN_COLLATE,
    METADATA,
    STRUCTURE,
    TRANSFORMS,
    SUBSETS,
    CHUNK_SIZE,
    PROPERTIES,
]


def generated() -> anndata.AnnData:
    """About what scanpy's PBMC 3k is, smaller."""
    rng = np.random.default_rng(0)
    kinds = np.array(["T_cell", "B_cell", "NK_cell"])
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(kinds[rng.integers(0, 3, 150)]),
            "batch": rng.integers(0, 2, 150),
            "n_genes": rng.integers(500, 2500, 150),
        },
        index=[f"cell{i}" for i in range(150)],
    )
    return anndata.AnnData(sp.csr_matrix(rng.poisson(0.3, (150, 60)).astype("float32")), obs=obs)


def real(corpus: Path) -> anndata.AnnData:
    """A part of PBMC 3k, its obs named as the examples have it."""
    adata = anndata.read_h5ad(corpus / "conv_pbmc3k_2638x13714_csr_f4_gzip.h5ad")[:200, :2000].copy()
    adata.obs = adata.obs.rename(columns={"louvain": "cell_type"})
    adata.obs["batch"] = np.arange(200) % 2
    adata.obs = adata.obs[["cell_type", "batch", "n_genes"]]
    return adata


@pytest.fixture(params=["generated in memory", pytest.param("PBMC 3k backed", marks=pytest.mark.corpus)])
def adata(request: pytest.FixtureRequest, tmp_path: Path) -> anndata.AnnData:
    made = real(request.getfixturevalue("corpus")) if "PBMC" in request.param else generated()
    made.write_h5ad(tmp_path / "large_dataset.h5ad", compression="gzip")
    return anndata.read_h5ad(tmp_path / "large_dataset.h5ad", backed="r" if "backed" in request.param else None)


@pytest.fixture
def run(adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs blocks one after another in one namespace, as a reader of the page would."""
    # sc.datasets.pbmc3k_processed() is a download.
    scanpy = types.ModuleType("scanpy")
    scanpy.datasets = types.SimpleNamespace(pbmc3k_processed=lambda: adata)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scanpy", scanpy)
    # The page's classes are in no module that workers could import.
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    namespace: dict[str, Any] = {"__name__": "spec"}

    def run_blocks(*blocks: str) -> dict[str, Any]:
        for block in blocks:
            exec(block.replace("/path/to/", f"{tmp_path}/"), namespace)
        return namespace

    yield run_blocks
    multiprocessing.set_start_method(before, force=True)


def as_written(adata: anndata.AnnData) -> np.ndarray:
    return dense(adata.X[:])


def test_create(run, adata: anndata.AnnData, capsys: pytest.CaptureFixture) -> None:
    found = run(CREATE)
    n_obs, n_vars = adata.shape
    assert capsys.readouterr().out.splitlines() == [
        f"Dataset length: {n_obs}",
        f"Dataset shape: ({n_obs}, {n_vars})",
        "observation keys: ['X', 'obs_cell_type', 'obs_batch', 'obs_n_genes']",
        f"Expression data shape: torch.Size([{n_vars}])",
    ]
    np.testing.assert_array_equal(found["item"]["X"].numpy(), as_written(adata)[0])


def test_from_path(run, adata: anndata.AnnData) -> None:
    loader = run(CREATE, FROM_PATH)["dataloader"]
    x = torch.cat([batch["X"] for batch in loader]).numpy()
    wanted = as_written(adata)
    # Shuffled, so as a set of rows.
    assert sorted(map(tuple, x.tolist())) == sorted(map(tuple, wanted.tolist()))
    assert [len(batch["X"]) for batch in loader][:2] == [64, 64]


def test_standard_loader(run, adata: anndata.AnnData) -> None:
    assert run(CREATE, STANDARD_LOADER)["X_batch"].shape == (32, adata.n_vars)


@pytest.mark.parametrize(("block", "name"), [(OPTIMIZED_LOADER, "optimized_dataloader"), (OWN_COLLATE, "dataloader")])
def test_loaders_with_workers(run, adata: anndata.AnnData, block: str, name: str) -> None:
    batches = list(run(CREATE, block)[name])
    wanted = adata.obs.astype({"cell_type": str})
    wanted["sum"] = as_written(adata).sum(1)
    found = pd.DataFrame(
        {
            "cell_type": [label for batch in batches for label in batch["obs_cell_type"]],
            "batch": torch.cat([batch["obs_batch"] for batch in batches]).numpy(),
            "n_genes": torch.cat([batch["obs_n_genes"] for batch in batches]).numpy(),
            "sum": torch.cat([batch["X"].sum(1) for batch in batches]).numpy(),
        }
    )
    keys = ["n_genes", "sum", "batch", "cell_type"]
    pd.testing.assert_frame_equal(
        found.sort_values(keys).reset_index(drop=True),
        wanted.sort_values(keys).reset_index(drop=True),
        check_dtype=False,
    )


def test_metadata(run, adata: anndata.AnnData, capsys: pytest.CaptureFixture) -> None:
    found = run(CREATE, METADATA)
    assert "Available keys: ['X', 'obs_cell_type', 'obs_batch', 'obs_n_genes']" in capsys.readouterr().out
    assert found["cell_type"] == adata.obs["cell_type"].iloc[0]
    assert type(found["cell_type"]) is str


def test_item_has_the_structure_printed(run, adata: anndata.AnnData) -> None:
    item = run(CREATE)["item"]
    printed = re.findall(r'"(\w+)": +(torch\.tensor\(\[|torch\.tensor\(\d|")', STRUCTURE)
    assert {key: kind_of(item[key]) for key in item} == dict(printed)
    assert item["obs_batch"] == adata.obs["batch"].iloc[0]
    assert item["obs_n_genes"] == adata.obs["n_genes"].iloc[0]


def kind_of(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return "torch.tensor([" if value.ndim else f"torch.tensor({1 if value.max() < 2 else 2}"
    return '"'


def test_transforms(run, adata: anndata.AnnData) -> None:
    found = run(CREATE, TRANSFORMS)
    dataset, encoder = found["dataset"], found["label_encoder"]
    x = np.clip(as_written(adata), 0, None)
    wanted = np.log1p(x * (1e4 / (x.sum(1, keepdims=True) + 1e-8)))
    labels = encoder.transform(adata.obs["cell_type"])
    loader = dataset.get_optimized_dataloader(batch_size=32, shuffle=False, num_workers=4)
    batches = list(loader)
    np.testing.assert_allclose(torch.cat([batch["X"] for batch in batches]).numpy(), wanted, rtol=1e-5)
    encoded = torch.cat([batch["obs_cell_type_encoded"] for batch in batches])
    assert encoded.dtype is torch.int64
    assert encoded.tolist() == labels.tolist()
    np.testing.assert_allclose(dataset[5]["X"].numpy(), wanted[5], rtol=1e-5)
    assert dataset[5]["obs_cell_type_encoded"] == labels[5]
    # What the page's loop left behind: the last batch of a shuffled epoch.
    assert found["X"].shape[1] == adata.n_vars
    assert len(found["y"]) == len(found["X"]) == adata.n_obs % 32 or adata.n_obs % 32 == 0
    assert repr(found["training_transform"]) == (
        "Compose(\n    NormalizeRowSum(target_sum=10000.0)\n    LogTransform()\n    EncodeLabels()\n)"
    )


def test_subsets(run, adata: anndata.AnnData, capsys: pytest.CaptureFixture) -> None:
    found = run(CREATE, TRANSFORMS, "transform = training_transform", SUBSETS)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"Original dataset: {adata.n_obs} observations",
        "Subset dataset: 100 observations",
    ]
    train, test = found["train_dataset"], found["test_dataset"]
    assert train.obs_names.tolist() == adata.obs_names[found["train_idx"]].tolist()
    assert set(train.obs_names).isdisjoint(test.obs_names)
    assert len(train) + len(test) == adata.n_obs
    x = as_written(adata)[found["test_idx"][0]]
    np.testing.assert_allclose(test[0]["X"].numpy(), np.log1p(x * (1e4 / x.sum())), rtol=1e-5)


def test_chunk_size_and_properties(run, adata: anndata.AnnData, capsys: pytest.CaptureFixture) -> None:
    found = run(CREATE, TRANSFORMS, "transform = training_transform", CHUNK_SIZE, PROPERTIES)
    assert found["dataset"].chunk_size == 1000
    assert capsys.readouterr().out.splitlines()[-3:] == [
        f"Dataset shape: {adata.shape}",
        f"Number of observations: {adata.n_obs}",
        f"Number of variables: {adata.n_vars}",
    ]


def test_the_examples_are_those_of_the_page() -> None:
    if not SPEC.exists():
        pytest.skip(f"the page is not at {SPEC}")
    page = SPEC.read_text().replace("anndata.experimental.pytorch", annfeed.__name__)
    assert re.findall(r"```python\n(.*?)```", page, re.DOTALL) == [block.removeprefix("\n") for block in BLOCKS]
