"""Trains a small transformer to fill in masked expression values, from an .h5ad file that stays on disk.

    python examples/train_transformer.py atlas.h5ad

A cell is a sequence of tokens, its expressed genes with their values in quantile bins (as scGPT has it). A part of the
values is masked, and the model tells them from the other genes. A part of the cells is held out of training. The same
seed gives the same run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from annfeed import AnnDataset, Tokens

#: Bins of values; bin 0 stands for masked ones.
BINS = 16
#: Share of the values that are masked.
MASKED = 0.15


class Model(nn.Module):
    """Genes and values in, a value for each token out: plain PyTorch."""

    def __init__(self, n_tokens: int, width: int) -> None:
        super().__init__()
        self.genes = nn.Embedding(n_tokens, width)
        self.values = nn.Embedding(BINS, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)
        # What a gene alone tells, which the layers need not learn again.
        self.usual = nn.Embedding(n_tokens, 1)
        nn.init.constant_(self.usual.weight, BINS / 2)

    def forward(self, genes: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return a value for each token, float32 [B, L]."""
        x = self.genes(genes) + self.values(values)
        x = self.norm(self.layers(x, src_key_padding_mask=~mask))
        found: torch.Tensor = self.head(x) + self.usual(genes)
        return found.squeeze(-1)


def masked(batch: dict[str, Any], random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values with some of them masked, int64 [B, L], and which are, bool [B, L]."""
    hidden = (torch.rand(batch["mask"].shape, generator=random) < MASKED) & batch["mask"] & (batch["values"] > 0)
    return batch["values"].long().masked_fill(hidden, 0), hidden


def train(model: Model, cells: AnnDataset, options: argparse.Namespace) -> None:
    """Train ``model`` on ``cells``."""
    loader = cells.get_optimized_dataloader(options.batch_size, seed=options.seed)
    groups = [{"params": model.usual.parameters(), "lr": 50 * options.lr}]
    groups.append({"params": [each for name, each in model.named_parameters() if not name.startswith("usual")]})
    optimizer = torch.optim.Adam(groups, lr=options.lr)
    random = torch.Generator().manual_seed(options.seed)
    for epoch in range(1, options.epochs + 1):
        start, n_cells, losses = time.perf_counter(), 0, []
        for batch in loader:
            values, hidden = masked(batch, random)
            found = model(*(x.to(options.device) for x in (batch["genes"], values, batch["mask"])))
            loss = nn.functional.mse_loss(found[hidden], batch["values"].to(options.device)[hidden])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            n_cells += len(values)
        speed = n_cells / (time.perf_counter() - start)
        print(f"epoch {epoch:>3}/{options.epochs}   loss {np.mean(losses):7.3f}   {speed:7,.0f} cells/s", flush=True)


@torch.inference_mode()
def explained(model: Model, cells: AnnDataset, options: argparse.Namespace) -> float:
    """Return the share of the variance of masked values that the model explains."""
    model.eval()
    random = torch.Generator().manual_seed(options.seed)
    wanted, told = [], []
    # The same tokens each time.
    for batch in cells.predict_loader(options.batch_size):
        values, hidden = masked(batch, random)
        found = model(*(x.to(options.device) for x in (batch["genes"], values, batch["mask"])))
        wanted.append(batch["values"][hidden])
        told.append(found.cpu()[hidden])
    truth, guess = torch.cat(wanted), torch.cat(told)
    return 1 - ((truth - guess).square().mean() / truth.var(unbiased=False)).item()


def main(options: argparse.Namespace) -> None:
    """Do all of it."""
    # Half of the cores compute; torch's threads would spin on those that decode.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    torch.manual_seed(options.seed)
    with AnnDataset(options.file, elem=options.elem, obs_columns=[]) as whole:
        n_genes = whole.shape[1]
    tokens = Tokens(
        length=options.length,
        choose="random",
        order="gene",
        values="binned",
        bins=BINS,
        cls_id=n_genes,
        pad_id=n_genes + 1,
    )
    cells = AnnDataset(options.file, elem=options.elem, obs_columns=[], output=tokens)
    parts = cells.split({"train": 1 - options.test_share, "test": options.test_share}, seed=options.seed)
    model = Model(n_genes + 2, options.width).to(options.device)
    n_weights = sum(each.numel() for each in model.parameters())
    print(f"cells    {len(parts['train']):,} to train on, {len(parts['test']):,} held out; {n_genes:,} genes")
    print(f"tokens   at most {options.length} of a cell, values in {BINS - 1} bins, {MASKED:.0%} of them masked")
    print(f"model    {n_weights:,} weights on {options.device}", flush=True)
    train(model, parts["train"], options)
    print(f"explained variance of masked values, held out   {explained(model, parts['test'], options):.1%}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small transformer on the tokens of an .h5ad file.")
    add = parser.add_argument
    add("file", metavar="FILE", nargs="+", help="an .h5ad file, or several; a pattern in quotes is one, too")
    add("--elem", default="X", help="where the matrix lies: X, raw/X, layers/counts (default: %(default)s)")
    add("--epochs", type=int, default=10, help="times that all cells are seen (default: %(default)s)")
    add("--batch-size", type=int, default=32, help="cells of a batch (default: %(default)s)")
    add("--length", type=int, default=128, help="most tokens of a cell (default: %(default)s)")
    add("--width", type=int, default=32, help="width of the model, a multiple of 4 (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="learning rate of Adam (default: %(default)s)")
    add("--test-share", type=float, default=0.2, help="share of the cells to hold out (default: %(default)s)")
    add("--seed", type=int, default=0, help="for split, order, tokens and weights (default: %(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default here: %(default)s)")
    options = parser.parse_args()
    options.file = options.file if len(options.file) > 1 else options.file[0]
    return options


if __name__ == "__main__":
    try:
        main(_options())
    except (OSError, ValueError, KeyError, MemoryError) as error:  # of the file or the options; each says what to do
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
