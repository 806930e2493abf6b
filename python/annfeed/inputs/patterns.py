"""Patterns and folders as the files that they stand for; it imports neither torch nor anndata, as the commands need."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from annfeed.h5ad.foreign import recognised


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
    # A file whose name has brackets is meant as it is.
    if not glob.has_magic(path) or os.path.lexists(path):
        return [path]
    found = sorted(glob.glob(path, recursive=True))
    if not found:
        with recognised(path):
            raise FileNotFoundError(2, "no file matches the pattern", path)
    return found


def files_of(arguments: Iterable[str]) -> list[str]:
    """Return the files that arguments of a command mean: paths, patterns, and folders for the .h5ad files in them.

    Raises
    ------
    FileNotFoundError
        If there is none in a folder, or none matches a pattern.

    Examples
    --------
    >>> files_of(["a.h5ad", "b.h5ad"])
    ['a.h5ad', 'b.h5ad']
    """
    return [file for argument in arguments for path in matching(os.path.expanduser(argument)) for file in _in(path)]


def _in(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    found = sorted(glob.glob(os.path.join(glob.escape(path), "*.h5ad")))
    if not found:
        with recognised(path):
            raise FileNotFoundError(2, "there are no .h5ad files in the folder", path)
    return found
