"""Feeds minibatches from .h5ad files into PyTorch: in the order asked for, as fast as the bytes can be decoded."""

from annfeed.collate import Collate
from annfeed.dataset import AnnDataset
from annfeed.densify import densify
from annfeed.errors import AnnfeedWarning, FormatError, StaleFileError, UnknownNameError, UnsupportedError
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
    "StaleFileError",
    "Transform",
    "UnknownNameError",
    "UnsupportedError",
    "WindowLoader",
    "check_writable",
    "densify",
    "write_obs",
    "write_obsm",
]
