//! Deflate (HDF5 filter 1): a zlib stream.
//!
//! libdeflate is two to three times as fast as zlib but knows only whole buffers. The first rows of a chunk are had from
//! it by giving it too little room: it writes front to back and gives up once the room is full. It does not say how far
//! it came, so that has to be proved ([`Inflater::decode_prefix`]); where it cannot be, zlib-rs streams the prefix.
//!
//! Bytes behind the end of the zlib stream are ignored, as HDF5 itself ignores them (`H5Zdeflate.c` stops at
//! `Z_STREAM_END`).

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::{DecompressionError, Decompressor};

use super::{DecodeError, Found};

/// Room behind a wanted prefix: what libdeflate may leave unwritten at the end (one match, 258 bytes, RFC 1951), the
/// bytes that it may write ahead, and enough between the two to tell data from marks.
pub(super) const SLACK: usize = 1024;
/// More than libdeflate writes ahead of what it has decoded (299 bytes: `FASTLOOP_MAX_BYTES_WRITTEN` in
/// `lib/deflate_decompress.c` of 1.26).
const OVERRUN: usize = 384;
/// What stands behind the prefix until it is written over.
const MARK: u8 = 0xA5;

/// Both inflaters, each made at its first use: most threads need only one.
#[derive(Default)]
pub(super) struct Inflater {
    whole: Option<Decompressor>,
    stream: Option<Decompress>,
}

impl Inflater {
    /// Inflates a whole stream into the front of `out`; returns the number of bytes.
    pub(super) fn decode(&mut self, stored: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
        self.whole.get_or_insert_default().zlib_decompress(stored, out).map_err(|error| match error {
            DecompressionError::BadData => DecodeError::Deflate("not a valid zlib stream".to_owned()),
            DecompressionError::InsufficientSpace => {
                DecodeError::Length { expected: out.len(), found: Found::MoreThan(out.len()) }
            }
        })
    }

    /// Inflates the first `wanted` bytes of a stream into `out`, which has [`SLACK`] bytes of room behind them.
    ///
    /// Returns the number of bytes, which is less than `wanted` only where the stream ends before. What lies behind the
    /// prefix is not looked at, so neither the checksum nor the length of the stream is verified.
    pub(super) fn decode_prefix(&mut self, stored: &[u8], out: &mut [u8], wanted: usize) -> Result<usize, DecodeError> {
        let room = &mut out[..wanted + SLACK];
        // libdeflate writes less than OVERRUN bytes ahead of what it has decoded. So once a byte that far behind the
        // prefix has changed, the whole prefix was written.
        room[wanted + OVERRUN..].fill(MARK);
        match self.whole.get_or_insert_default().zlib_decompress(stored, room) {
            Ok(written) => return Ok(written.min(wanted)),
            Err(DecompressionError::InsufficientSpace) if room[wanted + OVERRUN..].iter().any(|&byte| byte != MARK) => {
                return Ok(wanted);
            }
            // A stored block that does not fit is left out as a whole; the marks may be the data; and damage may lie
            // behind the prefix, within the slack.
            Err(DecompressionError::InsufficientSpace | DecompressionError::BadData) => {}
        }
        self.stream_prefix(stored, &mut out[..wanted])
    }

