//! Shuffle (HDF5 filter 2): the first bytes of all elements, then all second bytes, and so on.
//!
//! The bytes behind the last whole element stay where they are (`H5Zshuffle.c`). Undone out of place; the element sizes
//! of numbers (2, 4, 8) have a fast path: planes are merged in pairs, then the pairs in pairs, because the compiler
//! vectorises a merge of two streams (10 to 40 GB/s in cache) but not a scatter (4 GB/s).

use super::{DecodeError, Found};

/// Elements merged at a time: their intermediate pairs stay in the first-level cache.
const BLOCK: usize = 64;

/// Puts the elements of `stored` together again in the front of `out`; returns the number of bytes.
pub(super) fn decode(stored: &[u8], element_size: usize, out: &mut [u8]) -> Result<usize, DecodeError> {
    let len = stored.len();
    let expected = out.len();
    let Some(out) = out.get_mut(..len) else {
        let found = Found::Exactly(len);
        return Err(DecodeError::Length { expected, found });
    };
    let count = len.checked_div(element_size).unwrap_or(0);
    let (planes, rest) = stored.split_at(count * element_size);
    let (elements, tail) = out.split_at_mut(count * element_size);
    tail.copy_from_slice(rest);
    match element_size {
        _ if count == 0 => {}
        1 => elements.copy_from_slice(planes),
        2 => merge::<1>(&planes[..count], &planes[count..], elements),
        4 => merge_4(planes, count, elements),
        8 => merge_8(planes, count, elements),
        size => scatter(planes, count, size, elements),
    }
    Ok(len)
}

/// Takes `UNIT` bytes from `a` and `b` in turn.
#[inline]
fn merge<const UNIT: usize>(a: &[u8], b: &[u8], out: &mut [u8]) {
    let units = a.chunks_exact(UNIT).zip(b.chunks_exact(UNIT));
    for (pair, (a, b)) in out.chunks_exact_mut(2 * UNIT).zip(units) {
        pair[..UNIT].copy_from_slice(a);
        pair[UNIT..].copy_from_slice(b);
    }
}

fn merge_4(planes: &[u8], count: usize, elements: &mut [u8]) {
    for (block, elements) in elements.chunks_mut(4 * BLOCK).enumerate() {
        merge_planes(planes, count, block * BLOCK, elements);
    }
}

fn merge_8(planes: &[u8], count: usize, elements: &mut [u8]) {
    let (mut low, mut high) = ([0; 4 * BLOCK], [0; 4 * BLOCK]);
    let (low_planes, high_planes) = planes.split_at(4 * count);
    for (block, elements) in elements.chunks_mut(8 * BLOCK).enumerate() {
        let half = elements.len() / 2;
        merge_planes(low_planes, count, block * BLOCK, &mut low[..half]);
        merge_planes(high_planes, count, block * BLOCK, &mut high[..half]);
        merge::<4>(&low[..half], &high[..half], elements);
    }
}

/// Merges four planes from element `first` on into at most [`BLOCK`] units of four bytes.
#[inline]
fn merge_planes(planes: &[u8], count: usize, first: usize, units: &mut [u8]) {
    let len = units.len() / 4;
    let plane = |byte: usize| &planes[byte * count + first..][..len];
    let (mut low, mut high) = ([0; 2 * BLOCK], [0; 2 * BLOCK]);
    merge::<1>(plane(0), plane(1), &mut low);
    merge::<1>(plane(2), plane(3), &mut high);
    merge::<2>(&low, &high, units);
}

/// Any element size, byte by byte.
fn scatter(planes: &[u8], count: usize, size: usize, elements: &mut [u8]) {
    for (byte, plane) in planes.chunks_exact(count).enumerate() {
        for (element, &value) in elements.chunks_exact_mut(size).zip(plane) {
            element[byte] = value;
        }
    }
}

/// Takes the elements of `data` apart; the planes replace what `out` holds.
pub(super) fn encode(data: &[u8], element_size: usize, out: &mut Vec<u8>) {
    let count = data.len().checked_div(element_size).unwrap_or(0);
    let (elements, rest) = data.split_at(count * element_size);
    out.clear();
    out.resize(elements.len(), 0);
    match element_size {
        _ if count == 0 => {}
        2 => {
            let (a, b) = out.split_at_mut(count);
            split::<1>(elements, a, b);
        }
        4 => split_4(elements, count, out),
        8 => split_8(elements, count, out),
        size => gather(elements, count, size, out),
    }
    out.extend_from_slice(rest);
}

