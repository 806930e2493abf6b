"""Files that are wrong: each ends in the named error, and never in a wrong number."""

import os
import re

import h5py
import numpy as np
import pytest
from tests.sources.layouts import ALL, COUNTS, FORMATS, layout_of
from tests.support.h5ad_files import (
    FOREIGN,
    PIPELINES,
    Storage,
    dense,
    put,
    put_frame,
    write_h5ad,
)
from tests.support.places import SCRIPTS
from tests.support.processes import run

from annfeed import (
    AnnDataset,
    FormatError,
    UnknownNameError,
)

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


def edited(path, edit, form="csr", filters=PIPELINES["gzip4"]):
    """Write a good file and let ``edit`` spoil it."""
    write_h5ad(path, FORMATS[form], layout_of(form, filters))
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def replaced(name, values):
    """Return an edit that puts other values in an array's place, as they are, in the same storage."""

    def edit(file):
        plist = file[name].id.get_create_plist()
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        array = values(file[name][...]) if callable(values) else np.asarray(values)
        del file[name]
        pipeline = next(p for p in (*PIPELINES.values(), *FOREIGN.values()) if [f[0] for f in p] == filters)
        put(file, name, array, Storage((64,) * array.ndim, pipeline))

    return edit


def attribute(name, value):
    def edit(file):
        del file["X"].attrs[name]
        if value is not None:
            file["X"].attrs[name] = value

    return edit


def removed(name):
    def edit(file):
        del file[name]

    return edit


def changed(place, value):
    def change(array):
        array[place] = value
        return array

    return change


def refuse(path, kind, *parts, rows=ALL, **options):
    """Open and read; the error of class ``kind`` says the file and all of ``parts``."""
    with pytest.raises(kind) as caught:
        AnnDataset(path, obs_columns=[], **options).__getitems__(rows)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message, message
    return message


# Files that are no .h5ad at all. -------------------------------------------------------------------------------------


def a_directory(path):
    path.mkdir()


def a_text(path):
    path.write_text("not an .h5ad, " * 1000)


