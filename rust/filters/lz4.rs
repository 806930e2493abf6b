//! LZ4 (HDF5 filter 32004, from the `hdf5_plugins`): blocks of LZ4 with a big-endian frame of their own.
//!
//! Total size (u64), block size (u32), then for each block its stored size (u32) and its bytes; a block whose stored
//! size is its raw size is plain. Only the last block is shorter. Bytes behind it are ignored, as the plugin does.

use lz4::block::{compress_bound, compress_to_buffer, decompress_to_buffer};

use super::{DecodeError, Found};

/// Most bytes of a block that the library takes (its `LZ4_MAX_INPUT_SIZE`).
const MOST: usize = 0x7E00_0000;

/// Bytes before the first block: total size, block size, and the size of that block.
const HEADER: usize = 16;

/// Decodes all blocks into the front of `out`; returns the number of bytes.
pub(super) fn decode(mut stored: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
    let total = u64::from_be_bytes(take(&mut stored)?);
    let block_size = u32::from_be_bytes(take(&mut stored)?) as usize;
    let expected = out.len();
    // The size is only believed where it fits the caller's buffer.
    let Some(out) = usize::try_from(total).ok().and_then(|total| out.get_mut(..total)) else {
        return Err(DecodeError::Length {
            expected,
            found: usize::try_from(total).map_or(Found::MoreThan(usize::MAX), Found::Exactly),
        });
    };
    if block_size == 0 && !out.is_empty() {
        return Err(DecodeError::Lz4("a block size of 0".to_owned()));
    }
    for block in out.chunks_mut(block_size.max(1)) {
        let stored_len = u32::from_be_bytes(take(&mut stored)?) as usize;
        let (bytes, rest) = stored.split_at_checked(stored_len).ok_or_else(|| {
            DecodeError::Lz4(format!("a block of {stored_len} bytes where {} are left", stored.len()))
        })?;
        stored = rest;
        if stored_len == block.len() {
            block.copy_from_slice(bytes);
            continue;
        }
        decode_block(bytes, block)?;
    }
    Ok(out.len())
}

/// Decodes one bare block of LZ4 into exactly `out`.
pub(super) fn decode_block(stored: &[u8], out: &mut [u8]) -> Result<(), DecodeError> {
    let expected = checked_lengths(stored.len(), out.len())?;
    let written = decompress_to_buffer(stored, Some(expected), out)
        .map_err(|_| DecodeError::Lz4(format!("a block of {} stored bytes that is damaged", stored.len())))?;
    if written == out.len() {
        Ok(())
    } else {
        Err(DecodeError::Lz4(format!("a block of {written} bytes where {} belong", out.len())))
    }
}

/// The length of a block as C's int, if the library takes it; compressed ones may be a little longer than others.
fn checked_lengths(stored: usize, expected: usize) -> Result<i32, DecodeError> {
    match (i32::try_from(stored), i32::try_from(expected)) {
        (Ok(_), Ok(length)) if expected <= MOST => Ok(length),
        _ => Err(DecodeError::Lz4(format!(
            "a block of {expected} bytes ({stored} stored), more than the {MOST} that the library for LZ4 takes"
        ))),
    }
}

/// Compresses `data` into one bare block behind what `out` holds; false where it cannot.
pub(super) fn encode_block(data: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(most) = compress_bound(data.len()) else { return false };
    let before = out.len();
    out.resize(before + most, 0);
    let written = compress_to_buffer(data, None, false, &mut out[before..]);
    out.truncate(before + written.as_ref().map_or(0, |&written| written));
    written.is_ok()
}

/// Compresses `data` as one block, which with its frame replaces what `out` holds; false where it is too long for one.
pub(super) fn encode(data: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(block_size) = u32::try_from(data.len()) else { return false };
    out.clear();
    out.extend_from_slice(&u64::from(block_size).to_be_bytes());
    out.extend_from_slice(&block_size.to_be_bytes());
    out.resize(HEADER, 0);
    if !encode_block(data, out) || out.len() - HEADER >= data.len() {
        out.truncate(HEADER);
        out.extend_from_slice(data);
    }
    let stored = (out.len() - HEADER) as u32;
    out[HEADER - size_of::<u32>()..HEADER].copy_from_slice(&stored.to_be_bytes());
    true
}

