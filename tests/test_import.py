"""What ``import annfeed`` leaves alone: all state that it shares with the rest of the process, and the user's time."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import annfeed
from annfeed import _core
from tests.support.processes import run

# Run in a process of its own, with torch and numpy loaded: what each statement changes.
PROBE = """
import json, sys
import logging, multiprocessing, os, random, signal, threading, warnings

import numpy as np
import torch


def state():
    root = logging.getLogger()
    return {
        "warnings": repr(warnings.filters),
        "showwarning": repr(warnings.showwarning),
        "logging": repr((root.level, root.handlers, logging.root.manager.disable, logging.lastResort)),
        "torch RNG": torch.get_rng_state().tolist(),
        "numpy RNG": repr(np.random.get_state(legacy=False)),
        "python RNG": repr(random.getstate()),
        "numpy errors": repr(np.geterr()),
        "numpy printing": repr(np.get_printoptions()),
        "default dtype": repr(torch.get_default_dtype()),
        "grad": torch.is_grad_enabled(),
        "torch threads": torch.get_num_threads(),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
        "start method": repr(multiprocessing.get_start_method(allow_none=True)),
        "torch start method": repr(torch.multiprocessing.get_start_method(allow_none=True)),
        "python threads": threading.active_count(),
        "system threads": len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None,
        "signals": repr([signal.getsignal(number) for number in sorted(signal.valid_signals())]),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "hooks": repr((sys.excepthook, sys.meta_path, threading.excepthook)),
        "patched": repr((torch.utils.data.DataLoader.__init__, torch.utils.data.default_collate)),
    }


for statement in json.loads(sys.argv[1]):
    before, loaded = state(), set(sys.modules)
    exec(statement)
    after = state()
    changed = sorted(key for key in before if before[key] != after[key])
    print(json.dumps([changed, sorted(set(sys.modules) - loaded)]))
"""

#: Statements that change what the probe is to see, so that it cannot be blind.
CHANGES = {
    "warnings.simplefilter('ignore')": "warnings",
    "logging.basicConfig()": "logging",
    "torch.rand(1)": "torch RNG",
    "np.random.rand()": "numpy RNG",
    "random.random()": "python RNG",
    "torch.set_default_dtype(torch.float64)": "default dtype",
    "multiprocessing.set_start_method('spawn')": "start method",
    "threading.Thread(target=threading.Event().wait, daemon=True).start()": "python threads",
    "os.environ['OMP_NUM_THREADS'] = '1'": "environment",
}

USE = """
import tempfile
from anndata import AnnData
with tempfile.TemporaryDirectory() as folder:
    AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/a.h5ad")
    list(annfeed.AnnDataset(f"{folder}/a.h5ad").get_optimized_dataloader(seed=0))
"""

CSR = "list(annfeed.AnnDataset(AnnData(np.eye(3)), output='csr').get_optimized_dataloader())"
STATEMENTS = ["import annfeed", USE, CSR, *CHANGES]

#: Modules that a dataset needs and `import annfeed` does not, and modules that only some users have.
HEAVY = {"anndata", "h5py", "scipy", "pandas", "hdf5plugin", "zarr", "tqdm", "numba"}
FOREIGN = {"matplotlib", "scanpy", "sklearn", "lightning", "pytorch_lightning", "scvi", "IPython", "rich"}


@pytest.fixture(scope="module")
def probed() -> subprocess.CompletedProcess[str]:
    """The process, whose interpreter tells the times of imports on stderr."""
    command = [sys.executable, "-X", "importtime", "-c", PROBE, json.dumps(STATEMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def probe(probed) -> dict[str, tuple[list[str], set[str]]]:
    """By statement: the states it changed, and the top-level modules it loaded, `import annfeed` before all others."""
    results = map(json.loads, probed.stdout.splitlines())
    return {
        statement: (changed, {name.partition(".")[0] for name in loaded})
        for statement, (changed, loaded) in zip(STATEMENTS, results, strict=True)
    }


def test_import_changes_no_global_state(probe) -> None:
    # pitfall 26
    assert probe["import annfeed"][0] == []


@pytest.mark.parametrize(("statement", "state"), CHANGES.items())
def test_the_probe_sees_what_it_looks_for(probe, statement: str, state: str) -> None:
    assert state in probe[statement][0]


def test_the_room_of_scvi_tools_is_an_attribute(tmp_path: Path) -> None:
    pytest.importorskip("scvi", reason="scvi-tools is not installed")
    script = tmp_path / "script.py"
    script.write_text("import sys, annfeed\nassert 'annfeed.scvi' not in sys.modules\nprint(annfeed.scvi.use.__name__)")
    done = run(script)
    assert (done.stdout, done.stderr) == ("use\n", "")


def test_import_loads_only_itself_and_numpys_types(probe) -> None:
    loaded = probe["import annfeed"][1]
    assert "annfeed" in loaded
    assert loaded.isdisjoint(HEAVY | FOREIGN)
    assert loaded - sys.stdlib_module_names <= {"annfeed", "numpy", "torch"}


def test_a_dataset_loads_what_it_needs_and_no_foreign_module(probe) -> None:
    loaded = probe[USE][1]
    assert {"anndata", "h5py", "pandas"} <= loaded
    assert loaded.isdisjoint(FOREIGN)
    left_alone = {"torch RNG", "numpy RNG", "python RNG", "default dtype", "start method", "python threads", "signals"}
    assert left_alone.isdisjoint(probe[USE][0])


def test_torchs_warning_that_csr_is_in_beta_is_left_out_and_the_filters_stay(probe, probed) -> None:
    assert "warnings" not in probe[CSR][0]
    assert "Sparse CSR tensor support is in beta" not in probed.stderr


def test_a_core_that_is_not_built_is_told() -> None:
    assert "_core.py" not in _core.__file__  # the compiled one goes first
    with pytest.raises(ImportError, match=r"found no compiled core .*; expected one .*\. Install a wheel"):
        runpy.run_path(str(Path(annfeed.__file__).with_name("_core.py")))


def test_import_time_is_told(probed) -> None:
    # Told, not judged: a machine that runs tests is busy. The limit is 50 ms beyond torch's own.
    lines = probed.stderr.splitlines()
    pattern = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)$")
    times = {m[4]: int(m[2]) for line in lines if (m := pattern.match(line))}
    assert "annfeed" in times
    print(f"import annfeed takes {times['annfeed'] / 1000:.1f} ms beyond torch's {times['torch'] / 1000:.0f} ms")
