//! Two-dimensional arrays: rows out of one contiguous run, or out of tiles.
//!
//! Any row of a filtered tile needs the whole tile, so a job is one row of tiles; without filters only the wanted rows are
//! read.

use std::ops::Range;

use super::plan::{Read, jobs, reads, runs};
use super::spans::{damaged_chunk, to_little_endian};
use crate::error::{Place, Result};
use crate::file::{Extent, Fetched};
use crate::filters::Front;
use crate::layout::{ArrayLayout, Chunk, ChunkGrid, Storage};
use crate::memory::reserve;
use crate::rows::{RowGroup, Selection, Totals, Values};
use crate::threads::jobs::{Scratch, Workers};

/// Most bytes of rows of a job, unless one row of tiles has more.
const JOB_BYTES: u64 = 4 << 20;

/// A dense matrix on disk.
#[derive(Debug)]
pub(crate) struct DenseMatrix {
    layout: ArrayLayout,
}

impl DenseMatrix {
    /// A matrix of this two-dimensional layout.
    #[must_use]
    pub(crate) fn new(layout: ArrayLayout) -> Self {
        Self { layout }
    }

    /// Its layout.
    #[must_use]
    pub(crate) fn layout(&self) -> &ArrayLayout {
        &self.layout
    }

    fn n_cols(&self) -> usize {
        self.layout.shape[1] as usize
    }

    /// The decode unit of a row: a row of tiles.
    #[must_use]
    pub(crate) fn unit_of(&self, row: u64) -> u64 {
        row / self.layout.chunk_rows()
    }

    /// The rows of a unit.
    #[must_use]
    pub(crate) fn unit_rows(&self, unit: u64) -> Range<u64> {
        let rows = self.layout.chunk_rows();
        unit * rows..((unit + 1) * rows).min(self.layout.shape[0])
    }

    /// The address of row 0, if all rows follow each other in the file in this machine's byte order.
    #[must_use]
    pub(crate) fn direct_address(&self) -> Option<u64> {
        match &self.layout.storage {
            Storage::Contiguous(address) if !self.layout.dtype.big_endian && cfg!(target_endian = "little") => {
                Some(*address)
            }
            _ => None,
        }
    }

    fn jobs(&self, rows: &[u64]) -> Vec<Range<usize>> {
        let row_bytes = (self.n_cols() * self.layout.dtype.kind.size()).max(1) as u64;
        let by_rows = (JOB_BYTES / row_bytes).max(1);
        let job_rows = if self.layout.is_filtered() { self.layout.chunk_rows() } else { by_rows };
        jobs(rows, |row| row / job_rows, 1)
    }

    /// What of the file is read to decode `rows`, in the order of the jobs.
    pub(crate) fn extents(&self, rows: &[u64], selection: Option<&Selection>) -> Vec<Extent> {
        let mut extents = Vec::new();
        // Totals need all columns.
        let selection = selection.filter(|s| s.counted().is_none());
        self.jobs(rows).into_iter().for_each(|job| self.extents_of(&rows[job], selection, &mut extents));
        extents
    }

    /// Adds to `extents` what is read for the rows of one job.
    pub(crate) fn extents_of(&self, rows: &[u64], selection: Option<&Selection>, extents: &mut Vec<Extent>) {
        match &self.layout.storage {
            Storage::Unallocated => {}
            Storage::Contiguous(address) => {
                let row_bytes = (self.n_cols() * self.layout.dtype.kind.size()) as u64;
                let extent = |run: Range<u64>| (address + run.start * row_bytes, (run.end - run.start) * row_bytes);
                extents.extend(runs(rows).into_iter().map(extent));
            }
            Storage::Chunked(grid) => {
                let tiles = Tiling { layout: &self.layout, grid, selection };
                let same = |a: &u64, b: &u64| a / grid.chunk[0] == b / grid.chunk[0];
                rows.chunk_by(same).for_each(|tile_row| tiles.extents(tile_row, extents));
            }
        }
    }

