"""`use`: makes a model of scvi-tools train and infer with annfeed's loaders.

It sets three attributes of the model, which scvi-tools uses to make loaders and statistics of counts. Classes, other
models and saved models do not change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from annfeed.arrays import integer
from annfeed.memory.budget import cache_budget
from annfeed.process.threads import reads_in_flight
from annfeed.scvi.counts import ManagesCounts, stock
from annfeed.scvi.loader import AnnDataLoader
from annfeed.scvi.semisupervised import SemiSupervisedDataLoader

Model = TypeVar("Model")


@dataclass(frozen=True)
class MakesLoaders:
    """Makes loaders with the options of `use`; it replaces a loader class."""

    kind: type[Any]
    window: int
    cache: str | int
    threads: int | None
    io_depth: int | Literal["auto"]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a loader."""
        options = {"window": self.window, "cache": self.cache, "threads": self.threads}
        options |= {"io_depth": self.io_depth, **kwargs}
        if args:
            return self.kind(stock(args[0]), *args[1:], **options)
        return self.kind(**options)


def use(
    model: Model,
    *,
    window: int = 16384,
    cache: str | int = "auto",
    threads: int | None = None,
    io_depth: int | Literal["auto"] = "auto",
) -> Model:
    """Make a model of scvi-tools train and infer with annfeed's loaders; a backed AnnData is then read from disk.

    This changes only this model object: call it again for a model that is made from it (``load``, ``load_query_data``,
    ``from_scvi_model``). Saved models do not need annfeed.

    Parameters
    ----------
    model
        A model made from an AnnData that was set up, in memory or backed. (A model that was made from a registry needs
        a data module instead: `annfeed.scvi.SCVIDataModule`.)
    window, cache, threads, io_depth
        As in `annfeed.AnnDataLoader`.

    Returns
    -------
    The model.

    Raises
    ------
    TypeError
        If it is not a model of scvi-tools, it makes its loaders in a way of its own, or a number is not an integer.
    ValueError
        If ``window`` or ``threads`` is below 1, or ``io_depth`` below 0.

    Examples
    --------
    >>> import anndata, scvi, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> scvi.data.synthetic_iid(sparse_format="csr_matrix").write_h5ad(f"{folder.name}/atlas.h5ad")
    >>> adata = anndata.read_h5ad(f"{folder.name}/atlas.h5ad", backed="r")
    >>> scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    >>> model = use(scvi.model.SCVI(adata))
    >>> model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    >>> model.get_latent_representation(indices=[7, 3]).shape
    (2, 10)
    >>> adata.file.close()
    >>> folder.cleanup()
    """
    cache_budget(cache)
    integer("window", window)
    integer("threads", 1 if threads is None else threads)
    reads_in_flight(io_depth)
    options = {"window": window, "cache": cache, "threads": threads, "io_depth": io_depth}
    target: Any = model
    splitter = _splitter(target, options)
    target._data_loader_cls = MakesLoaders(AnnDataLoader, **options)  # type: ignore[arg-type]
    target.get_anndata_manager = ManagesCounts(target, **options)  # type: ignore[arg-type]
    if splitter is not None:
        target._data_splitter_cls = splitter
    return model


def _splitter(model: Any, options: dict[str, Any]) -> type[Any] | None:
    """Return a data splitter like that of the model's class that makes annfeed's loaders."""
    from scvi.dataloaders import DataSplitter, DeviceBackedDataSplitter, SemiSupervisedDataSplitter
    from scvi.model.base import BaseModelClass

    if not isinstance(model, BaseModelClass):
        raise TypeError(f"model is a {type(model).__name__}; expected a model of scvi-tools")
    splitter = getattr(type(model), "_data_splitter_cls", None)
    plain, semi = MakesLoaders(AnnDataLoader, **options), MakesLoaders(SemiSupervisedDataLoader, **options)
    name = f"{type(model).__name__}"
    if splitter is None:
        raise TypeError(f"{name} makes its training loaders in a way of its own, so it cannot be used with annfeed")
    if issubclass(splitter, DeviceBackedDataSplitter):
        raise TypeError(f"{name} keeps all cells on the device, so there is nothing to stream")
    members: dict[str, Any]
    if issubclass(splitter, SemiSupervisedDataSplitter):

        def setup(self: Any, stage: str | None = None) -> None:
            """Split, then replace the two loader classes that scvi-tools has in its code."""
            splitter.setup(self, stage)
            self.data_loader_class = semi if len(self._labeled_indices) else plain

        members = {"setup": setup}
    elif issubclass(splitter, DataSplitter) and splitter.train_dataloader is DataSplitter.train_dataloader:
        members = {"data_loader_cls": plain}
    else:
        raise TypeError(f"{name} splits its cells with {splitter.__name__}, which annfeed does not know")
    # For early stopping scvi-tools compares the name of the class.
    return type(splitter.__name__, (splitter,), {"__module__": __name__, "__doc__": splitter.__doc__, **members})


__all__ = ["use"]
