"""What tests of the loader share."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("scvi.dataloaders", reason="scvi-tools is not installed")

from tests.support.scvi_toys import cells

N = 43


FORMS = ("memory", "backed")


def order(loader: Any) -> list[list[int]]:
    return [cells(batch) for batch in loader]
