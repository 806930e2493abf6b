"""States that 0.1 saved: they are loaded, what comes is what would have come then, and new ones have the same form."""

import json
from pathlib import Path

import pytest
import torch
from tests.golden.make_states import CASES, N_BATCHES, SETS, column_of, rank_of, rows, write
from tests.support.places import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*\\(fallback\\)")  # of the case of fallbacks

GOLDEN = {path.stem.removeprefix("states-"): json.loads(path.read_text())
          for path in (ROOT / "tests" / "golden").glob("states-*.json")}  # fmt: skip
SAVED = [(version, name) for version, states in GOLDEN.items() for name in states]
#: The states that are saved today: of each case the last ones.
LAST = list({name: (version, name) for version, name in sorted(SAVED)}.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("golden")
    write(made)
    return made


def test_there_are_states_of_each_order() -> None:
    assert GOLDEN["0.1"].keys() == CASES.keys() and GOLDEN["0.2-sets"].keys() == SETS.keys()
    assert GOLDEN["0.1-spread"].keys() == {name for name in CASES if "block" in name} | {"rank 1 of 2"}


@pytest.mark.parametrize(("version", "name"), SAVED)
def test_a_saved_state_goes_on_with_what_would_have_come(folder: Path, version: str, name: str) -> None:
    saved, column = GOLDEN[version][name], column_of(name)
    with rank_of(name):
        loader = (CASES | SETS)[name](folder)
        if "RandomSampler" in name:  # its order is drawn from torch's generator: epoch 0's, then epoch 1's
            torch.manual_seed(3)
            list(loader.sampler)
        loader.load_state_dict(saved["state"])
        assert rows(loader, column) == saved["after"]
        assert loader.state_dict() == saved["end"]
        assert rows(loader, column) == saved["epoch 2"]


@pytest.mark.parametrize(("version", "name"), LAST)
def test_a_state_has_the_form_that_it_had(folder: Path, version: str, name: str) -> None:
    saved, column = GOLDEN[version][name], column_of(name)
    torch.manual_seed(3)
    with rank_of(name):
        loader = (CASES | SETS)[name](folder)
        assert rows(loader, column) == saved["epoch 0"]
        batches = iter(loader)
        assert rows((next(batches) for _ in range(N_BATCHES)), column) == saved["before"]
        state = loader.state_dict()
        assert state == saved["state"]
        assert {key: type(value) for key, value in state.items()} == {
            key: type(value) for key, value in saved["state"].items()
        }
        batches.close()
