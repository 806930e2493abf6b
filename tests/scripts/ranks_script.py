"""One rank of several: goes through epochs as a user would and writes down what came. Run by test_torchrun.py.

    torchrun --nproc-per-node N ranks_script.py FILE FOLDER

After each batch the ranks add a number up together, as training with gradients in common does: were one of them to have
a batch more than the others, it would wait there for ever.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from cases import EPOCHS, cases

from annfeed import AnnDataset, WindowLoader


def epochs(loader: WindowLoader, n_epochs: int, world: int) -> list[list[Any]]:
    found = []
    for _ in range(n_epochs):
        batches = []
        for batch in loader:
            rows, marks = batch["obs_row"].tolist(), batch.get("is_padding")
            assert batch["X"][:, 0].tolist() == rows
            if "control_X" in batch:  # of sets, each cell and then its control
                assert torch.equal(batch["control_X"][:, 0], batch["control_obs_row"].float())
                rows = torch.stack([batch["obs_row"], batch["control_obs_row"]], 1).ravel().tolist()
                marks = marks.repeat_interleave(2)
            here = torch.ones(())
            dist.all_reduce(here)
            assert here == world
            batches.append([rows, None if marks is None else marks.tolist()])
        assert len(batches) == len(loader)
        found.append(batches)
    return found


def main(path: str, folder: Path) -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(100 + rank)  # not agreed upon: seed=None must not need it
    found: dict[str, Any] = {}
    for name, case in cases().items():
        dataset = AnnDataset(path, window=8, **case.get("dataset", {}))
        if "split" in case:
            dataset = dataset.split(**case["split"])["train"]
        found[name] = epochs(dataset.get_optimized_dataloader(**case["loader"]), EPOCHS, world)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
