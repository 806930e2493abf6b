"""What is said of annfeed in more than one place: versions, dependencies."""

import re
import tomllib
from pathlib import Path

import annfeed

ROOT = Path(__file__).parents[1]
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())


def test_the_version_is_one():
    version = CARGO["package"]["version"]
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    assert [package["version"] for package in locked if package["name"] == "annfeed"] == [version]
    assert annfeed.__version__ == version, "the core is of another version: build it again"
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == version
    assert re.search(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version
