"""One of two processes of somebody else's trainer: what it delivers from our loaders. Run by test_trainers.py.

    torchrun --nproc-per-node 2 trainers_script.py TRAINER FILE FOLDER

The ranks add a number up together after each batch: were one of them to have a batch more, it would wait for ever.
"""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, SequentialSampler

from annfeed import AnnDataset

Found = dict[str, Any]


def labels(items: Any) -> dict[str, Any]:
    """A collate function of a user's."""
    return {"obs_row": torch.stack([item["obs_row"] for item in items]), "mine": True}


#: Loaders by name: of how many rows, and how they are made.
LOADERS: dict[str, tuple[int, Callable[[AnnDataset], Any]]] = {
    "train": (40, lambda dataset: dataset.get_optimized_dataloader(4, seed=3)),
    "no seed": (40, lambda dataset: dataset.get_optimized_dataloader(4)),
    "padded": (25, lambda dataset: dataset.get_optimized_dataloader(4, seed=3)),
    "workers": (40, lambda dataset: dataset.get_optimized_dataloader(4, seed=3, num_workers=1)),
    "index": (40, lambda dataset: dataset.get_optimized_dataloader(4, seed=3, return_index=True)),
    "collate": (40, lambda dataset: dataset.get_optimized_dataloader(4, seed=3, collate_fn=labels)),
    "predict": (40, lambda dataset: dataset.predict_loader(4)),
}


def epochs(loader: Any, n_epochs: int = 2) -> list[list[Found]]:
    """The batches of some epochs, without what is long."""
    found = []
    for _ in range(n_epochs):
        batches = []
        for batch in loader:
            assert "X" not in batch or batch["X"][:, 0].tolist() == batch["obs_row"].tolist()
            here = torch.ones(())
            dist.all_reduce(here)
            assert here == dist.get_world_size()
            kept = {key: batch[key].tolist() for key in ("obs_row", "index", "is_padding") if key in batch}
            batches.append({**kept, "mine": "mine" in batch})
        assert len(batches) == len(loader)
        found.append(batches)
    return found


def each(path: str, prepare: Callable[[Any], Any]) -> dict[str, Any]:
    """What a trainer delivers from each of the loaders."""
    found: dict[str, Any] = {}
    for name, (n_rows, make) in LOADERS.items():
        torch.manual_seed(100 + dist.get_rank())  # not agreed upon: an order without a seed must not need it
        found[name] = epochs(prepare(make(AnnDataset(path, obs_subset=range(n_rows), window=8))))
    return found


def plain(path: str) -> Found:
    """Nobody's trainer, and plain DataLoaders over the dataset with torch's DistributedSampler."""
    dist.init_process_group("gloo")
    found = each(path, lambda loader: loader)
    dataset = AnnDataset(path)
    sampler = DistributedSampler(dataset, shuffle=True)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, collate_fn=dataset.get_collate_fn())
    found["torch's loader and sampler"] = epochs(loader, 1)
    ours = dataset.get_optimized_dataloader(4, seed=3)
    found["torch's loader, our sampler"] = epochs(DataLoader(dataset, batch_size=4, sampler=ours.sampler), 1)
    return found


def fabric(path: str) -> Found:
    """Lightning Fabric."""
    from lightning.fabric import Fabric

    runner = Fabric(accelerator="cpu", strategy="ddp", devices=2)
    runner.launch()
    return each(path, runner.setup_dataloaders)


