//! LZF (HDF5 filter 32000, from h5py): a bare liblzf stream without a header.
//!
//! liblzf's `lzf_d.c`: a control byte below 32 is followed by that many literals and one more; above, its top three
//! bits are a length (7: more in the next byte) and the rest, with the last byte, a distance backwards.

use super::{DecodeError, Found};

/// Lengths copied as one constant-size block where both buffers have room behind: longest literal run, longest short match.
const RUN: usize = 32;
/// Step of a match copy; a match that is nearer than this repeats itself within one step.
const STEP: usize = 8;

/// For each distance below a step: the factor that copies the lowest `distance` bytes over a whole step.
const COPIES: [u64; STEP] = [
    0,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0001_0000_0100_0001,
    0x0000_0001_0000_0001,
    0x0000_0100_0000_0001,
    0x0001_0000_0000_0001,
    0x0100_0000_0000_0001,
];
/// For each distance below a step: its largest multiple within a step.
const PERIODS: [usize; STEP] = [0, 8, 8, 6, 8, 5, 6, 7];

/// Expands the whole stream into the front of `out`; returns the number of bytes.
pub(super) fn decode(stored: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
    let expected = out.len();
    match expand(stored, out)? {
        (_, true) => Err(DecodeError::Length { expected, found: Found::MoreThan(expected) }),
        (written, false) => Ok(written),
    }
}

/// Expands until `out` is full or the stream ends; returns the number of bytes.
pub(super) fn decode_prefix(stored: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
    expand(stored, out).map(|(written, _)| written)
}

/// Bytes written, and whether the stream holds more than fits.
fn expand(stored: &[u8], out: &mut [u8]) -> Result<(usize, bool), DecodeError> {
    let cut = || DecodeError::Lzf("the stream is cut off".to_owned());
    let mut read = 0;
    let mut written = 0;
    while let Some(&control) = stored.get(read) {
        read += 1;
        let room = out.len() - written;
        let control = usize::from(control);
        if control < RUN {
            let run = control + 1;
            let fits = run.min(room);
            // A constant length is a pair of vector moves, an exact one a call of memcpy.
            if let (Some(from), Some(to)) = (stored.get(read..read + RUN), out.get_mut(written..written + RUN)) {
                to.copy_from_slice(from);
            } else {
                let from = stored.get(read..read + run).ok_or_else(cut)?;
                out[written..written + fits].copy_from_slice(&from[..fits]);
            }
            read += run;
            written += fits;
            if fits < run {
                return Ok((written, true));
            }
            continue;
        }
        let mut run = control >> 5;
        if run == 7 {
            run += usize::from(*stored.get(read).ok_or_else(cut)?);
            read += 1;
        }
        run += 2;
        let distance = ((control & 0x1f) << 8 | usize::from(*stored.get(read).ok_or_else(cut)?)) + 1;
        read += 1;
        if distance > written {
            return Err(DecodeError::Lzf(format!("a back reference of {distance} bytes where {written} are written")));
        }
        let fits = run.min(room);
        repeat(out, written, distance, fits);
        written += fits;
        if fits < run {
            return Ok((written, true));
        }
    }
    Ok((written, false))
}

/// Writes `run` bytes at `at`, each equal to the one `distance` before it; may write beyond them, within `out`.
pub(super) fn repeat(out: &mut [u8], at: usize, distance: usize, run: usize) {
    let end = at + run;
    let mut place = at;
    if end + STEP > out.len() {
        for place in at..end {
            out[place] = out[place - distance];
        }
    } else if distance >= STEP {
        while place < end {
            out.copy_within(place - distance..place - distance + STEP, place);
            place += STEP;
        }
    } else {
        // A near match repeats a pattern shorter than a step: fill a step with it, advance by its whole periods.
        let mut pattern = [0; STEP];
        pattern.copy_from_slice(&out[at - distance..][..STEP]);
        let once = u64::from_le_bytes(pattern) & !(u64::MAX << (8 * distance));
        let pattern = once.wrapping_mul(COPIES[distance]).to_le_bytes();
        while place < end {
            out[place..place + STEP].copy_from_slice(&pattern);
            place += PERIODS[distance];
        }
    }
}

/// Longest run of a match, and its farthest distance.
const MAX_MATCH: usize = 264;
const MAX_DISTANCE: usize = 1 << 13;
/// Places of the last occurrence of each three bytes, by hash.
const TABLE_BITS: u32 = 14;