fn take<const LEN: usize>(stored: &mut &[u8]) -> Result<[u8; LEN], DecodeError> {
    let Some((bytes, rest)) = stored.split_first_chunk::<LEN>() else {
        return Err(DecodeError::TooShort { filter: "LZ4", expected: LEN, found: stored.len() });
    };
    *stored = rest;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{encode, ints};
    use super::*;

    fn decoded(stored: &[u8], len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0; len];
        let written = decode(stored, &mut out)?;
        out.truncate(written);
        Ok(out)
    }

    /// hdf5plugin 7.1: `create_dataset(data=np.arange(50, dtype="u1") // 9, **hdf5plugin.LZ4(nbytes=20))`, then
    /// `id.read_direct_chunk`: two compressed blocks of 20, one plain block of 10.
    const STORED: [u8; 64] = [
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x32, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x10, 0x14, 0x00,
        0x01, 0x00, 0xb0, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x02, 0x02, 0x00, 0x00, 0x00, 0x0e,
        0x12, 0x02, 0x01, 0x00, 0x13, 0x03, 0x01, 0x00, 0x50, 0x03, 0x04, 0x04, 0x04, 0x04, 0x00, 0x00, 0x00, 0x0a,
        0x04, 0x04, 0x04, 0x04, 0x04, 0x05, 0x05, 0x05, 0x05, 0x05,
    ];

    /// The same with `data=INTS` and the default block size.
    const STORED_INTS: [u8; 62] = [
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x2e, 0x40, 0x01,
        0x00, 0x00, 0x00, 0x04, 0x00, 0x13, 0x02, 0x08, 0x00, 0x13, 0x03, 0x08, 0x00, 0x00, 0x14, 0x00, 0x00, 0x04,
        0x00, 0x71, 0x02, 0x01, 0x00, 0x00, 0x70, 0x11, 0x01, 0x24, 0x00, 0x00, 0x10, 0x00, 0x04, 0x04, 0x00, 0x80,
        0x05, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn reads_what_hdf5plugin_wrote() {
        assert_eq!(decoded(&STORED, 50), Ok((0..50).map(|i| i / 9).collect()));
        assert_eq!(decoded(&STORED_INTS, 64), Ok(ints()));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let found = Found::Exactly(50);
        assert_eq!(decoded(&STORED, 49), Err(DecodeError::Length { expected: 49, found }));

        let absurd = [&[0xff; 8], &STORED[8..]].concat();
        assert!(matches!(decoded(&absurd, 50), Err(DecodeError::Length { expected: 50, .. })));
    }

    #[test]
    fn tells_blocks_that_are_too_large() {
        assert_eq!(checked_lengths(5, MOST), Ok(0x7E00_0000));
        assert!(compress_bound(MOST).is_ok() && compress_bound(MOST + 1).is_err());
        for (stored, expected) in [(5, MOST + 1), (5, 1 << 31), (1 << 31, 5)] {
            let Err(DecodeError::Lz4(text)) = checked_lengths(stored, expected) else { panic!("{expected} bytes") };
            assert!(text.contains("more than the 2113929216 that the library for LZ4 takes"), "{text}");
        }
    }

    #[test]
    fn refuses_damage() {
        let with = |place: usize, value: u8| {
            let mut stored = STORED.to_vec();
            stored[place] = value;
            stored
        };
        let no_block_size = with(11, 0);
        for (what, stored) in [
            ("no block size", no_block_size),
            ("a block longer than the chunk", with(12, 0xff)),
            ("a literal run that is too long", with(16, 0xf4)),
            ("a block that is too short", with(15, 2)),
        ] {
            assert!(matches!(decoded(&stored, 50), Err(DecodeError::Lz4(_))), "{what}");
        }
        assert!(matches!(decoded(&STORED[..11], 50), Err(DecodeError::TooShort { .. })));
        assert!(matches!(decoded(&STORED[..34], 50), Err(DecodeError::TooShort { .. })));
    }

    proptest! {
        #[test]
        fn round_trip(data in encode::repetitive(), block in 1_usize..3000, extra in 0_usize..9) {
            prop_assert_eq!(decoded(&encode::lz4(&data, block), data.len() + extra), Ok(data));
        }

        #[test]
        fn garbage_never_panics(stored: Vec<u8>, total in 0_u8..200, block in 0_u8..200, len in 0_usize..500) {
            let _ = decoded(&stored, len);
            let frame = [&[0, 0, 0, 0, 0, 0, 0, total, 0, 0, 0, block, 0, 0, 0, block / 2], &stored[..]].concat();
            let _ = decoded(&frame, len);
        }
    }
}
