"""``annfeed doctor``: versions, limits of this process, and how a file is read, to paste into a report.

It tells no paths, no names of users or machines, and no names of cells, genes or columns.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from annfeed._core import __version__, about
from annfeed.cli.show import show
from annfeed.cli.storage import storage_of
from annfeed.display.report import Facts, Report
from annfeed.display.text import in_gib
from annfeed.inspection import inspect_file
from annfeed.process.cgroups import cgroup_cpus, cgroup_free
from annfeed.process.threads import usable_cores

#: Packages whose versions matter.
_PACKAGES: tuple[str, ...] = ("numpy", "pandas", "scipy", "anndata", "h5py", "hdf5plugin", "zarr", "pyarrow")
_PACKAGES += ("torch", "lightning", "pytorch-lightning", "accelerate", "scvi-tools", "scanpy", "tqdm")
#: Variables of the environment that change what annfeed does; their values are no secrets.
_VARIABLES: tuple[str, ...] = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
_VARIABLES += ("SLURM_NTASKS", "SLURM_PROCID", "OMP_NUM_THREADS", "HDF5_USE_FILE_LOCKING", "CUDA_VISIBLE_DEVICES")
#: Instruction sets that the core has use for.
_INSTRUCTIONS = ("avx2", "bmi2", "avx512f", "asimd", "sve")
_SHM = "/dev/shm"

Found = dict[str, str | Sequence[str]]


def doctor(options: argparse.Namespace) -> None:
    """Print all of it."""
    found: dict[str, Found] = {"machine": _machine(), "packages": _packages(), "limits": _limits()}
    if options.file is not None:
        found["file"] = _file(options.file, options.elem)
    report = Report(f"annfeed {__version__}", [Facts(facts) for facts in found.values()])
    show(report, {"annfeed": __version__, **found} if options.json else None)


def _machine() -> Found:
    core = about()
    system = [f"{platform.system()} {platform.release()}", platform.machine(), " ".join(platform.libc_ver()).strip()]
    return {
        "system": ", ".join(filter(None, system)),
        "processor": _processor(),
        "python": f"{platform.python_implementation()} {platform.python_version()}{_without_gil()}",
        "core": f"HDF5 {core['hdf5']}; inflate: {core['inflate']}; built {core['build']}",
    }


def _without_gil() -> str:
    return "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", without GIL"


def _processor() -> str:
    """Return the name of the processor and the instruction sets that matter."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
            if not line.strip():
                break  # all processors are alike
    except OSError:
        pass
    return ", ".join([name, *(flag for flag in _INSTRUCTIONS if flag in flags)])


def _packages() -> Found:
    found: Found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        import h5py

        found["h5py"] = f"{h5py.__version__} (HDF5 {h5py.version.hdf5_version})"
    except Exception as error:  # whatever is wrong with it is what the report is for
        found["h5py"] = _failed(found.get("h5py"), error)
    try:
        import torch

        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found["torch"] = torch.__version__ + (f" ({', '.join(devices)})" if devices else " (no GPU)")
    except Exception as error:
        found["torch"] = _failed(found.get("torch"), error)
    return found


def _failed(version: object, error: Exception) -> str:
    return f"{version or 'not installed'}: import fails with {type(error).__name__}"


def _limits() -> Found:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = cgroup_cpus()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found: Found = {
        "threads": f"{usable_cores()} for reading; {os.cpu_count()} cores, {cores} by affinity, "
        + (f"{min(quotas):g} by quota" if quotas else "no quota"),
        "memory": _memory(),
    }
    if os.path.isdir(_SHM):
        usage = shutil.disk_usage(_SHM)
        found[_SHM] = f"{in_gib(usage.total)}, {in_gib(usage.free)} free"
    found["open files"] = f"at most {files:,}"
    told = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    told += [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("ANNFEED_")]
    if told:
        found["variables"] = told
    return found


def _memory() -> str:
    """Return the memory of the machine, what of it this process may take, and what ``cache="auto"`` makes of that."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    text = f"{in_gib(total)} of the machine"
    if groups := [free for free in cgroup_free() if free < total]:  # "no limit" is a large number
        text += f", {in_gib(min(groups))} left in its control group"
    try:
        from annfeed.memory.budget import cache_budget, free_memory
    except Exception:  # torch is missing or broken: the packages tell
        return text
    return f"{text}, {in_gib(free_memory())} free; cache='auto' is {in_gib(cache_budget('auto'))}"


def _file(path: str, elem: str) -> Found:
    found: Found = {"file": os.path.basename(path), **storage_of(path)}
    try:
        inspected = inspect_file(path, elem)
    except (OSError, ValueError, KeyError) as error:
        told = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        return {**found, "error": f"{type(error).__name__}: {told.replace(path, os.path.basename(path))}"}
    for part in inspected.report().parts[:1]:
        assert isinstance(part, Facts)
        found |= part.facts
    if (cost := inspected.cost.get("exact random")) is not None:
        found["exact random"] = f"{cost:.1f} bytes decoded for each delivered, without a cache"
    if inspected.conversion_bytes:
        found["first read"] = f"takes {inspected.conversion_bytes:,} bytes of cache to turn columns into rows"
    found["obs"] = f"{len(inspected.obs_columns)} columns"
    return {"matrix": inspected.elem, **found}
