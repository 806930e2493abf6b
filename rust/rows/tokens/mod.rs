//! Decoded rows as tokens: of each row some genes with their values, padded to one length. No dense row is made.

mod bins;
mod counted;
mod draw;
mod row;
mod select;
#[allow(unsafe_code, clippy::cast_ptr_alignment, reason = "loads and stores of eight elements, of any alignment")]
mod split;

use super::{DecodedRows, Lost, Number, RowGroup, Values};
use crate::error::{Error, Result};
use crate::rows::{with_columns, with_values};
use crate::threads::team::{rows_of_piece, share};
use draw::RowDraws;
use row::{Scratch, Written};

/// Which genes are chosen of a row that has more than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choose {
    /// The greatest values.
    Top,
    /// All equally likely.
    Random,
    /// In proportion to their values, without replacement.
    Weighted,
    /// The first columns.
    First,
}

/// How the tokens of a row are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrange {
    /// By value, falling.
    Value,
    /// By column.
    Gene,
    /// In random order.
    Random,
}

/// What the values of tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenValues {
    /// As stored.
    Counts,
    /// Normalised to a total.
    Normalized,
    /// The logarithm of 1 + normalised.
    Log1p,
    /// The quantile bin among the row's expressed genes.
    Binned,
    /// The place in falling order among the row's expressed genes, from 1.
    Rank,
}

/// How rows become tokens.
#[derive(Clone, Debug)]
pub(crate) struct TokenSpec {
    /// Most tokens of a row, all kinds together.
    pub(crate) length: usize,
    /// Which genes.
    pub(crate) choose: Choose,
    /// In which order.
    pub(crate) order: Arrange,
    /// With which values.
    pub(crate) values: TokenValues,
    /// What normalised rows sum to.
    pub(crate) target_sum: f64,
    /// Number of bins, with that of zeros: at least 3.
    pub(crate) bins: u32,
    /// What the values of each column are divided by.
    pub(crate) scale: Option<Vec<f64>>,
    /// Token of each column; `None` for the column itself.
    pub(crate) ids: Option<Vec<i64>>,
    /// The columns that may become tokens; `None` for all.
    pub(crate) kept: Option<Kept>,
    /// Most drawn genes that are not expressed.
    pub(crate) zeros: usize,
    /// Token of padding.
    pub(crate) pad_id: i64,
    /// Value of padding.
    pub(crate) pad_value: f32,
    /// The first token of each row.
    pub(crate) cls_id: Option<i64>,
}

/// Some columns of a matrix.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Rising.
    columns: Vec<u32>,
    /// Of each column of the matrix, its place among them; [`Self::NONE`] if it is none of them.
    place: Vec<u32>,
}

impl Kept {
    const NONE: u32 = u32::MAX;

    /// Those marked.
    pub(crate) fn new(marks: &[bool]) -> Self {
        let columns: Vec<u32> = (0u32..).zip(marks).filter(|(_, kept)| **kept).map(|(column, _)| column).collect();
        let mut place = vec![Self::NONE; marks.len()];
        (0u32..).zip(&columns).for_each(|(at, &column)| place[column as usize] = at);
        Self { columns, place }
    }

    fn has(&self, column: u32) -> bool {
        self.place[column as usize] != Self::NONE
    }
}

/// How many tokens a row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    expressed: usize,
    zeros: usize,
}

impl TokenSpec {
    /// Those of a row with so many expressed genes among `n_cols` columns.
    fn sizes(&self, expressed: usize, n_cols: usize) -> Sizes {
        let genes = self.kept.as_ref().map_or(n_cols, |kept| kept.columns.len());
        let zeros = self.zeros.min(genes - expressed);
        Sizes { expressed: expressed.min(self.length - self.first() - zeros), zeros }
    }

    /// Whether counts (of a row with so many expressed genes) are put in falling order and no more.
    fn may_be_counted(&self, sizes: Sizes, expressed: usize) -> bool {
        self.order == Arrange::Value
            && (self.choose == Choose::Top || sizes.expressed == expressed)
            && self.scale.is_none()
            && sizes.zeros == 0
            && !self.needs_ranks()
    }

    /// Whether values come from the order of all expressed genes.
    fn needs_ranks(&self) -> bool {
        matches!(self.values, TokenValues::Binned | TokenValues::Rank)
    }

    /// Whether values need what rows sum to.
    fn needs_totals(&self) -> bool {
        matches!(self.values, TokenValues::Normalized | TokenValues::Log1p)
    }

