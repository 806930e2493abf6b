//! Spans of a one-dimensional array, decoded and handed on in order as little-endian bytes.
//!
//! Whole chunks are decoded once and only as far as they are wanted; unfiltered data is read span by span.

use std::ops::Range;

use super::plan::{Piece, pieces, reads};
use crate::dtype::NumType;
use crate::error::{Place, Result};
use crate::file::DataFile;
use crate::layout::{ArrayLayout, Chunk, ChunkGrid, Storage};
use crate::memory::reserve;
use crate::threads::jobs::Scratch;

/// Bytes handed on at a time where there are no chunks to set the pace.
const STEP: u64 = 1 << 20;

/// Receives consecutive little-endian elements.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// Reads `spans` (elements; sorted, not overlapping) of the one-dimensional `array`.
///
/// # Errors
/// Where the file cannot be read or a chunk cannot be decoded; and whatever `sink` gives.
pub(crate) fn read_spans(
    file: &DataFile,
    array: &ArrayLayout,
    spans: &[Range<u64>],
    scratch: &mut Scratch,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let place = Place::new(file.path().display().to_string(), array.name.clone());
    match &array.storage {
        Storage::Unallocated => spans.iter().try_for_each(|s| fill(&array.fill, array.dtype, s.end - s.start, sink)),
        Storage::Contiguous(address) => {
            spans.iter().try_for_each(|s| read_plain(file, array.dtype, *address, s, &place, &mut scratch.stored, sink))
        }
        Storage::Chunked(grid) => {
            let pieces = pieces(spans, grid.chunk[0]);
            Chunks { file, array, grid, place: &place }.read(&pieces, scratch, sink)
        }
    }
}

/// The fill value, `n` times.
fn fill(element: &[u8], dtype: NumType, n: u64, sink: &mut Sink<'_>) -> Result<()> {
    let mut element = element.to_vec();
    if dtype.big_endian {
        element.reverse();
    }
    let some = element.repeat(n.min(4096) as usize);
    let mut left = n as usize * element.len();
    while left > 0 {
        let now = left.min(some.len());
        sink(&some[..now])?;
        left -= now;
    }
    Ok(())
}

fn read_plain(
    file: &DataFile,
    dtype: NumType,
    address: u64,
    span: &Range<u64>,
    place: &Place,
    buffer: &mut Vec<u8>,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let size = dtype.kind.size() as u64;
    let (mut at, end) = (address + span.start * size, address + span.end * size);
    while at < end {
        let now = (end - at).min(STEP);
        buffer.resize(now as usize, 0);
        file.read_at(buffer, at, place)?;
        to_little_endian(buffer, dtype);
        sink(buffer)?;
        at += now;
    }
    Ok(())
}

/// Turns stored elements into little-endian ones.
pub(crate) fn to_little_endian(bytes: &mut [u8], dtype: NumType) {
    if dtype.big_endian {
        bytes.chunks_exact_mut(dtype.kind.size()).for_each(<[u8]>::reverse);
    }
}

/// Consecutive chunks of one array.
struct Chunks<'a> {
    file: &'a DataFile,
    array: &'a ArrayLayout,
    grid: &'a ChunkGrid,
    place: &'a Place,
}

impl Chunks<'_> {
    fn read(&self, pieces: &[Piece], scratch: &mut Scratch, sink: &mut Sink<'_>) -> Result<()> {
        let size = self.array.dtype.kind.size();
        // The stored extents of the chunks to be decoded, merged into few reads.
        let mut extents = Vec::new();
        let mut groups: Vec<&[Piece]> = pieces.chunk_by(|a, b| a.chunk == b.chunk).collect();
        groups.retain(|g| !g.is_empty());
        for group in &groups {
            if let Some(chunk) = self.filtered(group[0].chunk) {
                extents.push((chunk.address, chunk.size));
            }
        }
        let reads = reads(&extents);
        let (mut read, mut extent, mut loaded) = (0, 0, None);
        for group in groups {
            let index = group[0].chunk;
            let Some(chunk) = self.grid.table.get(index as usize).copied().flatten() else {
                group.iter().try_for_each(|p| fill(&self.array.fill, self.array.dtype, p.to - p.from, sink))?;
                continue;
            };
            if self.filtered(index).is_none() {
                let expected = self.grid.chunk[0] * size as u64;
                if chunk.size != expected {
                    return Err(self.damaged(index, &chunk, &format!("{} bytes; expected {expected}", chunk.size)));
                }
                for p in group {
                    let span = p.from..p.to;
                    read_plain(
                        self.file,
                        self.array.dtype,
                        chunk.address,
                        &span,
                        self.place,
                        &mut scratch.stored,
                        sink,
                    )?;
                }
                // The buffer of merged reads was used for something else.
                loaded = None;
                continue;
            }
            while reads[read].extents.end <= extent {
                read += 1;
            }
            if loaded != Some(read) {
                reserve::check(reads[read].len, || self.place.clone())?;
                scratch.stored.resize(reads[read].len as usize, 0);
                self.file.read_at(&mut scratch.stored, reads[read].address, self.place)?;
                loaded = Some(read);
            }
            extent += 1;
            let from = (chunk.address - reads[read].address) as usize;
            let wanted = group.iter().map(|p| p.to).max().unwrap_or(0) as usize * size;
            self.decode(index, &chunk, from, wanted, scratch)?;
            for p in group {
                sink(&scratch.chunk[p.from as usize * size..p.to as usize * size])?;
            }
        }
        Ok(())
    }

    /// The chunk, if it is allocated and has to be decoded.
    fn filtered(&self, index: u64) -> Option<Chunk> {
        let chunk = self.grid.table.get(index as usize).copied().flatten()?;
        let is_edge = (index + 1) * self.grid.chunk[0] > self.array.shape[0];
        let plain = self.grid.pipeline.is_empty() || (self.grid.plain_edges && is_edge);
        (!plain).then_some(chunk)
    }

    /// Decodes at least the first `wanted` bytes of a chunk into `scratch.chunk`.
    fn decode(&self, index: u64, chunk: &Chunk, from: usize, wanted: usize, scratch: &mut Scratch) -> Result<()> {
        let dtype = self.array.dtype;
        let len = self.grid.chunk[0] as usize * dtype.kind.size();
        reserve::check(len as u64, || self.place.clone())?;
        let Scratch { decoder, stored, chunk: out, .. } = scratch;
        let stored = &stored[from..from + chunk.size as usize];
        let front = self.grid.pipeline.decode_front(decoder, stored, chunk.mask, len, out, wanted);
        self.file.count_decoded(front.map_err(|e| self.damaged(index, chunk, &e.to_string()))?);
        to_little_endian(out, dtype);
        Ok(())
    }

    fn damaged(&self, index: u64, chunk: &Chunk, reason: &str) -> crate::error::Error {
        damaged_chunk(self.place, &format!("chunk {index}"), chunk, reason)
    }
}

/// The error for a chunk that does not decode.
#[must_use]
pub(crate) fn damaged_chunk(place: &Place, which: &str, chunk: &Chunk, reason: &str) -> crate::error::Error {
    place.format(
        format!("{which} ({} bytes at address {}) is damaged: {reason}", chunk.size, chunk.address),
        "Copy or download the file again",
    )
}
