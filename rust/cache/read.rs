//! Rows through a cache: what is held is taken from it, what can be held is decoded whole, the rest row by row.

use std::ops::Range;
use std::sync::Arc;

use super::{Held, RowCache};
use crate::error::Result;
use crate::rows::{Band, Block};

/// Ranges of the rows that were asked for, and the band that holds each.
pub(crate) type Bands = Vec<(Range<usize>, Band)>;

/// How a matrix is cut into units, and how its rows are decoded.
pub(crate) struct Units<'a> {
    /// The unit of a row.
    pub(crate) unit_of: &'a dyn Fn(u64) -> u64,
    /// The rows of a unit.
    pub(crate) unit_rows: &'a dyn Fn(u64) -> Range<u64>,
    /// Decodes sorted, distinct rows: ranges of them, and a band for each.
    pub(crate) decode: &'a dyn Fn(&[u64]) -> Result<Bands>,
    /// Bytes that a decoded row takes, before any is known.
    pub(crate) guess_per_row: u64,
}

/// Reads `rows` (sorted, distinct, in range) into `block`.
///
/// # Errors
/// What decoding gives.
pub(crate) fn read(cache: &RowCache, units: &Units, rows: &[u64], block: &mut Block) -> Result<()> {
    let groups: Vec<(u64, &[u64])> = rows
        .chunk_by(|&a, &b| (units.unit_of)(a) == (units.unit_of)(b))
        .map(|group| ((units.unit_of)(group[0]), group))
        .collect();
    let mut held = cache.look_up(groups.iter().map(|(unit, group)| (*unit, group.len() as u64)));

    let missing: Vec<usize> = (0..groups.len()).filter(|&i| held[i].is_none()).collect();
    let whole_rows = |i: &usize| (units.unit_rows)(groups[*i].0);
    let room = cache.room_for(missing.iter().map(|i| whole_rows(i).count() as u64), units.guess_per_row);
    let (whole, partial) = missing.split_at(room);

    let mut taken: Vec<Option<Held>> = decode(units, whole, |i| whole_rows(&i).collect(), &groups, Some(cache))?;
    taken.extend(decode(units, partial, |i| groups[i].1.to_vec(), &groups, None)?);
    for (&i, found) in missing.iter().zip(taken) {
        held[i] = found;
    }
    for (i, ((unit, group), held)) in groups.iter().zip(held).enumerate() {
        let Some(Held { band, base }) = held else { continue };
        let is_partial = partial.binary_search(&i).is_ok();
        let first = (units.unit_rows)(*unit).start;
        let place = |(n, &row): (usize, &u64)| base + if is_partial { n } else { (row - first) as usize };
        block.push_rows(band, group.iter().enumerate().map(place));
    }
    Ok(())
}

/// Decodes the rows that `rows_of` gives for each group, and says where each group's rows came to lie.
fn decode(
    units: &Units,
    wanted: &[usize],
    rows_of: impl Fn(usize) -> Vec<u64>,
    groups: &[(u64, &[u64])],
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
    for (range, mut band) in (units.decode)(&rows)? {
        if cache.is_some() {
            band.shrink();
        }
        let band = Arc::new(band);
        let mut kept = Vec::new();
        while next < wanted.len() && starts[next] < range.end {
            let base = starts[next] - range.start;
            kept.push((groups[wanted[next]].0, base));
            held[next] = Some(Held { band: Arc::clone(&band), base });
            next += 1;
        }
        if let Some(cache) = cache {
            cache.keep(&band, &kept);
        }
    }
    Ok(held)
}
