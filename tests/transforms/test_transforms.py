"""Transforms: the contract of anndata's AnnDataset, and the built-in ones compared with scanpy."""

import pickle

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import LabelEncoder
from tests.support.toys import as_csr

from annfeed.batches.items import apply_transform
from annfeed.errors import UnknownNameError
from annfeed.transforms import Compose, Log1p, NormalizeTotal, Scale, Transform
from annfeed.transforms.base import check_transform

# The example classes of the AnnDataset documentation, letter for letter ---------------------------------------------


class NormalizeRowSum(Transform):
    def __init__(self, target_sum=1e4):
        self.target_sum = target_sum

    def __call__(self, data_dict):
        X = data_dict["X"]
        X = torch.clamp(X, min=0)  # Ensure positive values
        row_sum = torch.sum(X, dim=-1, keepdim=True) + 1e-8
        data_dict["X"] = X * (self.target_sum / row_sum)
        return data_dict

    def __repr__(self):
        return f"NormalizeRowSum(target_sum={self.target_sum})"


class LogTransform(Transform):
    def __call__(self, data_dict):
        data_dict["X"] = torch.log1p(data_dict["X"])
        return data_dict


class EncodeLabels(Transform):
    """Encode string labels to integers in the data dictionary."""

    def __init__(self, obs_key="cell_type", encoded_key=None, label_encoder=None):
        self.obs_key = obs_key
        self.encoded_key = encoded_key or f"obs_{obs_key}_encoded"
        self.label_encoder = label_encoder

    def __call__(self, data_dict):
        # Access metadata using obs_{column_name} key pattern
        obs_key = f"obs_{self.obs_key}"

        if obs_key in data_dict and self.label_encoder is not None:
            string_label = data_dict[obs_key]  # Get string label from metadata
            encoded_label = self.label_encoder.transform([string_label])[0]
            data_dict[self.encoded_key] = torch.tensor(encoded_label, dtype=torch.long)
        return data_dict


def test_the_example_of_the_documentation():
    labels = ["T", "B", "T"]
    transform = Compose(
        [
            NormalizeRowSum(target_sum=1e4),
            LogTransform(),
            EncodeLabels(obs_key="cell_type", label_encoder=LabelEncoder().fit(labels)),
        ]
    )
    x = torch.tensor([[1.0, 3.0], [0.0, 0.0], [2.0, -1.0]])
    batch = apply_transform(transform, {"X": x.clone(), "obs_cell_type": labels, "obs_n": torch.tensor([4, 5, 6])})
    want = torch.log1p(torch.tensor([[2500.0, 7500.0], [0.0, 0.0], [1e4, 0.0]]))
    torch.testing.assert_close(batch["X"], want)
    assert batch["obs_cell_type"] == labels
    assert torch.equal(batch["obs_n"], torch.tensor([4, 5, 6]))
    assert torch.equal(batch["obs_cell_type_encoded"], torch.tensor([1, 0, 1]))
    assert list(batch) == ["X", "obs_cell_type", "obs_n", "obs_cell_type_encoded"]


# Transform, Compose, check_transform ----------------------------------------------------------------------------------


class Batched(Transform):
    batched = True

    def __call__(self, data_dict):
        return data_dict


def test_a_transform_without_call_cannot_be_made():
    class Nothing(Transform):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()


def test_a_transform_is_for_items_unless_it_says_otherwise():
    assert (Transform.batched, LogTransform().batched, Batched().batched) == (False, False, True)
    assert repr(LogTransform()) == "LogTransform()"


COMPOSE_ERRORS = [
    ([], ValueError, "at least one Transform"),
    ([Log1p(), torch.log1p], TypeError, "member 1 is a builtin_function_or_method, not a Transform"),
    ([Log1p(), LogTransform], TypeError, "member 1 is the class LogTransform"),
    ([None], TypeError, "member 0 is None"),
    (Log1p(), TypeError, r"not a Log1p; write Compose\(\[\.\.\.\]\)"),
    (3, TypeError, "takes a list of Transforms, not a int"),
]


@pytest.mark.parametrize(("members", "error", "text"), COMPOSE_ERRORS)
def test_what_compose_refuses(members, error, text):
    with pytest.raises(error, match=text):
        Compose(members)


@pytest.mark.parametrize(
    ("members", "batched"),
    [
        ([Log1p(), NormalizeTotal()], True),
        ([Log1p(), LogTransform()], False),
        ([LogTransform()], False),
        ([Compose([Log1p()]), Batched()], True),
    ],
)
def test_compose_is_batched_if_all_members_are(members, batched):
    assert Compose(members).batched is batched


def test_compose_runs_in_order_and_takes_any_iterable():
    x = torch.tensor([3.0, 1.0])
    both = Compose(t for t in (NormalizeTotal(4), Log1p()))
    assert torch.equal(both({"X": x})["X"], torch.log1p(x))
    other = Compose((Log1p(), NormalizeTotal(4)))
    assert not torch.equal(other({"X": x})["X"], torch.log1p(x))


