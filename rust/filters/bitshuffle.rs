//! Bitshuffle (HDF5 filter 32008): elements in blocks, in each of them the first bits of all elements, then all second
//! bits, and so on, and each block compressed with LZ4 or zstd, or not at all.
//!
//! Compressed, there is a header: the bytes of the chunk (u64) and of a block (u32), then before each block its stored
//! bytes (u32), all big-endian. The last block is what is left, cut to a multiple of eight elements; the elements behind it
//! are plain. Without compression nothing tells the size of a block but the filter's own values (`bshuf_h5filter.c`).
//!
//! Bits are transposed in words of eight bytes, 8 × 8 bits each: the words are put together, and the bytes of elements
//! taken apart, as the shuffle filter does it.

use super::{DecodeError, Found, lz4, shuffle, zstd};

/// Bytes of a block, where nothing else is said.
const BLOCK_BYTES: usize = 8192;
/// Elements of a block are a multiple of this.
const LANES: usize = 8;
/// Elements of a block, at least, where nothing else is said.
const FEWEST: usize = 128;
/// Bytes before the first block.
const HEADER: usize = 12;

/// How a chunk was shuffled and compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bitshuffle {
    /// Bytes of an element, not 0.
    pub element_size: usize,
    /// Elements of a block as the filter's values say it; 0 for the default.
    pub block: usize,
    /// What compresses a block.
    pub codec: BlockCodec,
}

/// What compresses a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockCodec {
    /// Nothing.
    Plain,
    /// LZ4, without a frame.
    Lz4,
    /// A zstd frame.
    Zstd,
}

/// Buffers that are used again and again.
#[derive(Default)]
pub(super) struct Scratch {
    bits: Vec<u8>,
    planes: Vec<u8>,
}

impl Bitshuffle {
    /// From the values of the filter: two of its version, bytes of an element, elements of a block, compression.
    pub(super) fn from_hdf5(values: &[u32], type_size: usize) -> Option<Self> {
        let value = |i: usize| values.get(i).map(|&value| value as usize);
        let codec = match value(4).unwrap_or(0) {
            0 => BlockCodec::Plain,
            2 => BlockCodec::Lz4,
            3 => BlockCodec::Zstd,
            _ => return None,
        };
        let element_size = value(2).unwrap_or(type_size);
        let block = value(3).unwrap_or(0);
        (element_size > 0 && block % LANES == 0).then_some(Self { element_size, block, codec })
    }

    fn default_block(self) -> usize {
        (BLOCK_BYTES / self.element_size / LANES * LANES).max(FEWEST)
    }

    /// Decodes all blocks into the front of `out`; returns the number of bytes.
    pub(super) fn decode(
        self,
        mut stored: &[u8],
        zstd: &mut zstd::Context,
        scratch: &mut Scratch,
        out: &mut [u8],
    ) -> Result<usize, DecodeError> {
        let expected = out.len();
        let (total, block_bytes) = if self.codec == BlockCodec::Plain {
            let block = if self.block == 0 { self.default_block() } else { self.block };
            (stored.len() as u64, block * self.element_size)
        } else {
            (u64::from_be_bytes(take(&mut stored)?), u32::from_be_bytes(take(&mut stored)?) as usize)
        };
        // The size is only believed where it fits the caller's buffer.
        let Some(out) = usize::try_from(total).ok().and_then(|total| out.get_mut(..total)) else {
            let found = usize::try_from(total).map_or(Found::MoreThan(usize::MAX), Found::Exactly);
            return Err(DecodeError::Length { expected, found });
        };
        if block_bytes % (LANES * self.element_size) != 0 || (block_bytes == 0 && total > 0) {
            return Err(DecodeError::Bitshuffle(format!(
                "blocks of {block_bytes} bytes; expected a multiple of {LANES} elements of {} bytes",
                self.element_size
            )));
        }
        let (blocks, plain) =
            out.split_at_mut(total as usize / (LANES * self.element_size) * LANES * self.element_size);
        for block in blocks.chunks_mut(block_bytes.max(1)) {
            scratch.bits.resize(scratch.bits.len().max(block.len()), 0);
            let bits = match self.codec {
                BlockCodec::Plain => cut(&mut stored, block.len())?,
                BlockCodec::Lz4 | BlockCodec::Zstd => {
                    let len = u32::from_be_bytes(take(&mut stored)?) as usize;
                    let compressed = cut(&mut stored, len)?;
                    let bits = &mut scratch.bits[..block.len()];
                    if self.codec == BlockCodec::Lz4 {
                        lz4::decode_block(compressed, bits)?;
                    } else {
                        let found = zstd.decode(compressed, bits)?;
                        super::error::check_length(bits.len(), found)?;
                    }
                    &*bits
                }
            };
            untranspose(bits, self.element_size, &mut scratch.planes, block)?;
        }
        plain.copy_from_slice(cut(&mut stored, plain.len())?);
        Ok(out.len())
    }

