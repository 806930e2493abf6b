"""The list of contenders in the order in which they run, and which of them are compared."""

from __future__ import annotations

from typing import Any

from contender import Contender
from ours import Annfeed, AnnfeedPlain
from peers import Annbatch, AnndataBacked, AnnLoader, ScDataset, ScipyInMemory
from yardsticks import CopyInMemory, Limit


def _annbatch(block: int) -> Contender:
    return Annbatch(f"annbatch block {block} CSR", "annbatch", "blocks", block, "csr", stored="own zarr")


def _blocks(block: int | str, output: str) -> Contender:
    label = "CSR" if output == "csr" else output
    return Annfeed(f"annfeed block {block} {label}", order="blocks", block=block, output=output)


def _rewritten(block: int) -> Contender:
    name = f"annfeed block {block} CSR, rewritten"
    return Annfeed(name, order="blocks", block=block, output="csr", stored="rewritten")


WORKERS: dict[str, Any] = {"workers": 2, "cache": "on", "epochs": "later"}

#: In this order they run: those that are compared run next to each other, as near in time as can be.
CONTENDERS: list[Contender] = [
    AnnLoader("AnnLoader backed", "anndata", fetch="batch"),
    Annfeed("annfeed random dense"),
    Annfeed("annfeed random dense, cache 1 MiB", cache="1MiB"),
    AnndataBacked("anndata backed", "anndata", fetch="batch"),
    Annfeed("annfeed random dense, cache for half, later epochs", cache="half", epochs="later"),
    Annfeed("annfeed random dense, cache, first epoch", cache="on", epochs="first"),
    Annfeed("annfeed random dense, cache, later epochs", cache="on", epochs="later"),
    ScipyInMemory("scipy in memory", "scipy", fetch="batch", cache="all"),
    AnnfeedPlain("annfeed plain DataLoader, cache, later epochs", cache="on", epochs="later", fetch="batch"),
    AnnfeedPlain("annfeed plain DataLoader, 2 workers, cache, later epochs", **WORKERS, fetch="batch"),
    Annfeed("annfeed random dense, 2 workers, cache, later epochs", **WORKERS),
    _blocks(16, "dense"),
    ScDataset("scDataset block 16 dense", "scdataset", "blocks", 16),
    _blocks("auto", "dense"),
    _blocks(64, "dense"),
    ScDataset("scDataset block 64 dense", "scdataset", "blocks", 64),
    ScDataset("scDataset block 16 CSR", "scdataset", "blocks", 16, "csr"),
    _blocks(16, "csr"),
    _annbatch(16),
    _rewritten(16),
    _blocks("auto", "csr"),
    _blocks(64, "csr"),
    _annbatch(64),
    _rewritten(64),
    _blocks(512, "csr"),
    _annbatch(512),
    _rewritten(512),
    Annfeed("annfeed block 16 CSR, uncompressed", order="blocks", block=16, output="csr", stored="uncompressed"),
    ScDataset("scDataset block 16 CSR, uncompressed", "scdataset", "blocks", 16, "csr", stored="uncompressed"),
    Annfeed("annfeed block 16, uncompressed dense", order="blocks", block=16, stored="uncompressed dense"),
    CopyInMemory("copy in memory, block 16", "torch", "blocks", 16, cache="all", stored="uncompressed dense"),
    Annfeed("annfeed file order CSR", order="file", output="csr"),
    Limit("limit: rows as CSR", "torch", "file", output="csr", options={"mode": "csr"}),
    Annfeed("annfeed file order 2,000 genes", order="file", genes=2_000),
    Limit("limit: 2,000 genes", "torch", "file", genes=2_000, options={"mode": "genes"}),
    Limit("limit: dense", "torch", "file", options={"mode": "dense"}),
    Annfeed("annfeed file order dense", order="file"),
]

BY_NAME = {contender.name: contender for contender in CONTENDERS}

#: What is compared with what: ours, theirs, and the ratio that we aim for on the reference shape (2 cores).
COMPARISONS: list[tuple[str, str, float | None]] = [
    ("annfeed random dense", "anndata backed", 9),
    ("annfeed random dense", "AnnLoader backed", None),
    ("annfeed random dense, cache 1 MiB", "annfeed random dense", 0.95),
    ("annfeed random dense, cache for half, later epochs", "annfeed random dense", 0.95),
    ("annfeed random dense, cache, first epoch", "anndata backed", 40),
    ("annfeed random dense, cache, later epochs", "anndata backed", 80),
    ("annfeed random dense, cache, later epochs", "scipy in memory", 1.5),
    ("annfeed plain DataLoader, cache, later epochs", "annfeed random dense, cache, later epochs", 0.5),
    ("annfeed plain DataLoader, 2 workers, cache, later epochs", "annfeed random dense, cache, later epochs", 0.5),
    ("annfeed random dense, 2 workers, cache, later epochs", "annfeed random dense, cache, later epochs", 0.5),
    ("annfeed block 16 dense", "scDataset block 16 dense", 5),
    ("annfeed block auto dense", "scDataset block 16 dense", 8),
    ("annfeed block 64 dense", "scDataset block 64 dense", None),
    ("annfeed block 16 CSR", "scDataset block 16 CSR", None),
    ("annfeed block 16 CSR", "annbatch block 16 CSR", 2.7),
    ("annfeed block 64 CSR", "annbatch block 64 CSR", 1.75),
    ("annfeed block 512 CSR", "annbatch block 512 CSR", 1.5),
    ("annfeed block 16 CSR, rewritten", "annbatch block 16 CSR", 4),
    ("annfeed block 64 CSR, rewritten", "annbatch block 64 CSR", 2.8),
    ("annfeed block 512 CSR, rewritten", "annbatch block 512 CSR", 2.4),
    ("annfeed block auto CSR", "annbatch block 16 CSR", 2),
    ("annfeed block 16 CSR, uncompressed", "scDataset block 16 CSR, uncompressed", 3),
    ("annfeed block 16, uncompressed dense", "copy in memory, block 16", 0.7),
    ("annfeed file order CSR", "limit: rows as CSR", 1.05),
    ("annfeed file order 2,000 genes", "limit: 2,000 genes", 0.85),
    ("annfeed file order dense", "limit: dense", 0.85),
]
