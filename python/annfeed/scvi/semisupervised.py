"""`ConcatDataLoader` and `SemiSupervisedDataLoader`: tuples of batches of several loaders, for SCANVI.

The longest loader makes the epoch; a shorter one begins again, in a new order, as often as needed. Its batches are not
kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Sampler

from annfeed.arrays import Int64Array
from annfeed.inputs.selection import row_indices
from annfeed.scvi.dataset import RegistryDataset, RowSubset
from annfeed.scvi.loader import AnnDataLoader
from annfeed.scvi.samplers import BatchDistributedSampler

#: With several ranks, further passes of a shorter loader have epoch numbers this far from the real ones.
_PASS = 1_000_003


class ConcatDataLoader(DataLoader[Any]):
    """Loaders over several lists of cells of one AnnData; each step gives a tuple with a batch of each.

    Parameters
    ----------
    adata_manager
        As in `annfeed.AnnDataLoader`.
    indices_list
        Cells of each loader: positions or masks.
    shuffle, batch_size, data_and_attributes, drop_last, distributed_sampler
        Options of each loader, as in `annfeed.AnnDataLoader`.
    **data_loader_kwargs
        Any other argument of `annfeed.AnnDataLoader`.

    Raises
    ------
    ValueError
        If there are no lists, or one has no batches while another has some.

    Examples
    --------
    >>> import anndata
    >>> class Manager:  # what scvi-tools makes in setup_anndata
    ...     adata = anndata.AnnData(np.eye(4, dtype="float32"))
    ...     data_registry = {"X": {"attr_name": "X", "attr_key": None}}
    ...     def get_from_registry(self, key):
    ...         return self.adata.X
    >>> loader = ConcatDataLoader(Manager(), [[0, 1, 2], [3]], batch_size=2)
    >>> [[batch["X"].argmax(1).tolist() for batch in step] for step in loader]
    [[[0, 1], [3]], [[2], [3]]]
    """

    def __init__(
        self,
        adata_manager: Any,
        indices_list: Sequence[Any],
        shuffle: bool = False,
        batch_size: int = 128,
        data_and_attributes: list[str] | dict[str, npt.DTypeLike] | None = None,
        drop_last: bool = False,
        distributed_sampler: bool = False,
        **data_loader_kwargs: Any,
    ) -> None:
        if len(indices_list) == 0:
            raise ValueError("indices_list is empty; expected at least one list of cells")
        self.adata_manager = adata_manager
        self.data_loader_kwargs = data_loader_kwargs
        self.data_and_attributes = data_and_attributes
        self._shuffle = shuffle
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._distributed_sampler = distributed_sampler
        self._registered: RegistryDataset | None = None
        self.dataloaders = [self._loader(indices) for indices in indices_list]
        lengths = [len(loader) for loader in self.dataloaders]
        if max(lengths) > 0 and min(lengths) == 0:
            raise ValueError(f"the loaders have {lengths} batches; one without any cannot go along with the others")
        self.largest_dl = self.dataloaders[int(np.argmax(lengths))]
        largest = self.largest_dl
        super().__init__(
            largest,  # type: ignore[arg-type]
            sampler=_Epochs(self),
            num_workers=largest.num_workers,
            pin_memory=largest.pin_memory,
            persistent_workers=largest.persistent_workers,
        )

    def __len__(self) -> int:
        """Return the number of batches of the longest loader."""
        return len(self.largest_dl)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Deliver an epoch: tuples of batches, in the order of ``indices_list``."""
        now = self.largest_dl.dataset.dataset.at_epoch()  # the same for all, and for all passes of a shorter one
        # The longest last, as in scvi-tools: each draws a seed here.
        shorter = {id(loader): _begun(loader, now) for loader in self.dataloaders if loader is not self.largest_dl}
        begun = [(loader, shorter.get(id(loader))) for loader in self.dataloaders]
        return self._steps([(loader, batches or _begun(loader, now)) for loader, batches in begun], now)

    def _steps(self, begun: list[tuple[AnnDataLoader, Iterator[Any]]], now: RegistryDataset) -> Iterator[Any]:
        cycles = [
            batches if loader is self.largest_dl else _repeated(loader, batches, now) for loader, batches in begun
        ]
        # A loader without a batch left, for example because its sampler ends early, ends the epoch.
        yield from islice(zip(*cycles, strict=False), len(self))

    def _loader(self, indices: Any) -> AnnDataLoader:
        loader = AnnDataLoader(
            self.adata_manager,
            indices=indices,
            shuffle=self._shuffle,
            batch_size=self._batch_size,
            data_and_attributes=self.data_and_attributes,
            drop_last=self._drop_last,
            distributed_sampler=self._distributed_sampler,
            _registered=self._registered,
            **self.data_loader_kwargs,
        )
        self._registered = loader.dataset.dataset  # all loaders share the open file and the cache
        return loader


