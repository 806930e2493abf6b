//! From rows to element spans, from spans to chunks, from chunks to reads: pure arithmetic, no I/O.
//!
//! Rows are sorted and distinct here, so all reads are in file order.

use std::ops::Range;

/// Reads with a smaller gap are merged: to read the gap costs less than a second call.
const MAX_GAP: u64 = 64 << 10;
/// Most bytes of a merged read, unless one chunk is longer.
const MAX_READ: u64 = 512 << 10;

/// Sorted rows as runs of neighbours.
#[must_use]
pub fn runs(rows: &[u64]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for &row in rows {
        match runs.last_mut() {
            Some(run) if run.end == row => run.end = row + 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}

/// Cuts sorted rows into jobs of about `target` chunks each; only the tail of a row is decoded twice at a cut.
///
/// `first_chunk` gives the chunk in which a row begins. Rows that begin in one chunk stay in one job.
#[must_use]
pub fn jobs(rows: &[u64], first_chunk: impl Fn(u64) -> u64, target: u64) -> Vec<Range<usize>> {
    let mut jobs = Vec::new();
    let (mut from, mut touched, mut last) = (0, 0u64, None);
    for (i, &row) in rows.iter().enumerate() {
        let chunk = first_chunk(row);
        if last != Some(chunk) {
            if touched >= target.max(1) {
                jobs.push(from..i);
                (from, touched) = (i, 0);
            }
            touched += 1;
            last = Some(chunk);
        }
    }
    if from < rows.len() {
        jobs.push(from..rows.len());
    }
    jobs
}

/// A wanted part of one chunk, in elements from the chunk's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which chunk.
    pub chunk: u64,
    /// First element wanted.
    pub from: u64,
    /// One past the last.
    pub to: u64,
}

/// Sorted element spans, cut at chunk borders.
#[must_use]
pub fn pieces(spans: &[Range<u64>], chunk_len: u64) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(spans.len());
    for span in spans {
        let mut at = span.start;
        while at < span.end {
            let chunk = at / chunk_len;
            let end = span.end.min((chunk + 1) * chunk_len);
            pieces.push(Piece { chunk, from: at - chunk * chunk_len, to: end - chunk * chunk_len });
            at = end;
        }
    }
    pieces
}

/// One `pread` that covers several stored extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// First byte in the file.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// Which of the extents it covers.
    pub extents: Range<usize>,
}

/// Merges extents (address, size) that follow each other in the file, in the order given.
#[must_use]
pub fn reads(extents: &[(u64, u64)]) -> Vec<Read> {
    let mut reads: Vec<Read> = Vec::new();
    for (i, &(address, size)) in extents.iter().enumerate() {
        if let Some(read) = reads.last_mut() {
            let end = read.address + read.len;
            let merged = (address + size).saturating_sub(read.address);
            if address >= end && address - end <= MAX_GAP && merged <= MAX_READ {
                (read.len, read.extents.end) = (merged, i + 1);
                continue;
            }
        }
        reads.push(Read { address, len: size, extents: i..i + 1 });
    }
    reads
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_make_runs() {
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [1..4, 7..8, 9..11]);
        assert!(runs(&[]).is_empty());
    }

    #[test]
    fn jobs_are_cut_only_between_chunks() {
        // Ten rows to a chunk, two chunks to a job.
        let rows: Vec<u64> = (0..60).collect();
        assert_eq!(jobs(&rows, |r| r / 10, 2), [0..20, 20..40, 40..60]);
        assert_eq!(jobs(&[3, 4, 25, 26, 59], |r| r / 10, 1), [0..2, 2..4, 4..5]);
        assert_eq!(jobs(&rows, |_| 0, 1), [0..60], "one chunk is one job");
    }

    #[test]
    fn spans_are_cut_at_chunk_borders() {
        let p = |chunk, from, to| Piece { chunk, from, to };
        assert_eq!(pieces(&[2..5, 8..21], 10), [p(0, 2, 5), p(0, 8, 10), p(1, 0, 10), p(2, 0, 1)]);
        assert!(pieces(&[4..4], 10).is_empty());
    }

    #[test]
    fn near_extents_are_read_together() {
        let r = |address, len, extents| Read { address, len, extents };
        assert_eq!(reads(&[(0, 10), (10, 10), (30, 5)]), [r(0, 35, 0..3)]);
        assert_eq!(reads(&[(0, 10), (MAX_GAP + 11, 10)]), [r(0, 10, 0..1), r(MAX_GAP + 11, 10, 1..2)]);
        assert_eq!(reads(&[(100, 10), (0, 10)]), [r(100, 10, 0..1), r(0, 10, 1..2)], "never backwards");
        assert_eq!(reads(&[(0, MAX_READ + 1), (MAX_READ + 1, 1)]).len(), 2);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_spans_exactly(gaps in proptest::collection::vec((0u64..30, 0u64..30), 0..40), chunk in 1u64..17) {
            let mut at = 0;
            let spans: Vec<_> = gaps.iter().map(|&(gap, len)| { let s = at + gap; at = s + len; s..at }).collect();
            let wanted: Vec<u64> = spans.iter().cloned().flatten().collect();
            let got: Vec<u64> = pieces(&spans, chunk).iter()
                .flat_map(|p| { assert!(p.to <= chunk); p.chunk * chunk + p.from..p.chunk * chunk + p.to }).collect();
            prop_assert_eq!(got, wanted);
        }
    }
}
