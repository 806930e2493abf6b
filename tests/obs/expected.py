"""What obs should give: by anndata and a few lines of plain pandas."""

import pandas as pd
import torch

NAN = float("nan")


def expected(series, rows):
    """Return what `take` has to give for these rows: (dtype, values), with dtype `str` for a list of str."""
    missing, values, dtype = list(series.isna()), list(series), series.dtype
    if isinstance(dtype, pd.CategoricalDtype) or dtype.kind not in "biuf":
        return str, ["nan" if missing[r] else str(values[r]) for r in rows]
    if dtype.kind == "f" or any(missing):
        kind = torch.get_default_dtype() if dtype.kind == "f" else torch.float64
        return kind, [NAN if missing[r] else float(values[r]) for r in rows]
    if dtype.kind == "b":
        return torch.bool, [bool(values[r]) for r in rows]
    return torch.int64, [int(values[r]) for r in rows]


def assert_is(found, dtype, values):
    if dtype is str:
        assert found == values
        assert {type(v) for v in found} <= {str}
    else:
        torch.testing.assert_close(found, torch.tensor(values, dtype=dtype), rtol=0, atol=0, equal_nan=True)


def assert_takes_as(table, obs, rows):
    taken = table.take(rows)
    assert list(taken) == [f"obs_{name}" for name in obs.columns]
    for name in obs.columns:
        assert_is(taken[f"obs_{name}"], *expected(obs[name], rows))


def expected_codes(series):
    """(codes, categories) with categories="code", or None for a column that stays as it is."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return list(series.cat.codes), list(series.cat.categories)
    dtype, texts = expected(series, range(len(series)))
    if dtype is not str:
        return None
    missing = list(series.isna())
    there = sorted({t for t, m in zip(texts, missing, strict=True) if not m})
    return [-1 if m else there.index(t) for t, m in zip(texts, missing, strict=True)], there
