"""The rank of this process, and a common seed for all ranks.

The rank comes from torch.distributed if it is initialised, else from RANK and WORLD_SIZE; never from LOCAL_RANK, which
repeats on every node.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

from annfeed.user_warnings import warn


def rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks; (0, 1) for a single process.

    RANK and WORLD_SIZE are used only together: Lightning sets WORLD_SIZE before there is a process group.

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
    """Return the rank of this process and the number of ranks, at the beginning of an epoch; raise if it is unknown.

    The rank is unknown with WORLD_SIZE above 1 but with neither RANK nor a process group. Processes of Lightning, which
    have NODE_RANK, are an exception: until Lightning makes the group, each counts as a single process. Tasks of a Slurm
    job without ranks get one warning, because each may be meant to read everything.

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
    # srun sets the number of tasks of its step; a batch script sees that of the job.
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in os.environ else "SLURM_NTASKS"
    tasks = os.environ.get(name, "1")
    if _warned_of_slurm or not tasks.isdigit() or int(tasks) < 2:
        return
    _warned_of_slurm = True
    warn(
        f"{name} is {tasks}, but there is neither a torch.distributed process group nor RANK and WORLD_SIZE: each of "
        f"the {tasks} tasks reads all rows. To share them out, start the tasks with RANK=$SLURM_PROCID "
        "WORLD_SIZE=$SLURM_NTASKS (or with torchrun), or call torch.distributed.init_process_group before the first "
        "batch; if each task is to read everything, set RANK=0 WORLD_SIZE=1"
    )


_warned_of_slurm = False


def local_ranks() -> int:
    """Return the number of ranks on this machine, which share its cores and memory; 1 if unknown.

    Launchers like torchrun set LOCAL_WORLD_SIZE. Lightning does not; if its MASTER_ADDR is this machine, all ranks are.

    Examples
    --------
    >>> local_ranks()
    1
    """
    told = os.environ.get("LOCAL_WORLD_SIZE")
    if told is None and os.environ.get("MASTER_ADDR") in ("127.0.0.1", "localhost", "::1"):
        told = os.environ.get("WORLD_SIZE")
    return int(told) if told is not None and told.isdigit() and int(told) > 0 else 1


def ranks_of_these_cores() -> int:
    """Return the number of ranks on this machine whose CPUs are those of this one, itself included.

    Only Slurm says so: where srun binds tasks to CPUs, each task has the list of all on its node. Ranks that torchrun
    starts have the CPUs that torchrun has.

    Examples
    --------
    >>> ranks_of_these_cores()
    1
    """
    ranks = local_ranks()
    bound, place = os.environ.get("SLURM_CPU_BIND_LIST"), os.environ.get("SLURM_LOCALID", "")
    if not bound or not place.isdigit() or int(place) >= ranks or "TORCHELASTIC_RUN_ID" in os.environ:
        return ranks
    # A list that is shorter than the tasks begins again.
    cpus = bound.split(",")
    of_ranks = [cpus[rank % len(cpus)] for rank in range(ranks)]
    return of_ranks.count(of_ranks[int(place)])


def draw_seed(generator: torch.Generator | None, world: int) -> int:
    """Draw a seed from ``generator`` or torch's global generator; all ranks get the draw of rank 0.

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
