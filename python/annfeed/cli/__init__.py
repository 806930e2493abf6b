"""The command ``annfeed``: its arguments, and what it prints.

Arguments, errors and exit status are in `command`, how it prints in `show`. The rooms `inspection` and `rewriting` do
``annfeed inspect`` and ``annfeed rewrite``, modules of their names the other subcommands.
"""

from annfeed.cli.command import main

__all__ = ["main"]
