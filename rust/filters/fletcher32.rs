//! Fletcher32 (HDF5 filter 3): a checksum behind the data, verified and taken off.
//!
//! The sum is that of `H5_checksum_fletcher32`: big-endian 16-bit words, `sum1 += word; sum2 += sum1`, both kept modulo
//! 65,535 by folding the carries in, so that a sum that is not zero never becomes zero.

use super::DecodeError;

/// Bytes of the checksum at the tail.
pub(super) const SUM_LEN: usize = 4;

/// Independent sums, so that the compiler can keep them in vector registers.
const LANES: usize = 16;

/// Words added to a lane before its sums are folded: `65_535 * ROWS * (ROWS + 1) / 2` must fit into 32 bits.
const ROWS: usize = 360;

/// Verifies the checksum at the tail of `stored` and returns the data before it.
pub(super) fn verify(stored: &[u8]) -> Result<&[u8], DecodeError> {
    let Some((data, &tail)) = stored.split_last_chunk::<SUM_LEN>() else {
        return Err(DecodeError::TooShort { filter: "fletcher32", expected: SUM_LEN, found: stored.len() });
    };
    let stored = u32::from_le_bytes(tail);
    let computed = checksum(data);
    // HDF5 up to 1.6.2 wrote the bytes of each half in the machine's order; H5Zfletcher32.c accepts both, so do we.
    if stored == computed || stored == computed.swap_bytes().rotate_left(16) {
        Ok(data)
    } else {
        Err(DecodeError::Checksum { stored, computed })
    }
}

/// HDF5's Fletcher-32 of `data`.
fn checksum(data: &[u8]) -> u32 {
    let (mut sum1, mut sum2) = (0_u64, 0_u64);
    let blocks = data.chunks(2 * LANES * ROWS);
    for block in blocks {
        let rows = block.chunks_exact(2 * LANES);
        let rest = rows.remainder();
        let words = (LANES * rows.len()) as u64;
        let (simple, weighted) = lane_sums(rows);
        sum2 += words * sum1 + weighted;
        sum1 += simple;
        for word in rest.chunks(2) {
            // An odd last byte is the high half of a word.
            let low = word.get(1).copied().unwrap_or(0);
            sum1 += u64::from(u16::from_be_bytes([word[0], low]));
            sum2 += sum1;
        }
        (sum1, sum2) = (fold(sum1), fold(sum2));
    }
    (sum2 as u32) << 16 | sum1 as u32
}

/// Over at most [`ROWS`] rows: the sum of the words, and the sum of each word times its distance from the end.
fn lane_sums(rows: std::slice::ChunksExact<'_, u8>) -> (u64, u64) {
    let (mut first, mut second) = ([0_u32; LANES], [0_u32; LANES]);
    for row in rows {
        for lane in 0..LANES {
            first[lane] += u32::from(u16::from_be_bytes([row[2 * lane], row[2 * lane + 1]]));
            second[lane] += first[lane];
        }
    }
    let (mut simple, mut weighted) = (0, 0);
    for lane in 0..LANES {
        let (sum1, sum2) = (u64::from(first[lane]), u64::from(second[lane]));
        simple += sum1;
        // A word in row r of R lies (R - r) * LANES - lane words from the end; `second` counts the rows.
        weighted += LANES as u64 * sum2 - lane as u64 * sum1;
    }
    (simple, weighted)
}

/// Modulo 65,535 by adding the carries; only zero gives zero.
fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::encode;
    use super::*;

    /// Written by h5py 3.16 (HDF5 2.0): `create_dataset(data=data, fletcher32=True)`; the last four bytes of
    /// `id.read_direct_chunk`.
    fn from_h5py() -> Vec<(&'static str, Vec<u8>, [u8; 4])> {
        vec![
            ("16 int32", super::super::tests::ints(), [0x12, 0x88, 0x05, 0x9c]),
            ("odd length", (1..8).collect(), [0x0c, 0x10, 0x20, 0x1e]),
            ("1,001 bytes of 255: the sums fold to 65,280", vec![255; 1001], [0x00, 0xff, 0x00, 0xff]),
            ("np.arange(2001) * 7 % 251", ramp(), [0xa9, 0x87, 0x15, 0x16]),
        ]
    }

    fn ramp() -> Vec<u8> {
        (0..2001_u32).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn reads_what_h5py_wrote() {
        for (what, data, sum) in from_h5py() {
            let stored = [&data[..], &sum].concat();
            assert_eq!(verify(&stored), Ok(&data[..]), "{what}");
        }
    }

    #[test]
    fn accepts_the_swapped_halves_of_old_hdf5() {
        for (what, data, [a, b, c, d]) in from_h5py() {
            let stored = [&data[..], &[b, a, d, c]].concat();
            assert_eq!(verify(&stored), Ok(&data[..]), "{what}");
        }
    }

    #[test]
    fn refuses_a_changed_byte_and_a_missing_sum() {
        let mut stored = encode::fletcher32(&ramp());
        stored[7] ^= 1;
        assert!(matches!(verify(&stored), Err(DecodeError::Checksum { .. })));
        assert!(matches!(verify(&stored[..3]), Err(DecodeError::TooShort { found: 3, .. })));
        assert_eq!(verify(&[0; 4]), Ok(&[][..]));
    }

    /// The widest sums: nothing may overflow (tests are built with overflow checks).
    #[test]
    fn all_ones_and_all_zeros() {
        for value in [0, 255] {
            for len in [2 * LANES * ROWS - 1, 2 * LANES * ROWS, 300_001] {
                let data = vec![value; len];
                assert_eq!(verify(&encode::fletcher32(&data)), Ok(&data[..]), "{len} bytes of {value}");
            }
        }
    }

    proptest! {
        #[test]
        fn equals_the_plain_loop(data in proptest::collection::vec(any::<u8>(), 0..30_000)) {
            let stored = encode::fletcher32(&data);
            prop_assert_eq!(verify(&stored), Ok(&data[..]));
        }
    }
}
