"""The scripts that complete the arguments of `annfeed` in shells."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.places import ROOT

from annfeed.cli import main
from annfeed.cli.command import argument_parser


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("completions", ROOT / "packaging" / "completions.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_of_the_arguments_that_there_are(
    shell: str, maker: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script == maker.script(shell), "run: python packaging/completions.py"


def test_each_shell_has_a_script(maker: ModuleType) -> None:
    commands = argument_parser()._subparsers._group_actions[0].choices
    assert commands["completion"]._actions[-1].choices == maker.SHELLS
    assert {path.suffix[1:] for path in maker.FOLDER.iterdir()} == set(maker.SHELLS)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["re"], ["rewrite"]),
        (["inspect", "--j"], ["--json"]),
        (["rewrite", "a.h5ad", "b.h5ad", "--rows", "sh"], ["shuffled"]),
        (["doctor", "cel"], ["cells.h5ad"]),
        (["completion", "z"], ["zsh"]),
    ],
)
def test_bash_completes(words: list[str], wanted: list[str], maker: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "cells.h5ad").touch()
    ask = 'source "$0"; COMP_WORDS=(annfeed "$@"); COMP_CWORD=$#; _shtab_annfeed; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-c", ask, str(maker.FOLDER / "annfeed.bash"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == wanted
