//! Chunks compressed on all threads.

use crate::error::Result;
use crate::filters::Pipeline;
use crate::threads::jobs::{Scratch, Workers};

/// Encodes each `chunk_len` bytes of `data`, a short last one filled up with zeros: bytes to store and mask of each.
///
/// # Errors
/// Where the workers are interrupted.
pub(crate) fn encode(
    pipeline: &Pipeline,
    level: i32,
    data: &[u8],
    chunk_len: usize,
    workers: &Workers,
) -> Result<Vec<(Vec<u8>, u32)>> {
    let chunks: Vec<&[u8]> = data.chunks(chunk_len.max(1)).collect();
    workers.run(&chunks, |Scratch { encoder, chunk: filled_up, .. }, chunk| {
        if chunk.len() == chunk_len {
            return Ok(pipeline.encode(encoder, level, chunk));
        }
        filled_up.clear();
        filled_up.extend_from_slice(chunk);
        filled_up.resize(chunk_len, 0);
        Ok(pipeline.encode(encoder, level, filled_up))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::{Decoder, Filter};

    #[test]
    fn the_last_chunk_is_filled_up() {
        let data: Vec<u8> = (0..250_u8).map(|i| i / 9).collect();
        for threads in [1, 3] {
            let workers = Workers { threads, interrupted: &|| false };
            let pipeline = Pipeline::new(vec![Filter::Shuffle { element_size: 4 }, Filter::Zstd]);
            let chunks = encode(&pipeline, 1, &data, 100, &workers).unwrap();
            let mut decoded = Vec::new();
            for (stored, mask) in &chunks {
                let mut out = vec![0; 100];
                pipeline.decode(&mut Decoder::new(), stored, *mask, &mut out).unwrap();
                decoded.extend(out);
            }
            assert_eq!(decoded, [&data[..], &[0; 50]].concat());
        }
    }
}
