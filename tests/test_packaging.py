"""What is said of annfeed in more than one place: versions, dependencies, the page on PyPI."""

import re
import runpy
import tomllib
from contextlib import nullcontext
from pathlib import Path

import pytest

import annfeed

ROOT = Path(__file__).parents[1]
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_one():
    version = CARGO["package"]["version"]
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    assert [package["version"] for package in locked if package["name"] == "annfeed"] == [version]
    assert annfeed.__version__ == version, "the core is of another version: build it again"
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == version
    assert re.search(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version
    assert re.search(r'^  version: "(.+)"$', (ROOT / "packaging/conda/recipe.yaml").read_text(), re.M)[1] == version


def test_each_dependency_has_its_reason():
    optional = dict(PYPROJECT["project"]["optional-dependencies"])
    building = [PYPROJECT["build-system"]["requires"], *(optional.pop(group) for group in ("test", "docs", "dev"))]
    users = names(PYPROJECT["project"]["dependencies"], *optional.values())
    expected = {
        "Python, for users": users,
        "Python, for building and testing": names(*building) - users - {"annfeed"},
        "Rust, in the core": {crate.get("package", name) for name, crate in of("dependencies").items()},
        "Rust, for tests": set(of("dev-dependencies")),
    }
    section = re.search(r"^## Dependencies$(.*?)^## ", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)[1]
    tables = dict(re.findall(r"^(.+):\n\n((?:\|.+\n)+)", section, re.M))
    found = {head: re.findall(r"^\| (\S+) \| \S.+ \|$", rows, re.M)[1:] for head, rows in tables.items()}
    assert {head: sorted(rows) for head, rows in found.items()} == {head: sorted(e) for head, e in expected.items()}


def test_the_oldest_packages_are_those_of_pyproject():
    bounds = [requirement.replace(">=", "==") for requirement in PYPROJECT["project"]["dependencies"]]
    oldest = re.findall(r"^[^#].*$", (ROOT / "packaging/oldest.txt").read_text(), re.M)
    assert [re.sub(r"\.0$", "", pin) for pin in oldest[: len(bounds)]] == [re.sub(r"\.0$", "", b) for b in bounds]


def test_the_recipe_of_conda_needs_the_same():
    recipe = (ROOT / "packaging/conda/recipe.yaml").read_text()
    run = re.search(r"^  run:\n    - python .*\n((?:    - .+\n)+)", recipe, re.M)[1]
    needed = [line.removeprefix("    - ").replace(" ", "").replace("pytorch", "torch") for line in run.splitlines()]
    assert needed == PYPROJECT["project"]["dependencies"]
    assert re.search(r"^  license: (.+)$", recipe, re.M)[1] == PYPROJECT["project"]["license"]


def names(*groups: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement)[0] for group in groups for requirement in group}


def of(kind: str) -> dict[str, dict]:
    return {name: crate if isinstance(crate, dict) else {} for name, crate in CARGO[kind].items()}


def test_the_page_on_pypi_has_no_relative_links():
    with_addresses = runpy.run_path(str(ROOT / "packaging/source_tree.py"))["with_addresses"]
    assert with_addresses(
        "# A\n[b](docs/scvi.md#models), [c](https://x.y/z), [d](#a)\n"
        '![f](docs/benchmarks.md) <img alt="g" src="README.md"> [![h](LICENSE)](CITATION.cff)\n'
        "```python\nf[0](docs)\n```\n",
        "https://u.v/w",
        "v1",
    ) == (
        "# A\n[b](https://u.v/w/blob/v1/docs/scvi.md#models), [c](https://x.y/z), [d](#a)\n"
        '![f](https://u.v/w/raw/v1/docs/benchmarks.md) <img alt="g" src="https://u.v/w/raw/v1/README.md"> '
        "[![h](https://u.v/w/raw/v1/LICENSE)](https://u.v/w/blob/v1/CITATION.cff)\n"
        "```python\nf[0](docs)\n```\n"
    )
    page = with_addresses((ROOT / "README.md").read_text(), "https://u.v/w", "v1")
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 10
    assert [link for link in links if not re.match(r"https://|#", link)] == []


FILES = [
    "annfeed-1.2.0-cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "annfeed-1.2.0-cp311-abi3-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
    "annfeed-1.2.0-cp311-abi3-macosx_10_12_x86_64.whl",
    "annfeed-1.2.0-cp311-abi3-macosx_11_0_arm64.whl",
    "annfeed-1.2.0.tar.gz",
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"tag": "v1.2"}, "expected v1.2.0"),
        ({"address": "https://example.org/annfeed"}, "expected that of the repository"),
        ({"day": "unreleased"}, "found '\\[1.2.0\\] - unreleased'"),
        ({"files": FILES[1:]}, "manylinux.*x86_64"),
        ({"files": [*FILES, "annfeed-1.1.0.tar.gz"]}, "expected one of each"),
    ],
)
def test_a_release_that_is_not_whole_is_refused(tmp_path, change, message):
    release = {"tag": "v1.2.0", "address": "https://u.v/w", "day": "2026-12-01", "files": FILES} | change
    (tmp_path / "Cargo.toml").write_text('[package]\nversion = "1.2.0"\n')
    (tmp_path / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{release["address"]}"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## [1.2.0] - {release['day']}\n\n## [1.1.0] - 2026-11-30\n")
    check = runpy.run_path(str(ROOT / "packaging/check_release.py"))["main"]
    check.__globals__["ROOT"] = tmp_path
    with nullcontext() if message is None else pytest.raises(SystemExit, match=message):
        check(release["tag"], *(f"dist/{name}" for name in release["files"]))
