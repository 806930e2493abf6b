//! An array of a file, read stretch by stretch, as it is stored: the same type, the same byte order.

use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::dtype::NumType;
use crate::error::Result;
use crate::file::{DEFAULT_DEPTH, DataFile, Fetched};
use crate::h5::open_array;
use crate::layout::{ArrayLayout, Storage};
use crate::matrix::dense::DenseMatrix;
use crate::matrix::spans::{extents_of, read_spans, to_little_endian};
use crate::threads::jobs::{Scratch, Workers};

/// Bytes that one job reads, at least: chunks are inflated two at a time.
const JOB_BYTES: u64 = 256 << 10;

/// A one- or two-dimensional array in an open file.
pub(crate) struct StoredArray {
    file: DataFile,
    kind: Axes,
}

enum Axes {
    One(ArrayLayout),
    Two(DenseMatrix),
}

impl StoredArray {
    /// Opens the array at `name`.
    ///
    /// # Errors
    /// Where the file or the array cannot be read by this crate.
    pub(crate) fn open(path: &Path, name: &str) -> Result<Self> {
        let file = DataFile::open(path, DEFAULT_DEPTH)?;
        let layout = open_array(&file, name)?;
        file.check_unchanged()?;
        let kind = match layout.shape.len() {
            1 => Axes::One(layout),
            2 => Axes::Two(DenseMatrix::new(layout)),
            n => {
                return Err(crate::error::Place::new(path.display().to_string(), name).unsupported(format!("{n} axes")));
            }
        };
        Ok(Self { file, kind })
    }

    pub(crate) fn layout(&self) -> &ArrayLayout {
        match &self.kind {
            Axes::One(layout) => layout,
            Axes::Two(matrix) => matrix.layout(),
        }
    }

    /// Bytes of one step along the first axis.
    #[must_use]
    pub(crate) fn step_bytes(&self) -> usize {
        let layout = self.layout();
        layout.shape[1..].iter().product::<u64>() as usize * layout.dtype.kind.size()
    }

    /// Elements along the first axis that are decoded together.
    #[must_use]
    pub(crate) fn unit(&self) -> u64 {
        match &self.layout().storage {
            Storage::Chunked(grid) => grid.chunk[0],
            Storage::Contiguous(_) | Storage::Unallocated => 1,
        }
    }

    /// Reads `range` of the first axis into `out`.
    ///
    /// # Errors
    /// Where the file changed, cannot be read or is damaged, or the workers are interrupted.
    ///
    /// # Panics
    /// Where `range` is not within the array or `out` is not as long as that.
    pub(crate) fn read(&self, range: Range<u64>, out: &mut [u8], workers: &Workers) -> Result<()> {
        let step = self.step_bytes();
        assert!(range.end <= self.layout().shape[0], "the range is within the array");
        assert_eq!(out.len(), (range.end - range.start) as usize * step, "out is as long as the range");
        self.file.check_unchanged()?;
        let unit = self.unit();
        let per_job = JOB_BYTES.div_ceil(unit * step.max(1) as u64).next_multiple_of(2) * unit;
        let mut jobs = Vec::new();
        let (mut at, mut rest) = (range.start, out);
        while at < range.end {
            let end = ((at / per_job + 1) * per_job).min(range.end);
            let (now, later) = rest.split_at_mut((end - at) as usize * step);
            jobs.push((at..end, Mutex::new(now)));
            (at, rest) = (end, later);
        }
        let file = self.file.fetched(None, || {
            let mut extents = Vec::new();
            for (range, _) in &jobs {
                match &self.kind {
                    Axes::One(layout) => extents_of(layout, std::slice::from_ref(range), &mut extents),
                    Axes::Two(matrix) => matrix.extents_of(&range.clone().collect::<Vec<_>>(), None, &mut extents),
                }
            }
            extents
        });
        workers.run(&jobs, |scratch, (range, out)| {
            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
            self.read_job(&file, range.clone(), &mut out, scratch)
        })?;
        Ok(())
    }

    fn read_job(&self, file: &Fetched<'_>, range: Range<u64>, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        match &self.kind {
            Axes::One(layout) => {
                let mut at = 0;
                #[allow(clippy::single_range_in_vec_init)]
                read_spans(file, layout, &[range], scratch, &mut |bytes| {
                    out[at..at + bytes.len()].copy_from_slice(bytes);
                    at += bytes.len();
                    Ok(())
                })?;
            }
            Axes::Two(matrix) => {
                let rows: Vec<u64> = range.collect();
                matrix.assemble(file, &rows, None, scratch)?;
                out.copy_from_slice(&scratch.rows);
            }
        }
        as_stored(out, self.layout().dtype);
        Ok(())
    }
}

/// Back from little-endian to the byte order of the file.
fn as_stored(bytes: &mut [u8], dtype: NumType) {
    // Turning elements round is its own inverse.
    to_little_endian(bytes, dtype);
}
