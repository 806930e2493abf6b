"""Scripts in processes of their own that have torch already: forked in 50 ms, where a new Python imports it for 3 s.

A fork server (multiprocessing's, one for each process of pytest; conftest.py says what it imports) forks them before it
has done anything else, so that none inherits threads, open files or a warning that was given. For what a process shows
of itself, as what an import loads or how an interpreter ends, tests start a real one: `subprocess`, ``torchrun``.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

#: Seconds after which a script that does not end is killed, and the test fails.
PATIENCE = 200


def run(script: Path, *arguments: object, timeout: float = PATIENCE, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``python SCRIPT ARGUMENTS`` and return its status, as `subprocess` counts it, and its output."""
    with tempfile.TemporaryDirectory() as folder:
        return _finish([_Script(script, arguments, env, Path(folder, "0"))], timeout)[0]


def run_ranks(
    n: int, script: Path, *arguments: object, launcher: str = "torchrun", timeout: float = PATIENCE
) -> list[subprocess.CompletedProcess[str]]:
    """Run a script on ``n`` ranks, which find in their environment what ``launcher`` gives those that it starts.

    It is "torchrun", or "lightning" for the strategy "ddp". As with torchrun, the ranks meet in a store that they find
    served, and where one fails the others are ended.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "WORLD_SIZE": n}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    if launcher == "lightning":
        environments = [{**common, "NODE_RANK": 0, "LOCAL_RANK": rank} for rank in range(n)]
    else:
        common |= {"LOCAL_WORLD_SIZE": n, "GROUP_RANK": 0, "GROUP_WORLD_SIZE": 1, "TORCHELASTIC_RUN_ID": "tests"}
        environments = [{**common, "RANK": rank, "LOCAL_RANK": rank} for rank in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            _Script(script, arguments, {key: str(value) for key, value in environment.items()}, Path(folder, str(rank)))
            for rank, environment in enumerate(environments)
        ]
        return _finish(ranks, timeout)


class _Script:
    """A script that is running, with its output in files."""

    def __init__(self, script: Path, arguments: tuple[object, ...], env: dict[str, str], files: Path) -> None:
        self.command = [str(script), *map(str, arguments)]
        self._files = files
        # One thread: torch's own would wait for each other on a busy machine. And no GPU, of which each rank wants one.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **env}
        self.process = multiprocessing.get_context("forkserver").Process(
            target=_be, args=(self.command, environment, os.getcwd(), str(files))
        )
        self.process.start()

    def end(self, signal_number: int) -> None:
        """Send a signal to it and to the processes that it started."""
        try:
            os.killpg(self.process.pid or 0, signal_number)
        except ProcessLookupError:  # it has not come to have a group yet, or it is gone
            os.kill(self.process.pid or 0, signal_number)

    def result(self) -> subprocess.CompletedProcess[str]:
        """Return the status, once it has ended, and what it wrote until now."""
        out, err = (Path(f"{self._files}.{name}") for name in ("out", "err"))
        texts = [file.read_text() if file.exists() else "" for file in (out, err)]
        return subprocess.CompletedProcess([sys.executable, *self.command], self.process.exitcode, *texts)  # type: ignore[arg-type]


def _finish(scripts: list[_Script], timeout: float) -> list[subprocess.CompletedProcess[str]]:
    deadline = time.monotonic() + timeout
    while running := [script for script in scripts if script.process.exitcode is None]:
        wait([script.process.sentinel for script in running], max(0, deadline - time.monotonic()))
        late, failed = time.monotonic() > deadline, any(script.process.exitcode for script in scripts)
        for script in running:
            if script.process.exitcode is None and (late or failed):
                script.end(signal.SIGKILL if late else signal.SIGTERM)
                script.process.join(None if late else 20)
        if late:
            told = "".join(f"\n{done.args}\n{done.stdout}{done.stderr}" for done in (s.result() for s in scripts))
            raise AssertionError(f"not done after {timeout} s:{told}")
    return [script.result() for script in scripts]


def _be(command: list[str], environment: dict[str, str], folder: str, files: str) -> None:
    """Become what ``python COMMAND`` would be."""
    os.setpgid(0, 0)
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(f"{files}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    # It was started by "forkserver", and would start its own processes so.
    multiprocessing.set_start_method(None, force=True)
    script: Any = command[0]
    sys.argv[:] = command
    sys.path.insert(0, os.path.dirname(script))
    runpy.run_path(script, run_name="__main__")
