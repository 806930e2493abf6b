"""What is the same for everybody in a run: the file, the window, the batch; and the arguments that choose them."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

from make_atlas import FOLDER, SIZES, make_atlas

#: The window, and that of small files: several of them fit.
WINDOW, SMALL_WINDOW = 16_384, 2_048
#: From so many rows on a file is not small.
LARGE_ROWS = 100_000


@dataclass(frozen=True)
class Settings:
    """What is the same for all contenders of a run."""

    file: Path
    folder: Path
    window: int = WINDOW
    batch: int = 128
    cache: str = "2GiB"
    seed: int = 0

    def as_json(self) -> str:
        """For another process."""
        return json.dumps(vars(self) | {"file": str(self.file), "folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What `as_json` gave."""
        values = json.loads(text)
        return cls(**values | {"file": Path(values["file"]), "folder": Path(values["folder"])})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose data, window and batch."""
    parser.add_argument("--size", choices=SIZES, default=os.environ.get("SIZE", "small"))
    parser.add_argument("--file", type=Path, help="a CSR .h5ad of counts to read instead of a made one")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--base", type=Path, help="real count file to scale up; default: the one inside scanpy")
    parser.add_argument("--window", type=int, help="rows read together; default 16,384, or 2,048 on small files")
    parser.add_argument("--batch", type=int, default=128)


def chosen(given: argparse.Namespace) -> tuple[str, Settings]:
    """The label of the data and the settings that the arguments ask for; the data is made if it is not there."""
    import h5py

    path = given.file or make_atlas(SIZES[given.size], base=given.base)
    with h5py.File(path) as file:
        n_obs = int(file["X"].attrs["shape"][0])
    window = given.window or (WINDOW if n_obs >= LARGE_ROWS else SMALL_WINDOW)
    label = given.label or SIZES[given.size].label
    return label, Settings(path.resolve(), FOLDER, window=window, batch=given.batch)


def is_large(given: argparse.Namespace) -> bool:
    """Whether the data chosen deserves long runs."""
    return given.file is not None or given.size == "200k"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def warm(path: Path) -> None:
    """Read a file, or those in a folder, once, so that they lie in the page cache."""
    for each in path.rglob("*") if path.is_dir() else [path]:
        if each.is_file():
            with each.open("rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass
