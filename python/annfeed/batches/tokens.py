"""`Tokens`: batches of (gene, value) pairs for transformers, and how the genes of a matrix become tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import torch

from annfeed._core import TokenSpec
from annfeed.arrays import integer, number
from annfeed.batches.items import Batch, Collate, Item, Items
from annfeed.user_arrays import first_few, is_series, one_axis

#: The keys of a batch of tokens.
TOKEN_KEYS = ("genes", "values", "mask", "n_expressed")
#: Of those, the ones with one entry for each token, which are padded.
PADDED_KEYS = TOKEN_KEYS[:3]
#: Whole numbers up to here are exact in float32.
_EXACT = 1 << 24


@dataclass(frozen=True, eq=False, repr=False)
class Tokens:
    """Batches of tokens: of each cell the expressed genes with their values, chosen, ordered and padded.

    Pass it as ``output=`` of `AnnDataset`. A gene is expressed where the matrix, in float32, is above 0; stored zeros
    are not. A batch has, in place of the matrix: ``"genes"`` (int64 ``[B, L]``), ``"values"`` (float32 ``[B, L]``),
    ``"mask"`` (bool ``[B, L]``, False for padding) and ``"n_expressed"`` (int64 ``[B]``, the cell's expressed genes
    before the choice: of those in ``vocabulary``, ``scale`` and ``var_subset``). With several matrices in ``elem=``,
    "X" becomes tokens (or the first, if none has this key), and the others are dense. Negative, NaN and infinite values
    are a ValueError when they are read.

    Draws depend on the seed of the loader, the epoch, the row of the data and the gene, and on nothing else: they are
    new in each epoch of `AnnDataset.get_optimized_dataloader`. In file order without a seed, they are those of the seed
    0. ``dataset[i]``, `AnnDataset.predict_loader` and a plain ``torch.utils.data.DataLoader`` draw as in epoch 0: the
    same again in each epoch.

    Parameters
    ----------
    length
        Most tokens of a cell, with those of ``cls_id`` and ``zeros``.
    choose
        Which expressed genes, where there are more than fit. "top": those of the greatest values. "random": all equally
        likely. "weighted": without replacement, in proportion to the values. "first": the first in the matrix.
    order
        "value": the greatest value first. "gene": as in the matrix. "random": a random order in each epoch.
    values
        "counts": as stored. "normalized": scaled so that the cell's sum over all genes of the matrix, also those that
        are left out, is ``target_sum``. "log1p": ln(1 + normalized). "binned": the quantile bin, 1 to ``bins - 1``,
        among the cell's expressed genes; a value that several bins share gets one of them at random. "rank": the place
        of the gene among the cell's expressed genes, from 1 for the greatest value. Where nothing is expressed it is 0.
    target_sum
        For "normalized" and "log1p".
    bins
        Number of bins for "binned", with bin 0 of zeros; 3 or more.
    scale
        Positive numbers by which values are divided before genes are chosen, ordered and binned, in float64: ``{gene:
        number}`` or a Series (genes that are not in it are left out), or an array ``[n_vars]``.
    vocabulary
        ``{gene: token}``; genes that are not in it are left out. None: the token is the position of the gene's column
        among those that are delivered: in `AnnDataset.var_names`, which are those of the first matrix of ``elem=``.
        Names are looked up as those of ``var_subset`` (``var_column=``).
    zeros
        So many genes that are not expressed, drawn at random, beside the expressed ones; all, if there are fewer.
    pad_id, pad_value
        Gene and value of padding. The gene may be a token of another, as 0 mostly is: ``mask`` tells padding.
    cls_id
        The first token of each cell, with the value 0, which no gene may have; None for none.
    pad_to
        "longest": rows are as long as the longest of the batch. "length": always ``length``.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an option is unknown, a number is out of range, or ``zeros`` and ``cls_id`` leave no room for other genes.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> from annfeed import AnnDataset
    >>> adata = anndata.AnnData(np.array([[0, 3, 1], [5, 0, 0]], dtype="float32"))
    >>> batch = AnnDataset(adata, output=Tokens(length=4, cls_id=9, pad_id=7)).head()
    >>> batch["genes"], batch["values"]
    (tensor([[9, 1, 2],
            [9, 0, 7]]), tensor([[0., 3., 1.],
            [0., 5., 0.]]))
    >>> batch["mask"].sum(1), batch["n_expressed"]
    (tensor([3, 2]), tensor([2, 1]))
    """

    length: int = 2048
    choose: Literal["top", "random", "weighted", "first"] = "top"
    order: Literal["value", "gene", "random"] = "value"
    values: Literal["counts", "normalized", "log1p", "binned", "rank"] = "counts"
    target_sum: float = 1e4
    bins: int = 51
    scale: Mapping[str, float] | npt.ArrayLike | None = None
    vocabulary: Mapping[str, int] | None = None
    zeros: int = 0
    pad_id: int = 0
    pad_value: float = 0.0
    cls_id: int | None = None
    pad_to: Literal["longest", "length"] = "longest"

    def __post_init__(self) -> None:
        hints = get_type_hints(Tokens)
        for name in ("choose", "order", "values", "pad_to"):
            found, allowed = getattr(self, name), get_args(hints[name])
            if found not in allowed:
                raise ValueError(f"Tokens: {name} is {found!r}; expected one of {allowed}")
        checked: dict[str, Any] = {
            "length": integer("Tokens: length", self.length, most=_EXACT),
            "bins": integer("Tokens: bins", self.bins, 3, _EXACT),
            "zeros": integer("Tokens: zeros", self.zeros, 0, _EXACT),
            "pad_id": _token("pad_id", self.pad_id),
            "cls_id": None if self.cls_id is None else _token("cls_id", self.cls_id),
            "target_sum": number("Tokens: target_sum", self.target_sum),
            "pad_value": _pad_value(self.pad_value),
            "scale": _scale(self.scale),
            "vocabulary": _vocabulary(self.vocabulary),
        }
        if not 0 < checked["target_sum"] < math.inf:
            raise ValueError(f"Tokens: target_sum is {self.target_sum!r}; expected a positive number")
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        taken = self.zeros + (self.cls_id is not None)
        if self.length <= taken:
            raise ValueError(
                f"Tokens: length is {self.length}, of which zeros and cls_id take {taken}; expected room for expressed "
                "genes. Pass a greater length"
            )

    @property
    def needs_totals(self) -> bool:
        """Whether values need the sums of cells over all genes."""
        return self.values in ("normalized", "log1p")

    @property
    def by_gene(self) -> dict[str, dict[str, Any]]:
        """Of ``vocabulary`` and ``scale`` those that go by names of genes."""
        both = {"vocabulary": self.vocabulary, "scale": self.scale}
        return {name: of for name, of in both.items() if isinstance(of, dict)}

    def __repr__(self) -> str:
        """Return the arguments that are not the defaults, long ones by their number of entries."""
        shown = []
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, dict | np.ndarray):
                shown.append(f"{each.name}=<{len(value):,} genes>")
            elif value != each.default:
                shown.append(f"{each.name}={value!r}")
        return f"Tokens({', '.join(shown)})"


@dataclass
class TokenColumns:
    """The columns of one matrix as tokens.

    Parameters
    ----------
    tokens
        What the user wants.
    n_vars
        Columns of the matrix.
    scale, ids, kept
        Of each column: what values are divided by, the token, and whether it may become one; None for 1, its position,
        and all.
    """

    tokens: Tokens
    n_vars: int
    scale: npt.NDArray[np.float64] | None
    ids: npt.NDArray[np.int64] | None
    kept: npt.NDArray[np.bool_] | None
    _spec: TokenSpec | None = field(default=None, init=False)

    @property
    def spec(self) -> TokenSpec:
        """The same for the core."""
        if self._spec is None:
            t = self.tokens
            self._spec = TokenSpec(
                self.n_vars, t.length, t.choose, t.order, t.values, t.target_sum, t.bins,
                self.scale, self.ids, self.kept, t.zeros, t.pad_id, t.pad_value, t.cls_id,
            )  # fmt: skip
        return self._spec

    @property
    def width(self) -> int | None:
        """Tokens of a row of a batch; None for those of its longest row."""
        return self.tokens.length if self.tokens.pad_to == "length" else None

    @property
    def most_tokens(self) -> int:
        """Most tokens of a row of a batch, with padding."""
        n_genes = self.n_vars if self.kept is None else int(np.count_nonzero(self.kept))
        return self.width or min(self.tokens.length, n_genes + (self.tokens.cls_id is not None))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spec": None}


def names_genes(output: object) -> bool:
    """Whether ``output`` is tokens with names of genes.

    Examples
    --------
    >>> names_genes(Tokens()), names_genes(Tokens(vocabulary={"CD4": 3}))
    (False, True)
    """
    return isinstance(output, Tokens) and bool(output.by_gene)


def token_columns(tokens: Tokens, place: str, n_vars: int, names: Any) -> TokenColumns:
    """Return the columns of a matrix as tokens.

    Parameters
    ----------
    tokens
        What the user wants.
    place
        Place of the matrix, for messages.
    n_vars
        Its columns.
    names
        Function that returns their names; None for columns that have none.

    Raises
    ------
    ValueError
        If an array ``scale`` has another length, no column is left, several that are left have one name, or one has the
        token ``cls_id``.

    Examples
    --------
    >>> columns = token_columns(Tokens(vocabulary={"b": 7}), "X", 2, lambda: ["a", "b"])
    >>> columns.ids, columns.kept
    (array([0, 7]), array([False,  True]))
    """
    scale, ids, kept = tokens.scale, None, np.ones(n_vars, bool)
    if isinstance(scale, np.ndarray) and len(scale) != n_vars:
        raise ValueError(f"{place}: Tokens: scale has {len(scale)} numbers; expected {n_vars}, one for each gene")
    found: list[Any] = list(names()) if tokens.by_gene else []
    for name, of in tokens.by_gene.items():
        has = np.fromiter((gene is not None and gene in of for gene in found), bool, n_vars)
        if n_vars and not (kept & has).any():
            there = [gene for gene in found if gene is not None]
            raise ValueError(
                f"{place}: Tokens: no gene is left by {name}: found genes {first_few(there) or 'without names'}; "
                f"expected some of {first_few(list(of))}. If one has symbols and the other ids, pass var_column="
            )
        kept &= has
    _check_distinct([found[column] for column in np.flatnonzero(kept)] if found else [], place)
    if tokens.vocabulary is not None:
        ids = np.fromiter((tokens.vocabulary.get(gene, 0) for gene in found), np.int64, n_vars)
    genes = np.flatnonzero(kept) if ids is None else ids[kept]
    if tokens.cls_id is not None and (same := np.flatnonzero(genes == tokens.cls_id)).size:
        column = int(np.flatnonzero(kept)[same[0]])
        gene = f"the gene {found[column]!r}" if found else f"the gene in column {column}"
        raise ValueError(
            f"{place}: Tokens: cls_id is {tokens.cls_id}, which is the token of {gene}; expected one of no gene. "
            f"Without vocabulary= genes have 0 to {n_vars - 1}"
        )
    if isinstance(scale, dict):
        scale = np.fromiter((scale.get(gene, 1.0) for gene in found), np.float64, n_vars)
    return TokenColumns(tokens, n_vars, scale, ids, None if kept.all() else kept)  # type: ignore[arg-type]


def _check_distinct(genes: list[Any], place: str) -> None:
    repeated = [gene for gene, n in Counter(genes).items() if n > 1]
    if repeated:
        raise ValueError(
            f"{place}: Tokens: several columns have one name of vocabulary= or scale=: {first_few(repeated)}; expected "
            "one column for each, or a cell would have a token twice. Pass the positions of the columns to keep as "
            "var_subset=, or give genes distinct names (anndata's var_names_make_unique)"
        )


class TokenCollate(Collate):
    """As `Collate`, for items of tokens: those of shorter items are padded.

    Parameters
    ----------
    tokens
        Of which ``pad_id`` and ``pad_value`` are used.

    Examples
    --------
    >>> import torch
    >>> items = [{"genes": torch.tensor([5])}, {"genes": torch.tensor([4, 1])}]
    >>> TokenCollate(Tokens(pad_id=9))(items)
    {'genes': tensor([[5, 9],
            [4, 1]])}
    """

    def __init__(self, tokens: Tokens) -> None:
        self._padding = dict(zip(PADDED_KEYS, (tokens.pad_id, tokens.pad_value, False), strict=True))

    def __call__(self, items: Items | Batch | Sequence[Item]) -> Batch:
        """Return the batch."""
        if isinstance(items, Items | dict):
            return super().__call__(items)
        return super().__call__(self._padded(items))

    def _padded(self, items: Sequence[Item]) -> list[Item]:
        lengths = [len(item["genes"]) if "genes" in item else 0 for item in items]
        longest = max(lengths, default=0)
        padded = []
        for item, length in zip(items, lengths, strict=True):
            more = {
                key: torch.nn.functional.pad(item[key], (0, longest - length), value=value)
                for key, value in self._padding.items()
                if key in item and length < longest
            }
            padded.append({**item, **more})
        return padded


def _token(name: str, value: Any) -> int:
    return integer(f"Tokens: {name}", value, -(1 << 63), (1 << 63) - 1)


def _pad_value(value: Any) -> float:
    found = number("Tokens: pad_value", value)
    if math.isfinite(found) and abs(found) > torch.finfo(torch.float32).max:
        raise ValueError(f"Tokens: pad_value is {value!r}; expected a number that float32 holds")
    return found


def _check_index(name: str, by_gene: Any) -> None:
    if is_series(by_gene) and not by_gene.index.is_unique:
        repeated = list(by_gene.index[by_gene.index.duplicated()].unique())
        raise ValueError(
            f"Tokens: {name} is a Series whose index repeats {first_few(repeated)}; expected each gene once. "
            "Drop the repeats: series[~series.index.duplicated()]"
        )


def _check_some(name: str, by_gene: Mapping[Any, Any]) -> None:
    if not by_gene:
        raise ValueError(f"Tokens: {name} is empty; expected a number for each gene that may become a token")


def _scale(scale: Any) -> dict[str, float] | npt.NDArray[np.float64] | None:
    if scale is None:
        return None
    if isinstance(scale, Mapping) or is_series(scale):
        _check_index("scale", scale)
        by_gene: dict[Any, float] = {gene: number(f"Tokens: scale[{gene!r}]", value) for gene, value in scale.items()}
        values, genes = np.array(list(by_gene.values()), np.float64), list(by_gene)
    else:
        values, genes = one_axis("Tokens: scale", scale), None
        if values.dtype.kind not in "iuf":
            raise TypeError(f"Tokens: scale has {values.dtype}; expected numbers, or a dict of them by gene")
        values = values.astype(np.float64)  # a copy
        values.setflags(write=False)
    wrong = ~((values > 0) & np.isfinite(values))
    if wrong.any():
        at = int(np.argmax(wrong))
        where = repr(genes[at]) if genes else f"column {at}"
        raise ValueError(f"Tokens: scale of {where} is {values[at]}; expected positive numbers")
    if genes is None:
        return values
    _check_some("scale", by_gene)
    return by_gene


def _vocabulary(vocabulary: Any) -> dict[str, int] | None:
    if vocabulary is None:
        return None
    if not (isinstance(vocabulary, Mapping) or is_series(vocabulary)):
        raise TypeError(f"Tokens: vocabulary is a {type(vocabulary).__name__}; expected a dict of tokens by gene")
    _check_index("vocabulary", vocabulary)
    by_gene: dict[Any, int] = {gene: _token(f"vocabulary[{gene!r}]", token) for gene, token in vocabulary.items()}
    _check_some("vocabulary", by_gene)
    return by_gene
