"""`SameCells`: checks that an AnnData or MuData still has the cells and genes that a loader was made for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from annfeed.h5ad.held_anndata import unchanged

if TYPE_CHECKING:
    import pandas as pd


class SameCells:
    """The cells and genes of an AnnData or MuData (with its modalities), as they are when this is made.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> adata = anndata.AnnData(np.eye(2))
    >>> same = SameCells(adata)
    >>> adata.obs["donor"] = ["d1", "d2"]
    >>> same.check()
    """

    def __init__(self, adata: Any) -> None:
        self._adata = adata
        self._names = {(place, what): names for place, what, names in self._now()}

    def check(self) -> None:
        """Raise StaleDataError if it has other cells or genes now, or in another order."""
        for place, what, names in self._now():
            if (place, what) in self._names:
                self._names[place, what] = unchanged(self._names[place, what], names, what, place)

    def _now(self) -> Iterator[tuple[str, str, pd.Index[Any]]]:
        modalities = getattr(self._adata, "mod", None)
        whole = "AnnData" if modalities is None else "MuData"
        parts = {f"modality {name!r}": part for name, part in (modalities or {}).items()}
        for place, part in {whole: self._adata, **parts}.items():
            yield place, "cells", part.obs_names
            yield place, "genes", part.var_names