    /// Shuffles and compresses `data`, which replaces what `out` holds, in blocks of the default size; false where it cannot.
    pub(super) fn encode(
        self,
        data: &[u8],
        zstd: &mut zstd::Compressor,
        level: i32,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> bool {
        let block_bytes = self.default_block() * self.element_size;
        let (blocks, plain) = data.split_at(data.len() / (LANES * self.element_size) * LANES * self.element_size);
        out.clear();
        out.extend_from_slice(&(data.len() as u64).to_be_bytes());
        out.extend_from_slice(&(block_bytes as u32).to_be_bytes());
        let mut frame = Vec::new();
        for block in blocks.chunks(block_bytes) {
            transpose(block, self.element_size, scratch);
            let bits = &scratch.bits[..block.len()];
            let before = out.len();
            out.extend_from_slice(&[0; 4]);
            let done = match self.codec {
                BlockCodec::Lz4 => lz4::encode_block(bits, out),
                BlockCodec::Zstd => {
                    let done = zstd.encode(bits, level, &mut frame);
                    out.extend_from_slice(&frame);
                    done
                }
                BlockCodec::Plain => false,
            };
            if !done {
                return false;
            }
            let stored = (out.len() - before - 4) as u32;
            out[before..before + 4].copy_from_slice(&stored.to_be_bytes());
        }
        out.extend_from_slice(plain);
        out.len() > HEADER || data.is_empty()
    }
}

/// From rows of bits to elements: `bits` are a multiple of eight elements.
pub(super) fn untranspose(
    bits: &[u8],
    element_size: usize,
    planes: &mut Vec<u8>,
    elements: &mut [u8],
) -> Result<(), DecodeError> {
    planes.resize(planes.len().max(bits.len()), 0);
    let planes = &mut planes[..bits.len()];
    let count = (bits.len() / element_size).max(1);
    for (rows, plane) in bits.chunks_exact(count).zip(planes.chunks_exact_mut(count)) {
        shuffle::decode(rows, LANES, plane)?;
        transpose_words(plane);
    }
    shuffle::decode(planes, element_size, elements)?;
    Ok(())
}

/// From elements, a multiple of eight, to rows of bits in `scratch.bits`.
fn transpose(elements: &[u8], element_size: usize, scratch: &mut Scratch) {
    let Scratch { bits, planes } = scratch;
    shuffle::encode(elements, element_size, planes);
    bits.clear();
    let mut rows = Vec::new();
    for plane in planes.chunks_exact_mut((elements.len() / element_size).max(1)) {
        transpose_words(plane);
        shuffle::encode(plane, LANES, &mut rows);
        bits.extend_from_slice(&rows);
    }
}

/// In each word of eight bytes: bit i of byte j changes places with bit j of byte i.
///
/// By halves: blocks of 1, 2 and 4 bits across the diagonal (H. S. Warren, "Hacker's Delight", 7-3). Words are independent,
/// which compilers turn into vector code.
fn transpose_words(bytes: &mut [u8]) {
    let (words, _) = bytes.as_chunks_mut::<LANES>();
    for word in words {
        let mut x = u64::from_le_bytes(*word);
        for (shift, mask) in [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)] {
            let t = (x ^ (x >> shift)) & mask;
            x ^= t ^ (t << shift);
        }
        *word = x.to_le_bytes();
    }
}

fn cut<'a>(stored: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let Some((bytes, rest)) = stored.split_at_checked(len) else {
        return Err(DecodeError::TooShort { filter: "bitshuffle", expected: len, found: stored.len() });
    };
    *stored = rest;
    Ok(bytes)
}

fn take<const LEN: usize>(stored: &mut &[u8]) -> Result<[u8; LEN], DecodeError> {
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(cut(stored, LEN)?);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::encode;
    use super::*;

    fn decoded(filter: Bitshuffle, stored: &[u8], len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![0; len];
        let written = filter.decode(stored, &mut zstd::Context::default(), &mut Scratch::default(), &mut out)?;
        out.truncate(written);
        Ok(out)
    }

    fn encoded(filter: Bitshuffle, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(filter.encode(data, &mut zstd::Compressor::default(), 1, &mut Scratch::default(), &mut out));
        out
    }

    /// The plainest way: bit by bit.
    fn rows_of_bits(elements: &[u8], size: usize) -> Vec<u8> {
        let count = elements.len() / size;
        let mut bits = vec![0; elements.len()];
        for element in 0..count {
            for bit in 0..8 * size {
                let value = elements[element * size + bit / 8] >> (bit % 8) & 1;
                let place = bit * count + element;
                bits[place / 8] |= value << (place % 8);
            }
        }
        bits
    }

    proptest! {
        #[test]
        fn transposes_as_the_plain_loop_does(words in prop::collection::vec(any::<u64>(), 0..60), size in 1_usize..10) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let elements = &bytes[..bytes.len() / (8 * size) * 8 * size];
            let mut scratch = Scratch::default();
            transpose(elements, size, &mut scratch);
            prop_assert_eq!(&scratch.bits, &rows_of_bits(elements, size));
            let mut back = vec![0; elements.len()];
            let bits = std::mem::take(&mut scratch.bits);
            prop_assert_eq!(untranspose(&bits, size, &mut scratch.planes, &mut back), Ok(()));
            prop_assert_eq!(&back, elements);
        }

        #[test]
        fn round_trip(data in encode::repetitive(), size in 1_usize..10, zstd: bool, times in 1_usize..30) {
            let data = data.repeat(times);
            let codec = if zstd { BlockCodec::Zstd } else { BlockCodec::Lz4 };
            let filter = Bitshuffle { element_size: size, block: 0, codec };
            let stored = encoded(filter, &data);
            prop_assert_eq!(decoded(filter, &stored, data.len()), Ok(data.clone()));
            if !data.is_empty() {
                let cut = decoded(filter, &stored[..stored.len() - 1], data.len());
                prop_assert!(cut.is_err());
            }
        }

        #[test]
        fn garbage_never_panics(stored: Vec<u8>, total in 0_u8..200, block in 0_u8..200, len in 0_usize..500) {
            let frame = [&[0, 0, 0, 0, 0, 0, 0, total, 0, 0, 0, block, 0, 0, 0, block / 2], &stored[..]].concat();
            for codec in [BlockCodec::Plain, BlockCodec::Lz4, BlockCodec::Zstd] {
                let filter = Bitshuffle { element_size: 4, block: 0, codec };
                let _ = decoded(filter, &stored, len);
                let _ = decoded(filter, &frame, len);
            }
        }
    }
}
