"""`WindowLoader`: a torch DataLoader that reads windows ahead of the model, in the order of an `EpochPlan`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, Unpack

import torch
from torch.utils.data import BatchSampler, DataLoader

from annfeed.arrays import integer
from annfeed.batches.items import Batch, LoaderCollate
from annfeed.display.html import as_html
from annfeed.display.report import Report
from annfeed.display.text import as_repr
from annfeed.loading.cell_sets import CellSets
from annfeed.loading.costly_orders import warn_if_costly
from annfeed.loading.description import in_a_line, loader_report
from annfeed.loading.given_sampler import GivenSampler, predict_all
from annfeed.loading.hf_accelerate import Prepared, asked_by
from annfeed.loading.kept_workers import LoaderWorkers
from annfeed.loading.keywords import WorkerKeywords
from annfeed.loading.label_columns import Columns
from annfeed.loading.readahead import batches_ahead, read_ahead
from annfeed.loading.sampler import PlanSampler
from annfeed.loading.set_order import counted, sets_order
from annfeed.loading.state import as_position, as_state, order_of
from annfeed.loading.weighting import find_weighting
from annfeed.order.shards import Uneven
from annfeed.order.windows import Window
from annfeed.process.ranks import rank_and_world

if TYPE_CHECKING:
    from annfeed.loading.protocols import Reads, Rows


class WindowLoader(DataLoader[Batch]):
    """A torch DataLoader that reads windows of rows; `AnnDataset.get_optimized_dataloader` has its parameters.

    Batches are the same for any number of threads and workers. An epoch delivers what AnnData objects hold when it
    begins, with the transform that the dataset has then. Under torch.distributed (or with RANK and WORLD_SIZE) each
    rank delivers its own share, in equally many batches. ``persistent_workers`` is True by default for a dataset of
    paths; for an AnnData, workers are started anew in each epoch.

    Raises
    ------
    TypeError
        If a keyword is unknown, or a number is not an integer.
    ValueError
        If a value is out of range, or options exclude each other.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> from annfeed import AnnDataset
    >>> loader = WindowLoader(AnnDataset(anndata.AnnData(np.eye(4, dtype="float32"))), batch_size=2, seed=1)
    >>> len(loader), [batch["X"].argmax(1).tolist() for batch in loader]
    (2, [[1, 3], [2, 0]])
    """

    #: The order of the loader; with ``sampler=`` that of the user.
    sampler: PlanSampler

    def __init__(
        self,
        dataset: Rows,
        batch_size: int | None = 32,
        shuffle: bool = True,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Any = None,
        *,
        block_size: int | Literal["auto"] = 1,
        seed: int | None = None,
        drop_last: bool = False,
        prefetch_batches: int | None = None,
        return_index: bool | None = None,
        generator: torch.Generator | None = None,
        weights: Any = None,
        balance: str | None = None,
        temperature: float = 1.0,
        replacement: bool = True,
        n_samples: int | None = None,
        order: Callable[[int], Any] | None = None,
        uneven: Uneven = "pad",
        sets: CellSets | None = None,
        **kwargs: Unpack[WorkerKeywords],
    ) -> None:
        if batch_size is None and isinstance(sampler, BatchSampler) and batch_sampler is None:
            batch_size, sampler, batch_sampler = 1, None, sampler  # torch's documented use: the sampler gives batches
        if batch_size is not None:
            batch_size = integer("batch_size", batch_size)
        elif batch_sampler is None:
            raise ValueError("batch_size is None; expected an integer. A plain DataLoader gives single items")
        plan = sampler if isinstance(sampler, PlanSampler) else None
        if plan is None and sampler is None and batch_sampler is None:
            drawn = (weights, balance, temperature, replacement, n_samples)
            if sets is not None and (block_size != 1 or order is not None):
                name, value = ("order", order) if block_size == 1 else ("block_size", block_size)
                raise ValueError(f"{name}={value!r} given with sets=, which is an order itself; pass one of them")
            columns = Columns(dataset)
            set_order = None if sets is None else sets_order(dataset, sets, shuffle, *drawn, columns)
            weighting = find_weighting(dataset, *drawn) if sets is None else None
            if order is not None and weighting is not None:
                raise ValueError("order excludes weights and balance: it says itself how often each row comes")
            if order is not None and not callable(order):
                raise TypeError(
                    f"order is a {type(order).__name__}; expected a function of the number of the epoch that returns "
                    "positions (an iterable of positions goes to sampler=)"
                )
            plan = PlanSampler(
                dataset,
                batch_size or 1,
                shuffle,
                block_size,
                seed,
                drop_last,
                generator,
                uneven=uneven,
                weighting=weighting,
                order=order,
                sets=set_order,
                labels=columns.known(),
            )
        elif plan is None and not isinstance(getattr(batch_sampler, "sampler", None), PlanSampler):
            ours = {"weights": weights, "balance": balance, "n_samples": n_samples, "order": order, "sets": sets}
            for name, value in ours.items():
                if value is not None:
                    raise ValueError(f"{name} given with a sampler, which alone says what comes when; pass one of them")
        if batch_sampler is not None:
            predict_all(batch_sampler)
            # torch's own check and message.
            keywords: dict[str, Any] = {"batch_sampler": batch_sampler, "sampler": sampler}
            if batch_size not in (1, 32) or drop_last:
                raise ValueError("batch_sampler excludes batch_size, shuffle, sampler, and drop_last")
        else:
            keywords = {"batch_size": batch_size, "sampler": sampler if plan is None else plan, "drop_last": drop_last}
        self.block_size = block_size
        self.seed = seed
        self.shuffle = shuffle
        if prefetch_batches is None:
            rows = 1 if plan is None or plan.plan is None else plan.plan.rows_per_unit
            prefetch_batches = batches_ahead((batch_size or 1) * rows * dataset.reader.row_bytes)
        self.weights = weights
        self.balance = balance
        self.temperature = temperature
        self.replacement = replacement
        self.n_samples = n_samples
        self.order = order
        self.prefetch_batches = integer("prefetch_batches", prefetch_batches, 0)
        self.uneven = uneven
        self.sets = sets
        self.return_index = dataset.reader.return_index if return_index is None else return_index
        # The next epoch can use the workers' caches.
        kwargs.setdefault("persistent_workers", num_workers > 0 and dataset.reader.is_of_file)
        self._workers = LoaderWorkers()
        self._prepared: Prepared | None = None
        super().__init__(
            dataset,  # type: ignore[arg-type]  # torch's word for it is Dataset
            num_workers=num_workers,
            collate_fn=LoaderCollate(dataset.get_collate_fn() if collate_fn is None else collate_fn),
            generator=generator,
            **keywords,
            **kwargs,
        )
        self._epochs: PlanSampler | GivenSampler
        if plan is not None:
            self._epochs = plan
            warn_if_costly(dataset, plan.plan)
        elif batch_sampler is not None:
            self._epochs = GivenSampler(batch_sampler, dataset, None, False, seed, generator)
        else:
            self._epochs = GivenSampler(self.sampler, dataset, self.batch_size, self.drop_last, seed, generator)

    @property
    def _is_accelerate_prepared(self) -> bool:
        """Whether an accelerator prepared the loader; reading it in ``accelerator.prepare`` prepares it."""
        asked = asked_by(sys._getframe(1))
        if asked is not None:
            self._prepared = asked
            # Accelerate's save_state and load_state then include the loader's state.
            self.use_stateful_dataloader = True
        return self._prepared is not None

    @_is_accelerate_prepared.setter
    def _is_accelerate_prepared(self, prepared: bool) -> None:
        pass  # Accelerate sets it on what it prepared.

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch, as ``sampler.set_epoch`` does; by default epochs are counted from 0.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> from annfeed import AnnDataset
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(4, dtype="float32")))
        >>> loader = dataset.get_optimized_dataloader(batch_size=4, order=lambda epoch: [epoch])
        >>> loader.set_epoch(3)
        >>> next(iter(loader))["X"]
        tensor([[0., 0., 0., 1.]])
        """
        self._epochs.set_epoch(epoch)

    def __len__(self) -> int:
        """Return the number of batches that this rank delivers in an epoch."""
        return self._epochs.n_batches

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Deliver an epoch, which begins at the first ``next``: then seed, number and rank are taken, and it reads."""
        return self._epoch()

    def state_dict(self) -> dict[str, Any]:
        """Return the place of the loader in its epoch, for `load_state_dict`: a small dict of numbers and texts.

        It counts delivered batches, not those made ahead. The states of all ranks are equal except for "rank", and each
        fits every rank. After the last batch of an epoch, it is the beginning of the next epoch.

        Raises
        ------
        ValueError
            If workers may deliver batches in another order (``in_order=False``).

        Examples
        --------
        >>> import anndata, numpy as np
        >>> from annfeed import AnnDataset
        >>> loader = AnnDataset(anndata.AnnData(np.eye(4, dtype="float32"))).get_optimized_dataloader(2, seed=7)
        >>> batch = next(iter(loader))
        >>> [loader.state_dict()[key] for key in ("epoch", "batch", "seed")]
        [0, 1, 7]
        """
        self._check_in_order()
        place = self._epochs.progress.at(self._epochs.epoch)
        return as_state(place, self._epochs.order(), self._rows.reader.fingerprint(), rank_and_world()[0])

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue, in the next iteration, the epoch in which ``state_dict`` was saved.

        The batches are exactly those that would have come, for any number of workers. Rows that were delivered are not
        read again. ``sampler.set_epoch`` with the number of another epoch discards the place.

        Raises
        ------
        ValueError
            If it is not a state, or a state of other data or of another order (batch size, seed, ranks, …); the message
            names what differs.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> from annfeed import AnnDataset
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(4, dtype="float32")))
        >>> loader, again = (dataset.get_optimized_dataloader(batch_size=1, shuffle=False) for _ in range(2))
        >>> batch = next(iter(loader))
        >>> again.load_state_dict(loader.state_dict())
        >>> [batch["X"].argmax().item() for batch in again]
        [1, 2, 3]
        """
        self._check_in_order()
        what = in_a_line(self.dataset)
        saved = order_of(state_dict, what)
        data, rank = self._rows.reader.fingerprint(), rank_and_world()[0]
        self._epochs.resume(as_position(state_dict, self._epochs.order(saved), data, rank, what), saved)

    def _epoch(self) -> Iterator[Any]:
        has_controls = self.sets is not None and self.sets.controls is not None
        reads = self._rows.reader.at_epoch(self.return_index, has_controls)
        if self.num_workers > 0 and reads.device is not None:
            raise ValueError(
                f"found num_workers={self.num_workers} and rows preloaded on {reads.device}; expected num_workers=0, "
                "as this process makes the batches there. Pass num_workers=0, or preload() without a device"
            )
        epoch = self._epochs.begin_epoch()
        windows = epoch.windows if self.sets is None else counted(epoch.windows, self._rows.reader.counts)
        reads.draw_key = epoch.draw_key
        if self.num_workers > 0:
            batches = self._workers.batches(self, reads, windows, epoch.seed, self._collate)
        else:
            batches = self._from_threads(reads, windows)
        if self._prepared is not None:
            batches = self._prepared.follow(self, batches, self._epochs.remainder)
        progress = self._epochs.progress
        with closing(batches):
            for batch in batches:
                progress.delivered(epoch.place, epoch.plan.next_proof())
                yield batch
        progress.ended(epoch.place)

    def _from_threads(self, reads: Reads, windows: Iterator[Window]) -> Generator[Any]:
        pin = bool(self.pin_memory and torch.cuda.is_available() and self._rows.reader.device is None)
        # Matrices are made in page-locked memory; obs and new tensors of transforms are copied to it.
        reads.pin_batches(pin)
        with closing(read_ahead(reads, windows, self.prefetch_batches)) as batches:
            for batch in batches:
                done = reads.postprocess(batch, self._collate)
                yield torch.utils.data._utils.pin_memory.pin_memory(done) if pin else done

    @property
    def _collate(self) -> Any:
        """The collate function itself; the attribute is a `LoaderCollate`."""
        return LoaderCollate(self.collate_fn).__wrapped__

    @property
    def _rows(self) -> Rows:
        return self.dataset  # type: ignore[return-value]  # torch's word for it is Dataset

    def _check_in_order(self) -> None:
        if self.num_workers > 0 and not getattr(self, "in_order", True):
            raise ValueError("in_order=False: workers deliver in no order, which no state can tell; pass in_order=True")

    def __repr__(self) -> str:
        """Return dataset, order, batch size, batches, window, cache, threads and workers, one on a line."""
        return as_repr(self._report())

    def _repr_html_(self) -> str:
        """Return the same for notebooks."""
        return as_html(self._report())

    def _report(self) -> Report:
        rows, epochs = self._rows, self._epochs
        return loader_report(
            self,
            epochs.in_words(),
            epochs.n_known,
            self.batch_size,
            f"{rows.window:,} rows",
            rows.cache,
            rows.reader.threads,
            self.prefetch_batches,
            unit="rows" if self.sets is None else "sets",
        )

    def __dir__(self) -> list[str]:
        """Return the public names, for completion."""
        return [name for name in super().__dir__() if name[0] != "_" or name.startswith("__")]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": None}
