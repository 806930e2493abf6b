"""Checks what a wheel or an sdist holds: `make` runs it with the file and the paths that must not be in it."""

from __future__ import annotations

import email
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

LICENCES = ["LICENSE", "LICENSES-THIRD-PARTY.txt"]


def contents(file: str) -> dict[str, bytes]:
    """Return the files of an archive, without the folder that an sdist has around them."""
    if file.endswith(".whl"):
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(file) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return {member.name.partition("/")[2]: archive.extractfile(member).read() for member in members}


def faults(files: dict[str, bytes], wheel: bool, paths: tuple[str, ...]) -> Iterator[str]:
    """Yield what is missing or wrong."""
    if wheel:
        place = next(name for name in files if name.endswith(".dist-info/METADATA"))
        needed = ["annfeed/py.typed", "annfeed/_core.pyi", "annfeed/_core.abi3.so"]
        needed += [place.replace("METADATA", f"licenses/{name}") for name in LICENCES]
    else:
        place = "PKG-INFO"
        needed = ["python/annfeed/py.typed", "python/annfeed/_core.pyi", "rust/lib.rs", "Cargo.lock", *LICENCES]
    yield from (f"{name} is missing" for name in needed if name not in files)
    yield from (f"{name} should not be there" for name in files if not wheel and name.endswith((".so", ".pyc")))
    yield from (f"{name} holds {path}" for name in files for path in paths if path.encode() in files[name])

    metadata = email.message_from_bytes(files[place])
    if sorted(metadata.get_all("License-File", [])) != LICENCES:
        yield f"{place}: found License-File {metadata.get_all('License-File')}; expected {LICENCES}"
    if " AND " not in metadata["License-Expression"]:
        yield f"{place}: found License-Expression {metadata['License-Expression']!r}; expected all licences"
    if not metadata.get_all("Project-URL"):
        yield f"{place}: no Project-URL"
    page = re.sub(r"^```.*?^```", "", metadata.get_payload(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)]*)\)|(?:src|srcset|href)=\"([^\"]*)\"", page)
    relative = [link for pair in links for link in pair if link and not link.startswith(("https://", "#"))]
    if relative or not links:
        yield f"{place}: {len(links)} links; these are relative: {relative}"


def main(file: str, *paths: str) -> None:
    """Exit with a message that says what is missing or wrong."""
    files = contents(file)
    if found := list(faults(files, file.endswith(".whl"), paths)):
        sys.exit("\n".join([f"{file}:", *found]))
    print(f"{Path(file).name}: {len(files)} files, with the licences of all parts, without a path of this machine")


if __name__ == "__main__":
    main(*sys.argv[1:])
