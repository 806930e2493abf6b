"""The examples, run as a user runs them: as scripts, each once in a Python of its own, and on a real file."""

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from annfeed import write_obsm
from tests.support.places import ROOT
from tests.support.processes import run, run_ranks

EXAMPLES = ROOT / "examples"
CLASSIFIER = EXAMPLES / "train_classifier.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def classify(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run(CLASSIFIER, *arguments, "--device", "cpu")


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    # One thread: torch's own would wait for each other on a busy machine.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.fixture(scope="module")
def pbmc() -> Path:
    """scanpy's packaged PBMC 68k file: 700 cells, compound obs of before anndata 0.7."""
    scanpy = importlib.util.find_spec("scanpy")
    if scanpy is None or not scanpy.submodule_search_locations:
        pytest.skip("scanpy, which brings the file, is not installed")
    return Path(scanpy.submodule_search_locations[0]) / "datasets" / "10x_pbmc68k_reduced.h5ad"


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts of two kinds of cells, told apart by which genes they express; every tenth label is missing."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, 300)
    rates = np.where(np.arange(40) < 20, kind[:, None] * 4 + 1, 5 - kind[:, None] * 4)
    names = pd.Categorical(np.array(["naive", "memory"])[kind])
    names[::10] = None
    obs = pd.DataFrame({"kind": names, "cluster": kind * 3}, index=[f"cell{i}" for i in range(300)])
    path = tmp_path_factory.mktemp("examples") / "counts.h5ad"
    x = sp.csr_matrix(random.poisson(rates).astype(np.float32))
    anndata.AnnData(x, obs=obs).write_h5ad(path, compression="gzip")
    return path


def accuracies(output: str) -> tuple[float, float]:
    """Held-out accuracy and that of always telling the largest class, in percent."""
    found = re.search(r"held-out accuracy +([\d.]+)% \(always '.+': ([\d.]+)%\)", output)
    assert found, output
    return float(found[1]), float(found[2])


def test_classifier_learns_the_real_labels_the_same_way_each_time(pbmc: Path) -> None:
    arguments = (pbmc, "--label", "bulk_labels", "--epochs", 4)
    runs = [start(CLASSIFIER, *arguments, "--device", "cpu"), classify(*arguments)]
    assert [r.returncode for r in runs] == [0, 0], runs[0].stderr
    accuracy, baseline = accuracies(runs[0].stdout)
    assert accuracy > baseline + 30
    assert "10 classes, the largest is 'Dendritic'" in runs[0].stdout
    losses = [re.findall(r"loss +([\d.]+)", r.stdout) for r in runs]
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]
    assert accuracies(runs[1].stdout) == (accuracy, baseline)


def test_classifier_says_how_fast_it_was(pbmc: Path) -> None:
    done = classify(pbmc, "--label", "louvain", "--elem", "raw/X", "--epochs", 1)
    assert done.returncode == 0, done.stderr
    assert re.search(r"speed +[\d,]+ cells/s", done.stdout)
    assert re.search(r"first batch +after \d+ ms", done.stdout)
    # Piped, there is no bar to clutter a log.
    assert done.stderr == ""


@pytest.mark.parametrize("label", ["kind", "cluster"])
def test_classifier_normalises_counts(counts: Path, label: str) -> None:
    done = classify(counts, "--label", label, "--epochs", 5, "--batch-size", 16, "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert "counts: each cell is scaled" in done.stdout
    assert ("30 without a label are left out" in done.stdout) == (label == "kind")
    accuracy, baseline = accuracies(done.stdout)
    assert accuracy > baseline + 30


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--label", "bulk_label"], "no column 'bulk_label'. Did you mean 'bulk_labels'?"),
        (["--label", "percent_mito"], "'percent_mito' holds measurements"),
        (["--label", "n_genes"], "'n_genes' has 356 different values in 700 cells"),
        (["--label", "phase", "--elem", "layers/counts"], "'layers/counts' does not exist. There are: 'X'"),
        (["--label", "phase", "--test-share", "0.0001"], "no class has enough cells to hold out"),
        (["--label", "phase", "--batch-size", "0"], "'0' is not a whole number from 1 on"),
    ],
)
def test_classifier_tells_what_is_wrong(pbmc: Path, arguments: list[str], told: str) -> None:
    done = classify(pbmc, *arguments)
    assert done.returncode != 0
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_classifier_tells_that_a_file_is_not_there(tmp_path: Path) -> None:
    done = classify(tmp_path / "atlas.h5ad", "--label", "kind")
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert re.search(r"cannot open the file: No such file.*atlas\.h5ad", done.stderr), done.stderr


