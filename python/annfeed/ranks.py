"""Which rank this process is, and one seed for all ranks.

torch.distributed where it runs, else RANK and WORLD_SIZE; never LOCAL_RANK, which repeats on every node.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


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
        raise ValueError(f"RANK is {rank!r} and WORLD_SIZE {world!r}, where 0 <= RANK < WORLD_SIZE was expected")
    return int(rank), int(world)


def known_rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks, where the environment does not leave them open.

    Called when an epoch begins. WORLD_SIZE without RANK and without a process group means that somebody started several
    processes and this one cannot know its share. Only Lightning's processes are let through: it gives them LOCAL_RANK,
    NODE_RANK and WORLD_SIZE, and makes the group when training begins; before, each is a process alone.

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
    return rank_and_world()


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
