"""Checks the licences of what is compiled in: `make lint` runs it, `make licences` makes them.

Every crate of the builds has to be in the list, in its locked version, with the text of a licence, and pyproject.toml
has to name every licence. It needs cargo and the crates, and neither network nor cargo-about.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "LICENSES-THIRD-PARTY.txt"
RULE = "\n" + "-" * 120 + "\n"


def compiled_in(target: str) -> set[str]:
    """Return "name version" of every crate of the wheel for this target, but annfeed."""
    command = ["cargo", "tree", "--locked", "--edges", "normal", "--features", "python", "--prefix", "none"]
    command += ["--format", "{p}", "--target", target]
    tree = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    crates = {" ".join(line.split()[:2]).replace(" v", " ") for line in tree.splitlines() if line}
    return {crate for crate in crates if not crate.startswith("annfeed ")}


def listed(text: str) -> tuple[set[str], set[str]]:
    """Return the crates and the licences of the list."""
    crates, licences = set(), set()
    for entry in text.split(RULE)[1:]:
        head, names, terms = re.fullmatch(r"([^\n]+)\n\n((?:- [^\n]+\n)+)\n(.+)", entry, re.DOTALL).groups()
        if len(terms) < 400:
            sys.exit(
                f"{LIST.name}: found {len(terms)} characters of {head!r}; expected a licence. Run `make licences`."
            )
        crates |= set(re.findall(r"^- (\S+ [^\s,]+)", names, re.MULTILINE))
        licences.add(re.search(r"\((\S+)\)$", head)[1])
    return crates, licences


def main() -> None:
    """Exit with a message that says what is missing and how it gets there."""
    targets = tomllib.loads((ROOT / "packaging/about.toml").read_text())["targets"]
    crates = set().union(*map(compiled_in, targets))
    found, licences = listed(LIST.read_text())
    if found != crates:
        missing, over = sorted(crates - found), sorted(found - crates)
        sys.exit(f"{LIST.name}: {missing} missing, {over} no longer compiled in. Run `make licences`, commit the file.")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = " AND ".join(["BSD-3-Clause", *sorted(licences - {"BSD-3-Clause"})])
    if project["license"] != expected:
        sys.exit(f"pyproject.toml: found license = {project['license']!r}; expected {expected!r}")
    print(f"{LIST.name}: {len(crates)} crates, {len(licences)} licences")


if __name__ == "__main__":
    main()
