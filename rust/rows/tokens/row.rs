//! The tokens of one row: its expressed genes are gathered, then chosen, ordered and written.

use super::bins::quantile_bins;
use super::counted::Counter;
use super::draw::{Bits, RowDraws, Stream};
use super::select::{Sorter, falling};
use super::{Arrange, Choose, Kept, OnRow, Sizes, TokenSpec, TokenValues};
use crate::rows::number::{Number, sum};
use crate::rows::ops::{Table, times};
use crate::rows::{Lost, What};

/// Memory that a thread uses for all of its rows.
#[derive(Default)]
pub(super) struct Scratch {
    /// Columns of the expressed genes, rising; then those of drawn zeros.
    genes: Vec<u32>,
    /// Their values as stored.
    stored: Vec<f64>,
    /// Those divided by `scale`, if there is one.
    scaled: Vec<f64>,
    /// Bins or ranks of the expressed genes, where these are the values.
    made: Vec<f32>,
    /// Places in `genes` of all expressed genes by value, where bins or ranks need it.
    ranked: Vec<u32>,
    /// Places in `genes` of the tokens, in order.
    tokens: Vec<u32>,
    keys: Vec<u64>,
    zeros: Bits,
    sorter: Sorter,
    /// In place of `stored`, for counts that are put in falling order.
    counts: Vec<u16>,
    counter: Counter,
    table: Table,
}

/// Gathers the expressed genes of a row; gives the sum of all values if it is wanted.
pub(super) struct Gather<'a> {
    pub(super) scratch: &'a mut Scratch,
    pub(super) kept: Option<&'a Kept>,
    /// How many they are.
    pub(super) expressed: usize,
    /// Whether to take them as counts.
    pub(super) counted: bool,
    pub(super) total: bool,
}

impl OnRow for Gather<'_> {
    type Out = Option<f64>;

    fn run<V: Number>(self, columns: impl Iterator<Item = u32>, values: &[V]) -> Option<f64> {
        let Scratch { genes, stored, counts, .. } = self.scratch;
        genes.clear();
        stored.clear();
        counts.clear();
        if self.expressed == values.len() {
            genes.extend(columns.take(values.len()));
            if self.counted {
                counts.extend(values.iter().map(|v| v.narrow()));
            } else {
                stored.extend(values.iter().map(|v| v.wide()));
            }
        } else {
            let expressed = columns.zip(values).filter(|(_, v)| v.is_positive());
            for (column, v) in expressed.filter(|(column, _)| self.kept.is_none_or(|kept| kept.has(*column))) {
                genes.push(column);
                if self.counted {
                    counts.push(v.narrow());
                } else {
                    stored.push(v.wide());
                }
            }
        }
        self.total.then(|| sum(values.iter().copied()))
    }
}

/// Number of tokens that were written of a row, and a value that was lost.
pub(super) type Written = (usize, Option<Lost>);

/// What is wanted of a row.
pub(super) struct Wanted<'a> {
    pub(super) spec: &'a TokenSpec,
    pub(super) sizes: Sizes,
    pub(super) n_cols: u32,
    pub(super) draws: RowDraws,
    /// The sum of the row, where values are normalised.
    pub(super) total: Option<f64>,
    /// Whether stored values are whole numbers of 16 bits.
    pub(super) are_counts: bool,
}

impl Scratch {
    /// Writes the tokens of the row that was gathered.
    pub(super) fn write(&mut self, wanted: &Wanted<'_>, (genes, values): (&mut [i64], &mut [f32])) -> Written {
        let (spec, first) = (wanted.spec, wanted.spec.first());
        self.scale(spec);
        self.rank(wanted);
        let is_by_value = self.choose(wanted);
        self.arrange(wanted, is_by_value);
        if spec.cls_id.is_some() {
            values[0] = 0.0;
        }
        let made = first + self.tokens.len();
        write_genes(spec, genes, self.tokens.iter().map(|&at| self.genes[at as usize]));
        self.write_values(wanted, &mut values[first..made]);
        (made, self.lost(wanted, &values[first..made]))
    }

