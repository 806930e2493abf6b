"""Spoils small files at random and reads them: right rows or a documented error, never a crash, a hang, a wrong number.

Run by test_bad_files.py as its own process and with little memory, so that a crash is seen, and an allocation that
nobody checked is one. By hand, from the top of the checkout; files that fail stay in FOLDER:

    python -m tests.scripts.fuzz_h5ad FOLDER FIRST_SEED N_SEEDS
"""

import faulthandler
import resource
import sys
import traceback
import warnings
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sp
import torch
from tests.support.h5ad_files import FOREIGN, PIPELINES, Layout, Storage, Stored, stored_matrix, write_h5ad
from tests.support.tenx_files import counts, features_of, write_tenx_2, write_tenx_3

from annfeed import AnnDataset, AnnfeedWarning, FormatError, UnknownNameError

#: What a file may be answered with; UnsupportedError is a FormatError, StaleFileError an OSError.
DOCUMENTED = (FormatError, UnknownNameError, OSError, MemoryError)
MEMORY = 3 << 30
MATRICES = ("X", "matrix", "GRCh38")
SECONDS = 60


def seeds_of_files():
    """Return small valid files as (name, matrix, layout)."""
    counts = sp.random(30, 20, 0.3, "csr", random_state=0, data_rvs=lambda n: np.arange(1, n + 1)).astype(np.float32)
    dense = counts.toarray()

    def all_of(pipeline, chunk, **options):
        storage = Storage((chunk,), PIPELINES[pipeline])
        return Layout(storage, storage, storage, **options)

    return [
        ("csr gzip", Stored.of(counts), all_of("gzip4", 50)),
        ("csr plain", Stored.of(counts, "i8", "i8"), Layout()),
        ("csr chunks of 7", Stored.of(counts, "u2", "u4"), all_of("none", 7)),
        ("csr shuffle gzip fletcher32", Stored.of(counts), all_of("shuffle, gzip, fletcher32", 40, libver="latest")),
        ("csr zstd", Stored.of(counts), all_of("zstd", 60, libver="latest")),
        ("csr lz4", Stored.of(counts), all_of("shuffle, lz4", 60)),
        ("csc lzf", Stored.of(counts.tocsc()), all_of("lzf", 64)),
        ("dense gzip", dense, Layout(Storage((8, 7), PIPELINES["gzip4"]))),
        ("dense shuffle lzf latest", dense, Layout(Storage((8, 7), PIPELINES["shuffle, lzf"]), libver="latest")),
        ("dense contiguous", dense, Layout()),
        # Through h5py, without a plugin: some give whatever is in memory where a chunk is damaged.
        ("csr compact", Stored.of(counts), Layout(*[Storage(compact=True)] * 3)),
        ("csr nbit", Stored.of(counts), Layout(*[Storage((64,), FOREIGN["nbit"])] * 3)),
    ]


def tenx_files(folder: Path) -> list[tuple[str, Path]]:
    """Write small files of Cell Ranger."""
    matrix, features = counts(30, 20, seed=4), features_of([f"gene {i}" for i in range(20)])
    version_2 = {MATRICES[2]: (matrix, features)}
    return [
        ("10x", write_tenx_3(folder / "good.h5", matrix, features, chunk=64)),
        ("10x plain", write_tenx_3(folder / "plain.h5", matrix, features, storage={})),
        ("10x version 2", write_tenx_2(folder / "version2.h5", version_2)),
    ]


def place_of(file: h5py.File) -> str:
    """Return where the matrix lies: X, or as Cell Ranger has it."""
    return next(name for name in MATRICES if name in file)


