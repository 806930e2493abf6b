"""What docs/cli.md shows is what the commands print, but for numbers and bars."""

import doctest
import re
import shlex
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.places import ROOT

from annfeed.cli import main
from annfeed.cli.command import argument_parser

PAGE = (ROOT / "docs" / "cli.md").read_text()
EXAMPLES = re.findall(r"^```console\n\$ annfeed ([^\n]*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with the files of which the page speaks."""
    x = sp.random(3_000, 200, 0.25, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    kinds = {name: pd.Categorical(["a", "b"] * 1_500) for name in ("cell_type", "donor_id", "assay")}
    numbers = {"is_primary_data": True, "n_genes_wanted": np.int32(7)}
    obs = pd.DataFrame({**kinds, **numbers}, index=[f"c{i}" for i in range(3_000)])
    adata = anndata.AnnData(x, obs=obs)
    adata.write_h5ad(tmp_path / "atlas.h5ad", compression="gzip")
    (tmp_path / "shards").mkdir()
    for i, name in enumerate("abc"):
        part = adata[i * 1_000 : (i + 1) * 1_000].copy()
        if name == "c":
            part.X = part.X.tocsc()
        part.write_h5ad(tmp_path / "shards" / f"donors_{name}.h5ad", compression="gzip")
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "WORLD_SIZE", "RANK", "LOCAL_RANK", "OMP_NUM_THREADS", "ANNFEED_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def words(text: str) -> str:
    """Lines without numbers, bars, and what differs from machine to machine."""
    lines = []
    for line in text.splitlines():
        if re.match(r" +(system|processor|python|core|memory|threads|storage) ", line):
            line = line[: line.index(line.split()[0])] + line.split()[0]
        if re.match(r" +(numpy|pandas|torch) ", line):
            line = line.split()[0]
        if re.match(r" +variables ", line):
            continue
        line = re.sub(r"[\u2588-\u258f]+", "", line)
        lines.append(" ".join(re.sub(r"[\d,.]*\d", "#", line).split()) if line.strip() != "..." else "...")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("command", "wanted"), EXAMPLES, ids=lambda text: text.split()[0])
def test_examples_print_what_the_page_shows(
    command: str, wanted: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = shlex.split(command)
    assert main([*arguments, *(["--seconds", "0.01"] if arguments[0] == "bench" else [])]) == 0
    found = capsys.readouterr().out
    checker = doctest.OutputChecker()
    assert checker.check_output(words(wanted), words(found), doctest.ELLIPSIS), f"{words(wanted)}\n---\n{words(found)}"


def test_the_page_has_each_command_and_names_options_that_exist() -> None:
    commands = argument_parser()._subparsers._group_actions[0].choices
    assert {example.split()[0] for example, _ in EXAMPLES} == set(commands) - {"completion"}
    assert set(re.findall(r"^\| \[`annfeed (\w+)", PAGE, re.MULTILINE)) == set(commands)
    options = {option for parser in commands.values() for option in parser._option_string_actions}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) <= options


def test_the_page_has_the_keys_of_the_json() -> None:
    from tests.inspection.test_shown import KEYS

    table = PAGE[PAGE.index("### JSON") :].split("\n\n")[2]
    assert set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()))) == KEYS