def run_here(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    """Run an example in this process, which has torch already."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    finally:
        torch.set_num_threads(threads)


def options_of(script: str) -> list[object]:
    if script == "train_lightning.py":
        pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    return ["--label", "kind", "--batch-size", 16, *(["--device", "cpu"] if "classifier" in script else ["--cpu"])]


@pytest.mark.parametrize("script", ["train_classifier.py", "train_ddp.py", "train_lightning.py"])
def test_every_example_takes_many_files(
    counts: Path, tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, adata = options_of(script), anndata.read_h5ad(counts)
    for name, start, stop in (("a", 0, 100), ("b", 100, 300)):
        adata[start:stop].copy().write_h5ad(tmp_path / f"{name}.h5ad")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not writable.*")
        run_here(monkeypatch, script, tmp_path / "*.h5ad", *options, "--epochs", 4)
    assert re.search(r"accuracy +(100|9\d)\.\d%", capsys.readouterr().out)
    if script != "train_classifier.py":
        # Named one by one, as a shell gives them; and again, over what is there.
        files = sorted(tmp_path.glob("*.h5ad"))
        check_written(*files)
        run_here(monkeypatch, script, *files, *options, "--epochs", 1, "--overwrite")


def test_transformer_learns_what_genes_have_the_same_way_each_time(
    counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(counts, tmp_path / "a.h5ad")
    arguments = ["--width", 16, "--batch-size", 16, "--lr", 0.01, "--device", "cpu"]
    told = []
    for files, epochs in ((counts, 8), (tmp_path / "*.h5ad", 1)):
        run_here(monkeypatch, "train_transformer.py", files, *arguments, "--epochs", epochs)
        told.append(capsys.readouterr().out)
    losses = [re.findall(r"loss +([\d.]+)", each) for each in told]
    assert losses[0][:1] == losses[1]
    share = re.search(r"explained variance of masked values, held out +(-?[\d.]+)%", told[0])
    assert share is not None
    assert float(share[1]) > 10  # a network that tells nothing explains 0 %
    monkeypatch.setattr(sys, "argv", ["train_transformer.py", str(tmp_path / "none.h5ad")])
    with pytest.raises(SystemExit, match=r"error: .*cannot open the file: No such file.*none\.h5ad"):
        runpy.run_path(str(EXAMPLES / "train_transformer.py"), run_name="__main__")


@pytest.mark.parametrize("script", ["train_ddp.py", "train_lightning.py"])
def test_examples_say_before_training_that_they_could_not_write(
    counts: Path, tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, path = options_of(script), shutil.copy(counts, tmp_path / "counts.h5ad")
    write_obsm(path, "X_classes", np.zeros((300, 2)))
    before = path.read_bytes()
    monkeypatch.setattr(torch.optim, "Adam", None)  # what training would begin with
    with pytest.raises(ValueError, match=r"counts\.h5ad: 'obsm/X_classes' is there already"):
        run_here(monkeypatch, script, path, *options)
    assert "epoch" not in capsys.readouterr().out
    assert path.read_bytes() == before


def check_written(*paths: Path) -> None:
    """The probabilities in the files are of their own rows: they tell the kinds apart."""
    adata = anndata.concat([anndata.read_h5ad(path) for path in paths])
    found = adata.obsm["X_classes"]
    assert found.shape == (300, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    codes = adata.obs["kind"].cat.codes.to_numpy()
    assert (found.argmax(axis=1) == codes)[codes >= 0].mean() > 0.9


def test_ddp_trains_and_goes_on_where_it_stopped(counts: Path, tmp_path: Path) -> None:
    path = shutil.copy(counts, tmp_path / "counts.h5ad")
    options = ["--label", "kind", "--batch-size", 16, "--checkpoint", tmp_path / "checkpoint.pt", "--every", 5, "--cpu"]
    first = start(*TORCHRUN, EXAMPLES / "train_ddp.py", path, *options, "--epochs", 2)
    assert first.returncode == 0, first.stderr
    # 270 of 300 cells on two processes: 9 batches each.
    assert re.findall(r"epoch (\d) .* (\d+) batches a process", first.stdout) == [("0", "9"), ("1", "9")]
    check_written(path)
    # Started by torchrun; on the second start, told what it tells.
    again, other = run_ranks(2, EXAMPLES / "train_ddp.py", path, *options, "--epochs", 3, "--overwrite")
    assert [again.returncode, other.returncode] == [0, 0], again.stderr + other.stderr
    assert not other.stdout
    assert "going on from step 15, batch 6 of epoch 1" in again.stdout
    assert re.findall(r"epoch (\d) .* (\d+) batches a process", again.stdout) == [("1", "3"), ("2", "9")]
    assert re.search(r"test accuracy (100|9\d)\.\d%", again.stdout), again.stdout
    check_written(path)


def test_lightning_trains_on_two_processes_and_goes_on_where_it_stopped(counts: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    path = shutil.copy(counts, tmp_path / "counts.h5ad")
    options = ["--label", "kind", "--batch-size", 16, "--cpu", "--devices", 2, "--checkpoints", tmp_path / "kept"]
    for n_epochs in (1, 4):
        command = (EXAMPLES / "train_lightning.py", path, *options, "--every", 3, "--epochs", n_epochs)
        if n_epochs == 1:  # Lightning starts the other process
            done = start(*command)
        else:  # it finds both
            done, other = run_ranks(2, *command, "--overwrite", launcher="lightning")
            assert other.returncode == 0, other.stderr
        assert done.returncode == 0, done.stderr
        steps = [int(file.stem.partition("step=")[2]) for file in (tmp_path / "kept").glob("epoch=*-step=*.ckpt")]
        # 240 of 300 cells on two processes: 8 batches each.
        assert max(steps) == (6 if n_epochs == 1 else 30)
    assert re.search(r"test accuracy (100|9\d)\.\d%", done.stdout), done.stdout
    check_written(path)
