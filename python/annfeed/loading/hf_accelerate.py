"""Hugging Face Accelerate: ``accelerator.prepare`` returns our loader itself, which then delivers on its device.

Accelerate rebuilds any other loader as a plain DataLoader that divides batches among processes; ours divides rows
itself. Accelerate leaves a loader alone whose ``_is_accelerate_prepared`` is True; reading that attribute calls
`asked_by`. This module imports nothing of Accelerate before.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from types import FrameType
from typing import Any

from annfeed.process.ranks import rank_and_world

_END = object()


class Prepared:
    """A loader's tasks for an accelerator: move batches to its device, and tell it which batch is the last.

    Parameters
    ----------
    accelerator
        The ``accelerate.Accelerator``.
    on_device
        Whether batches go to its device.

    Raises
    ------
    ValueError
        If it would divide batches differently from annfeed: by cutting them (``split_batches``), by sending them from
        one process (``dispatch_batches``), by repeating them in a group of processes (tensor, context or sequence
        parallelism), or among other ranks.
    RuntimeError
        If this version of Accelerate does not have the attributes that register loaders.
    """

    def __init__(self, accelerator: Any, on_device: bool) -> None:
        for name, instead in (
            ("split_batches", "batch_size of get_optimized_dataloader is of each process: divide it there"),
            ("dispatch_batches", "each process reads its own rows"),
        ):
            if getattr(accelerator, name, None):
                raise ValueError(f"Accelerate has {name}=True, which an annfeed loader cannot follow; {instead}")
        config = getattr(accelerator, "parallelism_config", None)
        shared = [kind for kind in ("tp", "cp", "sp") if (getattr(config, f"{kind}_size", None) or 1) > 1]
        if shared or getattr(accelerator.state, "ds_device_mesh", None) is not None:
            raise ValueError(
                f"Accelerate is to give several processes the same rows ({', '.join(shared) or 'tp'}), but annfeed "
                "gives each process rows of its own. Prepare a plain torch DataLoader over the dataset instead, with "
                "collate_fn=dataset.get_collate_fn()"
            )
        place = accelerator.process_index, accelerator.num_processes
        if place != rank_and_world():
            raise ValueError(
                f"Accelerate says that this is process {place[0]} of {place[1]}, and torch.distributed, RANK and "
                "WORLD_SIZE that it is {} of {}; expected the same. Make the Accelerator in every process, before the "
                "loader is prepared".format(*rank_and_world())
            )
        self._state = accelerator.gradient_state
        if not all(hasattr(self._state, name) for name in ("_add_dataloader", "_remove_dataloader")):
            raise RuntimeError(
                f"accelerate {_version()} keeps account of its loaders in a way that annfeed does not know: update "
                "annfeed, or iterate over the loader without accelerator.prepare"
            )
        self._device = accelerator.device if on_device else None
        self._non_blocking = bool(getattr(accelerator, "non_blocking", False))

    def follow(self, loader: Any, batches: Iterator[Any], remainder: int) -> Generator[Any]:
        """Yield the batches on the device, and register the loader while it delivers.

        At the last batch Accelerate applies accumulated gradients, and cuts gathered metrics to ``remainder``.

        Parameters
        ----------
        loader
            Gets the attributes ``end_of_dataloader`` and ``remainder``, which Accelerate reads.
        batches
            Batches of an epoch. One is taken ahead, as in Accelerate's own loaders.
        remainder
            Rows of all processes' last batches together, without repeats; 0 if all are full, -1 if unknown.
        """
        from accelerate.utils import send_to_device

        loader.end_of_dataloader, loader.remainder = False, remainder
        self._state._add_dataloader(loader)
        try:
            with closing(batches):  # type: ignore[type-var]
                coming = next(batches, _END)
                while coming is not _END:
                    batch = coming
                    if self._device is not None:
                        batch = send_to_device(batch, self._device, non_blocking=self._non_blocking)
                    coming = next(batches, _END)
                    loader.end_of_dataloader = coming is _END
                    yield batch
        finally:
            self._state._remove_dataloader(loader)


def asked_by(caller: FrameType | None) -> Prepared | None:
    """Return the tasks for the accelerator whose method is ``caller``; None if it is not a method of one.

    Parameters
    ----------
    caller
        A frame. Its local variables hold the accelerator and whether to move batches, which Accelerate does not pass.

    Raises
    ------
    ValueError, RuntimeError
        As `Prepared`.
    """
    accelerator = None if caller is None else caller.f_locals.get("self")
    kind = getattr(sys.modules.get("accelerate"), "Accelerator", None)
    if caller is None or kind is None or not isinstance(accelerator, kind):
        return None
    on_device = caller.f_locals.get("device_placement")
    return Prepared(accelerator, accelerator.device_placement if on_device is None else bool(on_device))


def _version() -> str:
    return getattr(sys.modules.get("accelerate"), "__version__", "of an unknown version")
