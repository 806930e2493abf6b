"""scvi-tools models fed from disk: a drop-in loader, one line to use it in a model, and a data module without AnnData.

Nothing here imports scvi-tools before something that needs it is called, and nothing in scvi-tools is patched.
"""

from typing import TYPE_CHECKING, Any

from annfeed.scvi.loader import AnnDataLoader
from annfeed.scvi.semisupervised import ConcatDataLoader, SemiSupervisedDataLoader
from annfeed.scvi.use import use

if TYPE_CHECKING:
    from annfeed.scvi.datamodule import SCVIDataModule

__all__ = ["AnnDataLoader", "ConcatDataLoader", "SCVIDataModule", "SemiSupervisedDataLoader", "use"]


def __getattr__(name: str) -> Any:
    # It is a class of Lightning's, which takes seconds to import.
    if name == "SCVIDataModule":
        from annfeed.scvi.datamodule import SCVIDataModule

        return SCVIDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