def truncated(path):
    write_h5ad(path, FORMATS["csr"])
    os.truncate(path, path.stat().st_size // 2)


def only_the_signature(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n")


NO_H5AD = {
    "no such file": (lambda path: None, FileNotFoundError, "cannot open the file", "No such file"),
    "a directory": (a_directory, OSError, "not a regular file"),
    "a pipe": (os.mkfifo, OSError, "not a regular file"),
    "an empty file": (lambda path: path.touch(), FormatError, "empty", "Give the path of an .h5ad file"),
    "a text": (a_text, FormatError, "not HDF5", "Give the path of an .h5ad file"),
    "truncated": (truncated, FormatError, "truncated", "Copy or download the file again"),
    "only the signature": (only_the_signature, FormatError, "Copy or download the file again"),
}


@pytest.mark.parametrize("case", NO_H5AD)
@pytest.mark.parametrize("genes", [None, [0]], ids=["all genes", "one gene"])
def test_files_that_are_no_h5ad(tmp_path, case, genes):
    make, kind, *parts = NO_H5AD[case]
    make(tmp_path / "x.h5ad")
    refuse(tmp_path / "x.h5ad", kind, *parts, var_subset=genes)


# What is missing or is something else. -------------------------------------------------------------------------------


def as_dataframe(file):
    del file["X"]
    put_frame(file, "X", 60)


def as_mudata(file):
    file.attrs["encoding-type"] = "MuData"
    file.move("X", "mod/rna/X")
    file.create_group("mod/atac")


def with_layers(file):
    file.move("X", "layers/counts")
    file["obsm/X_pca"] = np.zeros((60, 2))


STRANGE = {
    "X missing": (removed("X"), UnknownNameError, "'X' does not exist", "There is no matrix in this file"),
    "X missing, others there": (
        with_layers, UnknownNameError, "'X' does not exist", "'layers/counts', 'obsm/X_pca'", "elem=",
    ),
    "MuData": (as_mudata, UnknownNameError, "'X' does not exist", "MuData", "'atac', 'rna'", "elem='mod/<modality>/X'"),
    "encoding unknown": (
        attribute("encoding-type", "coo_matrix"), FormatError, "'X'", "'coo_matrix'", "'csr_matrix'", "write the file",
    ),
    "encoding missing": (attribute("encoding-type", None), FormatError, "'X'", "no encoding-type", "Write the file"),
    "encoding not UTF-8": (
        attribute("encoding-type", np.bytes_(b"cs\xd6")), FormatError, "'X'", "'cs\ufffd'", "'csr_matrix'",
    ),
    "a dataframe": (as_dataframe, FormatError, "'X'", "'dataframe'", "'csr_matrix'"),
    "shape missing": (attribute("shape", None), FormatError, "'X'", "'shape'", "Write the file again"),
    "shape of three": (attribute("shape", [60, 41, 1]), FormatError, "'X'", "'shape'", "Write the file again"),
    "shape negative": (attribute("shape", [-60, 41]), FormatError, "'X'", "'shape'", "Write the file again"),
    "shape a text": (attribute("shape", "60x41"), FormatError, "'X'", "'shape'", "Write the file again"),
    "shape too tall": (attribute("shape", [61, 41]), FormatError, "'X'", "indptr has 61 elements", "62"),
    "shape too flat": (attribute("shape", [59, 41]), FormatError, "'X'", "indptr has 61 elements", "60"),
    "shape absurd": (attribute("shape", [2**63 - 1, 41]), FormatError, "'X'", "indptr has 61 elements"),
    "indices missing": (removed("X/indices"), FormatError, "'X/indices'", "Write the file again"),
    "indptr missing": (removed("X/indptr"), FormatError, "'X/indptr'", "Write the file again"),
    "data missing": (removed("X/data"), FormatError, "'X/data'", "Write the file again"),
    "data and indices differ": (
        replaced("X/data", lambda a: a[:-1]), FormatError, "'X'", "data has 491 elements but indices has 492",
    ),
    "indices are floats": (replaced("X/indices", lambda a: a.astype("f4")), FormatError, "'X/indices'", "float32"),
    "indptr are floats": (replaced("X/indptr", lambda a: a.astype("f8")), FormatError, "'X/indptr'", "float64"),
    "indptr too short": (replaced("X/indptr", lambda a: a[:-1]), FormatError, "'X'", "indptr has 60 elements", "61"),
    "indptr empty": (replaced("X/indptr", np.empty(0, "i4")), FormatError, "'X'", "indptr has 0 elements", "61"),
    "indptr begins late": (replaced("X/indptr", changed(0, 1)), FormatError, "'X/indptr'", "with 1", "expected 0"),
    "indptr negative": (replaced("X/indptr", changed(9, -5)), FormatError, "'X/indptr'", "element 10", "write it"),
    "indptr all negative": (replaced("X/indptr", changed(0, -1)), FormatError, "'X/indptr'", "begins with"),
    "indptr falls": (
        replaced("X/indptr", changed(9, 400)), FormatError, "'X/indptr'", "element 10", "less than 400", "write it",
    ),
    "indptr beyond the data": (
        replaced("X/indptr", changed(-1, 493)), FormatError, "'X/indptr'", "element 493", "there are 492",
    ),
    "indptr absurd": (
        replaced("X/indptr", lambda a: changed(-1, 2**62)(a.astype("i8"))), FormatError, "'X/indptr'", str(2**62),
    ),
    "indptr unsigned": (
        replaced("X/indptr", lambda a: changed(5, 2**64 - 1)(a.astype("u8"))), FormatError, "'X/indptr'",
    ),
    "index too large": (
        replaced("X/indices", changed(400, 41)), FormatError, "'X/indices'", "element 400", "index 41", "0 to 40",
    ),
    "index negative": (
        replaced("X/indices", changed(7, -1)), FormatError, "'X/indices'", "element 7", "index -1", "0 to 40",
    ),
    "index absurd": (
        replaced("X/indices", lambda a: changed(491, 2**63)(a.astype("u8"))), FormatError, "'X/indices'", "element 491",
    ),
    "index wraps at 16 bits": (
        replaced("X/indices", changed(491, 2**16)), FormatError, "'X/indices'", "element 491", "index 65536", "0 to 40",
    ),
    "index wraps at 32 bits": (
        replaced("X/indices", lambda a: changed(491, 2**32)(a.astype("i8"))), FormatError, "'X/indices'", "element 491",
    ),
    "data in two axes": (replaced("X/data", lambda a: a.reshape(-1, 2)), FormatError, "'X/data'", "one axis"),
    "obs missing": (removed("obs"), FormatError, "no 'obs'"),
    "obs too long": (lambda file: (removed("obs")(file), put_frame(file, "obs", 61)), FormatError, "60 rows", "61"),
    "obs too short": (lambda file: (removed("obs")(file), put_frame(file, "obs", 0)), FormatError, "60 rows", "0"),
}  # fmt: skip


@pytest.mark.parametrize("case", STRANGE)
def test_files_that_are_not_what_they_say(tmp_path, case):
    edit, kind, *parts = STRANGE[case]
    refuse(edited(tmp_path / "x.h5ad", edit), kind, *parts)


@pytest.mark.parametrize("case", [case for case in STRANGE if not case.startswith(("data in", "obs"))])
@pytest.mark.filterwarnings("ignore::annfeed.errors.AnnfeedWarning")
def test_they_are_the_same_errors_through_h5py(tmp_path, case):
    edit, kind, *_ = STRANGE[case]
    refuse(edited(tmp_path / "x.h5ad", edit, filters=FOREIGN["bzip2"]), kind)


@pytest.mark.parametrize("filters", [PIPELINES["gzip4"], FOREIGN["bzip2"]], ids=["ours", "through h5py"])
@pytest.mark.parametrize("case", [case for case in STRANGE if case.startswith("ind") and case != "indptr too short"])
@pytest.mark.filterwarnings("ignore::annfeed.errors.AnnfeedWarning")
def test_they_are_the_same_errors_in_columns(tmp_path, case, filters):
    edit, kind, *_ = STRANGE[case]
    # 41 columns hold what 60 rows held: the place in indptr is another, the index must reach beyond 60.
    if case == "index too large":
        edit = replaced("X/indices", changed(400, 60))
    refuse(edited(tmp_path / "x.h5ad", edit, "csc", filters), kind, cache="1GiB")


def test_rows_beside_the_damage_are_delivered(tmp_path):
    path = edited(tmp_path / "x.h5ad", replaced("X/indices", changed(400, 41)))
    hit = int(np.searchsorted(COUNTS.indptr, 400, "right")) - 1
    for cache in (0, "auto"):
        refused = []
        with AnnDataset(path, obs_columns=[], cache=cache) as dataset:
            for row in ALL:
                try:
                    delivered = dataset[row]["X"]
                except FormatError:
                    refused.append(row)
                else:
                    np.testing.assert_array_equal(delivered, COUNTS[row].toarray()[0])
        # A cache is filled with more than was asked for, and what cannot be filled is not delivered.
        assert refused == [hit] if cache == 0 else hit in refused


@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("where", ["encoding-type", "h5sparse_format"])
def test_bare_encodings_are_accepted(tmp_path, where, form):
    def edit(file):
        del file["X"].attrs["encoding-type"]
        file["X"].attrs[where] = form
        if where == "h5sparse_format":
            file["X"].attrs["h5sparse_shape"] = file["X"].attrs.pop("shape")

    path = edited(tmp_path / "x.h5ad", edit, form)
    for text in (str, np.bytes_):
        with h5py.File(path, "r+") as file:
            file["X"].attrs[where] = text(form)
        with AnnDataset(path, cache="1GiB") as dataset:
            np.testing.assert_array_equal(dataset.__getitems__(ALL).batch["X"], COUNTS.toarray())


# Damaged chunks. -----------------------------------------------------------------------------------------------------


def spoil(path, name, place):
    """Flip a bit in the stored bytes of the array's third chunk, from its end where ``place`` is negative."""
    with h5py.File(path, "r") as file:
        chunk = file[name].id.get_chunk_info(2)
        row = chunk.chunk_offset
    with path.open("r+b") as file:
        at = chunk.byte_offset + (place if place >= 0 else chunk.size + place)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))
    return chunk, row


