//! Decodes spans of a one-dimensional array, in order, to little-endian bytes.
//!
//! Each chunk is decoded once, and only up to its last wanted element; unfiltered data are read span by span.

use std::ops::Range;

use super::plan::{Piece, Read, pieces, reads};
use crate::dtype::NumType;
use crate::error::{Place, Result};
use crate::file::{Extent, Fetched};
use crate::filters::Front;
use crate::layout::{ArrayLayout, Chunk, ChunkGrid, Storage};
use crate::memory::reserve;
use crate::threads::jobs::Scratch;

/// Bytes that the sink gets at a time if there are no chunks.
const STEP: u64 = 1 << 20;

/// Receives consecutive little-endian elements.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// Reads `spans` (elements; sorted, not overlapping) of the one-dimensional `array`.
///
/// # Errors
/// If the file cannot be read, a chunk cannot be decoded, or `sink` fails.
pub(crate) fn read_spans(
    file: &Fetched<'_>,
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

/// Adds to `extents` what [`read_spans`] reads for these spans.
pub(crate) fn extents_of(array: &ArrayLayout, spans: &[Range<u64>], extents: &mut Vec<Extent>) {
    let size = array.dtype.kind.size() as u64;
    match &array.storage {
        Storage::Unallocated => {}
        Storage::Contiguous(address) => extents.extend(spans.iter().flat_map(|span| steps(*address, size, span))),
        Storage::Chunked(grid) => {
            let pieces = pieces(spans, grid.chunk[0]);
            let groups: Vec<&[Piece]> = pieces.chunk_by(|a, b| a.chunk == b.chunk).collect();
            extents.extend(filtered_reads(array, grid, &groups).iter().map(|read| (read.address, read.len)));
            for group in groups.iter().filter(|group| filtered(array, grid, group[0].chunk).is_none()) {
                let Some(chunk) = grid.table.get(group[0].chunk as usize).copied().flatten() else { continue };
                extents.extend(group.iter().flat_map(|p| steps(chunk.address, size, &(p.from..p.to))));
            }
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

/// What is read at a time of elements of `size` bytes, of which the first lies at `address`.
fn steps(address: u64, size: u64, span: &Range<u64>) -> impl Iterator<Item = Extent> + use<> {
    let (from, end) = (address + span.start * size, address + span.end * size);
    (from..end).step_by(STEP as usize).map(move |at| (at, STEP.min(end - at)))
}

fn read_plain(
    file: &Fetched<'_>,
    dtype: NumType,
    address: u64,
    span: &Range<u64>,
    place: &Place,
    buffer: &mut Vec<u8>,
    sink: &mut Sink<'_>,
) -> Result<()> {
    steps(address, dtype.kind.size() as u64, span).try_for_each(|(at, len)| {
        file.read(buffer, at, len, place)?;
        to_little_endian(buffer, dtype);
        sink(buffer)
    })
}

/// Turns stored elements into little-endian ones.
pub(crate) fn to_little_endian(bytes: &mut [u8], dtype: NumType) {
    if dtype.big_endian {
        bytes.chunks_exact_mut(dtype.kind.size()).for_each(<[u8]>::reverse);
    }
}

/// Consecutive chunks of one array.
struct Chunks<'a> {
    file: &'a Fetched<'a>,
    array: &'a ArrayLayout,
    grid: &'a ChunkGrid,
    place: &'a Place,
}

impl Chunks<'_> {
    fn read(&self, pieces: &[Piece], scratch: &mut Scratch, sink: &mut Sink<'_>) -> Result<()> {
        let groups: Vec<&[Piece]> = pieces.chunk_by(|a, b| a.chunk == b.chunk).collect();
        let reads = filtered_reads(self.array, self.grid, &groups);
        let mut stored = Stored { reads, loaded: [None; 2], next: 0, latest: 0 };
        // Chunks to decode come in pairs, other chunks alone.
        let is_filtered = |group: &[Piece]| self.filtered(group[0].chunk).is_some();
        for run in groups.chunk_by(|a, b| is_filtered(a) && is_filtered(b)) {
            if is_filtered(run[0]) {
                run.chunks(2).try_for_each(|groups| self.decode(groups, &mut stored, scratch, sink))?;
            } else {
                self.copy(run[0], &mut stored, scratch, sink)?;
            }
        }
        Ok(())
    }

    /// Copies pieces of a chunk that is missing or unfiltered to the sink.
    fn copy(&self, group: &[Piece], stored: &mut Stored, scratch: &mut Scratch, sink: &mut Sink<'_>) -> Result<()> {
        let (dtype, index) = (self.array.dtype, group[0].chunk);
        let Some(chunk) = self.grid.table.get(index as usize).copied().flatten() else {
            return group.iter().try_for_each(|p| fill(&self.array.fill, dtype, p.to - p.from, sink));
        };
        let expected = self.grid.chunk[0] * dtype.kind.size() as u64;
        if chunk.size != expected {
            return Err(self.damaged(index, &chunk, &format!("{} bytes; expected {expected}", chunk.size)));
        }
        // The buffer of merged reads is overwritten.
        stored.loaded[0] = None;
        group.iter().try_for_each(|p| {
            let span = p.from..p.to;
            read_plain(self.file, dtype, chunk.address, &span, self.place, &mut scratch.stored, sink)
        })
    }

    /// Decodes one or two chunks as far as needed, and copies their pieces to the sink.
    fn decode(
        &self,
        groups: &[&[Piece]],
        stored: &mut Stored,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let dtype = self.array.dtype;
        let size = dtype.kind.size();
        let len = self.grid.chunk[0] as usize * size;
        reserve::check((len * groups.len()) as u64, || self.place.clone())?;
        let mut found = Vec::with_capacity(2);
        for group in groups {
            let Some(chunk) = self.filtered(group[0].chunk) else { continue };
            let (buffer, from) = stored.locate(&chunk, self.file, self.place, scratch)?;
            let wanted = group.iter().map(|p| p.to).max().unwrap_or(0) as usize * size;
            found.push((chunk, buffer, from..from + chunk.size as usize, wanted));
        }
        let Scratch { decoder, stored: first, chunk: out, second: (second, other_out), .. } = scratch;
        let buffers = [&*first, &*second];
        let pipeline = &self.grid.pipeline;
        let front = |(chunk, buffer, range, wanted): &(Chunk, usize, Range<usize>, usize), out| Front {
            stored: &buffers[*buffer][range.clone()],
            mask: chunk.mask,
            wanted: *wanted,
            out,
        };
        let decoded = match &found[..] {
            [one, two] => {
                let fronts = [front(one, &mut *out), front(two, &mut *other_out)];
                pipeline.decode_two_fronts(decoder, len, fronts).map(Some)
            }
            [one] => [Some(pipeline.decode_front(decoder, len, front(one, &mut *out))), None],
            _ => [None, None],
        };
        for (((decoded, group), (chunk, ..)), out) in
            decoded.into_iter().flatten().zip(groups).zip(&found).zip([out, other_out])
        {
            self.file.count_decoded(decoded.map_err(|e| self.damaged(group[0].chunk, chunk, &e.to_string()))?);
            to_little_endian(out, dtype);
            group.iter().try_for_each(|p| sink(&out[p.from as usize * size..p.to as usize * size]))?;
        }
        Ok(())
    }

    fn filtered(&self, index: u64) -> Option<Chunk> {
        filtered(self.array, self.grid, index)
    }

    fn damaged(&self, index: u64, chunk: &Chunk, reason: &str) -> crate::error::Error {
        damaged_chunk(self.place, &format!("chunk {index}"), chunk, reason)
    }
}

/// The chunk, if it is allocated and has to be decoded.
fn filtered(array: &ArrayLayout, grid: &ChunkGrid, index: u64) -> Option<Chunk> {
    let chunk = grid.table.get(index as usize).copied().flatten()?;
    let is_edge = (index + 1) * grid.chunk[0] > array.shape[0];
    let plain = grid.pipeline.is_empty() || (grid.plain_edges && is_edge);
    (!plain).then_some(chunk)
}

/// The reads that cover those chunks of `groups` that have to be decoded.
fn filtered_reads(array: &ArrayLayout, grid: &ChunkGrid, groups: &[&[Piece]]) -> Vec<Read> {
    let to_decode = groups.iter().filter_map(|group| filtered(array, grid, group[0].chunk));
    reads(&to_decode.map(|chunk| (chunk.address, chunk.size)).collect::<Vec<_>>())
}

/// Bytes of chunks as stored, read a few chunks at a time into two buffers: two chunks that are decoded together may come
/// from two reads.
struct Stored {
    reads: Vec<Read>,
    /// Which read each buffer holds.
    loaded: [Option<usize>; 2],
    /// The number of the next chunk.
    next: usize,
    /// The buffer that was used last; the other one is free.
    latest: usize,
}

impl Stored {
    /// The buffer that holds the next chunk, which is `chunk`, and where it begins there.
    fn locate(
        &mut self,
        chunk: &Chunk,
        file: &Fetched<'_>,
        place: &Place,
        scratch: &mut Scratch,
    ) -> Result<(usize, usize)> {
        let read = self.reads.partition_point(|read| read.extents.end <= self.next);
        self.next += 1;
        let bytes = &self.reads[read];
        if self.loaded[self.latest] != Some(read) {
            self.latest = 1 - self.latest;
            self.loaded[self.latest] = None;
            let buffer = if self.latest == 0 { &mut scratch.stored } else { &mut scratch.second.0 };
            reserve::check(bytes.len, || place.clone())?;
            file.read(buffer, bytes.address, bytes.len, place)?;
            self.loaded[self.latest] = Some(read);
        }
        Ok((self.latest, (chunk.address - bytes.address) as usize))
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
