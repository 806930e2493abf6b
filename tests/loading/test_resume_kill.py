"""A run that is killed and begun again equals one that was left alone, batch by batch; alone and on two ranks."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
import torch.distributed as dist
from tests.support.places import SCRIPTS
from tests.support.processes import run, run_ranks
from tests.support.toys import hand_over, toy

SCRIPT = SCRIPTS / "resume_script.py"
#: 61 rows in batches of 4: 16 a rank and epoch alone, 8 on two ranks.
N_ROWS = 61


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hand_over(toy(N_ROWS), "path", tmp_path_factory.mktemp("shelf"))


def train(path: Path, folder: Path, kill_at: int = 0, num_workers: int = 0) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return run(SCRIPT, path, folder, kill_at, num_workers)


def train_on_two_ranks(path: Path, folder: Path, kill_at: int = 0) -> list[subprocess.CompletedProcess[str]]:
    folder.mkdir(exist_ok=True)
    return run_ranks(2, SCRIPT, path, folder, kill_at, 0)


def steps(folder: Path, rank: int = 0) -> tuple[list[dict], int]:
    """The steps of a run, the last word on each, and how many were made twice."""
    lines = [json.loads(line) for line in (folder / f"{rank}.jsonl").read_text().splitlines()]
    found = {line["step"]: line for line in lines}
    return [found[step] for step in range(len(found))], len(lines) - len(found)


def check_epochs(ranks: list[list[dict]]) -> None:
    """Each epoch holds each row, with one more where ranks are filled up."""
    for epoch in range(3):
        rows = [row for steps in ranks for step in steps if step["epoch"] == epoch for row in step["rows"]]
        assert set(rows) == set(range(N_ROWS))
        assert len(rows) - N_ROWS in range(len(ranks))


@pytest.fixture(scope="module")
def alone(path: Path) -> list[dict]:
    """The steps of a run that nobody disturbs."""
    done = train(path, path.parent / "alone")
    assert done.returncode == 0, done.stderr
    return steps(path.parent / "alone")[0]


@pytest.mark.parametrize(("num_workers", "kill_at"), [(0, 22), (2, 26)])
def test_killed_and_begun_again(path: Path, tmp_path: Path, alone: list[dict], num_workers: int, kill_at: int) -> None:
    killed = train(path, tmp_path / "killed", kill_at, num_workers)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = train(path, tmp_path / "killed", kill_at, num_workers)
    assert again.returncode == 0, again.stderr
    found, n_twice = steps(tmp_path / "killed")
    assert found == alone
    assert n_twice == kill_at % 3
    check_epochs([found])


@pytest.mark.skipif(not dist.is_available(), reason="torch is built without torch.distributed")
def test_two_ranks(path: Path, tmp_path: Path) -> None:
    for done in train_on_two_ranks(path, tmp_path / "alone"):
        assert done.returncode == 0, done.stderr
    # One kills itself, and the other is ended.
    killed = train_on_two_ranks(path, tmp_path / "killed", 11)
    assert killed[1].returncode == -signal.SIGKILL, killed[1].stderr
    assert killed[0].returncode != 0
    assert (tmp_path / "killed" / "killed").exists()
    for again in train_on_two_ranks(path, tmp_path / "killed", 11):
        assert again.returncode == 0, again.stderr
    ranks = []
    for rank in range(2):
        expected, _ = steps(tmp_path / "alone", rank)
        found, n_twice = steps(tmp_path / "killed", rank)
        assert found == expected
        assert n_twice >= 1
        ranks.append(found)
    check_epochs(ranks)
