"""Writes the scripts that complete the arguments of `annfeed` in bash, zsh and fish: python/annfeed/cli/completions.

    python packaging/completions.py

shtab makes them of the parser. They are made here and not on the user's machine, so that annfeed needs no package for
them and a shell starts no Python to complete a word. A test compares them with what shtab makes now.
"""

from __future__ import annotations

from pathlib import Path

import shtab

from annfeed.cli.command import argument_parser

FOLDER = Path(__file__).resolve().parent.parent / "python" / "annfeed" / "cli" / "completions"
SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """The script for a shell."""
    parser = argument_parser()
    for action in parser._actions:
        for command in (action.choices or {}).values() if hasattr(action, "choices") else ():
            for argument in command._actions:
                if argument.metavar in ("FILE", "IN", "OUT", "OUT.png"):
                    argument.complete = shtab.FILE
    return shtab.complete(parser, shell=shell)


def main() -> None:
    """Write all."""
    FOLDER.mkdir(exist_ok=True)
    for shell in SHELLS:
        (FOLDER / f"annfeed.{shell}").write_text(script(shell), encoding="utf-8")


if __name__ == "__main__":
    main()