/// Gives `UNIT` bytes to `a` and `b` in turn.
#[inline]
fn split<const UNIT: usize>(pairs: &[u8], a: &mut [u8], b: &mut [u8]) {
    let units = a.chunks_exact_mut(UNIT).zip(b.chunks_exact_mut(UNIT));
    for (pair, (a, b)) in pairs.chunks_exact(2 * UNIT).zip(units) {
        a.copy_from_slice(&pair[..UNIT]);
        b.copy_from_slice(&pair[UNIT..]);
    }
}

fn split_4(elements: &[u8], count: usize, planes: &mut [u8]) {
    for (block, elements) in elements.chunks(4 * BLOCK).enumerate() {
        split_units(elements, planes, count, block * BLOCK);
    }
}

fn split_8(elements: &[u8], count: usize, planes: &mut [u8]) {
    let (mut low, mut high) = ([0; 4 * BLOCK], [0; 4 * BLOCK]);
    let (low_planes, high_planes) = planes.split_at_mut(4 * count);
    for (block, elements) in elements.chunks(8 * BLOCK).enumerate() {
        let half = elements.len() / 2;
        split::<4>(elements, &mut low[..half], &mut high[..half]);
        split_units(&low[..half], low_planes, count, block * BLOCK);
        split_units(&high[..half], high_planes, count, block * BLOCK);
    }
}

/// Splits at most [`BLOCK`] units of four bytes into four planes, from element `first` on.
#[inline]
fn split_units(units: &[u8], planes: &mut [u8], count: usize, first: usize) {
    let len = units.len() / 4;
    let (mut low, mut high) = ([0; 2 * BLOCK], [0; 2 * BLOCK]);
    split::<2>(units, &mut low[..2 * len], &mut high[..2 * len]);
    let mut planes = planes.chunks_exact_mut(count).map(|plane| &mut plane[first..first + len]);
    for pairs in [&low[..2 * len], &high[..2 * len]] {
        if let (Some(a), Some(b)) = (planes.next(), planes.next()) {
            split::<1>(pairs, a, b);
        }
    }
}

/// Any element size, byte by byte.
fn gather(elements: &[u8], count: usize, size: usize, planes: &mut [u8]) {
    for (byte, plane) in planes.chunks_exact_mut(count).enumerate() {
        for (value, element) in plane.iter_mut().zip(elements.chunks_exact(size)) {
            *value = element[byte];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::encode;
    use super::*;

    fn unshuffle(stored: &[u8], element_size: usize) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0; stored.len()];
        decode(stored, element_size, &mut out).map(|_| out)
    }

    #[test]
    fn reads_what_h5py_wrote() {
        // h5py 3.16, HDF5 2.0: create_dataset(data=np.arange(100, 109, dtype="<i2"), shuffle=True), read_direct_chunk.
        let stored = [100, 101, 102, 103, 104, 105, 106, 107, 108, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let expected: Vec<u8> = (100_i16..109).flat_map(i16::to_le_bytes).collect();
        assert_eq!(unshuffle(&stored, 2), Ok(expected));
    }

    #[test]
    fn bytes_behind_the_last_element_stay() {
        // Three planes of two elements: `ad`, `be`, `cf`.
        assert_eq!(unshuffle(b"adbecf!?", 3), Ok(b"abcdef!?".to_vec()));
    }

    #[test]
    fn refuses_a_buffer_that_is_too_short() {
        let found = Found::Exactly(4);
        assert_eq!(decode(b"abcd", 2, &mut [0; 3]), Err(DecodeError::Length { expected: 3, found }));
    }

    proptest! {
        #[test]
        fn round_trip(data in proptest::collection::vec(any::<u8>(), 0..2000), size in 0_usize..20) {
            let mut planes = vec![1];
            super::encode(&data, size, &mut planes);
            prop_assert_eq!(&planes, &encode::shuffle(&data, size));
            prop_assert_eq!(unshuffle(&planes, size), Ok(data));
        }
    }
}
