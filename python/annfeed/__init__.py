"""Feeds minibatches from .h5ad files into PyTorch: in the order asked for, as fast as the bytes can be decoded."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annfeed._core import __version__
    from annfeed.collate import Collate
    from annfeed.dataset import AnnDataset
    from annfeed.dense_batches import densify
    from annfeed.errors import (
        AnnfeedWarning,
        FormatError,
        StaleDataError,
        StaleFileError,
        UnknownNameError,
        UnsupportedError,
    )
    from annfeed.loader import WindowLoader
    from annfeed.results import check_writable, write_obs, write_obsm
    from annfeed.scvi.loader import AnnDataLoader
    from annfeed.transforms import Compose, Log1p, NormalizeTotal, Scale, Transform

__all__ = [
    "AnnDataLoader",
    "AnnDataset",
    "AnnfeedWarning",
    "Collate",
    "Compose",
    "FormatError",
    "Log1p",
    "NormalizeTotal",
    "Scale",
    "StaleDataError",
    "StaleFileError",
    "Transform",
    "UnknownNameError",
    "UnsupportedError",
    "WindowLoader",
    "__version__",
    "check_writable",
    "densify",
    "write_obs",
    "write_obsm",
]

#: The module of each public name: imported when the name is first used, so that the command line does without torch.
_HOMES = {
    "AnnDataLoader": "scvi.loader",
    "AnnDataset": "dataset",
    "AnnfeedWarning": "errors",
    "Collate": "collate",
    "Compose": "transforms",
    "FormatError": "errors",
    "Log1p": "transforms",
    "NormalizeTotal": "transforms",
    "Scale": "transforms",
    "StaleDataError": "errors",
    "StaleFileError": "errors",
    "Transform": "transforms",
    "UnknownNameError": "errors",
    "UnsupportedError": "errors",
    "WindowLoader": "loader",
    "__version__": "_core",
    "check_writable": "results",
    "densify": "dense_batches",
    "write_obs": "results",
    "write_obsm": "results",
}


def __getattr__(name: str) -> Any:
    if name == "scvi":  # which has public names of its own
        return import_module(f"{__name__}.scvi")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
