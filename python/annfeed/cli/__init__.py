"""The command ``annfeed``: its arguments are in `command`, what its parts do in modules of their names."""

from annfeed.cli.command import main

__all__ = ["main"]
