"""Tries an installed wheel where there is nothing else of the project; `make wheel` runs it in an empty environment.

Not a pytest module: the environment has no pytest.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path


def import_time() -> float:
    """Milliseconds that the dataset takes to import in a fresh process, beyond torch and anndata; best of three."""
    code = "import torch, anndata, time; t = time.perf_counter(); from annfeed import AnnDataset; "
    code += "print(1e3 * (time.perf_counter() - t))"
    command = [sys.executable, "-I", "-c", code]
    return min(float(subprocess.run(command, capture_output=True, check=True, text=True).stdout) for _ in range(3))


def is_the_wheel() -> str:
    """Check that annfeed comes from site-packages, whole, and that its command is there."""
    import annfeed
    from annfeed import _core

    package = Path(annfeed.__file__).parent
    assert package.parent.name == "site-packages", f"annfeed comes from {package}"
    assert package in Path(_core.__file__).parents, f"the core comes from {_core.__file__}"
    missing = [
        name for name in ("py.typed", "_core.pyi", "cli/completions/annfeed.bash") if not (package / name).is_file()
    ]
    assert not missing, f"the wheel has no {missing}"
    assert not list(Path.cwd().iterdir()), f"{Path.cwd()} is not empty"
    expected = f"annfeed {version('annfeed')}"
    command = [Path(sys.executable).parent / "annfeed", "--version"]
    found = subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    assert found == expected == f"annfeed {annfeed.__version__}", f"found {found}; expected {expected}"
    return f"{found}, in {package}"


def streams(folder: str) -> int:
    """Write a file, stream it from end to end, compare all of it with what was written; return the number of cells."""
    import anndata
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp
    import torch

    from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal

    random = np.random.default_rng(0)
    x = sp.csr_matrix(random.poisson(0.3, (3000, 500)).astype(np.float32))
    types = pd.Categorical(random.choice(["B", "NK", "T"], 3000))
    obs = pd.DataFrame({"row": np.arange(3000), "type": types}, index=[f"cell{i}" for i in range(3000)])
    path = f"{folder}/cells.h5ad"
    anndata.AnnData(x, obs=obs).write_h5ad(path, compression="gzip")

    expected = torch.from_numpy(x.toarray())
    expected = torch.log1p(expected * (1e4 / expected.sum(1, keepdim=True)))
    dataset = AnnDataset(path, transform=Compose([NormalizeTotal(1e4), Log1p()]))
    seen = []
    for batch in dataset.get_optimized_dataloader(batch_size=128, shuffle=True, seed=0):
        rows = batch["obs_row"]
        torch.testing.assert_close(batch["X"], expected[rows])
        assert batch["obs_type"] == [types[row] for row in rows.tolist()]
        seen += rows.tolist()
    assert sorted(seen) == list(range(3000))
    assert seen != sorted(seen)
    return len(seen)


if __name__ == "__main__":
    print(is_the_wheel())
    with tempfile.TemporaryDirectory() as scratch:
        print(f"{streams(scratch):,} cells streamed, each equal to what was written")
    print(f"Importing annfeed's dataset takes {import_time():.0f} ms beyond torch and anndata")
