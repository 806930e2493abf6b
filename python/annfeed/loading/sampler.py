"""`PlanSampler`: the plans of epochs as a sampler for torch and Lightning.

It counts epochs and finds seed and rank. The order is computed in order/epoch.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.data.distributed import DistributedSampler

from annfeed.arrays import Int64Array
from annfeed.loading.description import in_a_line
from annfeed.loading.epochs import Epoch, begun
from annfeed.loading.label_columns import KnownLabels
from annfeed.loading.state import Position, Progress
from annfeed.order.auto_blocks import auto_blocks, describe, log
from annfeed.order.epoch import EpochPlan
from annfeed.order.orders import Blocks, FileOrder, Given, Order, Shuffled
from annfeed.order.random import row_key
from annfeed.order.sets import Sets
from annfeed.order.shards import Uneven
from annfeed.order.weighted import Weighted
from annfeed.order.weights import Weighting
from annfeed.process.ranks import draw_seed, known_rank_and_world, rank_and_world
from annfeed.user_arrays import as_array

if TYPE_CHECKING:
    from annfeed.loading.protocols import Rows


#: Methods that the loader uses, which are of no use to others.
_INTERNAL = {
    "begin",
    "begin_epoch",
    "draws_anew",
    "in_words",
    "n_known",
    "order",
    "plan",
    "progress",
    "remainder",
    "resume",
    "undropped",
}


class PlanSampler(DistributedSampler[int]):
    """The order of a loader, ``loader.sampler``: iterating it gives the positions of the next epoch, of this rank.

    ``set_epoch(epoch)`` sets the number of the next epoch, ``epoch`` is that number, and ``blocks`` describes the runs
    of rows that stay together. It is a DistributedSampler because Lightning replaces other samplers under DDP.

    Parameters
    ----------
    dataset
        Its length and window are read at each epoch.
    batch_size, shuffle, block_size, seed, drop_last, uneven, order
        As in `AnnDataset.get_optimized_dataloader`.
    generator
        Generator to draw seeds from with ``seed=None``; None for torch's global generator.
    weighting
        Expected count of each row; None for one.
    sets
        The order, if batches are of sets of cells.
    labels
        The obs columns of which sets were made; an epoch does not begin if they have changed.

    Examples
    --------
    >>> import anndata
    >>> from annfeed import AnnDataset
    >>> dataset = AnnDataset(anndata.AnnData(np.eye(6, dtype="float32")))
    >>> sampler = dataset.get_optimized_dataloader(2, block_size=3, seed=0).sampler
    >>> sampler.set_epoch(4)
    >>> sampler.epoch, sampler.blocks, sorted(sampler)
    (4, 'blocks of 3 neighbouring rows', [0, 1, 2, 3, 4, 5])
    """

    def __init__(
        self,
        dataset: Rows,
        batch_size: int,
        shuffle: bool = True,
        block_size: int | Literal["auto"] = 1,
        seed: int | None = None,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
        *,
        uneven: Uneven = "pad",
        weighting: Weighting | None = None,
        order: Callable[[int], Any] | None = None,
        sets: Sets | None = None,
        labels: KnownLabels | None = None,
    ) -> None:
        if isinstance(block_size, str) and block_size != "auto":
            raise ValueError(f"block_size is {block_size!r}; expected a positive integer or 'auto'")
        # Not super().__init__: it needs the process group now, but ranks are looked up at the first batch.
        self.dataset: Any = dataset
        self.blocks = f"blocks of {block_size} neighbouring rows" if block_size != 1 else "single rows"
        self.epoch = 0
        #: Progress of the loader; it is here because Lightning calls this class's ``set_epoch``.
        self.progress = Progress()
        self.shuffle = shuffle
        self.drop_last = drop_last
        #: Whether what is drawn in rows is drawn anew in each epoch.
        self.draws_anew = True
        self._seed = seed
        self._generator = generator
        self._given = order
        self._labels = labels
        self._asked: tuple[int, Int64Array] | None = None  # the epoch of the last call of ``order``, and its positions
        if sets is not None:
            self.blocks = sets.in_words
        auto = self._auto_blocks(dataset) if shuffle and block_size == "auto" and order is None else None
        if auto is not None and weighting is not None:
            # Drawn rows have no chunk borders: use runs of the mean length of a decode unit.
            block_size = max(1, len(dataset) // len(auto))
        single = Shuffled(1 if block_size == "auto" else block_size)
        #: For saved states: version 0.1 has the block size in states of file order, too.
        self._block_size = single.block_size
        spec: Order = single
        if sets is not None:
            spec = sets
        elif weighting is not None:
            if not shuffle:
                raise ValueError("weights given with shuffle=False; draws have no file order: use shuffle=True")
            spec = Weighted(weighting, single.block_size)
        elif not shuffle:
            spec = FileOrder()
        elif auto is not None:
            spec = Blocks(auto)
        self._plan = EpochPlan(
            n_rows=len(dataset),
            batch_size=batch_size,
            window=dataset.window,
            order=spec,
            seed=0 if seed is None else seed,
            drop_last=drop_last,
            uneven=uneven,
        )

    def _auto_blocks(self, dataset: Rows) -> Int64Array | None:
        units = dataset.reader.unit_starts()
        if units is None or len(units) == 0:
            self.blocks = "single rows: any row can be read by itself"
            log.info("%s: block_size='auto' chose %s", in_a_line(dataset), self.blocks)
            return None
        n_rows = len(dataset)
        starts = auto_blocks(units, n_rows, dataset.window)
        self.blocks = describe(starts, n_rows, n_rows / len(units))
        log.info("%s: block_size='auto' chose %s", in_a_line(dataset), self.blocks)
        return starts

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """Number of ranks."""
        return rank_and_world()[1]

    @property
    def rank(self) -> int:  # type: ignore[override]
        """This process's rank."""
        return rank_and_world()[0]

    @property
    def plan(self) -> EpochPlan | None:
        """The plan of an epoch, without its seed, number and rank; None for an order of the user's."""
        return self._plan if self._given is None else None

    @property
    def n_batches(self) -> int:
        """Batches that this rank delivers in an epoch."""
        return -(-len(self) // self._plan.batch_size)

    @property
    def n_known(self) -> int | None:
        """`n_batches`, or None if a user's order was not called yet."""
        return None if self._given is not None and self._asked is None else self.n_batches

    @property
    def remainder(self) -> int:
        """The rows of all ranks' last batches together, without repeats.

        It is 0 if all are full, and -1 with ``drop_last`` or sets.
        """
        if self.drop_last or isinstance(self._plan.order, Sets):
            return -1
        world = rank_and_world()[1]
        shards = [self._plan_of(None).shard(rank, world) for rank in range(world)]
        return sum(shard.n_delivered - shard.n_padding for shard in shards) % (self._plan.batch_size * world)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch; a loaded place is kept if it is in this epoch, else discarded."""
        self.epoch = epoch
        self.progress.set_epoch(epoch)

    def resume(self, place: Position, order: Mapping[str, Any]) -> None:
        """Continue from ``place`` in the next epoch, with the block order of the saved state."""
        self._plan = self._plan_as_saved(order)
        self.set_epoch(place.epoch)
        self.progress.load(place)

    def undropped(self) -> PlanSampler:
        """Return a sampler of the same order that delivers each row exactly once over all ranks, for prediction."""
        whole = copy(self)
        whole.progress, whole.drop_last = Progress(), False
        whole._plan = replace(self._plan, drop_last=False, uneven="keep")
        return whole

    def order(self, saved: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what determines the order, for a saved state; with ``saved``, with the block order of that state."""
        plan = self._plan if saved is None else self._plan_as_saved(saved)
        given = {} if self._given is None else {"order": self._name_of_given()}
        here = {"block_size": self._block_size, "seed": self._seed, "world": rank_and_world()[1]}
        return plan.state() | here | given

    def in_words(self) -> str:
        """Return a description of the order."""
        if self._given is not None:
            return f"positions of {self._name_of_given()}"
        if not self.shuffle:
            return "that of the dataset"
        order = self._plan.order
        by_weight = isinstance(order, Weighted) or (isinstance(order, Sets) and order.weighting is not None)
        drawn = "drawn by weight" if by_weight else "shuffled"
        return f"{drawn}, {self.blocks}; {'a new seed each epoch' if self._seed is None else f'seed {self._seed}'}"

    def _name_of_given(self) -> str:
        return str(getattr(self._given, "__name__", type(self._given).__name__))

    def begin_epoch(self) -> Epoch:
        """Begin the next epoch, or the rest of it if its place was loaded, and count it."""
        plan = self.begin()
        return begun(
            self.progress, plan, plan.epoch, plan.seed, (plan.seed, plan.epoch, plan.rank), self._draw_key(plan)
        )

    def _draw_key(self, plan: EpochPlan) -> int:
        """Return the key of what is drawn in rows, the same on all ranks and when the epoch is resumed."""
        seed = plan.seed if self._seed is not None or self._draws_order else 0
        return row_key(seed, plan.epoch if self.draws_anew else 0)

    def begin(self) -> EpochPlan:
        """Return the plan of the next epoch and count it; StaleDataError if it was made of other labels."""
        if self._labels is not None:
            self._labels.check(self.dataset)
        rank, world = known_rank_and_world()
        loaded = self.progress.loaded
        seed = self._seed if loaded is None or loaded.seed is None else loaded.seed
        if seed is None:
            # In file order the ranks need no common seed; each draws its own for its workers, as torch's loader does.
            seed = draw_seed(self._generator, world if self._draws_order else 1)
        plan = replace(self._plan_of(self.epoch), seed=seed, epoch=self.epoch, rank=rank, world=world)
        self.epoch += 1
        return plan

    @property
    def _draws_order(self) -> bool:
        """Whether the order is drawn, so that ranks need a common seed."""
        return self.shuffle and self._given is None

    def _plan_as_saved(self, order: Mapping[str, Any]) -> EpochPlan:
        return replace(self._plan, order=self._plan.order.as_saved(order))

    def _plan_of(self, epoch: int | None) -> EpochPlan:
        """Return the plan with a user's positions of ``epoch``; with None, of the last epoch that was computed."""
        if self._given is None:
            return self._plan
        if self._asked is None or (epoch is not None and self._asked[0] != epoch):
            number = self.epoch if epoch is None else epoch
            self._asked = number, given_positions(self._given, number, self._plan.n_rows)
        return replace(self._plan, order=Given(self._asked[1]))

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of the next epoch in order."""
        for window in self.begin().windows():
            yield from window.positions.tolist()

    def __repr__(self) -> str:
        """Return rows, order, seed, and the number of the next epoch."""
        rows = "" if self.n_known is None else f"{len(self):,} of {self._plan.n_rows:,} rows, "
        return f"{type(self).__name__}({rows}{self.in_words()}; epoch {self.epoch} comes next)"

    def __dir__(self) -> list[str]:
        """Return the public names, for completion."""
        return [name for name in super().__dir__() if name not in _INTERNAL and (name[0] != "_" or name[:2] == "__")]

    def __len__(self) -> int:
        """Return the number of positions (or sets) of this rank in an epoch (with a user's order, in the last one)."""
        return self._plan_of(None).shard(*rank_and_world()).n_delivered


def given_positions(order: Callable[[int], Any], epoch: int, n_rows: int) -> Int64Array:
    """Return the positions that a user's order gives for an epoch, int64 [n].

    Raises
    ------
    TypeError
        If they are not one-dimensional integers.
    IndexError
        If one is outside 0..n_rows-1.

    Examples
    --------
    >>> given_positions(lambda epoch: [epoch, 0], 2, n_rows=3)
    array([2, 0])
    """
    positions = as_array(f"order({epoch})", order(epoch))
    if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
        raise TypeError(
            f"order({epoch}) gave {positions.dtype} of shape {positions.shape}; expected positions: integers in one "
            "dimension"
        )
    outside = positions[(positions < 0) | (positions >= n_rows)]
    if outside.size:
        raise IndexError(f"order({epoch}) gave position {outside[0]}; the dataset has rows 0..{n_rows - 1}")
    return positions.astype(np.int64)