/// Compresses `data` into a stream, which replaces what `out` holds; `table` is scratch.
pub(super) fn encode(data: &[u8], table: &mut Vec<u32>, out: &mut Vec<u8>) {
    out.clear();
    table.clear();
    table.resize(1 << TABLE_BITS, 0);
    let (mut at, mut literals) = (0, 0);
    while let Some(&[a, b, c]) = data.get(at..).and_then(<[u8]>::first_chunk) {
        let hash = u32::from_le_bytes([a, b, c, 0]).wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS);
        // One more than the place, so that 0 is none. Beyond 4 GiB a wrong place is only a match that is not found.
        let before = std::mem::replace(&mut table[hash as usize], (at as u32).wrapping_add(1)) as usize;
        let distance = (at + 1).wrapping_sub(before);
        let matches =
            before > 0 && (1..=MAX_DISTANCE).contains(&distance) && data[before - 1..].starts_with(&[a, b, c]);
        if !matches {
            at += 1;
            continue;
        }
        flush(&data[literals..at], out);
        let ahead = data[at..].iter().zip(&data[before - 1..]).take(MAX_MATCH);
        let length = ahead.take_while(|(a, b)| a == b).count();
        let (run, back) = (length - 2, distance - 1);
        out.push((run.min(7) << 5 | back >> 8) as u8);
        if run >= 7 {
            out.push((run - 7) as u8);
        }
        out.push((back & 0xff) as u8);
        at += length;
        literals = at;
    }
    flush(&data[literals..], out);
}

fn flush(literals: &[u8], out: &mut Vec<u8>) {
    for run in literals.chunks(RUN) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{encode, ints};
    use super::*;

    fn expanded(stored: &[u8], len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0; len];
        let written = decode(stored, &mut out)?;
        out.truncate(written);
        Ok(out)
    }

    /// h5py 3.16: `create_dataset(data=INTS, compression="lzf")`, then `id.read_direct_chunk`.
    const STORED: [u8; 44] = [
        0x04, 0x01, 0x00, 0x00, 0x00, 0x01, 0x20, 0x03, 0x00, 0x02, 0x20, 0x03, 0x40, 0x07, 0x00, 0x03, 0xa0, 0x07,
        0x40, 0x0b, 0x40, 0x03, 0x00, 0x02, 0x20, 0x04, 0x02, 0x70, 0x11, 0x01, 0x60, 0x0b, 0x20, 0x0a, 0xe0, 0x00,
        0x03, 0x00, 0x05, 0x60, 0x27, 0x01, 0x00, 0x00,
    ];

    #[test]
    fn reads_what_h5py_wrote() {
        assert_eq!(expanded(&STORED, 64), Ok(ints()));
    }

    #[test]
    fn table_of_streams() {
        let lzf = |text: &str| Err(DecodeError::Lzf(text.to_owned()));
        let long = |expected| {
            let found = Found::MoreThan(expected);
            Err(DecodeError::Length { expected, found })
        };
        for (stored, len, expected) in [
            (&[][..], 4, Ok(vec![])),
            (b"\x02abc", 3, Ok(b"abc".to_vec())),
            // A run of 9 at distance 1: the length goes on in a second byte.
            (b"\x00a\xe0\x00\x00", 10, Ok(b"aaaaaaaaaa".to_vec())),
            // Overlap at distance 3.
            (b"\x02abc\x60\x02", 8, Ok(b"abcabcab".to_vec())),
            (b"\x02abc", 2, long(2)),
            (b"\x00a\xe0\x00\x00", 9, long(9)),
            (b"\x02ab", 9, lzf("the stream is cut off")),
            (b"\x00a\x20", 9, lzf("the stream is cut off")),
            (b"\x00a\xe0\x00", 9, lzf("the stream is cut off")),
            (b"\x00a\x20\x01", 9, lzf("a back reference of 2 bytes where 1 are written")),
        ] {
            assert_eq!(expanded(stored, len), expected, "{stored:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(data in encode::repetitive(), extra in 0_usize..99) {
            let mut stored = Vec::new();
            super::encode(&data, &mut Vec::new(), &mut stored);
            prop_assert_eq!(expanded(&stored, data.len()), Ok(data.clone()));
            prop_assert_eq!(expanded(&encode::lzf(&data), data.len() + extra), Ok(data));
        }

        #[test]
        fn garbage_never_panics(stored: Vec<u8>, len in 0_usize..500) {
            let _ = expanded(&stored, len);
            let _ = decode_prefix(&stored, &mut vec![0; len]);
        }
    }
}
