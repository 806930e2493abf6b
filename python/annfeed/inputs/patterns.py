"""Patterns and folders as the files that they stand for; it imports neither torch nor anndata, as the commands need."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence

from annfeed.h5ad.foreign import recognised
from annfeed.h5ad.tenx import is_tenx


def matching(path: str) -> list[str]:
    """Return the files that a pattern matches, sorted by name; a path that is no pattern, or exists, as it is.

    Raises
    ------
    FileNotFoundError
        If no file matches; `UnsupportedError` for a remote address.

    Examples
    --------
    >>> matching("atlas.h5ad")
    ['atlas.h5ad']
    """
    if not _is_pattern(path):
        return [path]
    found = sorted(glob.glob(path, recursive=True))
    if not found:
        with recognised(path):
            raise FileNotFoundError(
                f"no file matches the pattern {path!r}; expected at least one. Check folders and names "
                "(** stands for any number of folders)"
            )
    return found


def files_of(arguments: Iterable[str]) -> list[str]:
    """Return the files that arguments of a command mean: paths, patterns, and folders for the files in them.

    Those are the .h5ad files, and the Cell Ranger .h5 files (10x Genomics) that have a matrix.

    A file that is meant twice, by whatever names, is there once.

    Raises
    ------
    FileNotFoundError
        If there is none in a folder, or none matches a pattern.

    Examples
    --------
    >>> files_of(["a.h5ad", "b.h5ad"])
    ['a.h5ad', 'b.h5ad']
    """
    found: dict[str, str] = {}
    for argument in arguments:
        for path in matching(os.path.expanduser(argument)):
            for file in _in(path):
                found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def is_one_file(arguments: Sequence[str]) -> bool:
    """Return whether arguments of a command mean one file by its path, whatever files there are.

    Examples
    --------
    >>> is_one_file(["a.h5ad"]), is_one_file(["*.h5ad"]), is_one_file(["a.h5ad", "a.h5ad"])
    (True, False, False)
    """
    path = os.path.expanduser(arguments[0])
    return len(arguments) == 1 and not _is_pattern(path) and not os.path.isdir(path)


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not os.path.lexists(path)  # a file whose name has brackets is meant as it is


def _in(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    inside = os.path.join(glob.escape(path), "*")
    found = sorted([*glob.glob(f"{inside}.h5ad"), *filter(is_tenx, glob.glob(f"{inside}.h5"))])
    if not found:
        with recognised(path):
            below = os.path.join(glob.escape(path), "**", "*.h5ad")
            raise FileNotFoundError(
                f"there are no .h5ad or Cell Ranger .h5 files in the folder {path!r}; expected at least one. Pass "
                f"files or a pattern: {below!r} for those in folders within it, say"
            )
    return found
