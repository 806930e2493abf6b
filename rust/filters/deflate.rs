//! Deflate (HDF5 filter 1): a zlib stream.
//!
//! libdeflate decodes whole streams; [`inflate`](super::inflate) decodes two streams at a time, and the beginnings of
//! streams, which libdeflate cannot. If `inflate` refuses a stream or does not support the processor, libdeflate (whole
//! streams) or zlib-rs (beginnings) decodes it.
//!
//! Bytes behind the end of the zlib stream are ignored, as HDF5 itself ignores them (`H5Zdeflate.c` stops at
//! `Z_STREAM_END`).

use std::cell::OnceCell;

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

use super::inflate::{Job, Pair, Want};
use super::{DecodeError, Found};

/// The inflaters, each made at its first use: most threads need only some.
#[derive(Default)]
pub(super) struct Inflater {
    whole: Option<Decompressor>,
    stream: Option<Decompress>,
    pair: OnceCell<Option<Pair>>,
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

    /// Inflates two streams at a time; returns the number of bytes of each, or None if it has to be decoded alone.
    pub(super) fn decode_two(&mut self, jobs: [Job; 2]) -> [Option<usize>; 2] {
        self.pair().map_or([None; 2], |pair| pair.decode_two(jobs))
    }

    /// Inflates the first `wanted` bytes of a stream into `out`, which may be longer.
    ///
    /// Returns the number of bytes, which is less than `wanted` only if the stream ends before. The rest of the stream is not
    /// read, so neither its checksum nor its length is verified.
    pub(super) fn decode_prefix(&mut self, stored: &[u8], out: &mut [u8], wanted: usize) -> Result<usize, DecodeError> {
        let job = Job { stored, out: &mut *out, want: Want::Front(wanted) };
        match self.pair().and_then(|pair| pair.decode(job)) {
            Some(written) => Ok(written),
            None => self.stream_prefix(stored, &mut out[..wanted]),
        }
    }

    /// Whether most of a stream is had sooner by decoding all of it, which libdeflate does.
    pub(super) fn is_better_whole(&mut self, stored: &[u8]) -> bool {
        self.pair().is_none() || Pair::is_slower(stored)
    }

    fn pair(&mut self) -> Option<&mut Pair> {
        self.pair.get_or_init(Pair::new);
        self.pair.get_mut()?.as_mut()
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

/// A compressor, made at its first use, of the level that it was used with last.
#[derive(Default)]
pub(super) struct Deflater {
    compressor: Option<(i32, Compressor)>,
}

impl Deflater {
    /// Compresses `data` into a zlib stream, which replaces what `out` holds; false where it cannot.
    pub(super) fn encode(&mut self, data: &[u8], level: i32, out: &mut Vec<u8>) -> bool {
        if self.compressor.as_ref().is_none_or(|(made_for, _)| *made_for != level) {
            self.compressor = CompressionLvl::new(level).ok().map(|lvl| (level, Compressor::new(lvl)));
        }
        let Some((_, compressor)) = &mut self.compressor else { return false };
        out.clear();
        let bound = compressor.zlib_compress_bound(data.len());
        if out.try_reserve(bound).is_err() {
            return false;
        }
        out.resize(bound, 0);
        match compressor.zlib_compress(data, out) {
            Ok(written) => {
                out.truncate(written);
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::inflate::SLACK;
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

    /// Blocks that are stored, fixed or dynamic.
    #[test]
    fn prefixes_equal_the_front_of_the_stream_at_every_length() {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let incompressible: Vec<u8> = (0..9000).map(|_| noise()).collect();
        let counts: Vec<u8> = (0..9000).map(|i| if i % 4 == 0 { noise() % 7 } else { 0 }).collect();
        let runs = vec![0xA5; 9000];
        let mixed = [&counts[..3000], &runs[..3000], &incompressible[..3000]].concat();
        for data in [incompressible, counts, runs, mixed] {
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

    /// Damage behind the prefix is not damage in it.
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
