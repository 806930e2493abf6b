"""What scvi-tools' own setup makes of the obs of a file: the registry of a model, and the codes of each key.

It is run on an AnnData that holds the obs columns asked for and no counts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from annfeed.scvi.registry import keys_and_dtypes


class Registration:
    """What scvi-tools' setup makes of the obs of a file: the registry, and the values of each key.

    Parameters
    ----------
    obs
        A DataFrame with the columns asked for, one row a cell.
    var_names
        The genes.
    model_name
        The model that the registry is for.
    layer, batch_key, labels_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
        As in ``scvi.model.SCVI.setup_anndata``.
    unlabeled_category
        The label of unlabelled cells, as in ``scvi.model.SCANVI.setup_anndata``; None for none.
    """

    def __init__(
        self,
        obs: Any,
        var_names: Any,
        *,
        model_name: str,
        layer: str | None,
        batch_key: str | None,
        labels_key: str | None,
        unlabeled_category: str | None,
        size_factor_key: str | None,
        categorical_covariate_keys: list[str] | None,
        continuous_covariate_keys: list[str] | None,
    ) -> None:
        from scvi.data import AnnDataManager, fields

        arguments: dict[str, Any] = {
            "layer": layer,
            "batch_key": batch_key,
            "labels_key": labels_key,
            "size_factor_key": size_factor_key,
            "categorical_covariate_keys": categorical_covariate_keys,
            "continuous_covariate_keys": continuous_covariate_keys,
        }
        if unlabeled_category is None:
            labels = fields.CategoricalObsField("labels", labels_key)
        else:
            labels = fields.LabelsWithUnlabeledObsField("labels", labels_key, unlabeled_category)
            arguments["unlabeled_category"] = unlabeled_category
        manager = AnnDataManager(
            fields=[
                fields.LayerField("X", layer, is_count_data=False, correct_data_format=False),
                fields.CategoricalObsField("batch", batch_key),
                labels,
                fields.NumericalObsField("size_factor", size_factor_key, required=False),
                fields.CategoricalJointObsField("extra_categorical_covs", categorical_covariate_keys),
                fields.NumericalJointObsField("extra_continuous_covs", continuous_covariate_keys),
            ],
            setup_method_args={
                "model_name": model_name,
                "setup_method_name": "setup_datamodule",
                "setup_args": arguments,
            },
        )
        manager.register_fields(_without_counts(obs, var_names, layer))
        self.registry = Registry(manager.registry)
        self.registry["field_registries"] = dict(self.registry["field_registries"])
        guessed_right = size_factor_key is None and len(categorical_covariate_keys or ()) < 2
        if unlabeled_category is not None and guessed_right:
            self.registry.saved_as = "setup_datamodule"
        self.summary = manager.summary_stats
        dtypes = keys_and_dtypes(manager, None)
        self.columns = {
            key: np.ascontiguousarray(manager.get_from_registry(key), dtype=dtype)
            for key, dtype in dtypes.items()
            if key != "X"
        }

    def state(self, key: str) -> dict[str, Any]:
        """Return what scvi-tools remembers of a key."""
        return dict(self.registry["field_registries"][key]["state_registry"])


class Registry(dict[str, Any]):
    """A registry that says "setup_datamodule", as a model without an AnnData needs, and ``saved_as`` when it is saved.

    scvi-tools 1.4 loads a model that says "setup_datamodule" with a module of its own guess, which knows no size factor
    and one categorical covariate at most. One that says "setup_anndata" is loaded as it was, and with an AnnData too;
    that is true as well, as scvi-tools' own setup made the registry. Only SCANVI cannot then do without an AnnData.
    """

    saved_as = "setup_anndata"

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, ({**self, "setup_method_name": self.saved_as},)

    def __deepcopy__(self, memo: dict[int, Any]) -> Registry:
        other = Registry(copy.deepcopy(dict(self), memo))
        other.saved_as = self.saved_as
        return other


def _without_counts(obs: Any, var_names: Any, layer: str | None) -> Any:
    """An AnnData of the right shape; scvi-tools' fields ask for that of a matrix only."""
    import anndata
    import pandas as pd
    import scipy.sparse as sp

    nothing = sp.csr_matrix((len(obs), len(var_names)), dtype=np.float32)
    var = pd.DataFrame(index=pd.Index(np.asarray(var_names, dtype=str)))
    adata = anndata.AnnData(nothing, obs=obs.copy(), var=var)
    if layer is not None:
        adata.layers[layer] = nothing
    return adata


def key_list(keys: Sequence[str] | None) -> list[str] | None:
    """Return covariate keys as scvi-tools takes them; None for none.

    Raises
    ------
    TypeError
        If they are one text.
    """
    if isinstance(keys, str):
        raise TypeError(f"covariate keys are the text {keys!r}, where a list of obs columns was expected")
    return None if keys is None or len(keys) == 0 else list(keys)
