"""Runs scvi-tools' own setup on an AnnData with the needed obs columns and no counts, for `SCVIDataModule`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from annfeed.errors import UnsupportedError
from annfeed.scvi.registry import keys_and_dtypes


class Registration:
    """The registry that scvi-tools' setup makes for the obs of a file, and the values of each key.

    Parameters
    ----------
    obs
        A DataFrame with the needed columns, one row per cell.
    var_names
        Names of the genes.
    model_name
        Class name of the model.
    layer, batch_key, labels_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
        As in ``scvi.model.SCVI.setup_anndata``.
    sample_key
        As in ``scvi.external.MRVI.setup_anndata``; None for none.
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
        sample_key: str | None = None,
    ) -> None:
        from scvi.data import AnnDataManager, fields

        check_model(model_name)
        arguments: dict[str, Any] = {
            "layer": layer,
            "sample_key": sample_key,
            "batch_key": batch_key,
            "labels_key": labels_key,
            "size_factor_key": size_factor_key,
            "categorical_covariate_keys": categorical_covariate_keys,
            "continuous_covariate_keys": continuous_covariate_keys,
        }
        arguments = _taken(model_name, arguments)
        if unlabeled_category is None:
            labels = fields.CategoricalObsField("labels", labels_key)
        else:
            labels = fields.LabelsWithUnlabeledObsField("labels", labels_key, unlabeled_category)
            arguments["unlabeled_category"] = unlabeled_category
        registered = {
            "layer": fields.LayerField("X", layer, is_count_data=False, correct_data_format=False),
            "sample_key": fields.CategoricalObsField("sample", sample_key),
            "batch_key": fields.CategoricalObsField("batch", batch_key),
            "labels_key": labels,
            "size_factor_key": fields.NumericalObsField("size_factor", size_factor_key, required=False),
            "categorical_covariate_keys": fields.CategoricalJointObsField(
                "extra_categorical_covs", categorical_covariate_keys
            ),
            "continuous_covariate_keys": fields.NumericalJointObsField(
                "extra_continuous_covs", continuous_covariate_keys
            ),
        }
        manager = AnnDataManager(
            # When it saves any model, scvi-tools needs all of these except the sample.
            fields=[field for name, field in registered.items() if name != "sample_key" or name in arguments],
            setup_method_args={
                "model_name": model_name,
                "setup_method_name": "setup_datamodule",
                "setup_args": arguments,
            },
        )
        manager.register_fields(_without_counts(obs, var_names, layer))
        self.registry = Registry(manager.registry)
        self.registry["field_registries"] = dict(self.registry["field_registries"])
        if unlabeled_category is not None:
            guessed_right = size_factor_key is None and len(categorical_covariate_keys or ()) < 2
            if guessed_right or scvi_version() >= (1, 5):
                self.registry.saved_as = "setup_datamodule"
            if not guessed_right and unlabeled_category in self.state("labels")["categorical_mapping"]:
                self.registry.n_labels_saved = manager.summary_stats.n_labels - 1
        self._add_mapping()
        self.summary = manager.summary_stats
        dtypes = keys_and_dtypes(manager, None)
        self.columns = {
            key: np.ascontiguousarray(manager.get_from_registry(key), dtype=dtype)
            for key, dtype in dtypes.items()
            if key != "X"
        }
        if "sample" in self.columns:
            self._count_samples()

    def _add_mapping(self) -> None:
        """Add the categories of covariates under a second key, which scvi-tools 1.5 uses without an AnnData."""
        of = dict(self.registry["field_registries"]["extra_categorical_covs"])
        if of["state_registry"]:
            of["state_registry"] = {**of["state_registry"], "mapping": of["state_registry"]["mappings"]}
            self.registry["field_registries"]["extra_categorical_covs"] = of

    def _count_samples(self) -> None:
        """Add the number of cells of each sample, which MRVI needs without an AnnData."""
        import torch

        n = np.bincount(self.columns["sample"].ravel().astype(np.int64), minlength=self.summary["n_sample"])
        sample = dict(self.registry["field_registries"]["sample"])
        sample["n_obs_per_sample"] = {"n_obs_per_sample": torch.as_tensor(n, dtype=torch.float32)}
        self.registry["field_registries"]["sample"] = sample

    def state(self, key: str) -> dict[str, Any]:
        """Return the state of a key in the registry; {} for a key that the model does not have."""
        return dict(self.registry["field_registries"].get(key, {}).get("state_registry", {}))


