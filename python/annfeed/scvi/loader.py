"""`AnnDataLoader`: a replacement of scvi-tools' loader that reads from disk.

scvi/samplers.py chooses the rows of batches, scvi/dataset.py makes them. It draws from torch's generators exactly what
the stock class draws.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal, Unpack, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, RandomSampler

from annfeed.arrays import integer
from annfeed.display.html import as_html
from annfeed.display.report import Report
from annfeed.display.text import as_repr
from annfeed.inputs.selection import as_positions, row_indices
from annfeed.loading.costly_orders import Reading, warn_of_blocks
from annfeed.loading.description import loader_report
from annfeed.loading.readahead import batches_ahead, read_ahead
from annfeed.loading.slices import SliceBatches, SliceOrder
from annfeed.loading.worker_processes import begin_with_workers, worker_loader
from annfeed.order.sampler_plan import SamplerPlan
from annfeed.order.windows import Window
from annfeed.process.ranks import draw_seed
from annfeed.scvi.dataset import RegistryDataset, RowSubset
from annfeed.scvi.keywords import RegisteredKeywords
from annfeed.scvi.samplers import BatchDistributedSampler, UserBatches, batches_of
from annfeed.sources.file import FileSource


class AnnDataLoader(DataLoader[Any]):
    """A torch DataLoader over the data that scvi-tools registered: the batches of the stock class, read from disk.

    Data on disk (``X`` of a backed AnnData, layers left there) are read in windows ahead of the model. Other data are
    taken from memory, as they are when an epoch begins; workers are started anew in each epoch. Batches are dicts of
    2-D tensors, ``[B, …]``, by registry key.

    Parameters
    ----------
    adata_manager
        The AnnDataManager of an AnnData that was set up: ``model.adata_manager``.
    indices
        Cells in their order: integer positions (repeats allowed, negative ones count from the end) or a boolean mask
        ``[n_obs]``; a list, or an array of numpy, pandas or torch. None for all.
    batch_size
        Cells of a batch; with ``distributed_sampler``, on each rank.
    shuffle
        A new order in each epoch, drawn from ``generator=``, else from torch's global generator.
    sampler
        Iterable of positions in ``indices``, which are grouped by ``batch_size`` and ``drop_last``; or of sequences of
        positions, which are the batches. Excludes ``shuffle``.
    drop_last
        Leave out a last batch that is not full.
    drop_dataset_tail
        With ``distributed_sampler``: leave out the last cells that would make ranks unequal, instead of repeating some.
    data_and_attributes
        Registry keys to deliver, in this order, as a list or as ``{key: numpy dtype}``. None for all, with codes as
        int64 and the rest as float32.
    iter_ndarray
        Deliver numpy arrays instead of tensors. Overrides ``collate_fn``.
    distributed_sampler
        Deliver the share of this rank; ``loader.sampler.set_epoch``, which Lightning calls, then sets the order.
    load_sparse_tensor
        Deliver sparse data as torch sparse CSR tensors (CSC for a CSC matrix in memory).
    window
        Cells read together from disk. More cells read faster and take more memory.
    cache
        Bytes of decoded rows to keep in memory: a number, a text like "4GiB", 0 for none, or "auto" for half of the
        free memory, shared by all datasets of the process and its workers.
    threads
        Threads for reading. None: the cores available to the process (affinity, CPU quota of the container), divided by
        the number of ranks on the machine; 1 in a torch worker.
    io_depth
        Reads in flight on slow storage, as in `annfeed.AnnDataset`.
    **kwargs
        Any other keyword of ``torch.utils.data.DataLoader``. ``num_workers`` and ``persistent_workers`` default to
        ``scvi.settings``.

    Raises
    ------
    TypeError
        If a keyword is unknown, a number is not an integer, or ``indices`` are neither positions nor a mask.
    ValueError
        If a mask has the wrong length, options exclude each other, or one is out of range.
    IndexError
        If an index is out of range.
    KeyError
        If a key is not registered.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> class Manager:  # what scvi-tools makes in setup_anndata
    ...     adata = anndata.AnnData(np.eye(4, dtype="float32"))
    ...     data_registry = {"X": {"attr_name": "X", "attr_key": None}}
    ...     def get_from_registry(self, key):
    ...         return self.adata.X
    >>> loader = AnnDataLoader(Manager(), indices=[3, 0, -1], batch_size=2)
    >>> [batch["X"].argmax(1).tolist() for batch in loader]
    [[3, 0], [3]]
    """

    dataset: RowSubset

    def __init__(
        self,
        adata_manager: Any,
        indices: Sequence[int] | Sequence[bool] | npt.ArrayLike | None = None,
        batch_size: int = 128,
        shuffle: bool = False,
        sampler: Any = None,
        drop_last: bool = False,
        drop_dataset_tail: bool = False,
        data_and_attributes: list[str] | dict[str, npt.DTypeLike] | None = None,
        iter_ndarray: bool = False,
        distributed_sampler: bool = False,
        load_sparse_tensor: bool = False,
        *,
        window: int = 16384,
        cache: str | int = "auto",
        threads: int | None = None,
        io_depth: int | Literal["auto"] = "auto",
        _registered: RegistryDataset | None = None,  # that of another loader over the same AnnData, to share its files
        **kwargs: Unpack[RegisteredKeywords],
    ) -> None:
        if sampler is not None and distributed_sampler:
            raise ValueError("sampler and distributed_sampler=True exclude each other: pass one of them")
        if sampler is not None and shuffle:
            raise ValueError("sampler and shuffle=True exclude each other: the sampler alone decides on the order")
        try:
            batch_size = integer("batch_size", batch_size)
        except TypeError as error:  # torch and the stock class have one class for both
            raise ValueError(str(error)) from None
        window = integer("window", window)
        threads = None if threads is None else integer("threads", threads, or_else=" or None")
        registered = (
            _registered
            if _registered is not None
            else RegistryDataset(
                adata_manager,
                data_and_attributes,
                load_sparse_tensor,
                cache=cache,
                threads=threads,
                io_depth=io_depth,
            )
        )
        self.indices = row_indices(indices, len(registered), lambda: adata_manager.adata.obs_names)
        dataset = RowSubset(registered, self.indices)
        self.window = window
        if sampler is not None:
            sampler = UserBatches(sampler, batch_size, drop_last)
        elif distributed_sampler:
            sampler = BatchDistributedSampler(
                dataset, batch_size, drop_last=drop_last, drop_dataset_tail=drop_dataset_tail, shuffle=shuffle
            )
        else:
            sampler = batches_of(
                dataset,
                batch_size=batch_size,
                shuffle=shuffle,
                drop_last=drop_last,
                generator=kwargs.get("generator"),
            )
        self.kwargs = {**_settings(), **kwargs, "batch_size": None, "shuffle": False, "sampler": sampler}
        if iter_ndarray:
            self.kwargs["collate_fn"] = _as_it_is
        self._rows_of_batch = batch_size
        super().__init__(dataset, **self.kwargs)
        if shuffle:
            self._warn_if_costly()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Deliver an epoch of what the AnnData holds now. Reading begins at the first ``next``."""
        return self.epoch_of(self.dataset.at_epoch())

    def epoch_of(self, rows: RowSubset) -> Iterator[Any]:
        """Deliver an epoch of ``rows``, a copy of the loader's dataset for an epoch."""
        if not rows.dataset.streamed:
            return begin_with_workers(DataLoader(rows, **{**self.kwargs, "persistent_workers": False}))
        if self.num_workers > 0:
            # torch draws the workers' base seed on the default device; the generator may be on another one.
            with torch.device("cpu" if self.generator is None else self.generator.device):
                return chain.from_iterable(begin_with_workers(self._worker_loader(rows)))
        if self.timeout:
            raise ValueError(f"timeout={self.timeout} needs num_workers > 0")
        # torch's own iterator draws a seed for workers here, also without workers: draw it, too.
        draw_seed(self.generator, world=1)
        return self._stream(rows)

    def __repr__(self) -> str:
        """Return dataset, order, batch size, batches, window, cache, threads and workers, one on a line."""
        return as_repr(self._report())

    def _repr_html_(self) -> str:
        """Return the same for notebooks."""
        return as_html(self._report())

    def _report(self) -> Report:
        registered, sampler = self.dataset.dataset, cast(Any, self.sampler)
        is_users = isinstance(sampler, UserBatches)
        shuffles = getattr(sampler, "shuffle", isinstance(getattr(sampler, "sampler", None), RandomSampler))
        order = "shuffled" if shuffles else "that of the dataset"
        return loader_report(
            self,
            f"that of a {type(sampler.sampler).__name__}" if is_users else order,
            None if is_users else len(sampler),
            self._rows_of_batch,
            f"{self.window:,} rows" if registered.streamed else "none, as all is in memory",
            registered.cache,
            registered.threads,
            self._n_ahead(registered),
        )

    def _warn_if_costly(self) -> None:
        registered, n_rows = self.dataset.dataset, len(self.dataset)
        matrix = registered.matrix_with_headers()
        if matrix is not None and isinstance(matrix.source, FileSource):
            share = n_rows / max(1, len(registered))
            how = Reading(
                repr(self.dataset), n_rows, matrix.n_vars, share, n_rows, self.window, registered.cache, False
            )
            warn_of_blocks(matrix.source, how, 1)

    def _n_ahead(self, registered: RegistryDataset) -> int:
        return batches_ahead(self._rows_of_batch * registered.row_bytes)

    def _stream(self, rows: RowSubset) -> Iterator[Any]:
        n_ahead = self._n_ahead(rows.dataset)
        pin = self.pin_memory and torch.cuda.is_available()
        for batch in read_ahead(rows, self._windows(self.window), n_ahead):
            done: Any = self.collate_fn(batch)  # type: ignore[arg-type]
            yield torch.utils.data._utils.pin_memory.pin_memory(done) if pin else done

    def _worker_loader(self, rows: RowSubset) -> DataLoader[Any]:
        """Return the loader of new worker processes, which together hold ``window`` rows."""
        order = SliceOrder(rows.dataset.row_bytes)
        order.windows = self._windows(max(self.window // self.num_workers, 1))
        batches = SliceBatches(rows, partial(_collated, collate_fn=self.collate_fn))
        return worker_loader(self, batches, order, generator=self.generator, persistent_workers=False)

    def _windows(self, n_rows: int) -> Iterator[Window]:
        """Return the windows of an epoch, with the batches of the sampler."""
        plan = SamplerPlan(sampler=_Positions(self), n_rows=len(self.dataset), batch_size=None, window=n_rows)
        return plan.windows()


class _Positions:
    """The batches of a loader's sampler as positions from 0."""

    def __init__(self, loader: AnnDataLoader) -> None:
        self._sampler = loader.sampler
        self._n = len(loader.dataset)

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        return (as_positions(batch, self._n) for batch in self._sampler)


def _settings() -> dict[str, Any]:
    """Return the settings for loaders in `scvi.settings`, if scvi-tools is imported."""
    settings = getattr(sys.modules.get("scvi"), "settings", None)
    return {
        "num_workers": getattr(settings, "dl_num_workers", 0),
        "persistent_workers": getattr(settings, "dl_persistent_workers", False),
    }


def _as_it_is(batch: Any) -> Any:
    return batch


def _collated(rows: RowSubset, batch: Any, collate_fn: Any) -> Any:
    return collate_fn(batch)
