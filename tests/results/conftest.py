"""What tests of results are given."""

from pathlib import Path

import pytest
from tests.support.toys import hand_over, toy


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return hand_over(toy(), "path", tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three files, of 12, 20 and 8 of the toy's rows."""
    adata, paths = toy(), []
    for name, start, stop in (("a", 0, 12), ("b", 12, 32), ("c", 32, 40)):
        paths.append(tmp_path / f"{name}.h5ad")
        adata[start:stop].copy().write_h5ad(paths[-1])
    return paths
