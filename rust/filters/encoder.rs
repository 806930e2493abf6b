//! A dataset's filters forwards: the raw bytes of a chunk in, what is stored of it out.

use super::{Filter, Pipeline, bitshuffle, deflate, lz4, lzf, shuffle, zstd};

/// Codecs and scratch buffers of one thread that compresses, reused from chunk to chunk.
#[derive(Default)]
pub(crate) struct Encoder {
    deflater: deflate::Deflater,
    zstd: zstd::Compressor,
    bits: bitshuffle::Scratch,
    table: Vec<u32>,
    front: Vec<u8>,
    back: Vec<u8>,
}

impl Pipeline {
    /// Encodes one chunk at the `level` of its codec: the bytes to store, and the mask of the filters that were skipped.
    ///
    /// A codec that makes a chunk longer, or that gets no memory, is skipped.
    #[must_use]
    pub(crate) fn encode(&self, encoder: &mut Encoder, level: i32, chunk: &[u8]) -> (Vec<u8>, u32) {
        let Encoder { deflater, zstd, bits, table, front, back } = encoder;
        front.clear();
        front.extend_from_slice(chunk);
        let mut mask = 0;
        for (place, filter) in self.filters().iter().enumerate() {
            let done = match filter {
                Filter::Shuffle { element_size } => {
                    shuffle::encode(front, *element_size, back);
                    std::mem::swap(front, back);
                    continue;
                }
                Filter::Deflate => deflater.encode(front, level, back),
                Filter::Lzf => {
                    lzf::encode(front, table, back);
                    true
                }
                Filter::Lz4 => lz4::encode(front, back),
                Filter::Zstd => zstd.encode(front, level, back),
                Filter::Bitshuffle(bitshuffle) => bitshuffle.encode(front, zstd, level, bits, back),
                // Not written here.
                Filter::Blosc | Filter::Fletcher32 => false,
            };
            if done && back.len() < front.len() {
                std::mem::swap(front, back);
            } else {
                mask |= 1 << place;
            }
        }
        (front.clone(), mask)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bitshuffle::{Bitshuffle, BlockCodec};
    use super::super::tests::encode::repetitive;
    use super::super::{Decoder, Filter};
    use super::*;

    fn pipelines() -> impl Strategy<Value = Vec<Filter>> {
        let codec = (1_usize..9).prop_flat_map(|element_size| {
            prop_oneof![
                Just(Filter::Deflate),
                Just(Filter::Lzf),
                Just(Filter::Lz4),
                Just(Filter::Zstd),
                Just(Filter::Bitshuffle(Bitshuffle { element_size, block: 0, codec: BlockCodec::Lz4 })),
            ]
        });
        (codec, 0_usize..9).prop_map(|(codec, element_size)| match (&codec, element_size) {
            (Filter::Bitshuffle(_), _) | (_, 0) => vec![codec],
            _ => vec![Filter::Shuffle { element_size }, codec],
        })
    }

    proptest! {
        #[test]
        fn what_is_stored_decodes_and_is_never_longer(filters in pipelines(), data in repetitive(), level in 1..6) {
            let pipeline = Pipeline::new(filters);
            let (stored, mask) = pipeline.encode(&mut Encoder::default(), level, &data);
            prop_assert!(stored.len() <= data.len());
            let mut out = vec![0; data.len()];
            prop_assert_eq!(pipeline.decode(&mut Decoder::new(), &stored, mask, &mut out), Ok(()));
            prop_assert_eq!(out, data);
        }
    }
}
