"""What `annfeed doctor` tells, and what it keeps to itself."""

import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.support.cgroups import write_groups

import annfeed
from annfeed.cli import main
from annfeed.cli.storage import file_system, storage_of
from annfeed.inspection import inspect_file
from annfeed.process.cgroups import cgroup_cpus


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret") / "project"
    folder.mkdir()
    obs = pd.DataFrame({"patient_name": list("xyz")}, index=["Ann", "Bob", "Cyd"])
    adata = anndata.AnnData(np.eye(3, dtype=np.float32), obs=obs, var=pd.DataFrame(index=["gene of mine", "b", "c"]))
    adata.write_h5ad(folder / "cells.h5ad", compression="gzip")
    return folder / "cells.h5ad"


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    assert main(["doctor", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_versions_are_those_of_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys)
    assert found["annfeed"] == annfeed.__version__
    assert found["machine"]["python"].startswith(f"{platform.python_implementation()} {platform.python_version()}")
    packages = found["packages"]
    assert packages["h5py"] == f"{h5py.__version__} (HDF5 {h5py.version.hdf5_version})"
    assert packages["torch"].startswith(torch.__version__)
    for name in ("numpy", "pandas", "scipy", "anndata", "tqdm", "torch", "h5py"):
        assert packages[name].startswith(metadata.version(name))


def test_the_core_says_what_it_was_built_with(capsys: pytest.CaptureFixture[str]) -> None:
    core = told(capsys)["machine"]["core"]
    assert re.search(r"^HDF5 \d+\.\d+\.\d+; inflate: (two streams at a time|libdeflate)", core)


@pytest.mark.parametrize("said", ["", "libdeflate"])
def test_the_inflater_is_the_one_in_use(said: str) -> None:
    program = "from annfeed._core import about; print(about()['inflate'])"
    environment = os.environ | {"ANNFEED_INFLATE": said}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    flags = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    has_fast = said == "" and platform.machine() == "x86_64" and all(f" {flag} " in flags for flag in ("avx2", "bmi2"))
    assert ("two streams" in done.stdout) is has_fast


def test_limits_are_those_of_the_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root, membership = write_groups(tmp_path, "0::/job\n", {"job/cpu.max": "150000 100000"})
    monkeypatch.setattr("annfeed.cli.doctor.cgroup_cpus", lambda: cgroup_cpus(root, membership))
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("ANNFEED_PROGRESS", "0")
    monkeypatch.setenv("SOME_TOKEN", "do-not-tell")
    limits = told(capsys)["limits"]
    assert f"{len(os.sched_getaffinity(0))} by affinity, 1.5 by quota" in limits["threads"]
    assert limits["variables"][0] == "WORLD_SIZE=4" and "ANNFEED_PROGRESS=0" in limits["variables"]
    if os.path.isdir("/dev/shm"):
        assert limits["/dev/shm"].startswith(f"{shutil.disk_usage('/dev/shm').total / 2**30:.3g} GiB, ")
    assert re.search(r"GiB of the machine.* free; cache='auto' is [\d.]+ GiB", limits["memory"])
    assert "do-not-tell" not in json.dumps(limits)


def test_a_file_is_told_by_name_and_layout_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(path)]) == 0
    text = capsys.readouterr().out
    for word in ("cells.h5ad", "dense, float32, 3 x 3", "gzip (read by rust)", " on ", "1 columns"):
        assert word in text
    secrets = [str(path.parent), "secret", "project", "patient_name", "Ann", "gene of mine", os.path.expanduser("~/")]
    assert [secret for secret in secrets if secret in text] == []
    assert len(platform.node()) < 4 or platform.node() not in text


@pytest.mark.parametrize("absolute", [True, False])
def test_what_is_wrong_with_a_file_is_told_without_its_path(
    absolute: bool, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent.parent)
    (path.parent / "broken.h5ad").write_bytes(b"nothing of that kind")
    for name, words in (("no.h5ad", "FileNotFoundError"), ("broken.h5ad", "FormatError: broken.h5ad")):
        file = path.with_name(name) if absolute else Path("project", name)
        found = told(capsys, file)["file"]
        assert words in found["error"]
        assert "project" not in json.dumps(found)
    assert "UnknownNameError: cells.h5ad" in told(capsys, path, "--elem", "layers/no")["file"]["error"]


@pytest.mark.parametrize("package", ["torch", "h5py"])
def test_a_broken_package_is_a_finding(
    package: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # its import fails
    found = told(capsys)["packages"][package]
    assert found == f"{metadata.version(package)}: import fails with ModuleNotFoundError"


MOUNTS = """\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 0:40 / /data rw shared:1 - nfs4 server:/data rw
23 22 0:41 / /data/with\\040blank rw - lustre mgs:/x rw
24 21 0:42 / /database rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/home/a.h5ad", "ext4"),
        ("/data/a.h5ad", "nfs4"),
        ("/data/with blank/a.h5ad", "lustre"),
        ("/database/a.h5ad", "tmpfs"),
        ("/databases/a.h5ad", "ext4"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(file: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert file_system(file, tmp_path / "mountinfo") == kind
    assert file_system(file, tmp_path / "none") == "an unknown file system"


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system does not tell what is in the page cache")
def test_reads_that_are_waited_for_are_timed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) * 7e-3)
    read = os.preadv

    def not_at_hand(file: int, memory: Any, offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise BlockingIOError
        return read(file, memory, offset, flags)

    monkeypatch.setattr(os, "preadv", not_at_hand)
    assert "; 0 of 24 pieces in the page cache; 24 reads took 7 ms each (slow)" in str(storage_of(str(path))["storage"])


@pytest.mark.parametrize(
    ("kinds", "seconds", "told"),
    [
        ("refused", 7e-3, "; 24 reads took 7 ms each (slow)"),
        ("refused", 5e-4, "; 24 reads took 0.5 ms each (from memory or a local disk)"),
        (["cold"] * 24, 5e-4, "; 0 of 24 pieces in the page cache; 24 reads took 0.5 ms each (a local disk)"),
        (["cold", *["cached"] * 23], 7e-3, "; 23 of 24 pieces in the page cache; 1 read took 7 ms (too few to judge)"),
        (["cached"] * 24, 7e-3, "; 24 of 24 pieces in the page cache"),
    ],
)
def test_storage_is_judged_by_reads_of_it(
    kinds: str | list[str], seconds: float, told: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = iter(range(10**6)), iter(kinds)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) * seconds)
    monkeypatch.setattr(os, "RWF_NOWAIT", 8, raising=False)

    def answer(_file: int, memory: Any, _offset: int, flags: int = 0) -> int:
        if flags and kinds == "refused":
            raise OSError(errno.EOPNOTSUPP, "not supported")
        if flags and next(asked) == "cold":
            raise BlockingIOError
        return len(memory[0])

    monkeypatch.setattr(os, "preadv", answer)
    storage = str(storage_of(str(path))["storage"])
    assert storage.partition(f" on {file_system(str(path))}")[2] == told


def test_by_columns_it_tells_what_the_first_read_takes(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anndata.AnnData(sp.eye(30, 5, format="csc", dtype=np.float32)).write_h5ad(tmp_path / "columns.h5ad")
    found = told(capsys, tmp_path / "columns.h5ad")["file"]
    needed = inspect_file(tmp_path / "columns.h5ad").conversion_bytes
    assert found["first read"] == f"takes {needed:,} bytes of cache to turn columns into rows"
    assert "exact random" not in found
    by_rows = told(capsys, path)["file"]
    assert "first read" not in by_rows and "decoded for each delivered" in by_rows["exact random"]
