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
    seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
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
