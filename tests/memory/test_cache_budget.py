"""``cache=``: what users write in bytes, and what "auto" takes of a machine, a container or a Slurm job."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.cgroups import write_groups

from annfeed.memory import budget as cache
from annfeed.memory.budget import AUTO_SHARE, cache_budget, free_memory
from annfeed.process.cgroups import cgroup_free

GIB = 2**30


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, 0),
        (1, 1),
        (2**40, 2**40),
        ("0", 0),
        ("123", 123),
        ("123B", 123),
        ("1k", 1000),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("500 MB", 500_000_000),
        ("500MiB", 500 * 2**20),
        ("4GiB", 4 * GIB),
        ("4 gib", 4 * GIB),
        ("4G", 4_000_000_000),
        ("4Gi", 4 * GIB),
        ("1.5GiB", 3 * GIB // 2),
        (" 2 TB ", 2 * 10**12),
        ("1TiB", 2**40),
    ],
)
def test_sizes(written: str | int, expected: int) -> None:
    budget = cache_budget(written)
    assert budget == expected
    assert type(budget) is int


@pytest.mark.parametrize(
    ("written", "error"),
    [
        (-1, ValueError),
        ("-1", ValueError),
        ("", ValueError),
        ("GiB", ValueError),
        ("4 XB", ValueError),
        ("4GiBs", ValueError),
        ("1,5GiB", ValueError),
        ("a lot", ValueError),
        ("4\nGiB5", ValueError),
        (None, TypeError),
        (True, TypeError),
        (1.5, TypeError),
        (np.float64(3), TypeError),
        ([4], TypeError),
        (b"4GiB", TypeError),
    ],
)
def test_sizes_that_are_none(written: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"cache is .* expected"):
        cache_budget(written)


@pytest.mark.parametrize("written", ["auto", "AUTO", " auto "])
def test_auto_is_a_share_of_what_is_free(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "free_memory", lambda: 8 * GIB)
    assert cache_budget(written) == 8 * GIB * AUTO_SHARE


def test_free_memory_is_the_least_of_all_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine, groups, expected in [(8, [], 8), (8, [5], 5), (8, [9], 8), (8, [6, 3, 7], 3), (8, [-1], 0)]:
        monkeypatch.setattr(cache, "_machine_free", lambda machine=machine: machine)
        monkeypatch.setattr(cache, "cgroup_free", lambda groups=groups: groups)
        assert free_memory() == expected


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs /proc/meminfo")
def test_free_memory_of_this_machine() -> None:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(lines["MemTotal"].split()[0]) * 1024
    assert 0 <= free_memory() <= total
    # Not kilobytes, not pages: what is available now, give or take what others take meanwhile.
    available = int(lines["MemAvailable"].split()[0]) * 1024
    assert cache._machine_free() == pytest.approx(available, rel=0.5)


#: Where a process is (/proc/self/cgroup), the files of its cgroups, and what each limit leaves.
GROUPS = {
    "no cgroups": ("", {}, []),
    "version 2, no limit": ("0::/", {"memory.max": "max", "memory.current": "5"}, []),
    "version 2, a container": ("0::/", {"memory.max": "100", "memory.current": "30"}, [70]),
    "version 2, pages of files are given back": (
        "0::/",
        {
            "memory.max": "100",
            "memory.current": "95",
            "memory.stat": "anon 20\nfile 75\nactive_file 30\ninactive_file 40\nworkingset_refault_file 9\n",
        },
        [75],
    ),
    "version 2, a job far below the root": (
        "0::/system.slice/slurm/job_7",
        {
            "system.slice/slurm/job_7/memory.max": "50",
            "system.slice/slurm/job_7/memory.current": "10",
            "system.slice/slurm/memory.max": "max",
            "system.slice/slurm/memory.current": "60",
            "system.slice/memory.max": "80",
            "system.slice/memory.current": "60",
            "system.slice/memory.stat": "active_file 1\ninactive_file 2",
        },
        [40, 23],
    ),
    "version 1, a container": (
        "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc",
        {"memory/memory.limit_in_bytes": "100", "memory/memory.usage_in_bytes": "90"},
        [10],
    ),
    "version 1, a job": (
        "11:freezer:/\n4:cpuset,memory:/slurm/uid_0/job_7\n0::/",
        {
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": "0",
            "memory/slurm/uid_0/job_7/memory.limit_in_bytes": "60",
            "memory/slurm/uid_0/job_7/memory.usage_in_bytes": "55",
            "memory/slurm/uid_0/job_7/memory.stat": "active_file 1\ntotal_active_file 3\ntotal_inactive_file 4\n",
        },
        [12, 9223372036854771712],
    ),
    "another's group": ("0::/mine", {"yours/memory.max": "5", "yours/memory.current": "1"}, []),
    "files of a form unknown": ("nonsense", {"memory.max": "some", "memory.current": "", "memory.stat": "x"}, []),
    "usage without a limit": ("0::/", {"memory.current": "3"}, []),
    "statistics of a form unknown": (
        "0::/",
        {"memory.max": "9", "memory.current": "3", "memory.stat": "active_file\n\n"},
        [6],
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_cgroups(tmp_path: Path, case: str) -> None:
    membership, files, expected = GROUPS[case]
    assert cgroup_free(*write_groups(tmp_path, membership, files)) == expected


def test_cgroups_of_a_process_without_proc(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("100\n")
    (tmp_path / "memory.current").write_text("30\n")
    assert cgroup_free(tmp_path, tmp_path / "nowhere") == [70]
