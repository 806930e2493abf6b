"""What tests of the data module share."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("scvi.model", reason="scvi-tools is not installed")

import scvi

N = 120


V15 = tuple(map(int, scvi.__version__.split(".")[:2])) >= (1, 5)


TRAIN: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 2}
