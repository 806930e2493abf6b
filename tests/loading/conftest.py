"""What tests of loaders are given."""

from pathlib import Path

import pytest
from tests.support.toys import hand_over, toy

from annfeed import AnnDataset


@pytest.fixture
def dataset(shelf: Path) -> AnnDataset:
    """40 rows in a file, in windows of 8 rows."""
    return AnnDataset(hand_over(toy(), "path", shelf), window=8)
