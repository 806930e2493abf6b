"""`SCVIDataModule`: trains a model of scvi-tools from a path, without an AnnData in memory.

It implements scvi-tools' interface (a registry, a Lightning data module, a loader for inference) with `AnnDataset`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias, Unpack

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.arrays import Int64Array, integer
from annfeed.dataset import AnnDataset
from annfeed.h5ad.elem import Elem
from annfeed.inputs.selection import column_subset, row_indices, row_subset
from annfeed.inputs.single import find_names, find_obs
from annfeed.loading.loader import WindowLoader
from annfeed.scvi.dataset import FileCells
from annfeed.scvi.keywords import CellsKeywords
from annfeed.scvi.labelled import learns_labels, with_labelled
from annfeed.scvi.setup import Registration, key_list
from annfeed.user_warnings import warn

FilePath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

#: Arguments that scvi-tools from 1.5 on passes to `set_split` by default.
_UNSAID = (0.9, None, True)


class SCVIDataModule(pl.LightningDataModule):  # type: ignore[misc, unused-ignore]  # Any without lightning
    """A Lightning data module of .h5ad files for a model of scvi-tools, with the registry to make the model.

    Files stay on disk; memory holds the obs columns named here, the window, and the cache.

    Parameters
    ----------
    path_or_paths
        Path of an .h5ad file, or of several, whose cells follow each other, with the genes of the first.
    layer, batch_key, labels_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
        As in ``scvi.model.SCVI.setup_anndata``.
    unlabeled_category
        Label of unlabelled cells, for SCANVI; None for none.
    sample_key
        Obs column of samples, for MRVI (``model_name="MRVI"``); None for none.
    obs_subset, var_subset
        Cells and genes to use, as in `annfeed.AnnDataset`; None for all.
    var_column
        Column of var in which names of ``var_subset`` are looked up, as in `annfeed.AnnDataset`.
    train_size, validation_size, shuffle_set_split
        As in ``model.train``: the split into training, validation and test cells, drawn with ``scvi.settings.seed``.
    batch_size
        Cells of a batch.
    block_size
        1: training cells in a uniform pseudo-random order. k: runs of k neighbouring cells are shuffled, then the cells
        of each window. "auto": runs are cut at the chunk borders of the file. Larger runs read faster if the decoded
        file does not fit the cache.
    seed
        Seed of the order; None draws one from torch's global generator (``scvi.settings.seed``) in each epoch.
    window, cache, threads, io_depth
        As in `annfeed.AnnDataLoader`.
    model_name
        Class name of the model: "SCVI", "SCANVI"; with scvi-tools 1.5 also "LinearSCVI", "PEAKVI" and "MRVI".
    **loader_kwargs
        Any other keyword of `AnnDataset.get_optimized_dataloader`: ``num_workers``, ``prefetch_batches``,
        ``pin_memory``, ``drop_last``.

    Raises
    ------
    KeyError
        If a file lacks the layer, an obs column or a gene.
    TypeError
        If an AnnData is given (use `annfeed.scvi.use`), or a number is not an integer.
    ValueError
        If a cell has no category, sizes leave no training cell, or the model does not take a key.
    UnsupportedError
        If the installed scvi-tools cannot make ``model_name`` without an AnnData.
    OSError
        If a file cannot be read.

    Examples
    --------
    >>> import scvi, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> scvi.data.synthetic_iid(sparse_format="csr_matrix").write_h5ad(f"{folder.name}/atlas.h5ad")
    >>> data = SCVIDataModule(f"{folder.name}/atlas.h5ad", batch_key="batch")
    >>> model = scvi.model.SCVI(registry=data.registry)
    >>> model.train(datamodule=data, max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    >>> model.get_latent_representation(dataloader=data.inference_dataloader()).shape
    (400, 10)
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path_or_paths: FilePath | Sequence[FilePath],
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        unlabeled_category: str | None = None,
        sample_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        obs_subset: npt.ArrayLike | None = None,
        var_subset: Sequence[str] | npt.ArrayLike | None = None,
        var_column: str | None = None,
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int = 128,
        block_size: int | Literal["auto"] = 1,
        seed: int | None = None,
        window: int = 16384,
        cache: str | int = "auto",
        threads: int | None = None,
        io_depth: int | Literal["auto"] = "auto",
        model_name: str = "SCVI",
        **loader_kwargs: Unpack[CellsKeywords],
    ) -> None:
        super().__init__()
        if unlabeled_category is not None and labels_key is None:
            raise ValueError(
                f"unlabeled_category is {unlabeled_category!r} without labels_key, the obs column that it is in"
            )
        categorical, continuous = key_list(categorical_covariate_keys), key_list(continuous_covariate_keys)
        single = [key for key in (batch_key, labels_key, sample_key, size_factor_key) if key is not None]
        keys = dict.fromkeys([*single, *(categorical or ()), *(continuous or ())])
        paths = _paths(path_or_paths)
        elem = "X" if layer is None else f"layers/{layer}"
        self._cells = FileCells(
            paths[0] if len(paths) == 1 else paths,
            elem=elem,
            obs_columns=[],
            # With a column, that of the genes that all files have.
            var_subset=_genes(paths, elem, var_subset) if var_column is None else var_subset,
            var_column=var_column,
            window=window,
            cache=cache,
            threads=threads,
            io_depth=io_depth,
        )
        obs = pd.concat([find_obs(path, Elem.parse(elem), list(keys)).frame() for path in paths])
        self.var_names, self.obs_names = self._cells.var_names, obs.index
        _warn_unless_counts(self._cells, elem)
        n_in_files = len(obs)
        chosen = row_subset(obs_subset, n_in_files, lambda: obs.index)
        if chosen is not None:
            obs, self.obs_names = obs.iloc[chosen], self.obs_names[chosen]
        self._rows: Int64Array = np.arange(n_in_files, dtype=np.int64) if chosen is None else chosen
        self._registered = Registration(
            obs,
            self.var_names,
            model_name=model_name,
            layer=layer,
            batch_key=batch_key,
            labels_key=labels_key,
            unlabeled_category=unlabeled_category,
            sample_key=sample_key,
            size_factor_key=size_factor_key,
            categorical_covariate_keys=categorical,
            continuous_covariate_keys=continuous,
        )
        columns = self._cells.reader.columns = {}
        for key, values in self._registered.columns.items():
            columns[key] = np.zeros((n_in_files, *values.shape[1:]), dtype=values.dtype)
            columns[key][self._rows] = values
        self.labels_: npt.NDArray[Any] = np.asarray(
            np.zeros(len(obs), dtype=np.int64) if labels_key is None else obs[labels_key]
        )
        self.unlabeled_category = unlabeled_category
        self.batch_size = integer("batch_size", batch_size)
        self._order: dict[str, Any] = {"block_size": block_size, "seed": seed}
        self._loader_kwargs: dict[str, Any] = {**loader_kwargs}
        self._sizes = (train_size, validation_size, shuffle_set_split)
        self._split()
        self.train_dataloader()  # raises now if a keyword or size is wrong

    # --- the interface for scvi-tools ------------------------------------------------------------------------------

    @property
    def registry(self) -> dict[str, Any]:
        """The registry that a model is made from, as in ``scvi.model.SCVI(registry=data.registry)``."""
        return self._registered.registry

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self._rows)

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return len(self.var_names)

    @property
    def n_batch(self) -> int:
        """Number of categories of ``batch_key``; 1 without it."""
        return int(self._registered.summary["n_batch"])

    @property
    def n_labels(self) -> int:
        """Number of categories of ``labels_key`` without that of unlabelled cells; 1 without a key."""
        unlabelled = self.unlabeled_category is not None and self.unlabeled_category in self.labels_
        return int(self._registered.summary["n_labels"]) - unlabelled

    @property
    def n_samples(self) -> int:
        """Number of categories of ``sample_key``; 0 without it."""
        return int(self._registered.summary.get("n_sample", 0))

    @property
    def n_continuous_cov(self) -> int:
        """Number of continuous covariates."""
        return int(self._registered.summary.get("n_extra_continuous_covs", 0))

    @property
    def n_cats_per_cov(self) -> tuple[int, ...] | None:
        """Number of categories of each categorical covariate; None without any."""
        return tuple(self._registered.state("extra_categorical_covs").get("n_cats_per_key", ())) or None

    @property
    def batch_labels(self) -> npt.NDArray[Any]:
        """The batch categories, in the order of their codes."""
        return np.asarray(self._registered.state("batch")["categorical_mapping"])

    @property
    def label_keys(self) -> npt.NDArray[Any]:
        """The labels, in the order of their codes."""
        return np.asarray(self._registered.state("labels")["categorical_mapping"])

    @property
    def n_train(self) -> int:
        """Number of training cells."""
        return len(self.train_idx)

    @property
    def n_val(self) -> int:
        """Number of validation cells."""
        return len(self.val_idx)

    def set_batch_size(self, batch_size: int | None) -> None:
        """Set the batch size, unless it is None. scvi-tools from 1.5 on calls it."""
        if batch_size is not None:
            self.batch_size = integer("batch_size", batch_size)

    def set_split(
        self,
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int | None = None,
    ) -> None:
        """Split the cells again; default values keep the sizes. scvi-tools from 1.5 on calls it in ``train``."""
        self.set_batch_size(batch_size)
        asked = (train_size, validation_size, shuffle_set_split)
        if asked not in (_UNSAID, (None, None, True)):
            self._sizes = asked
        self._split()

    def train_dataloader(self) -> Any:
        """Return the loader of the training cells, shuffled.

        While SCANVI is trained, it gives pairs: a batch of all training cells, and one of labelled training cells.
        """
        return self._for_training(self.train_idx, shuffle=True, **self._loader_kwargs)

    def val_dataloader(self) -> Any:
        """Return the loader of the validation cells, in pairs as in training; ``[]`` without validation cells."""
        return self._for_training(self.val_idx, shuffle=False, **self._whole) if len(self.val_idx) else []

    def test_dataloader(self) -> Any:
        """Return the loader of the remaining cells; ``[]`` without such cells."""
        return self._unshuffled(self.test_idx) if len(self.test_idx) else []

    def inference_dataloader(
        self, indices: Sequence[int] | npt.ArrayLike | None = None, batch_size: int | None = None
    ) -> WindowLoader:
        """Return a loader for ``model.get_*(dataloader=...)``.

        Parameters
        ----------
        indices
            Cells in their order: positions or a mask; None for all, in the order of the files.
        batch_size
            Cells of a batch; None for that of the data module.
        """
        return self._unshuffled(row_indices(indices, self.n_obs, lambda: self.obs_names), batch_size)

    # --- internals ---------------------------------------------------------------------------------------------------

    @property
    def _whole(self) -> dict[str, Any]:
        """Keywords of a loader that leaves out no cell."""
        return {**self._loader_kwargs, "drop_last": False}

    def _unshuffled(self, cells: Int64Array, batch_size: int | None = None) -> WindowLoader:
        size = self.batch_size if batch_size is None else batch_size
        return self._loader(cells, size, shuffle=False, **self._whole)

    def _for_training(self, cells: Int64Array, *, shuffle: bool, **kwargs: Any) -> Any:
        loader = self._loader(cells, self.batch_size, shuffle=shuffle, **kwargs)
        if self.unlabeled_category is None or not learns_labels(self.trainer):
            return loader
        labelled = cells[self.labels_[cells] != self.unlabeled_category]
        if len(labelled) == 0:
            return with_labelled(loader, None)
        # If there are fewer labelled cells than a batch, deliver them as a smaller batch.
        kwargs["drop_last"] = bool(kwargs.get("drop_last", False)) and len(labelled) >= self.batch_size
        return with_labelled(loader, self._loader(labelled, self.batch_size, shuffle=shuffle, **kwargs))

    def _loader(self, cells: Int64Array, batch_size: int, *, shuffle: bool, **kwargs: Any) -> WindowLoader:
        chosen = self._cells.subset(self._rows[cells])
        return chosen.get_optimized_dataloader(batch_size, shuffle=shuffle, **self._order, **kwargs)

    def _split(self) -> None:
        from scvi import settings
        from scvi.dataloaders._data_splitting import validate_data_split

        train_size, validation_size, shuffle = self._sizes
        drop_last = bool(self._loader_kwargs.get("drop_last", False))
        n_train, n_val = validate_data_split(
            self.n_obs, train_size or 0.9, validation_size, self.batch_size, drop_last, train_size is None
        )
        cells = np.arange(self.n_obs)
        if shuffle:
            cells = np.random.RandomState(seed=settings.seed).permutation(cells)
        self.val_idx, self.train_idx, self.test_idx = np.split(cells, [n_val, n_val + n_train])


