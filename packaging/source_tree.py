"""Copies what a release is made of into a folder: `make wheel` and `make sdist` build there.

These are the files that git knows, as they are now. README.md becomes the project's page on PyPI, which has no other
pages beside it: its links get the address of the repository, at the tag of this version.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def with_addresses(text: str, address: str, tag: str) -> str:
    """Return a page in Markdown with an address in front of every link to a file of the project."""

    def absolute(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        if not (ROOT / target.partition("#")[0]).exists():
            sys.exit(f"README.md: found a link to {target!r}; expected a file of the project. Mend the link.")
        kind = "raw" if before.startswith(("!", "<img", "<source")) else "blob"
        return f"{before}{address}/{kind}/{tag}/{target}{after}"

    relative = r"(?!\w+:|#|/)([^)\"\s]+)"
    parts = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    for i in range(0, len(parts), 2):  # code is in the others
        parts[i] = re.sub(rf"(!\[[^\]]*\]\(){relative}(\))", absolute, parts[i])
        parts[i] = re.sub(rf"(\]\(){relative}(\))", absolute, parts[i])
        parts[i] = re.sub(rf"(<(?:img|source|a)\b[^>]*?(?:src|srcset|href)=\"){relative}(\")", absolute, parts[i])
    return "".join(parts)


def main(folder: str) -> None:
    """Make the folder anew and fill it."""
    tree = Path(folder)
    shutil.rmtree(tree, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    readme = tree / "README.md"
    readme.write_text(with_addresses(readme.read_text(), project["urls"]["Repository"], f"v{version}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