    /// Inflates until `out` is full or the stream ends; returns the number of bytes.
    fn stream_prefix(&mut self, stored: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
        let stream = self.stream.get_or_insert_with(|| Decompress::new(true));
        stream.reset(true);
        let (mut read, mut written) = (0, 0);
        while written < out.len() {
            let status =
                stream.decompress(&stored[read..], &mut out[written..], FlushDecompress::None).map_err(|error| {
                    DecodeError::Deflate(error.message().unwrap_or("not a valid zlib stream").to_owned())
                })?;
            let before = (read, written);
            (read, written) = (stream.total_in() as usize, stream.total_out() as usize);
            // No progress: the stream is cut off.
            if status == Status::StreamEnd || (read, written) == before {
                break;
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::encode;
    use super::*;

    /// h5py 3.16, HDF5 2.0: `create_dataset(data=INTS, compression="gzip")`, then `id.read_direct_chunk`.
    const STORED: [u8; 33] = [
        0x78, 0x5e, 0x63, 0x64, 0x60, 0x60, 0x60, 0x04, 0x62, 0x26, 0x28, 0xcd, 0x0c, 0xa5, 0x61, 0x98, 0x09, 0x48,
        0x14, 0x08, 0x32, 0xa2, 0x88, 0x81, 0x30, 0x2b, 0x94, 0x06, 0x00, 0x11, 0x60, 0x00, 0x9b,
    ];

    fn inflate(stored: &[u8], len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0; len];
        let written = Inflater::default().decode(stored, &mut out)?;
        out.truncate(written);
        Ok(out)
    }

    #[test]
    fn reads_what_h5py_wrote() {
        assert_eq!(inflate(&STORED, 64), Ok(super::super::tests::ints()));
    }

    #[test]
    fn ignores_bytes_behind_the_stream_as_hdf5_does() {
        let stored = [&STORED[..], b"trailing"].concat();
        assert_eq!(inflate(&stored, 64), Ok(super::super::tests::ints()));
    }

    #[test]
    fn refuses_a_stream_longer_than_the_buffer() {
        let found = Found::MoreThan(63);
        assert_eq!(inflate(&STORED, 63), Err(DecodeError::Length { expected: 63, found }));
    }

    #[test]
    fn refuses_damage() {
        for (what, stored) in [
            ("nothing", vec![]),
            ("cut off", STORED[..20].to_vec()),
            ("no zlib header", STORED[2..].to_vec()),
            ("wrong Adler-32", [&STORED[..32], &[0]].concat()),
        ] {
            assert!(matches!(inflate(&stored, 64), Err(DecodeError::Deflate(_))), "{what}");
        }
    }

    #[test]
    fn a_prefix_of_a_cut_stream_is_what_can_be_had() {
        let mut out = [0; 64 + SLACK];
        let written = Inflater::default().decode_prefix(&STORED[..20], &mut out, 64);
        assert!(written.is_ok_and(|written| written < 64));
    }

    /// Every way in which libdeflate may stop short: blocks that are stored, fixed or dynamic; data that looks like marks.
    #[test]
    fn prefixes_equal_the_front_of_the_stream_at_every_length() {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let incompressible: Vec<u8> = (0..9000).map(|_| noise()).collect();
        let counts: Vec<u8> = (0..9000).map(|i| if i % 4 == 0 { noise() % 7 } else { 0 }).collect();
        let marks = vec![MARK; 9000];
        let mixed = [&counts[..3000], &marks[..3000], &incompressible[..3000]].concat();
        for data in [incompressible, counts, marks, mixed] {
            for stored in [encode::deflate(&data), stored_blocks(&data)] {
                let mut inflater = Inflater::default();
                for wanted in (0..data.len()).step_by(61).chain(data.len() - 300..=data.len()) {
                    let mut out = vec![0xEE; wanted + SLACK];
                    assert_eq!(inflater.decode_prefix(&stored, &mut out, wanted), Ok(wanted));
                    assert_eq!(out[..wanted], data[..wanted], "{wanted} of {}", data.len());
                }
            }
        }
    }

    /// Damage in the slack is not damage in the prefix.
    #[test]
    fn a_prefix_before_the_damage_is_had() {
        let data: Vec<u8> = (0..5000_u32).flat_map(|i| (i * i / 7).to_le_bytes()).collect();
        let stored = encode::deflate(&data);
        for cut in (100..stored.len()).step_by(97) {
            let mut stream = Inflater::default();
            let mut front = vec![0; data.len()];
            let good = stream.stream_prefix(&stored[..cut], &mut front).unwrap();
            let wanted = good.saturating_sub(10);
            let mut out = vec![0; wanted + SLACK];
            assert_eq!(stream.decode_prefix(&stored[..cut], &mut out, wanted), Ok(wanted));
            assert_eq!(out[..wanted], data[..wanted]);
        }
    }

    /// A zlib stream of blocks that are not compressed (level 0).
    fn stored_blocks(data: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    proptest! {
        #[test]
        fn round_trip(data: Vec<u8>, extra in 0_usize..9) {
            prop_assert_eq!(inflate(&encode::deflate(&data), data.len() + extra), Ok(data));
        }

        #[test]
        fn garbage_never_panics(stored: Vec<u8>, len in 0_usize..500) {
            let stored = [&[0x78, 0x9c], &stored[..]].concat();
            let _ = inflate(&stored, len);
            let _ = Inflater::default().decode_prefix(&stored, &mut vec![0; len + SLACK], len);
        }
    }
}