    /// Decodes `rows` (sorted, distinct, in range): ranges of them, and a row group for each.
    ///
    /// # Errors
    /// Where the file cannot be read or a chunk is damaged.
    pub(crate) fn row_groups(
        &self,
        file: &Fetched<'_>,
        rows: &[u64],
        selection: Option<&Selection>,
        workers: &Workers,
    ) -> Result<Vec<(Range<usize>, RowGroup)>> {
        let width = selection.map_or(self.n_cols(), Selection::width);
        let jobs = self.jobs(rows);
        let row_groups = workers.run(&jobs, |scratch, job| {
            let rows = &rows[job.clone()];
            if let (Some(address), None) = (self.direct_address(), selection)
                && let Some(values) = self.read_whole_rows(file, address, rows)
            {
                return Ok(RowGroup::Dense {
                    n_cols: width,
                    n_rows: rows.len(),
                    values: values?,
                    totals: Totals::OfValues,
                });
            }
            let kind = self.layout.dtype.kind;
            if selection.is_some_and(|s| s.counted().is_some()) {
                self.assemble(file, rows, None, scratch)?;
                return Ok(RowGroup::from_rows(kind, &scratch.rows, rows.len(), self.n_cols(), selection));
            }
            self.assemble(file, rows, selection, scratch)?;
            let mut values = Values::with_capacity(0);
            values.append(kind, &scratch.rows);
            let totals = if selection.is_none() { Totals::OfValues } else { Totals::Unknown };
            Ok(RowGroup::Dense { n_cols: width, n_rows: rows.len(), values, totals })
        })?;
        Ok(jobs.into_iter().zip(row_groups).collect())
    }

    /// Rows of one contiguous run, read straight into a row group; `None` for types without a vector of their own.
    fn read_whole_rows(&self, file: &Fetched<'_>, address: u64, rows: &[u64]) -> Option<Result<Values>> {
        let kind = self.layout.dtype.kind;
        let row_bytes = self.n_cols() * kind.size();
        let place = Place::new(file.path().display().to_string(), self.layout.name.clone());
        Values::filled_by(kind, rows.len() * self.n_cols(), |mut out| {
            for run in runs(rows) {
                let (now, rest) = out.split_at_mut((run.end - run.start) as usize * row_bytes);
                file.read_into(now, address + run.start * row_bytes as u64, &place)?;
                out = rest;
            }
            Ok(())
        })
    }

    /// Copies `rows` to `scratch.rows`, little-endian, wanted columns only.
    ///
    /// # Errors
    /// As [`row_groups`](Self::row_groups).
    pub(crate) fn assemble(
        &self,
        file: &Fetched<'_>,
        rows: &[u64],
        selection: Option<&Selection>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let size = self.layout.dtype.kind.size();
        let place = Place::new(file.path().display().to_string(), self.layout.name.clone());
        let width = selection.map_or(self.n_cols(), Selection::width);
        scratch.rows.clear();
        // The rows, and a copy of them in the row group.
        reserve::check((rows.len() as u64 * 2 * size as u64).saturating_mul(width as u64), || place.clone())?;
        match &self.layout.storage {
            Storage::Unallocated => self.fill(&mut scratch.rows, rows.len(), selection),
            Storage::Contiguous(address) => {
                let row_bytes = self.n_cols() * size;
                for run in runs(rows) {
                    let bytes = (run.end - run.start) as usize * row_bytes;
                    let from = address + run.start * row_bytes as u64;
                    let target = if selection.is_none() { &mut scratch.rows } else { &mut scratch.chunk };
                    let at = if selection.is_none() { target.len() } else { 0 };
                    target.resize(at + bytes, 0);
                    file.read_into(&mut target[at..], from, &place)?;
                    if let Some(selection) = selection {
                        for row in scratch.chunk.chunks_exact(row_bytes.max(1)) {
                            for column in selection.order() {
                                let value = column.map(|c| &row[c as usize * size..][..size]);
                                scratch.rows.extend_from_slice(value.unwrap_or(&[0; 8][..size]));
                            }
                        }
                    }
                }
            }
            Storage::Chunked(grid) => {
                self.fill(&mut scratch.rows, rows.len(), selection);
                let tiling = Tiling { layout: &self.layout, grid, selection };
                let tiles = Tiles { file, tiling, place: &place, width };
                let mut at = 0;
                for tile_row in rows.chunk_by(|a, b| a / grid.chunk[0] == b / grid.chunk[0]) {
                    tiles.row(tile_row, at, scratch)?;
                    at += tile_row.len();
                }
            }
        }
        to_little_endian(&mut scratch.rows, self.layout.dtype);
        Ok(())
    }