    /// Where genes begin.
    fn first(&self) -> usize {
        usize::from(self.cls_id.is_some())
    }

    /// Tokens of the longest row of which the expressed genes were counted.
    #[must_use]
    pub(crate) fn longest(&self, n_expressed: &[i64], n_cols: usize) -> usize {
        let tokens = n_expressed.iter().map(|&n| {
            let sizes = self.sizes(n as usize, n_cols);
            sizes.expressed + sizes.zeros
        });
        self.first() + tokens.max().unwrap_or(0)
    }
}

/// Rows of a batch: where they are, and what their draws are keyed by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenRows<'a> {
    /// Positions among the decoded rows.
    pub(crate) positions: &'a [i64],
    /// The number of each in the data.
    pub(crate) rows: &'a [i64],
    /// The key of the epoch.
    pub(crate) epoch: u64,
}

/// The arrays of a batch of tokens, row-major, all of one size.
#[derive(Debug)]
pub(crate) struct TokensOut<'a> {
    /// Tokens.
    pub(crate) genes: &'a mut [i64],
    /// Their values.
    pub(crate) values: &'a mut [f32],
    /// 1 where there is a token, 0 for padding.
    pub(crate) mask: &'a mut [u8],
    /// Tokens of a row, at least as many as [`TokenSpec::longest`] says.
    pub(crate) width: usize,
}

