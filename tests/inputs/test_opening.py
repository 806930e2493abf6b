"""What cannot be opened, was written wrongly, or is of another kind: one error, however it is handed over."""

import bz2
import gzip
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from anndata.io import write_elem
from tests.support.toys import dense, toy

from annfeed import AnnDataset, FormatError, UnknownNameError, UnsupportedError
from annfeed.cli import main
from annfeed.h5ad.foreign import find_foreign
from annfeed.inputs.single import as_path

#: How a bad file is handed over: alone, or one of several.
WAYS: dict[str, Callable[[Path], Any]] = {
    "alone": lambda bad: bad,
    "list": lambda bad: [bad.parent / "a_good.h5ad", bad],
    "dict": lambda bad: {"good": bad.parent / "a_good.h5ad", "bad": str(bad)},
    "pattern": lambda bad: str(bad.parent / "*"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.h5ad"
    toy().write_h5ad(path)
    return path


@contextmanager
def as_nobody() -> Iterator[None]:
    """Who may read all is nobody for a while."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def put(file: h5py.File, place: str, value: Any) -> None:
    group, _, name = place.rpartition("/")
    write_elem(file.require_group(group) if group else file, name, value)


def fail(what: Any, **options: Any) -> Exception:
    """The error of making the dataset, or else of its first batch."""
    with pytest.raises((OSError, ValueError, KeyError)) as caught:
        AnnDataset(what, **options)[[-1]]
    return caught.value


# One fault, one class. -----------------------------------------------------------------------------------------------


def truncated(path: Path, good: bytes) -> None:
    path.write_bytes(good[: len(good) // 2])


def without(name: str) -> Callable[[Path, bytes], None]:
    def make(path: Path, good: bytes) -> None:
        path.write_bytes(good)
        with h5py.File(path, "r+") as file:
            del file[name]

    return make


def of_complex_numbers(path: Path, good: bytes) -> None:
    without("X")(path, good)
    with h5py.File(path, "r+") as file:
        file["X"] = np.ones((40, 7), np.complex64)


FAULTS: dict[str, tuple[Callable[[Path, bytes], Any], type[Exception]]] = {
    "truncated": (truncated, FormatError),
    "empty": (lambda path, good: path.touch(), FormatError),
    "text": (lambda path, good: path.write_text("no .h5ad " * 999), FormatError),
    "signature alone": (lambda path, good: path.write_bytes(good[:8]), FormatError),
    "missing": (lambda path, good: None, FileNotFoundError),
    "a link to nothing": (lambda path, good: path.symlink_to("nothing"), FileNotFoundError),
    "a folder": (lambda path, good: path.mkdir(), IsADirectoryError),
    "a pipe": (lambda path, good: os.mkfifo(path), OSError),
    "no X": (without("X"), UnknownNameError),
    "no obs": (without("obs"), FormatError),
    "a matrix of nothing known": (of_complex_numbers, UnsupportedError),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_class_of_error(tmp_path: Path, good: Path, fault: str, way: str) -> None:
    make, kind = FAULTS[fault]
    (tmp_path / "a_good.h5ad").symlink_to(good)
    bad = tmp_path / "bad.h5ad"
    make(bad, good.read_bytes())
    error = fail([bad] if fault == "missing" and way == "pattern" else WAYS[way](bad))
    assert type(error) is kind or (kind is OSError and isinstance(error, OSError)), repr(error)
    assert "bad.h5ad" in str(error)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_may_not_be_read(good: Path, way: str) -> None:
    # A folder of its own, as that of tests may be closed to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for number in ("a_good", "bad"):
            (folder / f"{number}.h5ad").write_bytes(good.read_bytes())
            (folder / f"{number}.h5ad").chmod(0o644)
        _ = AnnDataset(WAYS[way](folder / "bad.h5ad"))[[-1]]  # and everything is imported
        (folder / "bad.h5ad").chmod(0)
        with as_nobody():
            error = fail(WAYS[way](folder / "bad.h5ad"))
    assert type(error) is PermissionError, repr(error)
    assert "bad.h5ad" in str(error)


def test_a_folder_is_told_what_to_write(tmp_path: Path) -> None:
    assert f"{tmp_path}/*.h5ad" in str(fail(tmp_path))


# Lengths that do not agree. ------------------------------------------------------------------------------------------


def frame(n: int, letter: str) -> pd.DataFrame:
    return pd.DataFrame(index=[f"{letter}{i}" for i in range(n)])


#: What is replaced in a file of 40 x 7 (raw: 14), and the matrix that does not fit then.
LENGTHS = {
    "X, var shorter": ("var", frame(5, "g"), "X"),
    "X, var longer": ("var", frame(9, "g"), "X"),
    "layer, var longer": ("var", frame(9, "g"), "layers/counts"),
    "raw, its var shorter": ("raw/var", frame(7, "r"), "raw/X"),
    "raw, its var longer": ("raw/var", frame(15, "r"), "raw/X"),
    "X, obs shorter": ("obs", frame(39, "c"), "X"),
    "layer, obs longer": ("obs", frame(41, "c"), "layers/counts"),
    "raw, obs longer": ("obs", frame(41, "c"), "raw/X"),
    "obsm, obs longer": ("obs", frame(41, "c"), "obsm/X_pca"),
    "obsm, itself shorter": ("obsm/X_pca", np.zeros((39, 3)), "obsm/X_pca"),
    "layer, itself narrower": ("layers/counts", sp.csr_matrix((40, 6)), "layers/counts"),
    "raw, itself wider": ("raw/X", np.ones((40, 15), "float32"), "raw/X"),
}


@pytest.mark.parametrize("way", ["alone", "list", "dict", "pattern"])
@pytest.mark.parametrize("case", LENGTHS)
def test_lengths_that_do_not_agree(tmp_path: Path, good: Path, case: str, way: str) -> None:
    place, value, elem = LENGTHS[case]
    (tmp_path / "a_good.h5ad").symlink_to(good)
    bad = tmp_path / "bad.h5ad"
    bad.write_bytes(good.read_bytes())
    with h5py.File(bad, "r+") as file:
        del file[place]
        put(file, place, value)
    n_names = len(pd.DataFrame(value)) if place.endswith("var") else None
    asks: list[dict[str, Any]] = [{"elem": elem}, {"elem": {"a": elem, "pca": "obsm/X_pca"}}]
    if n_names:
        asks += [{"elem": elem, "var_subset": [value.index[n_names - 1]]}, {"elem": elem, "var_subset": [0]}]
    for options in asks:
        with pytest.raises(FormatError, match=r"bad\.h5ad.*(rows|columns), but \S+ has \d+"):
            AnnDataset(WAYS[way](bad), **options)
    if place == "var":
        assert AnnDataset(bad, elem="obsm/X_pca").shape == (40, 3)  # what does not concern a matrix does not matter


# Rows of several obs. ------------------------------------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path: Path) -> Callable[..., Path]:
    """Two AnnData in one file, in groups of a name: those of a MuData are in "mod"."""

    def make(rna: list[str], protein: list[str], within: str = "experiments") -> Path:
        path = tmp_path / "cells.h5mu"
        with h5py.File(path, "w") as file:
            for name, cells in {"rna": rna, "prot": protein}.items():
                part = anndata.AnnData(np.eye(len(cells), dtype="float32"), obs=pd.DataFrame(index=cells))
                put(file, f"{within}/{name}", part)
        return path

    return make


BOTH = {"rna": "experiments/rna/X", "prot": "experiments/prot/X"}


@pytest.mark.parametrize(
    ("rna", "protein", "found"),
    [
        (["a", "b", "c"], ["a", "c", "b"], "row 1 is 'b' and 'c'"),
        (["a", "b", "c"], ["a", "b", "d"], "row 2 is 'c' and 'd'"),
        (["a", "b", "c"], ["a", "b"], "3 and 2 rows"),
    ],
)
def test_obs_of_other_cells_are_not_paired(nested: Any, rna: Any, protein: Any, found: str) -> None:
    path = nested(rna, protein)
    for what in (path, [path, path]):
        with pytest.raises(ValueError, match=rf"cells.h5mu: '.*rna/obs' and '.*prot/obs'.*{found}"):
            AnnDataset(what, elem=BOTH)
    assert AnnDataset(path, elem="experiments/prot/X").shape == (len(protein),) * 2


def test_obs_of_the_same_cells_are(nested: Any) -> None:
    dataset = AnnDataset(nested(["a", "b"], ["a", "b"]), elem=BOTH)
    assert [dataset[1][key].tolist() for key in BOTH] == [[0, 1]] * 2


# Other formats. ------------------------------------------------------------------------------------------------------


def molecules(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["umi"], file["barcode_idx"] = [1], [1]


def loom(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["matrix"] = np.ones((2, 3), "float32")
        for group in ("row_attrs", "col_attrs", "layers"):
            file.create_group(group)


def seurat(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("assays/RNA")
        file["cell.names"] = np.array([b"A-1"])
        file.create_group("meta.data")


def zarr_folder(path: Path) -> None:
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')


def tenx_folder(path: Path) -> None:
    path.mkdir()
    (path / "matrix.mtx.gz").write_bytes(gzip.compress(b"%%MatrixMarket"))


def an_h5ad(path: Path) -> bytes:
    toy(3).write_h5ad(path)
    data = path.read_bytes()
    path.unlink()
    return data


FORMATS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("molecule_info.h5", molecules, "10x.*molecule file.*matrix"),
    ("cells.loom", loom, "loom.*read_loom"),
    ("loom_by_content.h5ad", loom, "loom.*read_loom"),
    ("cells.h5seurat", seurat, "h5Seurat.*Convert"),
    ("cells.h5ad.gz", lambda path: path.write_bytes(gzip.compress(an_h5ad(path))), "gzip.*gunzip"),
    ("gz_by_content.h5ad", lambda path: path.write_bytes(gzip.compress(an_h5ad(path))), "gzip.*gunzip"),
    ("cells.h5ad.bz2", lambda path: path.write_bytes(bz2.compress(b"x" * 99)), "bzip2.*bunzip2"),
    ("cells.zarr", zarr_folder, "zarr.*read_zarr"),
    ("10x", tenx_folder, "10x.*read_10x_mtx"),
    ("m.mtx", lambda path: scipy.io.mmwrite(path, sp.eye(3)), "Matrix Market.*read_mtx"),
    ("m.mtx.gz", lambda path: path.write_bytes(gzip.compress(b"%%MatrixMarket matrix")), "Matrix Market"),
    ("cells.rds", lambda path: path.write_bytes(gzip.compress(b"X\n\x00\x00\x00\x03")), "R objects.*in R"),
    ("rds_by_name.rds", lambda path: path.write_bytes(gzip.compress(b"something")), "R objects.*in R"),
    ("cells.csv", lambda path: pd.DataFrame(np.eye(3)).to_csv(path), "text table.*read_csv"),
    ("cells.tsv.gz", lambda path: pd.DataFrame(np.eye(3)).to_csv(path, sep="\t"), "text table.*read_csv"),
    ("cells.pkl", lambda path: path.write_bytes(pickle.dumps(np.eye(3), 4)), "pickle.*write it as .h5ad"),
]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(("name", "make", "message"), FORMATS, ids=[case[0] for case in FORMATS])
def test_other_formats_are_recognised(tmp_path: Path, name: str, make: Any, message: str, several: bool) -> None:
    path = tmp_path / name
    make(path)
    toy(3).write_h5ad(tmp_path / "good.h5ad")
    with pytest.raises(UnsupportedError, match=rf"{name} is an? .*{message}"):
        AnnDataset([tmp_path / "good.h5ad", path] if several else path)


def test_the_command_line_recognises_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loom(tmp_path / "cells.loom")
    assert main(["inspect", str(tmp_path / "cells.loom")]) == 1
    assert "is a loom file; expected an .h5ad file. Convert it once: anndata.io.read_loom" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["s3://bucket/cells.h5ad", "gs://b/c.h5ad", "https://example.org/cells.h5ad"])
def test_addresses_are_recognised(address: str) -> None:
    for what in (address, [address]):
        with pytest.raises(UnsupportedError, match=rf"{address} is a remote address .*Download"):
            AnnDataset(what)


def test_what_is_an_h5ad_is_no_other_format(tmp_path: Path, good: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_bytes(good.read_bytes())
    assert find_foreign(str(path)) is None
    assert AnnDataset(path).shape == (40, 7)
    with pytest.raises(UnknownNameError, match="Did you mean 'row'"):
        AnnDataset(path, obs_columns=["rows"])


def test_a_mudata_file_names_its_modalities(nested: Any) -> None:
    path = nested(["a"], ["a"], within="mod")
    for what in (path, [path]):
        with pytest.raises(UnknownNameError, match=r"MuData.*'prot', 'rna'.*elem='mod/<modality>/X'"):
            AnnDataset(what)


# Names of files. -----------------------------------------------------------------------------------------------------


class Like:
    """A path of a class of its own."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        return self.path


@pytest.mark.parametrize(
    "name", [b"plain.h5ad", "é.h5ad".encode(), b"not \xff UTF-8.h5ad", b"[brackets].h5ad"], ids=repr
)
@pytest.mark.parametrize("elem", ["X", "obsm/X_pca"])
def test_a_path_of_any_bytes(tmp_path: Path, good: Path, name: bytes, elem: str) -> None:
    folder = os.fsencode(tmp_path)
    path = os.path.join(folder, name)
    Path(os.fsdecode(path)).write_bytes(good.read_bytes())
    wanted = toy()
    wanted_matrix = dense(wanted.X if elem == "X" else wanted.obsm["X_pca"])
    for what in (path, os.fsdecode(path), Path(os.fsdecode(path)), Like(path), Like(os.fsdecode(path)), [path]):
        with AnnDataset(what, elem=elem, strict=True) as dataset:
            assert dataset.sources == [os.fsdecode(path)]
            np.testing.assert_array_equal(dataset[:].batch["X"].numpy(), wanted_matrix)
            again = pickle.loads(pickle.dumps(dataset))
            assert again[3]["obs_row"] == 3
    loader = AnnDataset(path).get_optimized_dataloader(batch_size=32, num_workers=1, shuffle=False)
    assert [len(batch["obs_row"]) for batch in loader] == [32, 8]


def test_a_fault_in_a_path_of_any_bytes(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff.h5ad")
    Path(os.fsdecode(path)).write_bytes(b"nothing")
    with pytest.raises(FormatError, match="not HDF5"):
        AnnDataset(path)


@pytest.mark.parametrize("opened", [AnnDataset, as_path])
def test_what_is_no_source_is_told_with_all_that_may_be_one(opened: Any) -> None:
    found = r"adata_or_path is a int; expected a MuData, an AnnData or the path of an \.h5ad, an \.h5mu or a Cell"
    with pytest.raises(TypeError, match=found):
        opened(3)
