//! Read-through: held units come from the cache, units that fit are decoded whole and kept, other rows are decoded alone.

use std::ops::Range;
use std::sync::Arc;

use super::{Held, RowCache};
use crate::error::Result;
use crate::rows::{DecodedRows, RowGroup};

/// Ranges of the requested rows, and the row group of each.
pub(crate) type RowGroups = Vec<(Range<usize>, RowGroup)>;

/// How a matrix is cut into units.
pub(crate) struct Units<'a> {
    /// The unit of a row.
    pub(crate) unit_of: Box<dyn Fn(u64) -> u64 + 'a>,
    /// The rows of a unit.
    pub(crate) unit_rows: Box<dyn Fn(u64) -> Range<u64> + 'a>,
    /// Bytes that a decoded row takes, before any is known.
    pub(crate) guess_per_row: u64,
}

/// Decodes sorted, distinct rows: ranges of them, and a row group for each.
pub(crate) type Decode<'a> = dyn Fn(&[u64]) -> Result<RowGroups> + 'a;

/// Reads `rows` (sorted, distinct, in range) into `decoded`.
///
/// # Errors
/// What decoding gives.
pub(crate) fn read(
    cache: &RowCache,
    units: &Units,
    decode: &Decode<'_>,
    rows: &[u64],
    decoded: &mut DecodedRows,
) -> Result<()> {
    let by_unit = units.sorted(rows);
    let mut held = cache.look_up(by_unit.iter().map(|(unit, asked)| (*unit, asked.len() as u64)));

    let missing: Vec<usize> = (0..by_unit.len()).filter(|&i| held[i].is_none()).collect();
    let whole_rows = |i: &usize| (units.unit_rows)(by_unit[*i].0);
    let room = cache.room_for(missing.iter().map(|i| whole_rows(i).count() as u64), units.guess_per_row);
    let (whole, partial) = missing.split_at(room);

    let mut taken: Vec<Option<Held>> =
        decode_units(decode, whole, |i| whole_rows(&i).collect(), &by_unit, Some(cache))?;
    taken.extend(decode_units(decode, partial, |i| by_unit[i].1.to_vec(), &by_unit, None)?);
    for (&i, found) in missing.iter().zip(taken) {
        held[i] = found;
    }
    for (i, ((unit, asked), held)) in by_unit.iter().zip(held).enumerate() {
        let Some(Held { group, base }) = held else { continue };
        let is_partial = partial.binary_search(&i).is_ok();
        let first = (units.unit_rows)(*unit).start;
        let place = |(n, &row): (usize, &u64)| base + if is_partial { n } else { (row - first) as usize };
        decoded.push_rows(group, asked.iter().enumerate().map(place));
    }
    Ok(())
}

/// The rows that reading `rows` now would decode: those of whole units, and single ones.
pub(crate) fn missing(cache: &RowCache, units: &Units, rows: &[u64]) -> [Vec<u64>; 2] {
    let by_unit = units.sorted(rows);
    let missing: Vec<&(u64, &[u64])> = by_unit.iter().filter(|(unit, _)| !cache.holds(*unit)).collect();
    let whole_rows = |unit: u64| (units.unit_rows)(unit);
    let lens = missing.iter().map(|(unit, _)| whole_rows(*unit).count() as u64);
    let (whole, partial) = missing.split_at(cache.room_for(lens, units.guess_per_row));
    [
        whole.iter().flat_map(|(unit, _)| whole_rows(*unit)).collect(),
        partial.iter().flat_map(|(_, asked)| asked.iter().copied()).collect(),
    ]
}

impl Units<'_> {
    /// Sorted rows, unit by unit.
    fn sorted<'a>(&self, rows: &'a [u64]) -> Vec<(u64, &'a [u64])> {
        let asked = rows.chunk_by(|&a, &b| (self.unit_of)(a) == (self.unit_of)(b));
        asked.map(|asked| ((self.unit_of)(asked[0]), asked)).collect()
    }
}

/// Decodes the rows that `rows_of` gives for each unit, and says where each unit's rows came to lie.
fn decode_units(
    decode: &Decode<'_>,
    wanted: &[usize],
    rows_of: impl Fn(usize) -> Vec<u64>,
    by_unit: &[(u64, &[u64])],
    cache: Option<&RowCache>,
) -> Result<Vec<Option<Held>>> {
    let mut rows = Vec::new();
    let mut starts = Vec::with_capacity(wanted.len());
    for &i in wanted {
        starts.push(rows.len());
        rows.extend(rows_of(i));
    }
    let mut held: Vec<Option<Held>> = vec![None; wanted.len()];
    let mut next = 0;
    for (range, mut group) in decode(&rows)? {
        if cache.is_some() {
            group.shrink();
        }
        let group = Arc::new(group);
        let mut kept = Vec::new();
        while next < wanted.len() && starts[next] < range.end {
            let base = starts[next] - range.start;
            kept.push((by_unit[wanted[next]].0, base));
            held[next] = Some(Held { group: Arc::clone(&group), base });
            next += 1;
        }
        if let Some(cache) = cache {
            cache.keep(&group, &kept);
        }
    }
    Ok(held)
}
