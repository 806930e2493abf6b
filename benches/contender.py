"""What every contender is: a library in one setting, which opens a file and gives epochs of batches ``(X, rows)``.

``rows`` are the file rows of the batch, for the check that comes before timing. Who there is stands in `lineup.py`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import twins
from settings import Settings

Batch = tuple[Any, "np.ndarray | None"]


@dataclass
class Contender:
    """One library in one setting.

    ``epochs`` says what is timed: "any" (a few seconds of reading), "first" (a whole epoch, the first) or "later"
    (after one epoch that is not timed). ``fetch`` says how many rows it reads at a time: "window" or "batch".
    ``cache`` is "off", "on" (that of the settings), "half" (of the file's decoded rows), a size, or "all" (in memory).
    ``stored`` is "as is", a twin that `twins.py` makes, or "own zarr".
    """

    name: str
    needs: str = "annfeed"
    order: str = "exact random"
    block: int | str = 1
    output: str = "dense"
    fetch: str = "window"
    cache: str = "off"
    workers: int = 0
    epochs: str = "any"
    stored: str = "as is"
    genes: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        try:
            importlib.import_module(self.needs)
        except Exception as error:
            return f"{self.needs} cannot be imported ({error})"
        return None

    def path(self, settings: Settings) -> Path:
        """The file that it reads."""
        twin = self.stored in twins.MAKERS
        return twins.twin_path(settings.file, settings.folder, self.stored) if twin else settings.file

    def reads(self, settings: Settings) -> Path:
        """What lies in the page cache when it is timed: its file, or a folder."""
        return self.path(settings)

    def columns(self, n_vars: int) -> np.ndarray | None:
        """The genes that it delivers; None for all."""
        return None if self.genes is None else np.arange(0, n_vars, max(1, n_vars // self.genes))[: self.genes]

    def prepare(self, settings: Settings) -> None:
        """Make what it needs besides the file, once; not timed."""
        if self.stored in twins.MAKERS:
            twins.make_twin(settings.file, settings.folder, self.stored)

    def open(self, settings: Settings, with_rows: bool) -> None:
        """Open the file; part of the time to the first batch."""
        raise NotImplementedError

    def epoch(self) -> Iterator[Batch]:
        """The batches of an epoch."""
        raise NotImplementedError


def as_dense(x: Any) -> Any:
    """Dense torch tensor of a scipy matrix."""
    import torch

    return torch.from_numpy(x.toarray())


def as_csr(x: Any) -> Any:
    """Sparse torch tensor of a scipy matrix, not checked: it was valid."""
    import torch

    parts = (torch.from_numpy(part) for part in (x.indptr, x.indices, x.data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR support beta
        return torch.sparse_csr_tensor(*parts, size=x.shape, check_invariants=False)


def numbered(path: Path) -> Any:
    """The file as a backed AnnData whose obs, and names of obs, are the number of each row."""
    import anndata
    import pandas as pd

    adata = anndata.read_h5ad(path, backed="r")
    rows = np.arange(adata.n_obs)
    adata.obs = pd.DataFrame({"row": rows}, index=rows.astype(str))
    return adata


def n_vars_of(path: Path) -> int:
    """Columns of X."""
    import h5py

    with h5py.File(path) as file:
        x = file["X"]
        return int(x.shape[1] if isinstance(x, h5py.Dataset) else x.attrs["shape"][1])
