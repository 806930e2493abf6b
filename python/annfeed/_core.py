"""Stands in for the compiled core where that is missing: Python takes the compiled module before a file of its name."""

raise ImportError(
    "annfeed: found no compiled core for this Python and system; expected one beside annfeed/_core.py. Install a wheel "
    "(pip install annfeed), or build it: CONTRIBUTING.md of the repository tells how"
)
