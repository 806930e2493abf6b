"""Bugs that other loaders have, by the number of their row in our list, and the tests that would find them here.

Each name below is checked to be there. The last part holds row 32: every documented parameter does something.
"""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from annfeed import AnnDataset, CellSets, Transform
from annfeed.process.threads import reading_threads
from tests.loading.steps_of_loaders import count_reads
from tests.support.places import ROOT
from tests.support.toys import toy

#: What goes wrong elsewhere, and where that is tested: "file::test", all in this folder.
PITFALLS: dict[str, list[str]] = {
    "pitfall 1: the same order in every epoch": [
        "loading/test_loader_order::test_epochs_differ_and_come_again",
        "loading/test_torchrun::test_every_epoch_has_an_order_of_its_own",
        "lightning/test_lightning_epochs::test_every_epoch_has_an_order_of_its_own_without_a_strategy",
        "lightning/test_lightning_epochs::test_every_epoch_has_an_order_of_its_own_under_ddp",
    ],
    "pitfall 2: ranks or workers that overlap or leave rows out": [
        "loading/test_torchrun::test_ranks_together_deliver_each_row_once",
        "loading/test_ranks::test_ranks_deliver_each_row_once",
        "order/test_splits::test_other_processes_split_alike",
    ],
    "pitfall 3: workers with the same random numbers": [
        "loading/test_workers::test_random_transforms_differ_everywhere_and_come_again",
        "loading/test_workers::test_random_transforms_differ_between_ranks",
    ],
    "pitfall 4: unequal numbers of batches on ranks": [
        "loading/test_torchrun::test_every_rank_has_the_same_number_of_batches",
        "loading/test_ranks::test_ranks_deliver_equally_many_batches",
        "order/test_epoch::test_every_rank_delivers_the_same_number_of_batches_and_len_tells_it",
    ],
    "pitfall 5: padding that nobody can tell from data": [
        "loading/test_ranks::test_padding_is_marked",
        "loading/test_torchrun::test_uneven_shares",
    ],
    "pitfall 6: the user's order is changed": [
        "loading/test_loader_keywords::test_sampler",
        "loading/test_loader_order::test_without_shuffle_the_datasets_order",
        "loading/test_ranks::test_an_order_is_delivered_as_it_is",
    ],
    "pitfall 7: repeated rows refused, lost or clustered": [
        "loading/test_loader_keywords::test_sampler",
        "order/test_weighting::test_copies_are_spread_over_the_epoch",
    ],
    "pitfall 8: a file opened or read for every row": [
        "dataset/test_life_of_a_file::test_one_open_for_any_number_of_batches",
        "loading/test_workers::test_a_forked_worker_opens_the_file_once",
        "loading/test_loader::test_chunk_size_rows_are_read_together",
    ],
    "pitfall 9: rows or errors that get lost silently": [
        "loading/test_loader::test_corrupt_chunk_is_told_after_the_windows_before_it",
        "loading/test_loader::test_slow_consumer_loses_nothing",
        "loading/test_loader::test_len_is_what_is_delivered",
    ],
    "pitfall 10: one label with several codes": [
        "inputs/test_many_files::test_one_code_for_a_label_pitfall_10",
        "obs/test_obs_of_files::test_unused_categories_and_missing_values_keep_their_codes",
        "dataset/test_items::test_codes_are_those_of_the_whole_column_for_any_subset",
    ],
    "pitfall 11: weights that are too few or of other rows": [
        "order/test_weighting::test_options_that_are_refused",
        "order/test_weighting::test_weights_are_of_the_datasets_rows",
        "order/test_weighting::test_weights_under_the_names_of_cells_are_theirs",
    ],
    "pitfall 12: a split that delivers rows of another part": [
        "order/test_splits::test_parts_deliver_their_rows_and_only_these",
        "dataset/test_inputs::test_train_and_test_split_share_no_row",
    ],
    "pitfall 13: offsets beyond 32 bits": [
        "sources/test_huge_files::test_offsets_beyond_31_and_32_bits_pitfall_13",
        "sources/test_layouts::test_elements_beyond_what_32_bits_count",
        "sources/test_value_types::test_index_types",
    ],
    "pitfall 14: dtypes that surprise": [
        "sources/test_value_types::test_every_dtype_to_every_other",
        "obs/test_obs_dtypes::test_table_of_dtypes",
        "dataset/test_outputs::test_counts_that_float32_rounds_are_told_once",
    ],
    "pitfall 15: sparse batches of varying width": [
        "dataset/test_outputs::test_sparse_batches_are_valid_csr_of_full_width",
    ],
    "pitfall 16: raw by default, and zeros for what was not measured": [
        "dataset/test_items::test_x_is_the_default_though_there_is_raw",
        "inputs/test_many_files::test_which_genes_were_measured_pitfall_16",
    ],
    "pitfall 17: one file handle in several processes": [
        "loading/test_workers::test_data_that_the_parent_has_read_is_read_by_workers",
        "inputs/test_many_files_reading::test_workers_pitfall_17",
    ],
    "pitfall 18: shuffled only within a rank's part of the file": [
        "loading/test_ranks::test_each_rank_sees_rows_of_the_whole_file",
        "order/test_epoch::test_each_rank_sees_blocks_of_the_whole_file",
    ],
    "pitfall 19: permutations of all rows in memory": [
        "order/test_epoch::test_a_plan_of_100_million_rows_holds_no_permutation",
        "order/test_weighting::test_no_draw_is_held",
    ],
    "pitfall 20: caches that mix up or hand out what they hold": [
        "sources/test_cache::test_a_batch_that_was_changed_does_not_change_the_cache",
        "sources/test_cache::test_other_columns_are_another_cache",
        "sources/test_cache::test_the_budget_is_kept",
    ],
    "pitfall 21: opening loads what nobody asked for": [
        "dataset/test_life_of_a_file::test_memory_stays_flat_beside_a_large_unused_matrix",
        "obs/test_obs_of_files::test_columns_not_asked_for_are_not_read",
        "inputs/test_many_files_reading::test_opening_reads_no_obs_and_no_layer_pitfall_21",
    ],
    "pitfall 22: a length that is not what is delivered": [
        "loading/test_loader::test_len_is_what_is_delivered",
        "loading/test_loader::test_len_is_what_workers_deliver",
        "order/test_epoch::test_every_rank_delivers_the_same_number_of_batches_and_len_tells_it",
    ],
    "pitfall 23: short batches in mid-epoch": [
        "loading/test_torchrun::test_every_rank_has_the_same_number_of_batches",
        "loading/test_loader::test_len_is_what_workers_deliver",
    ],
    "pitfall 24: one row, no rows, batches of one": [
        "dataset/test_inputs::test_empty_and_tiny",
        "dataset/test_inputs::test_empty_rows_are_rows",
        "order/test_epoch::test_edges",
    ],
    "pitfall 25: keys and missing values lost in collation": [
        "batches/test_collate::test_keys_may_be_added_changed_and_left_out",
        "batches/test_collate::test_a_key_that_only_some_items_get_is_an_error_not_zero",
        "obs/test_obs_dtypes::test_table_of_codes",
    ],
    "pitfall 26: an import that changes global state": [
        "test_import::test_import_changes_no_global_state",
        "loading/test_loader_order::test_with_a_seed_no_generator_is_touched",
        "loading/test_loader_order::test_without_a_seed_one_draw_from_torch_an_epoch",
    ],
    "pitfall 27: a file that changed is read on": [
        "sources/test_stale_files::test_a_file_that_changes_is_stale",
        "sources/test_stale_files::test_a_worker_finds_a_changed_file_stale",
        "inputs/test_many_files_reading::test_a_file_that_changes_is_named_pitfall_27",
    ],
    "pitfall 28: unsorted or repeated column indices": [
        "dataset/test_outputs::test_unsorted_and_repeated_columns_are_summed_as_scipy_does",
        "sources/test_layouts::test_rows_as_scipy_understands_them",
    ],
    "pitfall 29: LOCAL_RANK for the rank": [
        "loading/test_ranks::test_rank_and_world",
        "loading/test_ranks::test_a_rank_that_cannot_be_known_is_an_error",
        "loading/test_ranks::test_local_rank_alone_takes_no_share",
    ],
    "pitfall 30: no more than 2**24 weights": [
        "order/test_weighting::test_20_million_weights",
    ],
    "pitfall 31: a loader that is used up, or leaves threads behind": [
        "loading/test_loader::test_iterate_twice",
        "loading/test_loader::test_early_break_leaves_no_thread_and_no_window",
        "loading/test_loader::test_early_break_leaves_no_worker",
    ],
    "pitfall 32: parameters that do nothing": [
        "test_pitfalls::test_every_parameter_of_the_dataset_has_its_effect",
        "test_pitfalls::test_every_parameter_of_the_loader_has_its_effect",
        "test_readme::test_parameter_tables_are_the_signatures",
    ],
}