def lightning(path: str) -> Found:
    """Lightning's Trainer, which fits and predicts."""
    import lightning.pytorch as pl

    found: dict[str, Any] = {}

    class Rows(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.seen: list[list[Found]] = []

        def note(self, batch: Any) -> None:
            kept = {key: batch[key].tolist() for key in ("obs_row", "index", "is_padding") if key in batch}
            self.seen[-1].append({**kept, "mine": "mine" in batch})

        def on_train_epoch_start(self) -> None:
            self.seen.append([])

        def on_predict_epoch_start(self) -> None:
            self.seen.append([])

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            self.note(batch)
            return self.layer(batch["obs_row"][:, None] / 40).mean()

        def predict_step(self, batch: Any, _: int) -> None:
            self.note(batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    for name, (n_rows, make) in LOADERS.items():
        torch.manual_seed(100)
        model = Rows()
        trainer = pl.Trainer(
            accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, enable_checkpointing=False, **quiet
        )
        loader = make(AnnDataset(path, obs_subset=range(n_rows), window=8))
        if name == "predict":
            trainer.predict(model, loader, return_predictions=False)
        else:
            trainer.fit(model, loader)
        found[name] = model.seen
    return found


def ray(path: str) -> Found:
    """What Ray Train's ``prepare_data_loader`` does: a loader whose sampler is no DistributedSampler is made anew."""
    dist.init_process_group("gloo")

    def prepare(loader: Any) -> Any:
        if isinstance(loader.sampler, DistributedSampler):
            return loader
        names = ("dataset", "batch_size", "num_workers", "collate_fn", "pin_memory", "drop_last", "timeout")
        rest = {name: getattr(loader, name) for name in (*names, "worker_init_fn", "generator")}
        shuffle = not isinstance(loader.sampler, SequentialSampler)
        return DataLoader(shuffle=False, sampler=DistributedSampler(loader.dataset, shuffle=shuffle), **rest)

    found = each(path, prepare)
    dataset = AnnDataset(path)
    found["refused"] = refusal(
        lambda: list(prepare(dataset.get_optimized_dataloader(4, sampler=RandomSampler(dataset))))
    )
    return found


def refusal(work: Callable[[], Any]) -> str:
    try:
        work()
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def accelerate(path: str) -> Found:
    """Hugging Face Accelerate."""
    from accelerate import Accelerator
    from accelerate.data_loader import prepare_data_loader

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    found = each(path, accelerator.prepare)
    dataset = AnnDataset(path, window=8)

    def loader(n_rows: int = 40, **options: Any) -> Any:
        part = AnnDataset(path, obs_subset=range(n_rows), window=8)
        return part.get_optimized_dataloader(**{"batch_size": 4, "seed": 3, **options})

    # The number of the epoch, and a place in it.
    ours = loader()
    ours.set_epoch(7)
    prepared = accelerator.prepare(loader())
    prepared.set_epoch(7)
    found["epoch 7"], found["epoch 7, prepared"] = epochs(ours, 1), epochs(prepared, 1)
    prepared.set_epoch(7)
    begun = iter(prepared)
    found["begun"] = [next(begun)["obs_row"].tolist() for _ in range(2)]
    state = prepared.state_dict()
    folder = Path(path).parent / "state"
    accelerator._dataloaders[:] = [prepared]
    accelerator.save_state(str(folder))
    begun.close()
    rest = accelerator.prepare(loader())
    rest.load_state_dict(state)
    found["rest"] = [batch["obs_row"].tolist() for batch in rest]
    again = accelerator.prepare(loader())
    accelerator._dataloaders[:] = [again]
    accelerator.wait_for_everyone()
    accelerator.load_state(str(folder))
    found["rest of the saved state"] = [batch["obs_row"].tolist() for batch in again]

    # What the accelerator knows of an epoch: beside a plain DataLoader's, of as many batches, prepared by Accelerate.
    for name, each_loader in (
        ("ours", accelerator.prepare(loader(seed=None, shuffle=False))),
        ("plain", accelerator.prepare(DataLoader(torch.arange(40), batch_size=4))),
    ):
        model, known = torch.nn.Linear(1, 1), []
        for _ in each_loader:
            with accelerator.accumulate(model):
                known.append([accelerator.sync_gradients, accelerator.gradient_state.end_of_dataloader])
        found[f"known, {name}"] = [*known, accelerator.gradient_state.end_of_dataloader]
    for n_rows in (25, 40):
        gathered: list[int] = []
        for batch in accelerator.prepare(loader(n_rows)):
            gathered += accelerator.gather_for_metrics(batch["obs_row"]).tolist()
        found[f"gathered {n_rows}"] = gathered
    padded: list[int] = []
    for batch in accelerator.prepare(loader(39)):  # the last batch: 4 rows on one rank, 3 on the other
        rows = accelerator.pad_across_processes(batch["obs_row"], pad_index=-1)
        padded += accelerator.gather_for_metrics(rows).tolist()
    found["gathered 39"] = [row for row in padded if row >= 0]
    for _ in accelerator.prepare(loader()):  # left in mid-epoch: nothing may stay behind
        break
    found["left"] = accelerator.gradient_state.in_dataloader

    # Rebuilt around Accelerate's question, as versions that do not ask it would, and its skip_first_batches.
    rank = {"num_processes": accelerator.num_processes, "process_index": accelerator.process_index}
    found["refused"] = refusal(lambda: list(prepare_data_loader(loader(), **rank)))
    found["refused, workers"] = refusal(lambda: list(prepare_data_loader(loader(num_workers=1), **rank)))
    found["refused, collate"] = refusal(lambda: list(prepare_data_loader(loader(collate_fn=labels), **rank)))
    found["refused, skip"] = refusal(lambda: list(accelerator.skip_first_batches(accelerator.prepare(loader()), 1)))
    own = DataLoader(dataset, batch_size=4, shuffle=True, collate_fn=dataset.get_collate_fn())
    found["a plain loader over the dataset"] = [b["obs_row"].tolist() for b in accelerator.prepare(own)]
    return found


def main(trainer: str, path: str, folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    np.random.seed(0)
    trainers = {"plain": plain, "fabric": fabric, "lightning": lightning, "ray": ray, "accelerate": accelerate}
    found = trainers[trainer](path)
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