def test_compose_shows_its_members_on_lines_of_their_own():
    nested = Compose([NormalizeRowSum(1.0), Compose([Log1p()])])
    assert repr(nested) == "Compose(\n    NormalizeRowSum(target_sum=1.0)\n    Compose(\n        Log1p()\n    )\n)"


class ForgetsReturn(Transform):
    def __call__(self, data_dict):
        data_dict["X"] = data_dict["X"] * 2


@pytest.mark.parametrize("call", [lambda t, d: Compose([t])(d), lambda t, d: apply_transform(t, d)])
def test_a_transform_that_returns_no_dict_is_named(call):
    with pytest.raises(TypeError, match=r"ForgetsReturn\(\) returned None, not a dict; .*return data_dict"):
        call(ForgetsReturn(), {"X": torch.ones(2, 2)})


def test_check_transform():
    transform = Log1p()
    assert check_transform(transform) is transform
    assert check_transform(None) is None


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (lambda d: d, "not a function"),
        (Log1p, "not the class Log1p"),
        ([Log1p()], "not a list"),
        (torch.nn.Identity(), "not a Identity"),
    ],
)
def test_what_is_no_transform_is_refused(thing, text):
    with pytest.raises(TypeError, match=f"{text}; .*annfeed.Transform"):
        check_transform(thing)


# Built-in transforms --------------------------------------------------------------------------------------------------


def counts(seed=0, shape=(60, 300)):
    rng = np.random.default_rng(seed)
    x = rng.poisson(0.7, shape).astype(np.float32) * rng.integers(1, 90, shape)
    x[[3, 17]] = 0
    return x.astype(np.float32)


def by_scanpy(function, x, **parameters):
    adata = anndata.AnnData(x.copy())
    function(adata, **parameters)
    return adata.X.toarray() if scipy.sparse.issparse(adata.X) else adata.X


SCANPY = [
    (NormalizeTotal(1e4), scanpy.pp.normalize_total, {"target_sum": 1e4}),
    (NormalizeTotal(7.5), scanpy.pp.normalize_total, {"target_sum": 7.5}),
    (Log1p(), scanpy.pp.log1p, {}),
]


@pytest.mark.parametrize(("transform", "function", "parameters"), SCANPY)
def test_built_in_transforms_equal_scanpy(transform, function, parameters):
    x = counts()
    dense, sparse = by_scanpy(function, x, **parameters), by_scanpy(function, scipy.sparse.csr_matrix(x), **parameters)
    close = {"rtol": 1e-6, "atol": 0}
    tensor = torch.from_numpy(x)
    np.testing.assert_allclose(transform({"X": tensor})["X"].numpy(), dense, **close)
    assert np.array_equal(tensor.numpy(), counts())
    np.testing.assert_allclose(transform({"X": tensor[5]})["X"].numpy(), dense[5], **close)

    out = transform({"X": as_csr(x)})["X"]
    assert out.layout is torch.sparse_csr
    np.testing.assert_allclose(out.to_dense().numpy(), sparse, **close)
    torch.sparse_csr_tensor(out.crow_indices(), out.col_indices(), out.values(), out.shape, check_invariants=True)


@given(st.integers(0, 2**32), st.integers(0, 5), st.integers(0, 6))
def test_sparse_and_dense_agree_for_any_shape(seed, rows, genes):
    x = np.random.default_rng(seed).integers(0, 3, (rows, genes)).astype(np.float32)
    for transform in (NormalizeTotal(10), Log1p()):
        dense = transform({"X": torch.from_numpy(x)})["X"]
        torch.testing.assert_close(transform({"X": as_csr(x)})["X"].to_dense(), dense)


def test_rows_that_sum_to_zero_stay():
    x = torch.tensor([[0.0, 0.0], [1.0, -1.0], [1.0, 1.0]])
    want = torch.tensor([[0.0, 0.0], [1.0, -1.0], [5.0, 5.0]])
    assert torch.equal(NormalizeTotal(10)({"X": x})["X"], want)
    assert torch.equal(NormalizeTotal(10)({"X": as_csr(x.numpy())})["X"].to_dense(), want)


def test_a_large_row_sums_exactly():
    # In float32 the ones would be lost: 2**24 + 1 is 2**24.
    x = torch.ones(1, 4097)
    x[0, 0] = 2.0**24
    got = NormalizeTotal(2.0**24 + 4096)({"X": x})["X"]
    torch.testing.assert_close(got, x, rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (torch.float64, torch.float64),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.int64, torch.float32),
        (torch.uint8, torch.float32),
    ],
)
@pytest.mark.parametrize("transform", [NormalizeTotal(8), Log1p(), Scale([0.0, 1.0], [1.0, 2.0], 9)])
def test_dtypes(transform, given, wanted):
    x = torch.tensor([[1.0, 3.0]])
    out = transform({"X": x.to(given)})["X"]
    assert out.dtype is wanted
    torch.testing.assert_close(out.float(), transform({"X": x})["X"], rtol=1e-2, atol=0)


