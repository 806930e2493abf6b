//! Data as it lies in a chunk of an atlas: counts, and sorted column indices.

/// Elements of a chunk.
pub(crate) const ELEMENTS: usize = 41_754;
/// Values and columns of a cell.
const ROW: usize = 1_620;
const COLUMNS: u32 = 30_000;

/// Counts as sequencing gives them: about half are 1, each further count half as likely.
pub(crate) fn values(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let count = |_| (random.next().trailing_zeros() + 1) as f32;
    (0..ELEMENTS).map(count).flat_map(f32::to_le_bytes).collect()
}

/// Sorted column indices, row after row.
pub(crate) fn indices(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut columns = Vec::with_capacity(ELEMENTS + ROW);
    while columns.len() < ELEMENTS {
        let mut row: Vec<u32> = (0..ROW).map(|_| random.next() % COLUMNS).collect();
        row.sort_unstable();
        columns.extend(row);
    }
    columns.truncate(ELEMENTS);
    columns.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// A linear congruential generator (constants of Knuth's MMIX): the same data on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }
}
