//! A digest of 64 bits for each row: a sum over its elements, of the bytes of each and its place in the row.
//!
//! A sum, so that a row may come in parts, and threads share one. It tells a changed, lost, moved or exchanged element with
//! all but certainty (1 in 2⁶⁴); it is no defence against somebody who wants two rows to look the same.

use std::ops::Range;

use crate::error::Result;
use crate::threads::jobs::Workers;

/// Elements of a job.
const JOB: usize = 1 << 16;
/// The fraction of the golden ratio, odd: places come to lie far apart.
const PLACE: u64 = 0x9e37_79b9_7f4a_7c15;
/// The multiplier of `fmix64` (`MurmurHash3`).
const MIX: u64 = 0xff51_afd7_ed55_8ccd;

/// Rows of an array whose elements lie one row after the other.
pub(crate) struct Rows<'a> {
    /// Where each row begins, and the end of the last: it rises.
    pub(crate) starts: &'a [i64],
    /// Bytes of an element: 1, 2, 4 or 8.
    pub(crate) element_size: usize,
    /// Makes arrays of equal elements differ.
    pub(crate) salt: u64,
}

impl Rows<'_> {
    /// Adds what the elements from number `first` on say of their rows to `digests`, one for each row.
    ///
    /// # Errors
    /// Where the workers are interrupted.
    ///
    /// # Panics
    /// Where the elements do not lie within the rows.
    pub(crate) fn add(&self, first: u64, elements: &[u8], digests: &mut [u64], workers: &Workers) -> Result<()> {
        let jobs: Vec<(u64, &[u8])> = elements
            .chunks(JOB * self.element_size)
            .enumerate()
            .map(|(i, part)| (first + (i * JOB) as u64, part))
            .collect();
        for (rows, sums) in workers.run(&jobs, |_, &(first, part)| Ok(self.sums(first, part)))? {
            for (digest, sum) in digests[rows].iter_mut().zip(sums) {
                *digest = digest.wrapping_add(sum);
            }
        }
        Ok(())
    }

    /// The rows that `elements` lie in, and the sum of each.
    fn sums(&self, first: u64, elements: &[u8]) -> (Range<usize>, Vec<u64>) {
        let mut at = first as i64;
        let end = at + (elements.len() / self.element_size) as i64;
        // The last row that begins here or before: those before it that begin here, too, are empty.
        let from = self.starts.partition_point(|&start| start <= at).saturating_sub(1);
        let (mut row, mut rest, mut sums) = (from, elements, Vec::new());
        while at < end {
            let row_end = self.starts[row + 1].min(end);
            let (now, later) = rest.split_at((row_end - at) as usize * self.element_size);
            let place = (at - self.starts[row]) as u64;
            sums.push(match self.element_size {
                1 => self.sum::<1>(place, now),
                2 => self.sum::<2>(place, now),
                4 => self.sum::<4>(place, now),
                _ => self.sum::<8>(place, now),
            });
            (row, at, rest) = (row + 1, row_end, later);
        }
        (from..row, sums)
    }

    fn sum<const SIZE: usize>(&self, place: u64, elements: &[u8]) -> u64 {
        let mut offset = self.salt.wrapping_add(place.wrapping_mul(PLACE));
        let mut sum = 0_u64;
        for element in elements.as_chunks::<SIZE>().0 {
            let mut bytes = [0; 8];
            bytes[..SIZE].copy_from_slice(element);
            offset = offset.wrapping_add(PLACE);
            let mut x = u64::from_le_bytes(bytes).wrapping_add(offset);
            x = (x ^ (x >> 33)).wrapping_mul(MIX);
            sum = sum.wrapping_add(x ^ (x >> 32));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKERS: Workers = Workers { threads: 3, interrupted: &|| false };

    fn digests(starts: &[i64], element_size: usize, salt: u64, parts: &[&[u8]]) -> Vec<u64> {
        let mut digests = vec![0; starts.len() - 1];
        let rows = Rows { starts, element_size, salt };
        let mut first = 0;
        for part in parts {
            rows.add(first, part, &mut digests, &WORKERS).unwrap();
            first += (part.len() / element_size) as u64;
        }
        digests
    }

    #[test]
    fn a_row_may_come_in_parts() {
        let elements: Vec<u8> = (0..400_000_u32).map(|i| (i.wrapping_mul(i) >> 5) as u8).collect();
        for size in [1, 2, 4, 8] {
            let n = (400_000 / size) as i64;
            let starts = [0, 0, 10, 11, 11, n / 2, n - 1, n, n];
            let whole = digests(&starts, size, 0, &[&elements]);
            for cut in [size, 8 * size, 40_000 * size, elements.len() - size] {
                let (one, two) = elements.split_at(cut / size * size);
                assert_eq!(digests(&starts, size, 0, &[one, two]), whole);
            }
            assert_eq!(whole[0], 0, "an empty row");
            assert_ne!(whole, digests(&starts, size, 1, &[&elements]));
        }
    }

    #[test]
    fn every_change_of_a_row_shows() {
        let row: Vec<u8> = (0..64).collect();
        let of = |row: &[u8]| digests(&[0, (row.len() / 4) as i64], 4, 0, &[row])[0];
        let mut changed = row.clone();
        for bit in 0..8 * row.len() {
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of(&changed), of(&row), "bit {bit}");
            changed[bit / 8] ^= 1 << (bit % 8);
        }
        changed.rotate_left(4);
        assert_ne!(of(&changed), of(&row), "moved");
        changed.rotate_right(4);
        changed.swap(0, 4);
        assert_ne!(of(&changed), of(&row), "exchanged");
        assert_ne!(of(&row[..60]), of(&row), "lost");
        assert_ne!(of(&[&row[..], &[0; 4]].concat()), of(&row), "a zero more");
    }
}
