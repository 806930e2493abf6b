"""Which rank this process is, and one seed for all ranks.

torch.distributed where it runs, else RANK and WORLD_SIZE; never LOCAL_RANK, which repeats on every node.
"""

from __future__ import annotations

import os
import warnings

import torch
import torch.distributed as dist

from annfeed.errors import AnnfeedWarning


def rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks; (0, 1) for a process alone.

    RANK and WORLD_SIZE count together only: Lightning sets WORLD_SIZE in its processes before there is a group.

    Raises
    ------
    ValueError
        If RANK and WORLD_SIZE are no rank.

    Examples
    --------
    >>> rank_and_world()
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world is None:
        return 0, 1
    if not (rank.isdigit() and world.isdigit() and int(rank) < int(world)):
        raise ValueError(f"RANK is {rank!r} and WORLD_SIZE {world!r}; expected 0 <= RANK < WORLD_SIZE")
    return int(rank), int(world)


def known_rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks, where the environment does not leave them open.

    Called when an epoch begins. WORLD_SIZE without RANK and without a process group means that somebody started several
    processes and this one cannot know its share. Only Lightning's processes are let through: it gives them LOCAL_RANK,
    NODE_RANK and WORLD_SIZE, and makes the group when training begins; before, each is a process alone. Tasks of one
    Slurm job that nobody told their ranks are warned, once: they may all be meant to read everything.

    Raises
    ------
    ValueError
        If the rank cannot be known.

    Examples
    --------
    >>> known_rank_and_world()
    (0, 1)
    """
    grouped = dist.is_available() and dist.is_initialized()
    world = os.environ.get("WORLD_SIZE", "1")
    if not grouped and "RANK" not in os.environ and world != "1" and "NODE_RANK" not in os.environ:
        raise ValueError(
            f"WORLD_SIZE is {world!r}, but there is neither RANK nor a torch.distributed process group: this process "
            "cannot know which rows are its share. Start it with torchrun, set RANK, or call "
            "torch.distributed.init_process_group first; for a process alone unset WORLD_SIZE"
        )
    if not grouped and ("RANK" not in os.environ or "WORLD_SIZE" not in os.environ):
        _warn_of_slurm()
    return rank_and_world()


def _warn_of_slurm() -> None:
    global _warned_of_slurm
    # srun says how many tasks its step has; what the batch script sees is the job.
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in os.environ else "SLURM_NTASKS"
    tasks = os.environ.get(name, "1")
    if _warned_of_slurm or not tasks.isdigit() or int(tasks) < 2:
        return
    _warned_of_slurm = True
    warnings.warn(
        f"{name} is {tasks}, but there is neither a torch.distributed process group nor RANK and WORLD_SIZE: each of "
        f"the {tasks} tasks reads all rows. To share them out, start the tasks with RANK=$SLURM_PROCID "
        "WORLD_SIZE=$SLURM_NTASKS (or with torchrun), or call torch.distributed.init_process_group before the first "
        "batch; if each task is to read everything, set RANK=0 WORLD_SIZE=1",
        AnnfeedWarning,
        stacklevel=2,
    )


_warned_of_slurm = False


def local_ranks() -> int:
    """Return how many ranks run on this machine, as far as the environment tells: they share its cores and its memory.

    Launchers like torchrun say it in LOCAL_WORLD_SIZE. Lightning does not; where its ranks meet at this machine's own
    address, all of WORLD_SIZE are here.

    Examples
    --------
    >>> local_ranks()
    1
    """
    told = os.environ.get("LOCAL_WORLD_SIZE")
    if told is None and os.environ.get("MASTER_ADDR") in ("127.0.0.1", "localhost", "::1"):
        told = os.environ.get("WORLD_SIZE")
    return int(told) if told is not None and told.isdigit() and int(told) > 0 else 1


def draw_seed(generator: torch.Generator | None, world: int) -> int:
    """Draw a seed: one draw from ``generator`` or torch's global one, and rank 0's for all ranks.

    Raises
    ------
    ValueError
        If there are several ranks but no process group to tell them rank 0's draw.

    Examples
    --------
    >>> a = draw_seed(torch.Generator().manual_seed(1), 1)
    >>> a == draw_seed(torch.Generator().manual_seed(1), 1)
    True
    """
    device = "cpu" if generator is None else generator.device
    seed = int(torch.empty((), dtype=torch.int64, device=device).random_(generator=generator).item())
    if world == 1:
        return seed
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            f"seed is None with WORLD_SIZE={world} but no torch.distributed process group: each rank would draw its "
            "own order. Pass seed=, or call torch.distributed.init_process_group first"
        )
    shared = [seed]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]