CODECS = {
    "deflate": ("gzip4", [0, 20, -1]),
    "zstd": ("zstd", [0]),
    "LZF": ("lzf", [0]),
    "LZ4": ("lz4", [3, 14]),
    "fletcher32": ("fletcher32", [0, 77, -1]),
    "fletcher32 over deflate": ("gzip, fletcher32", [0, 9, -1]),
    "deflate, shuffled": ("shuffle, gzip", [0, 20, -1]),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("codec", "place"), [(codec, place) for codec, (_, places) in CODECS.items() for place in places]
)
def test_damaged_chunks(tmp_path, codec, place, form, threads):
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS[form], layout_of(form, PIPELINES[CODECS[codec][0]]))
    name = "X" if form == "dense" else "X/data"
    chunk, _ = spoil(path, name, place)
    with h5py.File(path) as file, pytest.raises(OSError, match="Can't synchronously read data"):
        file[name][...]  # h5py agrees
    message = refuse(path, FormatError, f"'{name}'", f"({chunk.size} bytes at address {chunk.byte_offset})",
                     "Copy or download the file again", threads=threads, cache="1GiB")  # fmt: skip
    assert re.search(r"chunk (2|\(0, 2\)) ", message)
    assert codec.split(",")[0].split()[0] in message or "expected" in message


