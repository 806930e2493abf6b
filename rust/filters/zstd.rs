//! Zstandard (HDF5 filter 32015, from the `hdf5_plugins`): one plain frame, or several in a row.
//!
//! Unlike the plugin we do not need the content size in the frame: the chunk says how long the data is.

use zstd::zstd_safe::{
    CCtx, DCtx, DParameter, ErrorCode, InBuffer, OutBuffer, ResetDirective, compress_bound, get_error_name,
};

use super::{DecodeError, Found};

/// Zstandard decodes whole blocks of up to this size (RFC 8878, 3.1.1.2.4): below, a prefix costs as much as the chunk.
pub(super) const LARGEST_BLOCK: usize = 128 * 1024;

/// `ZSTD_error_dstSize_tooSmall`, fixed by `zstd_errors.h`.
const OUTPUT_TOO_SMALL: ErrorCode = 70;

/// A decompression context, made at its first use.
#[derive(Default)]
pub(super) struct Context {
    context: Option<DCtx<'static>>,
}

impl Context {
    /// Decodes all frames into the front of `out`; returns the number of bytes.
    pub(super) fn decode(&mut self, stored: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
        let expected = out.len();
        self.get()?.decompress(out, stored).map_err(|code| {
            if code.wrapping_neg() == OUTPUT_TOO_SMALL {
                let found = Found::MoreThan(expected);
                DecodeError::Length { expected, found }
            } else {
                failure(code)
            }
        })
    }

    /// Decodes until `out` is full or the frames end; returns the number of bytes.
    ///
    /// A frame whose window is larger than the chunk is refused: streaming would allocate that window.
    pub(super) fn decode_prefix(
        &mut self,
        stored: &[u8],
        chunk_len: usize,
        out: &mut [u8],
    ) -> Result<usize, DecodeError> {
        let context = self.get()?;
        // zstd.h: window logs from 10 to 30 are valid on every platform.
        let window_log = (usize::BITS - chunk_len.leading_zeros()).clamp(10, 30);
        context.reset(ResetDirective::SessionOnly).map_err(failure)?;
        context.set_parameter(DParameter::WindowLogMax(window_log)).map_err(failure)?;
        let mut input = InBuffer { src: stored, pos: 0 };
        let mut output = OutBuffer::around(out);
        while output.pos() < output.capacity() {
            let before = (input.pos, output.pos());
            context.decompress_stream(&mut output, &mut input).map_err(failure)?;
            // No progress: the frames are cut off or end.
            if (input.pos, output.pos()) == before {
                break;
            }
        }
        Ok(output.pos())
    }

    fn get(&mut self) -> Result<&mut DCtx<'static>, DecodeError> {
        if self.context.is_none() {
            self.context = DCtx::try_create();
        }
        self.context.as_mut().ok_or_else(|| DecodeError::Zstd("no memory for a decompression context".to_owned()))
    }
}

/// A compression context, made at its first use.
#[derive(Default)]
pub(super) struct Compressor {
    context: Option<CCtx<'static>>,
}

impl Compressor {
    /// Compresses `data` into one frame, which replaces what `out` holds; false where it cannot.
    pub(super) fn encode(&mut self, data: &[u8], level: i32, out: &mut Vec<u8>) -> bool {
        if self.context.is_none() {
            self.context = CCtx::try_create();
        }
        out.clear();
        let reserved = out.try_reserve(compress_bound(data.len())).is_ok();
        reserved && self.context.as_mut().is_some_and(|context| context.compress(out, data, level).is_ok())
    }
}

fn failure(code: ErrorCode) -> DecodeError {
    DecodeError::Zstd(get_error_name(code).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{encode, ints};
    use super::*;

    /// hdf5plugin 7.1: `create_dataset(data=INTS, **hdf5plugin.Zstd())`, then `id.read_direct_chunk`.
    const STORED: [u8; 49] = [
        0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x40, 0x45, 0x01, 0x00, 0xd0, 0x01, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
        0x02, 0x03, 0x01, 0x02, 0x01, 0x00, 0x00, 0x70, 0x11, 0x01, 0x05, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
        0x05, 0x00, 0x80, 0x80, 0x99, 0xc5, 0x40, 0x3e, 0x90, 0xd9, 0xb2, 0x22, 0x07,
    ];

    fn decoded(stored: &[u8], len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0; len];
        let written = Context::default().decode(stored, &mut out)?;
        out.truncate(written);
        Ok(out)
    }

    fn prefix(stored: &[u8], chunk_len: usize, len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0; len];
        let written = Context::default().decode_prefix(stored, chunk_len, &mut out)?;
        out.truncate(written);
        Ok(out)
    }

    #[test]
    fn reads_what_hdf5plugin_wrote() {
        assert_eq!(decoded(&STORED, 64), Ok(ints()));
        assert_eq!(prefix(&STORED, 64, 10), Ok(ints()[..10].to_vec()));
    }

    #[test]
    fn reads_several_frames() {
        let stored = STORED.repeat(2);
        assert_eq!(decoded(&stored, 128), Ok(ints().repeat(2)));
        assert_eq!(prefix(&stored, 128, 70), Ok(ints().repeat(2)[..70].to_vec()));
    }

    #[test]
    fn refuses_frames_longer_than_the_buffer() {
        let found = Found::MoreThan(63);
        assert_eq!(decoded(&STORED, 63), Err(DecodeError::Length { expected: 63, found }));
    }

    #[test]
    fn refuses_damage() {
        for (what, stored) in [
            ("cut off", STORED[..40].to_vec()),
            ("no frame", STORED[1..].to_vec()),
            ("bytes behind", [&STORED[..], b"trailing"].concat()),
        ] {
            assert!(matches!(decoded(&stored, 64), Err(DecodeError::Zstd(_))), "{what}");
        }
    }

    /// RFC 8878: no single segment, no content size, a window of 128 MiB; then one raw block of one byte.
    #[test]
    fn a_prefix_allocates_no_absurd_window() {
        let stored = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x09, 0x00, 0x00, b'a'];
        assert_eq!(decoded(&stored, 1), Ok(b"a".to_vec()));
        assert!(matches!(prefix(&stored, 1, 1), Err(DecodeError::Zstd(_))));
    }

    proptest! {
        #[test]
        fn round_trip(data in encode::repetitive(), extra in 0_usize..9) {
            prop_assert_eq!(decoded(&encode::zstd(&data), data.len() + extra), Ok(data));
        }

        #[test]
        fn garbage_never_panics(stored: Vec<u8>, len in 0_usize..500) {
            let stored = [&STORED[..7], &stored[..]].concat();
            let _ = decoded(&stored, len);
            let _ = prefix(&stored, 500, len);
        }
    }
}
