"""Sets of 64 cells beside 64 matching controls, from the cache, beside single rows in exact random order.

    python benches/sets.py                       # SIZE=small, or the size in the environment

Sets are of cell types; a control has the type and the donor of its cell, or where there is none the type. Batches of
both have the same number of rows: one set, or 16. Each setting runs in a process of its own. Rates are of later epochs,
whose rows the cache has; the first batch counts from before the file is opened, in a process that has read nothing.
Before anything is timed, batches are compared with h5py, value by value, and with obs: sets are of one type, controls
of the same, and each of them comes before any comes again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import anndata
import numpy as np
import pandas as pd
from contender import Batch
from keep import keep, layout
from machine import OthersMeter
from measure import measure
from oracle import BATCHES, as_scipy, file_rows
from ours import Annfeed, annfeed_in
from settings import Settings, add_arguments, chosen, warm
from windows import add_rounds, seconds_of

#: Cells of a set, and controls; and the sets of a batch.
SIZE = 64
SETS = (1, 16)
#: Rate of sets / rate of single rows, and seconds to the first batch.
AIM, FIRST_AIM = 0.7, 1.0


class SetsOfCells(Annfeed):
    """`AnnDataset.get_optimized_dataloader` with ``sets=``; cells and controls are given one after the other."""

    def _loader(self, settings: Settings) -> Any:
        from annfeed import CellSets, Controls

        controls = Controls(where={"assay": self._assay()}, match=["cell_type", "donor_id"], fallback=["cell_type"])
        sets = CellSets(by="cell_type", size=SIZE, controls=controls)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # donors without controls
            return self.dataset.get_optimized_dataloader(
                settings.batch // (2 * SIZE), sets=sets, seed=settings.seed, return_index=True
            )

    def _assay(self) -> str:
        return str(self.dataset.obs_column("assay").value_counts().index[-1])

    def epoch(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield batch["X"], None
            yield batch["control_X"], None


def check_sets(output: str, settings: Settings) -> None:
    """Compare the first batches with the file, and the sets and controls of an epoch with obs.

    Raises
    ------
    AssertionError
        If a value is not the file's, or a cell or a control is none of its set.
    """
    contender = SetsOfCells("sets", output=output, cache="on")
    contender.open(settings, with_rows=False)
    for batch in islice(contender.loader, BATCHES):
        for part in ("", "control_"):
            expected = file_rows(settings.file, batch[f"{part}index"].numpy())
            assert (as_scipy(batch[f"{part}X"]) != expected).nnz == 0, f"wrong values in {part}X"
    obs = anndata.read_h5ad(settings.file, backed="r").obs
    types, donors = obs["cell_type"].astype(str).to_numpy(), obs["donor_id"].astype(str).to_numpy()
    is_control = (obs["assay"] == contender._assay()).to_numpy()
    own = pd.Series(is_control).groupby([types, donors]).sum()
    drawn = defaultdict(list)
    seen = np.zeros(len(obs), int)
    # The plan alone: an epoch of values is not needed to see which rows come.
    for window in contender.loader.sampler.plan.windows():
        for number, rows in enumerate(window.batches):
            n = int(window.sets.n_cells[number])
            cells, controls = rows[:n], rows[n:]
            repeats = window.sets.is_repeat[window.offsets[number] :][:n]
            np.add.at(seen, cells[~repeats], 1)
            assert (types[cells].reshape(-1, SIZE) == types[cells[::SIZE], None]).all(), "a set of several types"
            assert is_control[controls].all(), "a control that is none"
            assert not is_control[cells].any(), "a control in a set"
            assert (types[controls] == types[cells]).all(), "a control of another type"
            for cell, control in zip(cells, controls, strict=True):
                pool = (types[cell], donors[cell])
                has_own = own[pool] > 0
                assert not has_own or donors[control] == donors[cell], "a control of another donor"
                drawn[pool if has_own else pool[:1]].append(control)
    assert (seen[~is_control] == 1).all(), "a cell came twice, or not at all"
    for pool, controls in drawn.items():
        n = int(own[pool] if len(pool) == 2 else own[pool[0]].sum())
        cycles = [controls[start : start + n] for start in range(0, len(controls), n)]
        assert all(len(set(cycle)) == len(cycle) for cycle in cycles), "a control came again before others"


def contender(order: str, output: str, epochs: str) -> Annfeed:
    """Return sets, or single rows, in one setting."""
    if order == "sets":
        return SetsOfCells(f"annfeed sets {output}", output=output, cache="on", epochs=epochs, options={})
    made = annfeed_in(order, output, "on")
    made.epochs = epochs
    return made


def main() -> None:
    """Check, measure round after round, and write bench-data/sets.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_rounds(parser)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        *which, seconds = json.loads(given.one)
        print("\n" + json.dumps(measure(contender(*which), Settings.from_json(given.settings), seconds)), flush=True)
        return
    label, settings = chosen(given)
    warm(settings.file)
    for output in ("dense", "csr"):
        check_sets(output, replace(settings, batch=2 * SIZE * SETS[-1]))
    rows: list[dict[str, Any]] = []
    ways = [(output, sets, order) for output in ("dense", "csr") for sets in SETS for order in ("sets", "exact random")]
    for turn in range(given.rounds):
        for output, sets, order in ways:
            meter, of_batch = OthersMeter(), replace(settings, batch=2 * SIZE * sets)
            found = [
                _measured([order, output, epochs, seconds], of_batch)
                for epochs, seconds in (("later", seconds_of(given)), ("any", 0.01))
            ]
            row = {"data": label, "round": turn, "order": order, "output": output, "sets": sets}
            row |= {"cells_per_s": found[0]["cells_per_s"], "first_batch_s": found[1]["first_batch_s"]}
            rows.append(row | {"cache": settings.cache, "window": settings.window, "others": meter.share()})
    keep("sets", label, rows, file=layout(settings.file), rounds=given.rounds, seconds=seconds_of(given))
    print(table(pd.DataFrame(rows)))


def _measured(which: list[Any], settings: Settings) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--settings", settings.as_json(), "--one", json.dumps(which)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, float] = json.loads(answer.strip().splitlines()[-1])
    return found


def table(rows: pd.DataFrame) -> str:
    """Medians over the rounds; ratios are taken within a round."""
    lines = [
        f"| output | a batch | exact random, rows/s | sets, rows/s | ratio (aim: {AIM}) | exact random, first batch, s "
        f"| sets, first batch, s (aim: {FIRST_AIM}) |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for (output, sets), found in rows.groupby(["output", "sets"], sort=False):
        of = {order: some.set_index("round") for order, some in found.groupby("order")}
        ratio = (of["sets"]["cells_per_s"] / of["exact random"]["cells_per_s"]).median()
        rates = [of[order]["cells_per_s"].median() for order in ("exact random", "sets")]
        firsts = [of[order]["first_batch_s"].median() for order in ("exact random", "sets")]
        lines.append(
            f"| {output} | {sets} × ({SIZE} + {SIZE}) | {rates[0]:,.0f} | {rates[1]:,.0f} | {ratio:.2f} "
            f"| {firsts[0]:.2f} | {firsts[1]:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