    /// Appends rows of the fill value, with zeros for gaps of the selection.
    fn fill(&self, out: &mut Vec<u8>, n_rows: usize, selection: Option<&Selection>) {
        let (fill, size) = (&self.layout.fill, self.layout.dtype.kind.size());
        if fill.iter().all(|&b| b == 0) {
            let width = selection.map_or(self.n_cols(), Selection::width);
            out.resize(out.len() + n_rows * width * size, 0);
            return;
        }
        let row: Vec<u8> = match selection {
            None => fill.repeat(self.n_cols()),
            Some(s) => s.order().flat_map(|c| if c.is_some() { fill.clone() } else { vec![0; size] }).collect(),
        };
        (0..n_rows).for_each(|_| out.extend_from_slice(&row));
    }
}

/// A tile's number in its row of tiles, and where it is stored.
type Tile = (u64, Chunk);

/// How an array is cut into tiles, and which of them are wanted.
#[derive(Clone, Copy)]
struct Tiling<'a> {
    layout: &'a ArrayLayout,
    grid: &'a ChunkGrid,
    selection: Option<&'a Selection>,
}

impl Tiling<'_> {
    /// The wanted tiles of a row of tiles that are stored: those to be decoded, and those that lie there as they are.
    fn wanted(&self, tile_row: u64) -> (Vec<Tile>, Vec<Tile>) {
        let per_row = self.grid.counts[1];
        (0..per_row)
            .filter(|&t| self.is_wanted(t))
            .filter_map(|t| self.grid.table[(tile_row * per_row + t) as usize].map(|c| (t, c)))
            .partition(|(t, _)| !self.is_plain(tile_row, *t))
    }

    /// What is read for `rows`, all of one row of tiles.
    fn extents(&self, rows: &[u64], extents: &mut Vec<Extent>) {
        let tile_row = rows[0] / self.grid.chunk[0];
        let (filtered, plain) = self.wanted(tile_row);
        extents.extend(tile_reads(&filtered).iter().map(|read| (read.address, read.len)));
        for (_, chunk) in plain {
            let rows = self.plain_rows(tile_row, rows);
            extents.extend(rows.map(|at| (chunk.address + at.start as u64, (at.end - at.start) as u64)));
        }
    }

    /// Where runs of wanted rows lie in a tile that is stored as it is, in bytes.
    fn plain_rows(&self, tile_row: u64, rows: &[u64]) -> impl Iterator<Item = Range<usize>> {
        let row_bytes = self.grid.chunk[1] as usize * self.layout.dtype.kind.size();
        let first = tile_row * self.grid.chunk[0];
        let place = move |row: u64| (row - first) as usize * row_bytes;
        runs(rows).into_iter().map(move |run| place(run.start)..place(run.end))
    }

    fn columns(&self, tile: u64) -> Range<u64> {
        let from = tile * self.grid.chunk[1];
        from..(from + self.grid.chunk[1]).min(self.layout.shape[1])
    }

    fn is_wanted(&self, tile: u64) -> bool {
        self.selection.is_none_or(|s| self.columns(tile).any(|c| s.place(c as u32).is_some()))
    }

    fn is_plain(&self, tile_row: u64, tile: u64) -> bool {
        let past = |i: u64, axis: usize| (i + 1) * self.grid.chunk[axis] > self.layout.shape[axis];
        self.grid.pipeline.is_empty() || (self.grid.plain_edges && (past(tile_row, 0) || past(tile, 1)))
    }

    fn tile_bytes(&self) -> usize {
        (self.grid.chunk[0] * self.grid.chunk[1]) as usize * self.layout.dtype.kind.size()
    }
}

fn tile_reads(tiles: &[Tile]) -> Vec<Read> {
    reads(&tiles.iter().map(|(_, c)| (c.address, c.size)).collect::<Vec<_>>())
}

/// The tiles of one row of tiles.
struct Tiles<'a> {
    file: &'a Fetched<'a>,
    tiling: Tiling<'a>,
    place: &'a Place,
    width: usize,
}

