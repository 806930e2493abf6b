//! Blosc (HDF5 filter 32001): blocks of a chunk, shuffled by bytes or bits, each compressed as a whole or byte plane by
//! byte plane; the format of version 1 (`README_CHUNK_FORMAT.rst` of c-blosc).
//!
//! The header says all, so that the filter's own values do not matter, except for the codec: Snappy is not decoded here.

use super::bitshuffle::untranspose;
use super::{DecodeError, Found, deflate, lz4, lzf, shuffle, zstd};

/// Bytes of the header.
const HEADER: usize = 16;
/// The version of the format that c-blosc 1.x writes; 1 is older, of the same form.
const NEWEST: u8 = 2;
/// `MAX_SPLITS` and `MIN_BUFFERSIZE` of blosc.c: blocks are split into planes below the one, from the other on.
const MAX_SPLITS: usize = 16;
const SHORTEST_SPLIT: usize = 128;

const BYTE_SHUFFLE: u8 = 1;
const PLAIN: u8 = 1 << 1;
const BIT_SHUFFLE: u8 = 1 << 2;
const NOT_SPLIT: u8 = 1 << 4;

/// The value of the filter that names its codec, and that of Snappy.
const CODEC_VALUE: usize = 6;
const SNAPPY: u32 = 3;

/// Whether a dataset with these values of the filter is decoded here.
pub(super) fn is_known(values: &[u32]) -> bool {
    values.get(CODEC_VALUE) != Some(&SNAPPY)
}

/// What other filters bring along.
pub(super) struct Codecs<'a> {
    pub(super) inflater: &'a mut deflate::Inflater,
    pub(super) zstd: &'a mut zstd::Context,
}

/// Buffers that are used again and again.
#[derive(Default)]
pub(super) struct Scratch {
    block: Vec<u8>,
    planes: Vec<u8>,
}

