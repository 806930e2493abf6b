//! Every pipeline of filters: on hostile bytes, and on what our encoder makes of any bytes.
//!
//! An input is six bytes of choices, then bytes. Whatever they are, decoding ends with an error or with exactly the chunk, in
//! little memory (libFuzzer is told how much one allocation may take); the front of a chunk and two chunks at a time are
//! what the whole chunk is. What was encoded comes back.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../../rust/filters/mod.rs"]
mod filters;

use filters::{Bitshuffle, BlockCodec, Decoder, Encoder, Filter, Front, Pipeline};

/// Bytes of a chunk, at most.
const LONGEST: usize = 1 << 14;

/// The choices that an input begins with.
struct Choices {
    pipeline: Pipeline,
    /// Filters that were skipped.
    mask: u32,
    chunk_len: usize,
    /// Bytes of the chunk that are wanted.
    wanted: usize,
    encodes: bool,
    level: i32,
}

impl Choices {
    fn read([codec, around, sizes, low, high, more]: [u8; 6]) -> Self {
        let element_size = usize::from(sizes % 17);
        let bitshuffle = |codec| {
            Filter::Bitshuffle(Bitshuffle {
                element_size: element_size.max(1),
                block: usize::from(sizes & 0xF8),
                codec,
            })
        };
        let codec = match codec % 9 {
            0 => None,
            1 => Some(Filter::Deflate),
            2 => Some(Filter::Lzf),
            3 => Some(Filter::Lz4),
            4 => Some(Filter::Zstd),
            5 => Some(Filter::Blosc),
            6 => Some(bitshuffle(BlockCodec::Plain)),
            7 => Some(bitshuffle(BlockCodec::Lz4)),
            _ => Some(bitshuffle(BlockCodec::Zstd)),
        };
        let mut filters = Vec::new();
        filters.extend((around & 1 != 0).then_some(Filter::Shuffle { element_size }));
        filters.extend((around & 2 != 0).then_some(Filter::Fletcher32));
        filters.extend(codec);
        filters.extend((around & 4 != 0).then_some(Filter::Fletcher32));
        let chunk_len = (usize::from(low) | usize::from(high) << 8) % LONGEST;
        Self {
            pipeline: Pipeline::new(filters),
            mask: if around & 8 != 0 { u32::from(around >> 4) } else { 0 },
            chunk_len,
            wanted: chunk_len * usize::from(more) / 255,
            encodes: sizes & 0x80 != 0,
            level: i32::from(more % 5) + 1,
        }
    }
}

thread_local! {
    static TOOLS: RefCell<(Decoder, Encoder)> = RefCell::default();
}

fuzz_target!(|input: &[u8]| TOOLS.with_borrow_mut(|(decoder, encoder)| {
    let Some((choices, bytes)) = input.split_first_chunk() else { return };
    let choices = Choices::read(*choices);
    if choices.encodes {
        come_back(&choices, decoder, encoder, &bytes[..bytes.len().min(LONGEST)]);
    } else {
        agree(&choices, decoder, bytes);
    }
}));

/// What was encoded is decoded to what it was, and is not longer; afterwards a byte of it is another.
fn come_back(choices: &Choices, decoder: &mut Decoder, encoder: &mut Encoder, chunk: &[u8]) {
    let Choices { pipeline, wanted, level, .. } = choices;
    let (mut stored, mask) = pipeline.encode(encoder, *level, chunk);
    assert!(stored.len() <= chunk.len());
    let mut out = vec![0xA5; chunk.len()];
    assert_eq!(pipeline.decode(decoder, &stored, mask, &mut out), Ok(()));
    assert!(out == chunk, "the chunk did not come back");
    let len = stored.len();
    if let Some(byte) = stored.get_mut(wanted % len.max(1)) {
        *byte ^= 1 << (wanted % 8);
        let altered = Choices { mask, chunk_len: chunk.len(), pipeline: pipeline.clone(), ..*choices };
        agree(&altered, decoder, &stored);
    }
}

/// The chunk, its front, and two of it at a time: the same bytes, wherever the whole chunk can be had.
fn agree(choices: &Choices, decoder: &mut Decoder, stored: &[u8]) {
    let &Choices { ref pipeline, mask, chunk_len, .. } = choices;
    let wanted = choices.wanted.min(chunk_len);
    let mut whole = vec![0xA5; chunk_len];
    let is_whole = pipeline.decode(decoder, stored, mask, &mut whole).is_ok();
    let mut front = vec![0x5A; wanted];
    let had = pipeline.decode_prefix(decoder, stored, mask, chunk_len, &mut front, wanted);
    assert!(had.is_ok() || !is_whole, "{had:?}");
    assert!(had.is_err() || !is_whole || front == whole[..wanted], "the front differs");
    let [mut one, mut two] = [Vec::new(), Vec::new()];
    let fronts = [(&mut one, wanted), (&mut two, chunk_len)];
    let fronts = fronts.map(|(out, wanted)| Front { stored, mask, wanted, out });
    let had = pipeline.decode_two_fronts(decoder, chunk_len, fronts);
    for (had, out, wanted) in [(&had[0], &one, wanted), (&had[1], &two, chunk_len)] {
        assert!(had.is_ok() || !is_whole, "{had:?}");
        assert!(had.is_err() || !is_whole || out[..wanted] == whole[..wanted], "one of two differs");
    }
}
