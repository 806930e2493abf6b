"""Threads with ``threads=None``: what affinity, CPU quota, ranks and torch workers leave to a process."""

import os
from pathlib import Path

import anndata
import numpy as np
import pytest
from tests.support.cgroups import write_groups
from torch.utils.data import DataLoader

from annfeed import AnnDataset
from annfeed.process import threads
from annfeed.process.cgroups import cgroup_cpus
from annfeed.process.ranks import local_ranks
from annfeed.process.threads import reading_threads, usable_cores

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "NODE_RANK")

#: Where a process is (/proc/self/cgroup), the files of its cgroups, and the cores that each quota allows.
QUOTAS = {
    "no cgroups": ("", {}, []),
    "version 2, no quota": ("0::/", {"cpu.max": "max 100000"}, []),
    "version 2, docker run --cpus=4": ("0::/", {"cpu.max": "400000 100000"}, [4]),
    "version 2, a part of a core": ("0::/", {"cpu.max": "50000 100000"}, [0.5]),
    "version 2, a pod below a slice": (
        "0::/kubepods.slice/pod_7/main",
        {
            "kubepods.slice/pod_7/main/cpu.max": "max 100000",
            "kubepods.slice/pod_7/cpu.max": "250000 100000",
            "kubepods.slice/cpu.max": "80000 10000",
        },
        [2.5, 8],
    ),
    "version 1, a container": (
        "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/",
        {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "50000"},
        [3],
    ),
    "version 1, no quota": (
        "2:cpu,cpuacct:/",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        [],
    ),
    "version 1, a job, mounted under both controllers' names": (
        "2:cpuacct,cpu:/slurm/job_7",
        {
            "cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us": "600000",
            "cpu,cpuacct/slurm/job_7/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
        [6],
    ),
    "another's group": ("0::/mine", {"yours/cpu.max": "100000 100000"}, []),
    "files of a form unknown": ("nonsense", {"cpu.max": "", "cpu/cpu.cfs_quota_us": "many"}, []),
    "a period of nothing": ("0::/", {"cpu.max": "100000 0"}, []),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_cpu_quota_of_cgroups(tmp_path: Path, case: str) -> None:
    membership, files, expected = QUOTAS[case]
    assert cgroup_cpus(*write_groups(tmp_path, membership, files)) == expected


def bound(cpus: str, kind: str = "mask_cpu:") -> dict[str, str]:
    """What srun says of CPUs."""
    return {"SLURM_CPU_BIND": f"quiet,{kind}{cpus}", "SLURM_CPU_BIND_LIST": cpus, "SLURM_CPU_BIND_TYPE": kind}


@pytest.mark.parametrize(
    ("cores", "quotas", "environment", "expected"),
    [
        (64, [], {}, 64),
        (64, [4.0], {}, 4),
        (64, [2.5, 8.0], {}, 3),
        (2, [4.0], {}, 2),
        (64, [0.5], {}, 1),
        (64, [], {"LOCAL_WORLD_SIZE": "8"}, 8),
        (64, [16.0], {"LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "32"}, 2),
        (4, [], {"LOCAL_WORLD_SIZE": "8"}, 1),
        (64, [], {"LOCAL_WORLD_SIZE": "none"}, 64),
        # Lightning's own launcher on one machine, and on several.
        (64, [], {"WORLD_SIZE": "4", "NODE_RANK": "0", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}, 16),
        (64, [], {"WORLD_SIZE": "4", "NODE_RANK": "0", "LOCAL_RANK": "1", "MASTER_ADDR": "node7"}, 64),
        # srun that binds: each task to CPUs of its own; two to each half; all to the same; a quota for all.
        (8, [], {"LOCAL_WORLD_SIZE": "4", "SLURM_LOCALID": "3"} | bound("0xFF,0xFF00,0xFF0000,0xFF000000"), 8),
        (8, [], {"LOCAL_WORLD_SIZE": "4", "SLURM_LOCALID": "2"} | bound("0xFF,0xFF00"), 4),
        (8, [], {"LOCAL_WORLD_SIZE": "4", "SLURM_LOCALID": "2"} | bound("0xFF"), 2),
        (8, [16.0], {"LOCAL_WORLD_SIZE": "4", "SLURM_LOCALID": "0"} | bound("0xFF,0xFF00,0xFF0000,0xFF000000"), 4),
        (1, [], {"LOCAL_WORLD_SIZE": "2", "SLURM_LOCALID": "1"} | bound("4,5", "map_cpu:"), 1),
        # torchrun in a task that is bound, and `taskset` around torchrun: its ranks share those CPUs.
        (8, [], {"LOCAL_WORLD_SIZE": "2", "SLURM_LOCALID": "0", "TORCHELASTIC_RUN_ID": "1"} | bound("0xFF,0xFF00"), 4),
        (8, [], {"LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "1"}, 2),
        (8, [], {"LOCAL_WORLD_SIZE": "4", "SLURM_LOCALID": "1"} | bound("", ""), 2),
    ],
)
def test_threads_are_a_share_of_the_usable_cores(
    cores: int, quotas: list[float], environment: dict, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(threads, "cgroup_cpus", lambda: quotas)
    threads._quotas.cache_clear()
    try:
        assert reading_threads(AnnDataset(anndata.AnnData(np.eye(3, dtype="float32"))).threads) == expected
    finally:
        threads._quotas.cache_clear()
    assert reading_threads(7) == 7  # what a user says is not divided


def test_this_machine() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert local_ranks() == 1


class Threads(AnnDataset):
    """Items that tell the threads of the process that makes them."""

    def __getitems__(self, indices):  # type: ignore[no-untyped-def]
        return [reading_threads(self.threads) for _ in indices]


def test_a_worker_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 64)
    adata = anndata.AnnData(np.eye(4, dtype="float32"))
    for asked, expected in ((None, 1), (3, 3)):
        dataset = Threads(adata, threads=asked)
        loader = DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=list, multiprocessing_context="fork")
        assert list(loader) == [[expected] * 2] * 2