def test_a_damaged_chunk_reaches_the_loader_after_the_batches_before_it(tmp_path):
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"], layout_of("csr", PIPELINES["gzip, fletcher32"]))
    spoil(path, "X/data", 9)
    hit = int(np.searchsorted(COUNTS.indptr, 128, "right")) - 1
    for workers in (0, 1):
        dataset = AnnDataset(path, window=4, cache=0)
        loader = dataset.get_optimized_dataloader(batch_size=4, shuffle=False, num_workers=workers)
        delivered = []
        with pytest.raises(FormatError, match=r"'X/data': chunk 2 .*checksum"):
            delivered.extend(dense(batch["X"]) for batch in loader)
        np.testing.assert_array_equal(np.concatenate(delivered), COUNTS.toarray()[: hit // 4 * 4])


def test_an_address_beyond_the_end(tmp_path):
    """A file that was cut off and whose superblock was mended, so that HDF5 takes it for whole."""
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csr"], layout_of("csr", PIPELINES["gzip4"]))
    with h5py.File(path, "r+") as file:
        # Last, so that nothing but these chunks is lost.
        del file["X/data"]
        put(file["X"], "data", COUNTS.data, Storage((64,), PIPELINES["gzip4"]))
    with h5py.File(path) as file:
        chunks = [file["X/data"].id.get_chunk_info(i) for i in range(8)]
    last = max(chunks, key=lambda chunk: chunk.byte_offset)
    raw = bytearray(path.read_bytes())
    at = raw.index(len(raw).to_bytes(8, "little"))
    del raw[last.byte_offset + 3 :]
    raw[at : at + 8] = len(raw).to_bytes(8, "little")
    path.write_bytes(raw)
    refuse(
        path, FormatError, f"'X/data': chunk {chunks.index(last)}: {last.size} bytes at address {last.byte_offset}",
        f"past the end of the file ({len(raw)} bytes)", "truncated", "download",
    )  # fmt: skip


# Memory. -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [0, 1000, "1KiB"])
def test_columns_beyond_the_budget(tmp_path, cache):
    path = write_h5ad(tmp_path / "x.h5ad", FORMATS["csc"])
    message = refuse(path, MemoryError, "'X'", "CSC", "cache=", "CSR", "tocsr()", cache=cache)
    needed, budget = map(int, re.search(r"needs (\d+) bytes.*budget of (\d+) bytes", message).groups())
    assert budget == {0: 0, 1000: 1000, "1KiB": 1024}[cache] < needed
    with AnnDataset(path, cache=needed) as dataset:
        np.testing.assert_array_equal(dataset.__getitems__(ALL).batch["X"], COUNTS.toarray())


def unwritten(path, **arrays):
    """Write a matrix whose arrays are of any size, as they were never written."""
    with h5py.File(path, "w") as file:
        put_frame(file, "obs", 3)
        if "X" in arrays:
            file.create_dataset("X", arrays["X"], "f4", chunks=(1, 2**28))
            return
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "shape": np.array([3, 100])})
        for name in ("data", "indices"):
            group.create_dataset(name, (arrays["size"],), "f4" if name == "data" else "i4", chunks=(2**28,))
        group["indptr"] = np.array([0, 0, arrays["size"], arrays["size"]])


