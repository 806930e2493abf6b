"""Trains a classifier of cells on several processes, each with its share of the cells, and writes what it thinks.

    torchrun --nproc-per-node=2 examples/train_ddp.py atlas.h5ad --label cell_type

Several files, or a pattern in quotes, are one atlas; each gets the results of its cells. With
``--checkpoint FILE`` it is kept up to date there, and training goes on from it when it is started again, also in the
middle of an epoch. One process without torchrun works, too.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal, WindowLoader, check_writable, write_obsm


def train(model: nn.Module, loader: WindowLoader, options: argparse.Namespace, device: torch.device) -> None:
    """Train, from the checkpoint on if there is one."""
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    step, first_epoch = 0, 0
    if options.checkpoint and os.path.exists(options.checkpoint):
        saved = torch.load(options.checkpoint, weights_only=True, map_location=device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])
        step, first_epoch = saved["step"], saved["loader"]["epoch"]
        say(f"going on from step {step}, batch {saved['loader']['batch']} of epoch {first_epoch}")
    for epoch in range(first_epoch, options.epochs):
        loader.sampler.set_epoch(epoch)  # keeps the place that was loaded, as it is of this epoch
        loss_sum = torch.zeros((), device=device)
        n_batches = 0
        for batch in loader:
            x, y = batch["X"].to(device), batch[f"obs_{options.label}"].to(device)
            loss = nn.functional.cross_entropy(model(x), y, ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum, n_batches, step = loss_sum + loss.detach(), n_batches + 1, step + 1
            if options.checkpoint and step % options.every == 0:
                # The state of one rank's loader fits all ranks.
                states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                save({**states, "loader": loader.state_dict(), "step": step}, options.checkpoint)
        say(f"epoch {epoch}   loss {loss_sum.item() / max(n_batches, 1):.4f}   {n_batches} batches a process")


@torch.inference_mode()
def predict(model: nn.Module, cells: AnnDataset, options: argparse.Namespace, device: torch.device) -> list[Any]:
    """Return ``(index, probabilities)`` of all cells, on the first process."""
    model.eval()
    # Processes may differ by a batch here, so the bare model is used: DDP's would wait for the others.
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    results = [
        (batch["index"], bare(batch["X"].to(device)).softmax(1).cpu())
        for batch in cells.predict_loader(options.batch_size)
    ]
    if not dist.is_initialized():
        return results
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, results)
    return [pair for part in parts for pair in part]


def save(states: dict[str, Any], path: str) -> None:
    """Save on the first process, so that a kill leaves the old checkpoint or the new one."""
    if rank() == 0:
        torch.save(states, f"{path}.new")
        os.replace(f"{path}.new", path)


def rank() -> int:
    """Return this process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def say(text: str) -> None:
    """Print on the first process."""
    if rank() == 0:
        print(text, flush=True)


def main(options: argparse.Namespace) -> None:
    """Do all of it."""
    use_cuda = torch.cuda.is_available() and not options.cpu
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if use_cuda else torch.device("cpu")
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if use_cuda else "gloo")
    cells = AnnDataset(
        options.file if len(options.file) > 1 else options.file[0],
        obs_columns=[options.label],
        categories="code",
        transform=Compose([NormalizeTotal(1e4), Log1p()]),
    )
    # Now, and not after hours of training.
    check_writable(cells, obsm=options.key, overwrite=options.overwrite)
    parts = cells.split({"train": 0.9, "test": 0.1}, stratify=options.label, seed=options.seed)
    loader = parts["train"].get_optimized_dataloader(
        options.batch_size, seed=options.seed, num_workers=options.num_workers
    )
    torch.manual_seed(options.seed)
    n_classes = len(cells.categories[options.label])
    model: nn.Module = nn.Sequential(nn.Linear(cells.shape[1], 128), nn.ReLU(), nn.Linear(128, n_classes)).to(device)
    if dist.is_initialized():
        model = DistributedDataParallel(model)
    train(model, loader, options, device)
    results = predict(model, cells, options, device)
    if rank() == 0:
        write_obsm(cells, options.key, results, overwrite=options.overwrite)
        probabilities = torch.empty(len(cells), n_classes)
        for index, values in results:
            probabilities[index] = values
        test = parts["test"]
        truth = torch.from_numpy(test.obs[options.label].cat.codes.to_numpy(np.int64, copy=True))
        # The rows of the files that make up the part: what "index" is in its batches.
        rows = torch.from_numpy(test.rows_at(np.arange(len(test))))
        guess = probabilities[rows].argmax(1)
        right = (guess == truth)[truth >= 0].float().mean()
        say(f"test accuracy {right:.1%}; probabilities are in obsm[{options.key!r}]")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="+", help="an .h5ad file of counts, or several; obsm is written to them")
    parser.add_argument("--label", required=True, help="the obs column with the classes, a categorical")
    parser.add_argument("--key", default="X_classes", help="name in obsm (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what has that name")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64, help="cells of a batch, on each process")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", metavar="FILE")
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    main(parser.parse_args())