    /// As `write`, for counts in falling order.
    pub(super) fn write_counted(
        &mut self,
        spec: &TokenSpec,
        sizes: Sizes,
        total: Option<f64>,
        (genes, values): (&mut [i64], &mut [f32]),
    ) -> Written {
        let (first, made) = (spec.first(), spec.first() + sizes.expressed);
        let factor = factor(spec, total);
        let value = |count: u16| times(f32::from(count), factor);
        if let Some(cls) = spec.cls_id {
            (genes[0], values[0]) = (cls, 0.0);
        }
        let (genes, values) = (&mut genes[first..made], &mut values[first..made]);
        let Self { genes: columns, counts, counter, .. } = self;
        match &spec.ids {
            None => counter.fall(columns, counts, (i64::from, value), genes, values),
            Some(ids) => counter.fall(columns, counts, (|column: u32| ids[column as usize], value), genes, values),
        }
        if spec.values == TokenValues::Log1p {
            let mut last = (0.0f32, 0.0);
            for x in &mut *values {
                if x.to_bits() != last.0.to_bits() {
                    last = (*x, x.ln_1p());
                }
                *x = last.1;
            }
        }
        let is_lost = values.first().is_some_and(|x| !x.is_finite()); // the greatest
        let lost = is_lost.then(|| counter.greatest(columns, counts)).flatten();
        let lost = lost.map(|(column, count)| (u64::from(column), count.to_string()));
        (made, lost.map(|(column, value)| Lost { column, value, what: What::TooLargeAfterOps }))
    }

    /// Divides the values.
    fn scale(&mut self, spec: &TokenSpec) {
        let Some(scale) = &spec.scale else { return };
        self.scaled.clear();
        self.scaled.extend(self.stored.iter().zip(&self.genes).map(|(x, &column)| x / scale[column as usize]));
    }

    /// Finds the order of all expressed genes, and their bins or ranks, where these are the values.
    fn rank(&mut self, wanted: &Wanted<'_>) {
        let Self { genes, stored, scaled, made, ranked, sorter, .. } = self;
        let spec = wanted.spec;
        let scores = if spec.scale.is_some() { scaled } else { stored };
        if !spec.needs_ranks() {
            return;
        }
        sorter.greatest(scores, wanted.are_counts && spec.scale.is_none(), scores.len(), ranked);
        if spec.values == TokenValues::Binned {
            quantile_bins(scores, genes, ranked, spec.bins, wanted.draws.of(Stream::Bins), made);
        } else {
            made.clear();
            made.resize(ranked.len(), 0.0);
            (1u32..).zip(&*ranked).for_each(|(rank, &at)| made[at as usize] = rank as f32);
        }
    }

    /// Chooses the expressed genes; tells whether they are ordered by value, and not by column.
    fn choose(&mut self, wanted: &Wanted<'_>) -> bool {
        let Self { genes, stored, scaled, ranked, tokens, keys, sorter, .. } = self;
        let (spec, k) = (wanted.spec, wanted.sizes.expressed);
        let scores = if spec.scale.is_some() { scaled } else { stored };
        let is_whole = k == scores.len();
        if spec.order == Arrange::Value && (is_whole || spec.choose == Choose::Top) {
            if spec.needs_ranks() {
                tokens.clear();
                tokens.extend_from_slice(&ranked[..k]);
            } else {
                sorter.greatest(scores, wanted.are_counts && spec.scale.is_none(), k, tokens);
            }
            return true;
        }
        if is_whole || spec.choose == Choose::First {
            tokens.clear();
            tokens.extend(0..k as u32);
            return false;
        }
        let draws = wanted.draws.of(Stream::Choice);
        keys.clear();
        match spec.choose {
            // The k least of -ln(u) / weight are a draw in proportion to weights (Efraimidis and Spirakis, 2006).
            Choose::Weighted => {
                keys.extend(genes.iter().zip(&*scores).map(|(&gene, x)| (draws.exponential(gene) / x).to_bits()));
            }
            Choose::Random => keys.extend(genes.iter().map(|&gene| draws.at(gene))),
            Choose::Top | Choose::First => keys.extend(scores.iter().map(|&x| falling(x))),
        }
        sorter.least(keys, k, tokens);
        false
    }

    /// Draws zeros, and orders all tokens.
    fn arrange(&mut self, wanted: &Wanted<'_>, is_by_value: bool) {
        let n_expressed = self.genes.len();
        if wanted.sizes.zeros > 0 {
            self.draw_zeros(wanted);
        }
        let Self { genes, stored, scaled, tokens, sorter, .. } = self;
        let scores = if wanted.spec.scale.is_some() { scaled } else { stored };
        let zeros = n_expressed as u32..genes.len() as u32;
        match wanted.spec.order {
            Arrange::Value => {
                if !is_by_value {
                    sorter.sort(tokens, |at| falling(scores[at as usize]));
                }
                tokens.extend(zeros);
            }
            Arrange::Gene => {
                if !zeros.is_empty() {
                    tokens.extend(zeros);
                    sorter.sort(tokens, |at| u64::from(genes[at as usize]));
                }
            }
            Arrange::Random => {
                let draws = wanted.draws.of(Stream::Order);
                tokens.extend(zeros);
                sorter.sort(tokens, |at| draws.at(genes[at as usize]));
            }
        }
    }