@pytest.mark.parametrize("size", [2**46, 2**40], ids=["beyond any address", "beyond memory"])
def test_a_row_larger_than_memory(tmp_path, size):
    unwritten(tmp_path / "x.h5ad", size=size)
    for rows in ([0, 2], [2]):
        dataset = AnnDataset(tmp_path / "x.h5ad")
        assert not dense(dataset.__getitems__(rows).batch["X"]).any()
    refuse(tmp_path / "x.h5ad", MemoryError, "'X/data'", f"{size * 8} bytes", "window=", rows=[1])


@pytest.mark.parametrize(("width", "kind"), [(2**40, MemoryError), (2**50, FormatError)])
def test_columns_more_than_memory(tmp_path, width, kind):
    unwritten(tmp_path / "x.h5ad", X=(3, width))
    refuse(tmp_path / "x.h5ad", kind, "'X'", rows=[1])


def test_a_batch_larger_than_memory(tmp_path):
    def wide(file):
        attribute("shape", [60, 2**32 - 1])(file)
        del file["var"]  # of another length

    path = edited(tmp_path / "x.h5ad", wide)
    refuse(path, MemoryError, "'X'", f"{60 * 4 * (2**32 - 1)} bytes", "output='csr'", "var_subset")
    with AnnDataset(path, output="csr") as dataset:
        assert dataset.__getitems__(ALL).batch["X"].values().tolist() == COUNTS.data.tolist()


def test_more_rows_than_memory(tmp_path):
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        put_frame(file, "obs", 3)
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "shape": np.array([2**46, 100])})
        group.create_dataset("data", (0,), "f4")
        group.create_dataset("indices", (0,), "i4")
        group.create_dataset("indptr", (2**46 + 1,), "i8", chunks=(2**28,))
    refuse(tmp_path / "x.h5ad", MemoryError, "'X/indptr'")


# Anything at all. ----------------------------------------------------------------------------------------------------


def test_files_spoilt_at_random(tmp_path):
    script = SCRIPTS / "fuzz_h5ad.py"
    done = run(script, tmp_path, 0, 400, timeout=300)
    last = (tmp_path / "last").read_text()
    assert done.returncode == 0, f"last: seed {last}\n{done.stdout}{done.stderr}"
    # Neither all refused nor all unharmed, or nothing was tried.
    for what in ("FormatError", "rows, as they were written", "rows, as h5py reads them"):
        assert what in done.stdout