impl Tiles<'_> {
    /// Copies `rows`, all of one row of tiles, to the rows of `scratch.rows` from `at` on.
    fn row(&self, rows: &[u64], at: usize, scratch: &mut Scratch) -> Result<()> {
        let tile_row = rows[0] / self.tiling.grid.chunk[0];
        reserve::check(self.tiling.tile_bytes() as u64, || self.place.clone())?;
        let (filtered, plain) = self.tiling.wanted(tile_row);
        for read in tile_reads(&filtered) {
            let mut stored = std::mem::take(&mut scratch.stored);
            reserve::check(read.len, || self.place.clone())?;
            self.file.read(&mut stored, read.address, read.len, self.place)?;
            for &(tile, chunk) in &filtered[read.extents.clone()] {
                let from = (chunk.address - read.address) as usize;
                let stored = &stored[from..from + chunk.size as usize];
                self.decode((tile_row, tile), rows[rows.len() - 1], &chunk, stored, scratch)?;
                self.copy(tile_row, tile, rows, at, scratch);
            }
            scratch.stored = stored;
        }
        for (tile, chunk) in &plain {
            self.read_plain(tile_row, *tile, chunk, rows, scratch)?;
            self.copy(tile_row, *tile, rows, at, scratch);
        }
        Ok(())
    }

    /// Decodes the rows of a tile up to row `last` of the matrix into `scratch.chunk`.
    fn decode(
        &self,
        (tile_row, tile): (u64, u64),
        last: u64,
        chunk: &Chunk,
        stored: &[u8],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let len = self.tiling.tile_bytes();
        let wanted =
            len / self.tiling.grid.chunk[0] as usize * (last - tile_row * self.tiling.grid.chunk[0] + 1) as usize;
        let Scratch { decoder, chunk: out, .. } = scratch;
        let front = Front { stored, mask: chunk.mask, wanted, out };
        let decoded = self.tiling.grid.pipeline.decode_front(decoder, len, front);
        let decoded =
            decoded.map_err(|e| damaged_chunk(self.place, &tile_name(tile_row, tile), chunk, &e.to_string()))?;
        self.file.count_decoded(decoded);
        Ok(())
    }

    /// Reads only the runs of wanted rows, to their places in the tile.
    fn read_plain(&self, tile_row: u64, tile: u64, chunk: &Chunk, rows: &[u64], scratch: &mut Scratch) -> Result<()> {
        let bytes = self.tiling.tile_bytes();
        if chunk.size != bytes as u64 {
            let reason = format!("{} bytes; expected {bytes}", chunk.size);
            return Err(damaged_chunk(self.place, &tile_name(tile_row, tile), chunk, &reason));
        }
        scratch.chunk.resize(bytes, 0);
        self.tiling.plain_rows(tile_row, rows).try_for_each(|at| {
            let address = chunk.address + at.start as u64;
            self.file.read_into(&mut scratch.chunk[at], address, self.place)
        })
    }

    /// From the tile in `scratch.chunk` to its place in `scratch.rows`.
    fn copy(&self, tile_row: u64, tile: u64, rows: &[u64], at: usize, scratch: &mut Scratch) {
        let size = self.tiling.layout.dtype.kind.size();
        let (columns, chunk_cols) = (self.tiling.columns(tile), self.tiling.grid.chunk[1] as usize);
        let wanted: Option<Vec<(usize, usize)>> = self.tiling.selection.map(|s| {
            let places = columns.clone().enumerate();
            places.filter_map(|(from, c)| s.place(c as u32).map(|to| (from * size, to as usize * size))).collect()
        });
        for (i, &row) in rows.iter().enumerate() {
            let from = (row - tile_row * self.tiling.grid.chunk[0]) as usize * chunk_cols * size;
            let to = (at + i) * self.width * size;
            if let Some(pairs) = &wanted {
                for &(a, b) in pairs {
                    scratch.rows[to + b..to + b + size].copy_from_slice(&scratch.chunk[from + a..from + a + size]);
                }
            } else {
                let to = to + columns.start as usize * size;
                let len = (columns.end - columns.start) as usize * size;
                scratch.rows[to..to + len].copy_from_slice(&scratch.chunk[from..from + len]);
            }
        }
    }
}

fn tile_name(tile_row: u64, tile: u64) -> String {
    format!("chunk ({tile_row}, {tile})")
}