def spoil(raw: bytes, rng: np.random.Generator, parts: list[tuple[int, int]]) -> bytes:
    """Return the bytes of a file with something wrong in ``parts``, or cut off."""
    spoilt = bytearray(raw)
    kind = rng.integers(0, 10)
    if kind == 0:
        return bytes(spoilt[: rng.integers(0, len(spoilt))])
    start, stop = parts[rng.integers(len(parts))]
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(start, stop))
        # libhdf5 (2.2) goes round for ever in a damaged global heap, whoever calls it: h5py and anndata hang, too.
        if raw.rfind(b"GCOL", max(0, at - 4096 - 8), at + 8) >= 0:
            continue
        if kind % 4 == 0:
            spoilt[at : at + 8] = rng.bytes(len(spoilt[at : at + 8]))
        elif kind % 4 == 1:
            spoilt[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind % 4 == 2:
            spoilt[at] ^= 1 << rng.integers(8)
        else:
            spoilt[at] = rng.integers(256)
    return bytes(spoilt)


def parts_of(path: Path) -> list[tuple[int, int]]:
    """Return extents around what describes X and what X stores; obs is for h5py and anndata, which crash over some."""
    size = path.stat().st_size
    with h5py.File(path) as file:
        x = file[place_of(file)]
        parts = [x[name] for name in ("data", "indices", "indptr", "shape") if isinstance(x, h5py.Group) and name in x]
        nodes = [file, x, *parts]
        headers = [h5py.h5o.get_info(node.id).addr for node in nodes]
        arrays = [node.id for node in nodes if isinstance(node, h5py.Dataset)]
        chunks = []
        for array in arrays:
            if array.get_create_plist().get_layout() == h5py.h5d.CHUNKED:
                infos = [array.get_chunk_info(i) for i in range(array.get_num_chunks())]
                chunks += [(info.byte_offset, info.byte_offset + info.size) for info in infos]
            elif array.get_offset() is not None:  # else it lies in the header
                chunks.append((array.get_offset(), array.get_offset() + array.get_storage_size()))
    # The header is longer than this in some places and shorter in others; what follows it is as good.
    return [(0, 100), *[(at, min(at + 400, size)) for at in headers] * 3, *chunks]


def delivered(path: Path, seed: int) -> sp.csr_matrix:
    """Return all rows as annfeed delivers them, two ways that must agree."""
    # So that each file meets each of them.
    output = ("csr", "csr", "dense")[seed // 11 % 3]
    options = {"threads": 1 + seed // 33 % 2, "cache": ("64MiB", 2**15)[seed // 66 % 2], "output": output}
    with AnnDataset(path, obs_columns=[] if seed % 7 else None, **options) as dataset:
        batch = dataset.__getitems__(range(len(dataset))).batch["X"]
        if output == "dense":
            for row in range(0, len(dataset), 7):
                np.testing.assert_array_equal(dataset[row]["X"], batch[row])
            return sp.csr_matrix(batch.numpy())
        parts = (batch.crow_indices(), batch.col_indices(), batch.values())
        torch.sparse_csr_tensor(*parts, size=batch.shape, check_invariants=True)
        rows = sp.csr_matrix(tuple(np.asarray(parts[i]) for i in (2, 1, 0)), shape=tuple(batch.shape))
        for row in range(0, len(dataset), 7):
            single = dataset[row]["X"]
            np.testing.assert_array_equal(single.values(), rows[row].data)
            np.testing.assert_array_equal(single.col_indices(), rows[row].indices)
    return rows


def same(one, other) -> bool:
    """Whether two matrices are equal, NaN being NaN."""
    one, other = (sp.csr_matrix(matrix).astype(np.float32) for matrix in (one, other))
    for matrix in (one, other):
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    return one.shape == other.shape and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "data")
        for name in ("indptr", "indices", "data")
    )


def contradicts_itself(path: Path) -> bool:
    """Whether a damaged index of chunks says one thing to who goes through it, and another to who looks a chunk up."""
    with h5py.File(path) as file:
        node = file[place_of(file)]
        for array in [node] if isinstance(node, h5py.Dataset) else node.values():
            if isinstance(array, h5py.Dataset) and array.chunks is not None:
                listed = [array.id.get_chunk_info(i) for i in range(array.id.get_num_chunks())]
                if any(info != array.id.get_chunk_info_by_coord(info.chunk_offset) for info in listed):
                    return True
    return False


def outcome(path: Path, good, seed: int, place: str) -> str:
    """Read a spoilt file; return what came of it, raise where that is not allowed."""
    try:
        rows = delivered(path, seed)
    except DOCUMENTED as error:
        return type(error).__name__
    try:
        expected = stored_matrix(path, place)
    except Exception:  # h5py cannot read it, so what annfeed read must be what was there
        assert same(rows, good), "other rows than were written, from a file that h5py cannot read"
        return "rows, as they were written"
    if same(rows, good):
        return "rows, as they were written"
    if not same(rows, expected) and contradicts_itself(path):
        return "rows, of which h5py says this and that"
    assert same(rows, expected), "other rows than h5py reads"
    return "rows, as h5py reads them"


def main(folder: Path, first: int, count: int) -> int:
    """Try ``count`` seeds; return how many failed."""
    warnings.simplefilter("ignore", AnnfeedWarning)
    warnings.filterwarnings("ignore", "Sparse CSR")
    np.seterr(all="ignore")
    obs = {"n_genes": np.arange(30), "share": np.linspace(0, 1, 30)}
    files = [
        (name, write_h5ad(folder / f"good{i}.h5ad", matrix, layout, obs=obs))
        for i, (name, matrix, layout) in enumerate(seeds_of_files())
    ]
    written = []
    for name, path in [*files, *tenx_files(folder)]:
        for seed in range(0, 99, 11):
            delivered(path, seed)
        with h5py.File(path) as file:
            place = place_of(file)
        written.append((name, path.read_bytes(), parts_of(path), stored_matrix(path, place), place))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    tally: dict[str, int] = {}
    failed = 0
    for seed in range(first, first + count):
        name, raw, parts, good, place = written[seed % len(written)]
        path = folder / f"spoilt{seed}.h5ad"
        path.write_bytes(spoil(raw, np.random.default_rng(seed), parts))
        (folder / "last").write_text(f"{seed} {name}")
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            what = outcome(path, good, seed, place)
        except Exception:
            failed += 1
            what = "FAILED"
            print(f"seed {seed} ({name}): {path}\n{traceback.format_exc()}")
        else:
            path.unlink()
        faulthandler.cancel_dump_traceback_later()
        tally[what] = tally.get(what, 0) + 1
    print(dict(sorted(tally.items())))
    return failed


if __name__ == "__main__":
    sys.exit(min(99, main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
