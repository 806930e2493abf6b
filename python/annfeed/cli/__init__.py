"""The command ``annfeed``: what it takes is in `command`, and each of its parts in a module of that name."""

from annfeed.cli.command import main

__all__ = ["main"]
