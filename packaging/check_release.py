"""Checks that a release is whole before it is uploaded: the workflow `wheels` runs it with the tag and the files."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(tag: str, *files: str) -> None:
    """Exit with a message if a version, an address or a file is not what a release has."""
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    if tag != f"v{version}":
        sys.exit(f"found the tag {tag}; expected v{version}, the version in Cargo.toml")
    if "example.org" in address:
        sys.exit(
            f"pyproject.toml: found the address {address}; expected that of the repository. Set it in [project.urls]"
        )
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if not re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", heads[0]):
        sys.exit(f"CHANGELOG.md: found {heads[0]!r} on top; expected '[{version}] - ' and the day")
    patterns = ["manylinux.*x86_64", "manylinux.*aarch64", "macosx.*x86_64", "macosx.*arm64"]
    expected = [rf"annfeed-{version}-cp311-abi3-{pattern}\.whl" for pattern in patterns]
    expected += [rf"annfeed-{version}\.tar\.gz"]
    names = [Path(file).name for file in files]
    missing = [pattern for pattern in expected if not any(re.fullmatch(pattern, name) for name in names)]
    if missing or len(names) != len(expected):
        sys.exit(f"found the files {names}; expected one of each of {expected}")
    print(f"{tag}: {len(names)} files")


if __name__ == "__main__":
    main(*sys.argv[1:])