    /// Appends drawn columns that are not expressed to `genes`.
    fn draw_zeros(&mut self, wanted: &Wanted<'_>) {
        let Self { genes, zeros, .. } = self;
        let (kept, expressed) = (wanted.spec.kept.as_ref(), genes.len());
        let n_genes = kept.map_or(wanted.n_cols as usize, |kept| kept.columns.len());
        wanted.draws.of(Stream::Zeros).distinct(n_genes - expressed, wanted.sizes.zeros, zeros);
        let place = |column: u32| kept.map_or(column, |kept| kept.place[column as usize]);
        let mut before = 0;
        for at in zeros.rising() {
            while before < expressed && place(genes[before]) <= at + before as u32 {
                before += 1;
            }
            let at = at + before as u32;
            genes.push(kept.map_or(at, |kept| kept.columns[at as usize]));
        }
    }

    /// The first value that became infinite, else the first whole number that was rounded.
    fn lost(&self, wanted: &Wanted<'_>, made: &[f32]) -> Option<Lost> {
        let (Self { genes, stored, tokens, .. }, spec) = (self, wanted.spec);
        let lost = |at: usize, what| Lost { column: genes[at].into(), value: stored[at].to_string(), what };
        if spec.needs_ranks() {
            return None;
        }
        if (spec.needs_totals() || spec.scale.is_some())
            && let Some(place) = made.iter().position(|x| !x.is_finite())
        {
            return Some(lost(tokens[place] as usize, What::TooLargeAfterOps));
        }
        if wanted.are_counts || (spec.scale.is_some() && !spec.needs_totals()) {
            return None;
        }
        let is_rounded = |x: &f64| *x > EXACT && x.fract() == 0.0 && f64::from(*x as f32).to_bits() != x.to_bits();
        stored.iter().position(is_rounded).map(|at| lost(at, What::Rounded))
    }

    /// Writes the values of the tokens.
    fn write_values(&mut self, wanted: &Wanted<'_>, out: &mut [f32]) {
        let Self { genes, stored, scaled, made, tokens, table, .. } = self;
        let spec = wanted.spec;
        let n_expressed = stored.len();
        let each = out.iter_mut().zip(&*tokens).map(|(out, &at)| (out, at as usize));
        let each = each.map(|(out, at)| if at < n_expressed { (out, Some(at)) } else { (out, None) });
        if spec.needs_ranks() {
            each.for_each(|(out, at)| *out = at.map_or(0.0, |at| made[at]));
            return;
        }
        if spec.values == TokenValues::Counts {
            let x = if spec.scale.is_some() { scaled } else { stored };
            each.for_each(|(out, at)| *out = at.map_or(0.0, |at| x[at] as f32));
            return;
        }
        let factor = factor(spec, wanted.total);
        let is_log = spec.values == TokenValues::Log1p;
        let of = |x: f64, column: u32| {
            let mut done = times(x as f32, factor);
            if let Some(scale) = &spec.scale {
                done = (f64::from(done) / scale[column as usize]) as f32;
            }
            if is_log { done.ln_1p() } else { done }
        };
        let is_tabled = is_log && wanted.are_counts && spec.scale.is_none();
        table.begin();
        each.for_each(|(out, at)| {
            *out = at.map_or(0.0, |at| {
                let x = stored[at];
                if is_tabled { table.get(x as usize, || of(x, 0)) } else { of(x, genes[at]) }
            });
        });
    }
}

/// Whole numbers up to here are exact in float32.
const EXACT: f64 = (1u64 << 24) as f64;

/// What values are multiplied by.
fn factor(spec: &TokenSpec, total: Option<f64>) -> Option<f64> {
    total.filter(|total| *total != 0.0).map(|total| spec.target_sum / total)
}

/// Writes the first token and those of columns.
fn write_genes(spec: &TokenSpec, genes: &mut [i64], columns: impl Iterator<Item = u32>) {
    if let Some(cls) = spec.cls_id {
        genes[0] = cls;
    }
    let out = genes[spec.first()..].iter_mut();
    match &spec.ids {
        None => out.zip(columns).for_each(|(out, column)| *out = i64::from(column)),
        Some(ids) => out.zip(columns).for_each(|(out, column)| *out = ids[column as usize]),
    }
}