def _paths(path_or_paths: Any) -> list[FilePath]:
    """Return the paths as a list of at least one."""
    several = isinstance(path_or_paths, Iterable) and not isinstance(path_or_paths, str | bytes)
    paths = list(path_or_paths) if several else [path_or_paths]
    if not paths:
        raise ValueError("path_or_paths is empty; expected at least one path")
    for i, path in enumerate(paths):
        if not isinstance(path, str | bytes | os.PathLike):
            where = f"path_or_paths[{i}]" if several else "path_or_paths"
            raise TypeError(
                f"found {where} of type {type(path).__name__}; expected a path. A model of an AnnData, "
                "in memory or backed, reads with annfeed.scvi.use(model)"
            )
    return paths


def _genes(paths: list[Any], elem: str, var_subset: Any) -> Any:
    """Return ``var_subset``; for files with different genes, the names of the first file's, which all must have."""
    if len(paths) == 1:
        return var_subset
    place = Elem.parse(elem)
    first, *others = [find_names(path, place) for path in paths]
    if all(names.equals(first) for names in others):
        return var_subset
    chosen = column_subset(var_subset, len(first), lambda: first, f"{paths[0]}: 'var'")
    genes = list(first if chosen is None else first[chosen])
    for path, names in zip(paths[1:], others, strict=True):
        if names.is_unique:  # else `AnnDataset` raises
            column_subset(genes, len(names), names.copy, f"{path}: 'var'")
    return genes


def _warn_unless_counts(cells: AnnDataset, elem: str) -> None:
    """Warn, as scvi-tools does in ``setup_anndata``, if the first rows of a file are not counts."""
    for source, rows in zip(cells.sources, cells.source_rows, strict=True):
        if len(rows) == 0:
            raise ValueError(f"found no cells in {source}; expected at least one")
        first = np.array(rows[:100])
        x = cells.reader.load(first).batch(0, len(first))["X"]
        if bool((x < 0).any()) or bool((x != x.round()).any()):
            warn(
                f"{source}: '{elem}' does not hold counts, which models of scvi-tools expect: pass layer= with the raw "
                "counts",
                UserWarning,
            )
