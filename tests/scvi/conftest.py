"""What tests of annfeed.scvi are given. scvi-tools is imported where it is used, as it may not be installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scvi

    monkeypatch.chdir(tmp_path)  # Lightning and scvi-tools write their logs where they are
    scvi.settings.seed = 0  # the split


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file of 120 cells."""
    from tests.support.scvi_toys import toy

    toy(120).write_h5ad(tmp_path / "toy.h5ad", compression="gzip")
    return tmp_path / "toy.h5ad"


@pytest.fixture(params=("memory", "backed"))
def registered(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return a manager of 43 cells, in memory and backed."""
    from tests.support.scvi_toys import backed, manager, toy

    return manager(toy(43) if request.param == "memory" else backed(toy(43), tmp_path))
