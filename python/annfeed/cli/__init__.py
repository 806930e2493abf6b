"""The command ``annfeed``: its arguments, and what it prints.

Its arguments are in `command`, each subcommand in a module of its name. Facts of a file are found in inspection.py and the
rooms below; a file is rewritten in rewriting/.
"""

from annfeed.cli.command import main

__all__ = ["main"]