def test_all_32_rows_are_here() -> None:
    assert [int(name.split(":")[0].removeprefix("pitfall ")) for name in PITFALLS] == list(range(1, 33))


@pytest.mark.parametrize("pitfall", PITFALLS)
def test_the_tests_of_a_row_are_there(pitfall: str) -> None:
    for place in PITFALLS[pitfall]:
        file, name = place.split("::")
        tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, place


# --- row 32 -----------------------------------------------------------------------------------------------------------


class Twice(Transform):
    """Something to see."""

    batched = True

    def __call__(self, data_dict):
        return {**data_dict, "X": data_dict["X"] * 2}


def seen(path: Path, loader: dict[str, Any] | None = None, **options: Any) -> str:
    """What two epochs deliver, in words: everything but the numbers of threads and of bytes."""
    dataset = AnnDataset(path, **{"obs_columns": ["row", "label", "text"], "chunk_size": 8, **options})
    made = dataset.get_optimized_dataloader(**{"batch_size": 4, "seed": 1, **(loader or {})})
    return repr([{key: str(value) for key, value in batch.items()} for _ in range(2) for batch in made])


def reads(path: Path, **options: Any) -> list[int]:
    dataset = AnnDataset(path, **options)
    with pytest.MonkeyPatch.context() as patch:
        found = count_reads(dataset, patch)
        list(dataset.get_optimized_dataloader(batch_size=4, shuffle=False))
    return found