/// Decodes all blocks into the front of `out`; returns the number of bytes.
pub(super) fn decode(
    stored: &[u8],
    codecs: &mut Codecs,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Result<usize, DecodeError> {
    let Some(&[version, _, flags, type_size]) = stored.first_chunk::<4>().filter(|_| stored.len() >= HEADER) else {
        return Err(DecodeError::TooShort { filter: "Blosc", expected: HEADER, found: stored.len() });
    };
    if version == 0 || version > NEWEST {
        return Err(DecodeError::Blosc(format!("version {version} of the format; expected 1 or {NEWEST}")));
    }
    let (total, block_len) = (number(stored, 4)?, number(stored, 8)?);
    let expected = out.len();
    let Some(out) = out.get_mut(..total) else {
        return Err(DecodeError::Length { expected, found: Found::Exactly(total) });
    };
    if flags & PLAIN != 0 {
        let bytes = stored.get(HEADER..HEADER + total);
        out.copy_from_slice(bytes.ok_or_else(|| cut_off(total, stored.len() - HEADER))?);
        return Ok(total);
    }
    if block_len == 0 && total > 0 {
        return Err(DecodeError::Blosc("a block size of 0".to_owned()));
    }
    let type_size = usize::from(type_size).max(1);
    for (i, block) in out.chunks_mut(block_len.max(1)).enumerate() {
        let at = number(stored, HEADER + 4 * i)?;
        let is_split = flags & NOT_SPLIT == 0
            && type_size <= MAX_SPLITS
            && block.len() / type_size >= SHORTEST_SPLIT
            && block.len() == block_len;
        let splits = if is_split { type_size } else { 1 };
        scratch.block.resize(scratch.block.len().max(block.len()), 0);
        let Scratch { block: shuffled, planes } = scratch;
        let by_bytes = flags & BYTE_SHUFFLE != 0 && type_size > 1;
        let by_bits = !by_bytes && flags & BIT_SHUFFLE != 0 && block.len() >= type_size;
        let target = if by_bytes || by_bits { &mut shuffled[..block.len()] } else { &mut *block };
        decode_splits(stored, at, flags >> 5, splits, codecs, target)?;
        if by_bytes {
            shuffle::decode(&shuffled[..block.len()], type_size, block)?;
        } else if by_bits {
            // Elsewhere than in a multiple of eight elements no bits were moved.
            let whole = block.len() / type_size * type_size;
            let moved = if (whole / type_size).is_multiple_of(8) { whole } else { 0 };
            untranspose(&shuffled[..moved], type_size, planes, &mut block[..moved])?;
            let rest = moved..block.len();
            block[rest.clone()].copy_from_slice(&shuffled[rest]);
        }
    }
    Ok(total)
}

/// Decodes the streams of a block, which begin at `at`.
fn decode_splits(
    stored: &[u8],
    mut at: usize,
    codec: u8,
    splits: usize,
    codecs: &mut Codecs,
    block: &mut [u8],
) -> Result<(), DecodeError> {
    for part in block.chunks_mut((block.len() / splits).max(1)).take(splits) {
        let len = number(stored, at)?;
        let bytes = stored.get(at + 4..).and_then(|rest| rest.get(..len));
        let bytes = bytes.ok_or_else(|| cut_off(len, stored.len().saturating_sub(at + 4)))?;
        at += 4 + len;
        if len == part.len() {
            part.copy_from_slice(bytes);
            continue;
        }
        let written = match codec {
            0 => blosclz(bytes, part)?,
            1 => {
                lz4::decode_block(bytes, part)?;
                part.len()
            }
            3 => codecs.inflater.decode(bytes, part)?,
            4 => codecs.zstd.decode(bytes, part)?,
            2 => return Err(DecodeError::Blosc("compressed with Snappy, which is not decoded here".to_owned())),
            other => return Err(DecodeError::Blosc(format!("codec {other}; expected 0 to 4"))),
        };
        super::error::check_length(part.len(), written)?;
    }
    Ok(())
}

/// Expands a stream of `BloscLZ` (`blosclz.c`) into the front of `out`; returns the number of bytes.
///
/// A control byte below 32 is followed by that many literals and one more. Above, its top three bits less one are a length
/// (6: more in the next bytes, up to one that is not 255) and the rest, with the byte behind, a distance; at the farthest
/// such distance two more bytes are added to it.
fn blosclz(stored: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
    let mut bytes = stored.iter();
    let mut next = || bytes.next().copied().map(usize::from);
    let cut = || DecodeError::Blosc("a BloscLZ stream is cut off".to_owned());
    let Some(first) = next() else { return Ok(0) };
    let (mut control, mut written) = (first & 31, 0);
    loop {
        let room = out.len() - written;
        let run;
        if control < 32 {
            run = control + 1;
            let target = out.get_mut(written..written + run);
            let target = target.ok_or(DecodeError::Length { expected: room, found: Found::Exactly(run) })?;
            for byte in target {
                *byte = next().ok_or_else(cut)? as u8;
            }
        } else {
            let mut length = (control >> 5) - 1;
            while length >= 6 {
                let more = next().ok_or_else(cut)?;
                length += more;
                if more != 255 {
                    break;
                }
            }
            let low = next().ok_or_else(cut)?;
            let mut distance = ((control & 31) << 8) + low + 1;
            if distance == 1 << 13 {
                distance += next().ok_or_else(cut)? << 8;
                distance += next().ok_or_else(cut)?;
            }
            run = length + 3;
            if distance > written || run > room {
                return Err(DecodeError::Blosc(format!("a run of {run} bytes, {distance} back, at byte {written}")));
            }
            lzf::repeat(out, written, distance, run);
        }
        written += run;
        let Some(byte) = next() else { return Ok(written) };
        control = byte;
    }
}

/// A little-endian number of 32 bits.
fn number(stored: &[u8], at: usize) -> Result<usize, DecodeError> {
    let bytes = stored.get(at..).and_then(<[u8]>::first_chunk);
    let bytes = bytes.ok_or_else(|| cut_off(4, stored.len().saturating_sub(at)))?;
    Ok(u32::from_le_bytes(*bytes) as usize)
}

fn cut_off(expected: usize, found: usize) -> DecodeError {
    DecodeError::TooShort { filter: "Blosc", expected, found }
}