class SemiSupervisedDataLoader(ConcatDataLoader):
    """Pairs of batches, of all cells and of labelled cells.

    Parameters
    ----------
    adata_manager
        As in `annfeed.AnnDataLoader`; it must have labels, one of which marks unlabelled cells.
    n_samples_per_label
        Most labelled cells of each label in an epoch, drawn by `resample_labels`; None for all.
    indices
        Cells: positions or a mask; None for all.
    shuffle, batch_size, data_and_attributes, drop_last
        As in `annfeed.AnnDataLoader`.
    **data_loader_kwargs
        Any other argument of `annfeed.AnnDataLoader`.

    Raises
    ------
    ValueError
        If none of the cells is labelled.

    Examples
    --------
    >>> import scvi
    >>> adata = scvi.data.synthetic_iid()
    >>> scvi.model.SCANVI.setup_anndata(adata, labels_key="labels", unlabeled_category="label_0")
    >>> loader = SemiSupervisedDataLoader(scvi.model.SCANVI(adata).adata_manager, batch_size=100)
    >>> all_cells, labelled = next(iter(loader))
    >>> all_cells["X"].shape, 2 in all_cells["labels"], 2 in labelled["labels"]  # 2 is the code of unlabelled cells
    (torch.Size([100, 100]), True, False)
    """

    def __init__(
        self,
        adata_manager: Any,
        n_samples_per_label: int | None = None,
        indices: Any = None,
        shuffle: bool = False,
        batch_size: int = 128,
        data_and_attributes: list[str] | dict[str, npt.DTypeLike] | None = None,
        drop_last: bool = False,
        **data_loader_kwargs: Any,
    ) -> None:
        self.n_samples_per_label = n_samples_per_label
        self.indices = row_indices(indices, int(adata_manager.adata.shape[0]), lambda: adata_manager.adata.obs_names)
        self.labeled_locs = _cells_by_label(adata_manager, self.indices)
        if not any(map(len, self.labeled_locs)):
            raise ValueError(f"none of the {len(self.indices)} cells has a label; expected at least one")
        super().__init__(
            adata_manager,
            [self.indices, self.subsample_labels()],
            shuffle=shuffle,
            batch_size=batch_size,
            data_and_attributes=data_and_attributes,
            drop_last=drop_last,
            **data_loader_kwargs,
        )

    def resample_labels(self) -> None:
        """Draw the labelled cells of the next epoch; scvi-tools calls it before each epoch."""
        if self.n_samples_per_label is None:
            return
        labelled, before = self._loader(self.subsample_labels()), self.dataloaders[1]
        if isinstance(before.sampler, BatchDistributedSampler):
            _set_epoch(labelled, before.sampler.epoch)
        self.dataloaders[1] = labelled

    def subsample_labels(self) -> Int64Array:
        """Return at most ``n_samples_per_label`` cells of each label, drawn with numpy's global generator."""
        n = self.n_samples_per_label
        chosen = [
            cells if n is None or len(cells) < n else np.random.choice(cells, n, replace=False)  # noqa: NPY002
            for cells in self.labeled_locs
        ]
        return np.concatenate(chosen)


class _Epochs(Sampler[int]):
    """A sampler whose ``set_epoch``, which Lightning calls, sets the epoch of all loaders."""

    def __init__(self, loader: ConcatDataLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._loader)))

    def __len__(self) -> int:
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        for loader in self._loader.dataloaders:
            _set_epoch(loader, epoch)


def _set_epoch(loader: AnnDataLoader, epoch: int) -> None:
    sampler: Any = loader.sampler
    if callable(getattr(sampler, "set_epoch", None)):
        sampler.set_epoch(epoch)


def _begun(loader: AnnDataLoader, now: RegistryDataset) -> Iterator[Any]:
    return loader.epoch_of(RowSubset(now, loader.indices))


def _repeated(loader: AnnDataLoader, batches: Iterator[Any], now: RegistryDataset) -> Iterator[Any]:
    """Yield the batches of a pass that has begun, then those of further passes, each in a new order."""
    yield from batches
    for number in count(1):
        with _as_pass(loader, number):
            again = _begun(loader, now)
            first = next(again, None)
        if first is None:
            return
        yield first
        yield from again


@contextmanager
def _as_pass(loader: AnnDataLoader, number: int) -> Iterator[None]:
    """With several ranks, whose order is a function of the epoch, give a further pass its own epoch number."""
    sampler = loader.sampler
    if not isinstance(sampler, BatchDistributedSampler):
        yield
        return
    epoch = sampler.epoch
    sampler.set_epoch(epoch + number * _PASS)
    try:
        yield
    finally:
        sampler.set_epoch(epoch)


def _cells_by_label(adata_manager: Any, indices: Int64Array) -> list[Int64Array]:
    """Return the cells among ``indices`` of each label except the one for unlabelled cells."""
    place, state = adata_manager.data_registry["labels"], adata_manager.get_state_registry("labels")
    module = getattr(place, "mod_key", None)
    adata = adata_manager.adata if module is None else adata_manager.adata.mod[module]
    labels = np.asarray(getattr(adata, place.attr_name)[state.original_key])
    wanted = [label for label in np.unique(labels) if label != state.unlabeled_category]
    return [indices[labels[indices] == label] for label in wanted]