def hits(path: Path, **options: Any) -> bool:
    dataset = AnnDataset(path, **options)
    for _ in range(2):
        list(dataset.get_optimized_dataloader(batch_size=20))
    return dataset.stats()["cache_hits"] > 0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("effects")
    toy(400).write_h5ad(folder / "one.h5ad", compression="gzip")
    other = toy(20)
    other.var_names = ["gene0", *(f"other{i}" for i in range(6))]
    other.write_h5ad(folder / "two.h5ad")
    return {"one": folder / "one.h5ad", "two": [folder / "one.h5ad", folder / "two.h5ad"]}


def names(path: Any, **options: Any) -> list[str]:
    return list(AnnDataset(path, **options).obs_names)


#: By parameter: what is looked at, of which file, without and with it; or the test that sees its effect.
OF_DATASET: dict[str, str | tuple[Callable[..., Any], str, dict[str, Any], dict[str, Any]]] = {
    "transform": (seen, "one", {}, {"transform": Twice()}),
    "obs_subset": (seen, "one", {}, {"obs_subset": [3, 1]}),
    "window": (reads, "one", {}, {"window": 4}),
    "chunk_size": (reads, "one", {}, {"chunk_size": 4}),
    "elem": (seen, "one", {}, {"elem": "layers/counts"}),
    "cells": "inputs/test_modalities::test_cells",
    "var_names": "inputs/test_tenx::test_names_of_features",
    "make_unique": "inputs/test_tenx::test_names_of_features",
    "feature_types": "inputs/test_tenx::test_types_of_features",
    "obs_columns": (seen, "one", {}, {"obs_columns": ["row"]}),
    "var_subset": (seen, "one", {}, {"var_subset": ["gene3", "gene0"]}),
    "var_column": "inputs/test_var::test_genes_by_symbol",
    "categories": (seen, "one", {}, {"categories": "code"}),
    "output": (seen, "one", {}, {"output": "csr"}),
    "dtype": (seen, "one", {}, {"dtype": torch.float64}),
    "cache": (hits, "one", {}, {"cache": 0}),
    "threads": (
        lambda path, **options: reading_threads(AnnDataset(path, **options).threads),
        "one",
        {},
        {"threads": 7},
    ),
    "strict": "sources/test_fallback::test_foreign_filters",
    "return_index": (seen, "one", {}, {"return_index": True}),
    "join": (seen, "two", {}, {"join": "outer"}),
    "label": (seen, "two", {"obs_columns": None}, {"label": "source"}),
    "keys": (seen, "two", {"obs_columns": None, "label": "source"}, {"keys": ["a", "b"]}),
    "index_unique": (names, "two", {}, {"index_unique": "-"}),
    "io_depth": "sources/test_read_ahead::test_bytes_of_cold_files_are_read_ahead_and_counted",
    "max_open_files": "inputs/test_many_files_open::test_no_more_files_are_open_than_allowed",
}

