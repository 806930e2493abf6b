"""What all Python tests share: the folder of real .h5ad files, which is not part of the repository."""

from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"


# Not a module with examples; and pytest would import it under the name of the other conftest.
collect_ignore = ["conftest.py"]
# Run by tests in processes of their own; some need what may not be installed.
collect_ignore_glob = ["*_script.py"]


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Return the folder of real .h5ad files; a test that asks for it is skipped where the folder is absent."""
    if not CORPUS.is_dir():
        pytest.skip(f"the corpus of real .h5ad files is not at {CORPUS}")
    return CORPUS
