"""`TokenMatrix`: the one of a dataset's matrices that becomes tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from annfeed._core import DecodedRows
from annfeed.arrays import Int64Array
from annfeed.batches.matrix import Matrix
from annfeed.batches.tensors import check_dtype
from annfeed.batches.tokens import TOKEN_KEYS, TokenColumns, Tokens, token_columns
from annfeed.batches.window import TokenRows
from annfeed.sources.concat import ConcatSource
from annfeed.transforms.base import Transform
from annfeed.transforms.fuse import Fused, without_x

#: Bytes of a token in a batch: gene, value, mask.
_TOKEN_BYTES = 13


@dataclass(frozen=True)
class TokenMatrix:
    """A matrix that becomes tokens: "X", or the first if none has this key.

    Parameters
    ----------
    key
        Its key among the matrices.
    columns
        Its columns as tokens.
    """

    key: str
    columns: TokenColumns

    @property
    def row_bytes(self) -> int:
        """Most bytes of the tokens of a row."""
        return self.columns.most_tokens * _TOKEN_BYTES

    def read(self, matrix: Matrix, rows: Int64Array, numbers: Int64Array, draw_key: int, threads: int) -> TokenRows:
        """Read rows of obs, whose numbers in the data with ``draw_key`` give their draws."""
        block, slots = matrix.load(rows, threads)
        if not isinstance(block, DecodedRows):
            raise ValueError(no_device(matrix.source.place))
        tokens = partial(
            matrix.tensors.tokens,
            columns=self.columns,
            key=draw_key,
            threads=threads,
            refused=partial(self.no_expression, matrix),
        )
        return TokenRows(block, slots, numbers, tokens)

    def no_expression(self, matrix: Matrix, row: int, column: int | None, value: str) -> ValueError:
        """Return the error for a value of a gene, or a sum of all (``column`` None), that no cell has."""
        source, place = matrix.source, matrix.source.place
        if isinstance(source, ConcatSource):
            place, row = source.located(row)
        if column is None:
            return ValueError(
                f"{place}: row {row} sums to {value} over all genes; expected a finite sum, above 0 where genes are "
                f"expressed, by which values={self.columns.tokens.values!r} divides. Choose the matrix of counts with "
                "elem=, or other values="
            )
        return ValueError(
            f"{place}: row {row}, gene {matrix.names()[column]!r} is {value}; expected numbers of 0 or more that "
            "are finite as float32, as tokens need. Choose the matrix of counts with elem=, or leave the gene out with "
            "var_subset="
        )

    def steps(self, matrix: Matrix, transform: Transform | None, dtype: torch.dtype) -> Fused:
        """Return what is done of a transform, and keep the totals of rows where values need them."""
        wants_totals = self.columns.tokens.needs_totals and matrix.source.is_part
        if wants_totals:
            matrix.keep_totals()
        return without_x(transform, dtype, wants_totals)


def token_matrix(
    tokens: Tokens, matrices: Mapping[str, Matrix], dtype: torch.dtype, var_column: str | None
) -> TokenMatrix:
    """Return which of ``matrices`` becomes tokens, and how.

    Parameters
    ----------
    tokens, dtype, var_column
        As in `annfeed.AnnDataset`.

    Raises
    ------
    ValueError
        If another matrix has a key of tokens, ``dtype`` is of no use, or ``tokens`` do not fit the matrix.
    """
    key = "X" if "X" in matrices else next(iter(matrices))
    matrix = matrices[key]
    for other in matrices.keys() & set(TOKEN_KEYS) - {key}:
        raise ValueError(
            f"a matrix has the key {other!r}, under which batches hold tokens; give it another key in elem="
        )
    check_dtype(dtype, only_tokens=len(matrices) == 1)

    def names() -> Any:
        if var_column is None or matrix.var is None:
            return matrix.names()
        return matrix.var.texts(var_column, {gene for of in tokens.by_gene.values() for gene in of})

    return TokenMatrix(key, token_columns(tokens, matrix.source.place, matrix.n_vars, names))


def no_device(place: str) -> str:
    """Return the message for rows on a device that are to become tokens."""
    return (
        f"{place}: found rows that are kept on a device, with output=Tokens; expected them in the host's memory, where "
        "tokens are made. Call preload() without device, and move batches"
    )