WEIGHTS = np.arange(400)

#: By parameter: a loader without and with it; or the test that sees its effect.
OF_LOADER: dict[str, str | tuple[dict[str, Any], dict[str, Any]]] = {
    "batch_size": ({}, {"batch_size": 5}),
    "shuffle": ({}, {"shuffle": False}),
    "num_workers": "loading/test_workers::test_workers_take_windows_in_turn",
    "block_size": ({}, {"block_size": 2}),
    "seed": ({}, {"seed": 2}),
    "drop_last": ({"batch_size": 7}, {"drop_last": True}),
    "prefetch_batches": "loading/test_loader::test_early_break_leaves_no_thread_and_no_window",
    "return_index": ({}, {"return_index": True}),
    "weights": ({}, {"weights": WEIGHTS}),
    "balance": ({}, {"balance": "label"}),
    "temperature": ({"balance": "label"}, {"temperature": 0.5}),
    "replacement": ({"weights": WEIGHTS, "n_samples": 300}, {"replacement": False}),
    "n_samples": ({"weights": WEIGHTS}, {"n_samples": 300}),
    "sets": ({}, {"sets": CellSets(by="label", size=2)}),
    "order": ({}, {"order": lambda epoch: [epoch, 7]}),
    "uneven": "loading/test_ranks::test_every_batch_of_several_ranks_has_the_mark",
}


def parameters_of(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind != p.VAR_KEYWORD and p.default is not p.empty]


def check_there(place: str) -> None:
    file, name = place.split("::")
    assert f"def {name}(" in (ROOT / "tests" / f"{file}.py").read_text()


@pytest.mark.parametrize("name", parameters_of(AnnDataset.__init__))
def test_every_parameter_of_the_dataset_has_its_effect(files: dict[str, Any], name: str) -> None:
    """Pitfall 32: documented, validated, and used."""
    effect = OF_DATASET[name]
    if isinstance(effect, str):
        check_there(effect)
        return
    look, path, base, more = effect
    assert look(files[path], **base) == look(files[path], **base)
    assert look(files[path], **base) != look(files[path], **{**base, **more})


@pytest.mark.parametrize("name", parameters_of(AnnDataset.get_optimized_dataloader))
def test_every_parameter_of_the_loader_has_its_effect(files: dict[str, Any], name: str) -> None:
    """Pitfall 32: documented, validated, and used."""
    effect = OF_LOADER[name]
    if isinstance(effect, str):
        check_there(effect)
        return
    base, more = effect
    assert seen(files["one"], base) == seen(files["one"], base)
    assert seen(files["one"], base) != seen(files["one"], {**base, **more})
