"""Trains on a file and keeps a checkpoint; killed in the middle, it goes on from there. Run by test_resume_kill.py.

    python resume_script.py FILE FOLDER KILL_AT [num_workers]

Alone, or as one of several ranks. Each writes a line for every step; the model is a sum over what it saw, in order.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from annfeed import AnnDataset

N_EPOCHS = 3


def main(path: str, folder: Path, kill_at: int, num_workers: int) -> None:
    rank = int(os.environ.get("RANK", "0"))
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    loader = AnnDataset(path, window=16).get_optimized_dataloader(
        batch_size=4, seed=9, block_size=2, num_workers=num_workers
    )
    model, step, first_epoch = torch.zeros(()), 0, 0
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model, step, first_epoch = saved["model"], saved["step"], saved["loader"]["epoch"]
        loader.load_state_dict(saved["loader"])
    log = (folder / f"{rank}.jsonl").open("a")
    for epoch in range(first_epoch, N_EPOCHS):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            model = model * 0.9 + batch["X"].sum()
            if dist.is_initialized():
                dist.all_reduce(model)
            rows = batch["obs_row"].tolist()
            assert batch["X"][:, 0].tolist() == rows
            log.write(json.dumps({"step": step, "epoch": epoch, "rows": rows, "model": model.item()}) + "\n")
            log.flush()
            step += 1
            if step % 3 == 0 and rank == 0:
                torch.save({"model": model, "step": step, "loader": loader.state_dict()}, f"{checkpoint}.new")
                os.replace(f"{checkpoint}.new", checkpoint)
            if (
                step == kill_at
                and rank == int(os.environ.get("WORLD_SIZE", "1")) - 1
                and not (folder / "killed").exists()
            ):
                (folder / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