impl DecodedRows {
    /// Counts the expressed genes (above zero, and kept) of the rows at `positions`.
    ///
    /// # Errors
    /// [`Error::NotExpression`] where a delivered value is negative or no finite float32.
    ///
    /// # Panics
    /// Where a position is out of range.
    pub(crate) fn expressed(&self, positions: &[i64], spec: &TokenSpec, threads: usize) -> Result<Vec<i64>> {
        let counted = share(threads, positions.chunks(COUNTED_ROWS).enumerate(), |(piece, positions)| {
            let rows = (piece * COUNTED_ROWS..).zip(positions);
            rows.map(|(at, &position)| self.count(position as usize, at, spec.kept.as_ref()))
                .collect::<Result<Vec<i64>>>()
        });
        Ok(counted.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }

    /// Writes the tokens of each row, of which the expressed genes were counted; gives the worst loss of a value.
    ///
    /// # Errors
    /// [`Error::NoTotals`] where values need what was not kept, [`Error::NotExpression`] where a row sums to what no cell
    /// does.
    ///
    /// # Panics
    /// Where a position is out of range or `out` too small.
    pub(crate) fn tokens(
        &self,
        rows: TokenRows<'_>,
        n_expressed: &[i64],
        spec: &TokenSpec,
        out: TokensOut<'_>,
        threads: usize,
    ) -> Result<Option<Lost>> {
        let TokensOut { genes, values, mask, width } = out;
        if width == 0 {
            return Ok(None);
        }
        let n_rows = rows_of_piece(width * TOKEN_BYTES);
        let inputs = rows.positions.chunks(n_rows).zip(rows.rows.chunks(n_rows)).zip(n_expressed.chunks(n_rows));
        let n = n_rows * width;
        let outputs = genes.chunks_mut(n).zip(values.chunks_mut(n)).zip(mask.chunks_mut(n));
        let pieces = inputs.zip(outputs).enumerate();
        let done = share(threads, pieces, |(piece, (((positions, rows_of), counts), ((genes, values), mask)))| {
            let (mut scratch, mut worst) = (Scratch::default(), None);
            let each = self.prefetched(positions).zip(rows_of).zip(counts);
            let out = genes.chunks_mut(width).zip(values.chunks_mut(width)).zip(mask.chunks_mut(width));
            for (at, (((position, &row), &n), ((genes, values), mask))) in (piece * n_rows..).zip(each.zip(out)) {
                let row = RowOfBatch { at, position, draws: RowDraws::new(rows.epoch, row), expressed: n as usize };
                let (made, lost) = self.row_tokens(row, spec, &mut scratch, (&mut *genes, &mut *values))?;
                worst = Lost::worst([worst, lost]);
                mask[..made].fill(1);
                mask[made..].fill(0);
                genes[made..].fill(spec.pad_id);
                values[made..].fill(spec.pad_value);
            }
            Ok(worst)
        });
        Ok(Lost::worst(done.into_iter().collect::<Result<Vec<_>>>()?))
    }

    /// Writes the tokens of one row; gives their number, and a value that was lost.
    fn row_tokens(
        &self,
        RowOfBatch { at, position, draws, expressed }: RowOfBatch,
        spec: &TokenSpec,
        scratch: &mut Scratch,
        out: (&mut [i64], &mut [f32]),
    ) -> Result<Written> {
        let (group, row) = self.locate(position);
        let sizes = spec.sizes(expressed, self.n_cols);
        let kept_total = if spec.needs_totals() { Self::kept_total(group, row) } else { Ok(None) };
        let kept_total = kept_total.map_err(|e| self.named(position as i64, e))?;
        let total = spec.needs_totals() && kept_total.is_none();
        let are_counts = are_counts(group);
        let counted = are_counts && spec.may_be_counted(sizes, expressed);
        let found = with_row(group, row, row::Gather { scratch, kept: spec.kept.as_ref(), expressed, total, counted });
        let total = kept_total.or(found);
        // Genes that are not delivered may be negative or NaN, too.
        if let Some(sum) = total
            && !(sum.is_finite() && (sum > 0.0 || (sum == 0.0 && expressed == 0)))
        {
            return Err(Error::NotExpression { at, column: None, value: format!("{sum:?}") });
        }
        if counted {
            return Ok(scratch.write_counted(spec, sizes, total, out));
        }
        let n_cols = self.n_cols as u32;
        Ok(scratch.write(&row::Wanted { spec, sizes, n_cols, draws, total, are_counts }, out))
    }

    /// Counts the expressed genes of one row.
    fn count(&self, position: usize, at: usize, kept: Option<&Kept>) -> Result<i64> {
        let (group, row) = self.locate(position);
        if kept.is_none() && matches!(group, RowGroup::Sparse { all_positive: true, .. }) {
            return Ok(group.row_nnz(row) as i64);
        }
        with_row(group, row, Count { at, kept, are_counts: are_counts(group) })
    }
}

/// A row of a batch.
struct RowOfBatch {
    /// Its place in the batch.
    at: usize,
    position: usize,
    draws: RowDraws,
    /// Number of its expressed genes.
    expressed: usize,
}

/// Rows that are counted together.
const COUNTED_ROWS: usize = 64;

/// Bytes of a token: gene, value, mask.
const TOKEN_BYTES: usize = 13;

/// Whether the values are whole numbers of 16 bits.
fn are_counts(group: &RowGroup) -> bool {
    let (RowGroup::Sparse { values, .. } | RowGroup::Dense { values, .. }) = group;
    matches!(values, Values::U8(_) | Values::U16(_))
}

/// What is done with the stored values of a row, of whatever type.
trait OnRow {
    type Out;
    /// `columns` rise; there is one for each value.
    fn run<V: Number>(self, columns: impl Iterator<Item = u32>, values: &[V]) -> Self::Out;
}

fn with_row<W: OnRow>(group: &RowGroup, row: usize, work: W) -> W::Out {
    match group {
        RowGroup::Sparse { offsets, columns, values, .. } => {
            let span = offsets[row]..offsets[row + 1];
            with_values!(values, v => {
                let v = &v[span.clone()];
                with_columns!(columns, c => work.run(c[span].iter().map(|c| as_u32(*c)), v))
            })
        }
        RowGroup::Dense { n_cols, values, .. } => {
            with_values!(values, v => work.run(0u32.., &v[row * n_cols..(row + 1) * n_cols]))
        }
    }
}

fn as_u32(column: impl Into<u32>) -> u32 {
    column.into()
}

struct Count<'a> {
    /// Place of the row in the batch.
    at: usize,
    kept: Option<&'a Kept>,
    are_counts: bool,
}

impl OnRow for Count<'_> {
    type Out = Result<i64>;

    fn run<V: Number>(self, mut columns: impl Iterator<Item = u32>, values: &[V]) -> Result<i64> {
        if !self.are_counts {
            let is_wrong = |v: &V| v.wide() < 0.0 || !(v.wide() as f32).is_finite();
            if let Some(at) = values.iter().position(is_wrong) {
                let (column, value) = (columns.nth(at), format!("{:?}", values[at].wide()));
                return Err(Error::NotExpression { at: self.at, column, value });
            }
        }
        Ok(match self.kept {
            // In 32 bits, to be vectorised.
            None => values.iter().map(|v| u32::from(v.is_positive())).sum::<u32>() as usize,
            Some(kept) => columns.zip(values).filter(|(column, v)| v.is_positive() && kept.has(*column)).count(),
        } as i64)
    }
}

#[cfg(test)]
mod tests;