def test_built_in_transforms_leave_other_keys_and_the_given_dict_alone():
    given = {"X": torch.tensor([[1.0, 3.0]]), "obs_a": ["x"]}
    for transform in (NormalizeTotal(8), Log1p(), Scale([0.0, 1.0], [1.0, 2.0])):
        out = transform(given)
        assert (list(out), out["obs_a"]) == (["X", "obs_a"], ["x"])
    assert torch.equal(given["X"], torch.tensor([[1.0, 3.0]]))


@pytest.mark.parametrize("max_value", [None, 0.4])
def test_scale_equals_scanpy(max_value):
    x = np.log1p(counts(1))
    x[:, 7] = 0.25  # a gene that does not vary
    want, mean, std = scanpy.pp.scale(x.copy(), max_value=max_value, copy=True), x.mean(0), x.std(0, ddof=1)
    got = Scale(mean, std, max_value)({"X": torch.from_numpy(x)})["X"]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=2e-6)
    item = Scale(mean, std, max_value)({"X": torch.from_numpy(x[4])})["X"]
    assert torch.equal(item, got[4])
    assert got[:, 7].abs().max() < 1e-6
    assert max_value is None or (got.max().item(), got.min().item()) == pytest.approx((max_value, -max_value))


@pytest.mark.parametrize("index", [["c", "a", "b"], [2, 1, 0], None])
@pytest.mark.parametrize("dtype", ["float64", "float32", "Float64", "object"])
def test_scale_takes_the_columns_of_var(index, dtype):
    """By position, whatever their index is."""
    mean, std = (pd.Series(values, index=index, dtype=dtype) for values in ([1.0, 2.0, 3.0], [2.0, 0.0, 4.0]))
    got, want = Scale(mean, std), Scale(mean.tolist(), std.tolist())
    assert torch.equal(got.mean, want.mean)
    assert torch.equal(got.std, want.std)
    assert torch.equal(Scale(mean, std.tolist()).mean, want.mean)
    with pytest.raises(ValueError, match="Series with different indexes"):
        Scale(mean, std[::-1] if index else std.set_axis(["x", "y", "z"]))


SCALE_ERRORS = [
    (([1.0, 2.0], [1.0]), {}, "mean has 2 values and std 1"),
    (([[1.0]], [[1.0]]), {}, r"mean must have one value a gene, shape \[n_vars\], not \(1, 1\)"),
    (([1.0], [float("nan")]), {}, "std has values that are not finite"),
    (([1.0], [-1.0]), {}, "std has negative"),
    (([1.0], [1.0]), {"max_value": 0}, "max_value must be positive"),
]


@pytest.mark.parametrize(("arguments", "keywords", "text"), SCALE_ERRORS)
def test_what_scale_refuses(arguments, keywords, text):
    with pytest.raises(ValueError, match=text):
        Scale(*arguments, **keywords)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.zeros(2, 3), r"X has shape \(2, 3\), mean and std have 2 values"),
        (torch.zeros(2, 1), r"X has shape \(2, 1\)"),  # would broadcast
        (torch.zeros(2, 2).to_sparse_csr(), "X is sparse"),
    ],
)
def test_an_x_that_scale_refuses(x, text):
    with pytest.raises(ValueError, match=text):
        Scale([0.0, 0.0], [1.0, 1.0])({"X": x})


def test_scanpys_target_sum_of_none_is_told():
    with pytest.raises(TypeError, match=r"found target_sum=None.* median .*expected a number"):
        NormalizeTotal(None)


@pytest.mark.parametrize("target_sum", [0, -1, float("inf"), float("nan")])
def test_a_target_sum_that_is_none(target_sum):
    with pytest.raises(ValueError, match="target_sum must be a positive number"):
        NormalizeTotal(target_sum)


@pytest.mark.parametrize("transform", [NormalizeTotal(), Log1p(), Scale([0.0], [1.0])])
def test_built_in_transforms_name_what_is_missing(transform):
    name = type(transform).__name__
    with pytest.raises(UnknownNameError, match=rf"{name} works on 'X'.*\['rna'\]"):
        transform({"rna": torch.zeros(1)})
    with pytest.raises(TypeError, match=f"{name} works on a tensor 'X', not on a list"):
        transform({"X": [1.0]})


def test_built_in_transforms_pickle():
    transform = Compose([NormalizeTotal(5), Log1p(), Scale([0.5, 0.5], [2.0, 0.0], 3)])
    again = pickle.loads(pickle.dumps(transform))
    x = torch.tensor([[1.0, 3.0]])
    assert torch.equal(again({"X": x})["X"], transform({"X": x})["X"])
    assert repr(again) == repr(transform)
    assert "NormalizeTotal(target_sum=5.0)" in repr(again)
    assert "Scale(<2 genes>, max_value=3)" in repr(again)


def test_scale_keeps_its_own_copy_of_mean():
    mean = np.zeros(1)
    scale = Scale(mean, [1.0])
    mean[0] = 100
    assert scale({"X": torch.ones(1, 1)})["X"].item() == 1
