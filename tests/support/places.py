"""Where things lie that tests read or run."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Scripts that tests run in processes of their own.
SCRIPTS = ROOT / "tests" / "scripts"
#: Real .h5ad files and the contracts, which are not part of the repository.
SHARED = ROOT.parent / "shared"
CORPUS = SHARED / "corpus"
