"""scvi-tools models fed from disk: a drop-in loader, one line to use it in a model, and a data module without AnnData.

Nothing here imports scvi-tools before something that needs it is called, and nothing in scvi-tools is patched.
"""

from annfeed.scvi.loader import AnnDataLoader
from annfeed.scvi.siblings import ConcatDataLoader, SemiSupervisedDataLoader
from annfeed.scvi.use import use

__all__ = ["AnnDataLoader", "ConcatDataLoader", "SemiSupervisedDataLoader", "use"]
