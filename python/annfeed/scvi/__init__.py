"""Models of scvi-tools read from disk: `use(model)`, the loader `AnnDataLoader`, and the data module `SCVIDataModule`.

scvi-tools is imported when a function needs it, and is not patched.
"""

from typing import TYPE_CHECKING, Any

from annfeed.scvi.loader import AnnDataLoader
from annfeed.scvi.semisupervised import ConcatDataLoader, SemiSupervisedDataLoader
from annfeed.scvi.use import use

if TYPE_CHECKING:
    from annfeed.scvi.datamodule import SCVIDataModule

__all__ = ["AnnDataLoader", "ConcatDataLoader", "SCVIDataModule", "SemiSupervisedDataLoader", "use"]


def __getattr__(name: str) -> Any:
    # It needs Lightning, which takes seconds to import.
    if name == "SCVIDataModule":
        from annfeed.scvi.datamodule import SCVIDataModule

        return SCVIDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