class Registry(dict[str, Any]):
    """A registry whose setup method is "setup_datamodule" in memory, and ``saved_as`` in a saved model.

    A model without an AnnData needs "setup_datamodule". But scvi-tools loads a saved model with that entry and a data
    module without its size factor and with at most one categorical covariate. With "setup_anndata" it loads the model
    as it was, also with an AnnData. Only SCANVI then needs an AnnData: it is saved with "setup_datamodule" if it has no
    size factor and at most one categorical covariate, and always from scvi-tools 1.5 on, which loads it as it was
    without a data module. ``n_labels_saved`` is the number of labels that scvi-tools then uses.
    """

    saved_as = "setup_anndata"
    n_labels_saved: int | None = None

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        saved = {**self, "setup_method_name": self.saved_as}
        if self.n_labels_saved is not None and self.saved_as == "setup_datamodule":
            labels = saved["field_registries"]["labels"]
            summary = {**labels["summary_stats"], "n_labels": self.n_labels_saved}
            saved["field_registries"] = {**saved["field_registries"], "labels": {**labels, "summary_stats": summary}}
        return dict, (saved,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Registry:
        other = Registry(copy.deepcopy(dict(self), memo))
        other.saved_as, other.n_labels_saved = self.saved_as, self.n_labels_saved
        return other


#: Arguments that the setup of a model takes, if they are not those of SCVI.
_TAKES: dict[str, tuple[str, ...]] = {
    "PEAKVI": ("layer", "batch_key", "labels_key", "categorical_covariate_keys", "continuous_covariate_keys"),
    "MRVI": ("layer", "sample_key", "batch_key", "labels_key"),
}
_SCVI_TAKES = (*_TAKES["PEAKVI"], "size_factor_key")
#: The first version of scvi-tools that trains a model without an AnnData, if it is not 1.4.
_SINCE: dict[str, tuple[int, int]] = {"LinearSCVI": (1, 5), "PEAKVI": (1, 5), "MRVI": (1, 5)}


def scvi_version() -> tuple[int, int]:
    """Return major and minor version of the installed scvi-tools.

    Examples
    --------
    >>> scvi_version() >= (1, 4)
    True
    """
    import scvi

    major, minor = scvi.__version__.split(".")[:2]
    return int(major), int(minor)


def check_model(name: str) -> None:
    """Check that a model can be made and trained without an AnnData.

    Parameters
    ----------
    name
        Name of the class; names that scvi-tools does not have are accepted.

    Examples
    --------
    >>> check_model("SCVI")
    >>> check_model("TOTALVI")
    Traceback (most recent call last):
    annfeed.errors.UnsupportedError: scvi-tools ... makes TOTALVI from an AnnData only; ...
    """
    import scvi

    kind = getattr(scvi.model, name, None) or (getattr(scvi.external, name, None) if name in _SINCE else None)
    since = _SINCE.get(name)
    if since is not None and scvi_version() < since:
        wanted = f"expected {since[0]}.{since[1]} or later. Upgrade scvi-tools (Python 3.12 or later), or"
    elif since is None and kind is not None and "registry" not in inspect.signature(kind.__init__).parameters:
        wanted = "expected a model that takes a registry, as SCVI does. Instead,"
    else:
        return
    raise UnsupportedError(
        f"scvi-tools {scvi.__version__} makes {name} from an AnnData only; {wanted} open the file with "
        f"anndata.read_h5ad(path, backed='r') and use annfeed.scvi.use(model)"
    )


def _taken(model_name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that the model's setup takes."""
    takes = _TAKES.get(model_name, _SCVI_TAKES)
    for name, value in arguments.items():
        if value is not None and name not in takes:
            raise ValueError(f"found {name}={value!r} for {model_name}; expected one of {', '.join(takes)}")
    return {name: value for name, value in arguments.items() if name in takes}


def _without_counts(obs: Any, var_names: Any, layer: str | None) -> Any:
    """Return an AnnData of the right shape without counts: scvi-tools' fields use only the shape of a matrix."""
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
    """Return covariate keys as a list, or None; TypeError for a single text."""
    if isinstance(keys, str):
        raise TypeError(f"covariate keys are the text {keys!r}; expected a list of obs columns")
    return None if keys is None or len(keys) == 0 else list(keys)
