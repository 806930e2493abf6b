"""A matrix that cannot be read is told when the dataset is made, in a list of files as alone, by the same error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.support.toys import toy, write

from annfeed import AnnDataset, FormatError


def _another_encoding(file: h5py.File) -> None:
    file["X"].attrs["encoding-type"] = "bsr_matrix"


def _no_encoding(file: h5py.File) -> None:
    del file["X"].attrs["encoding-type"]


def _dense_of_another_encoding(file: h5py.File) -> None:
    del file["X"]
    file["X"] = np.zeros((40, 7), "float32")
    file["X"].attrs["encoding-type"] = "rec-array"


def _complex(file: h5py.File) -> None:
    data = file["X/data"][:].astype("complex64")
    del file["X/data"]
    file["X/data"] = data


def _text(file: h5py.File) -> None:
    del file["X"]
    file["X"] = np.full((40, 7), b"a")
    file["X"].attrs["encoding-type"] = "array"


def _three_axes(file: h5py.File) -> None:
    del file["X"]
    file["X"] = np.zeros((40, 7, 1), "float32")
    file["X"].attrs["encoding-type"] = "array"


def _indices_that_are_floats(file: h5py.File) -> None:
    indices = file["X/indices"][:].astype("float64")
    del file["X/indices"]
    file["X/indices"] = indices


def _no_indptr(file: h5py.File) -> None:
    del file["X/indptr"]


FAULTS = [
    _another_encoding,
    _no_encoding,
    _dense_of_another_encoding,
    _complex,
    _text,
    _three_axes,
    _indices_that_are_floats,
    _no_indptr,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_told_when_the_dataset_is_made(fault: Callable[[Any], None], tmp_path: Path) -> None:
    good, bad = (write(toy(), tmp_path / f"{name}.h5ad") for name in ("good", "bad"))
    with h5py.File(bad, "r+") as file:
        fault(file)
    with pytest.raises(FormatError, match=r"bad\.h5ad") as alone:
        AnnDataset(bad)
    with pytest.raises(FormatError, match=r"bad\.h5ad") as listed:
        AnnDataset([good, bad])
    assert (type(listed.value), str(listed.value)) == (type(alone.value), str(alone.value))


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_nothing_is_opened_again_for_it(kind: str, compression: str | None, tmp_path: Path) -> None:
    paths = [write(toy(kind=kind), tmp_path / f"{i}.h5ad", compression=compression) for i in range(2)]
    dataset = AnnDataset(paths)
    assert dataset.stats()["opens"] == 0  # by the reader, which comes with the first batch
    assert dataset[[3, 43]][0]["X"][0] == 3
