"""Minibatches from .h5ad files for PyTorch, decoded by a Rust core."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annfeed._core import __version__
    from annfeed.batches.densify import densify
    from annfeed.batches.items import Collate
    from annfeed.batches.tokens import Tokens
    from annfeed.dataset import AnnDataset
    from annfeed.errors import (
        AnnfeedWarning,
        FormatError,
        StaleDataError,
        StaleFileError,
        UnknownNameError,
        UnsupportedError,
    )
    from annfeed.loading.cell_sets import CellSets, Controls
    from annfeed.loading.loader import WindowLoader
    from annfeed.loading.sampler import PlanSampler
    from annfeed.results.write import check_writable, write_obs, write_obsm
    from annfeed.rewriting.write import rewrite
    from annfeed.scvi.loader import AnnDataLoader
    from annfeed.transforms.base import Compose, Transform
    from annfeed.transforms.counts import Log1p, NormalizeTotal, Scale

__all__ = [
    "AnnDataLoader",
    "AnnDataset",
    "AnnfeedWarning",
    "CellSets",
    "Collate",
    "Compose",
    "Controls",
    "FormatError",
    "Log1p",
    "NormalizeTotal",
    "PlanSampler",
    "Scale",
    "StaleDataError",
    "StaleFileError",
    "Tokens",
    "Transform",
    "UnknownNameError",
    "UnsupportedError",
    "WindowLoader",
    "__version__",
    "check_writable",
    "densify",
    "rewrite",
    "write_obs",
    "write_obsm",
]

#: The module of each public name, imported when the name is first used: the command line does not need torch.
_HOMES = {
    "AnnDataLoader": "scvi.loader",
    "AnnDataset": "dataset",
    "AnnfeedWarning": "errors",
    "CellSets": "loading.cell_sets",
    "Collate": "batches.items",
    "Compose": "transforms.base",
    "Controls": "loading.cell_sets",
    "FormatError": "errors",
    "Log1p": "transforms.counts",
    "NormalizeTotal": "transforms.counts",
    "PlanSampler": "loading.sampler",
    "Scale": "transforms.counts",
    "StaleDataError": "errors",
    "StaleFileError": "errors",
    "Tokens": "batches.tokens",
    "Transform": "transforms.base",
    "UnknownNameError": "errors",
    "UnsupportedError": "errors",
    "WindowLoader": "loading.loader",
    "__version__": "_core",
    "check_writable": "results.write",
    "densify": "batches.densify",
    "rewrite": "rewriting.write",
    "write_obs": "results.write",
    "write_obsm": "results.write",
}


def __getattr__(name: str) -> Any:
    if name == "scvi":  # a package with its own public names
        return import_module(f"{__name__}.scvi")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    # Modules, of which most are rooms of the package, are not listed; those with public names are.
    return sorted({*__all__, "scvi", *(name for name in globals() if name == "lightning" or name.startswith("__"))})
