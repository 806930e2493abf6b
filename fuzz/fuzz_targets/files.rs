//! Whole files with some bytes changed, or cut short: opening and reading them ends with an error or with rows.
//!
//! An input is two bytes of choices, then places and what is changed there. The files are those of `tests/rust/files.rs`: every
//! format in every layout. Dense and CSR batches of what was read have the same bits; a file in which nothing was changed has
//! the rows that were written. libhdf5 is built without the sanitizer: what it does with a damaged header is its own matter,
//! and stops this program only if it crashes.
#![no_main]

use std::fs;
use std::path::PathBuf;

use annfeed::internals::{Budget, CsrOut, DEFAULT_DEPTH, Matrix, Result, Wanted};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

#[allow(unreachable_pub)]
#[path = "../../tests/rust/files.rs"]
mod files;

use files::{ENOUGH, FORMATS, LAYOUTS, Table};

const N_ROWS: usize = 20;
const N_COLS: usize = 13;

/// The good files, what is in them, and the place of the damaged one.
struct Files {
    good: Vec<Vec<u8>>,
    rows: Vec<u32>,
    path: PathBuf,
    _folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let table = Table::of(N_ROWS, N_COLS);
        let every: Vec<u64> = (0..N_ROWS as u64).collect();
        let written = |format, storage| {
            let (_folder, path) = files::write(&table, format, storage);
            fs::read(path).unwrap()
        };
        let good = FORMATS.iter().flat_map(|format| LAYOUTS.map(|(_, storage)| written(format, storage))).collect();
        let folder = tempfile::tempdir().unwrap();
        Self { good, rows: bits(&table.picked(&every, None)), path: folder.path().join("x.h5ad"), _folder: folder }
    }
}

thread_local! {
    static FILES: Files = Files::new();
}

fuzz_target!(|input: &[u8]| FILES.with(|files| {
    let Some(([which, how], edits)) = input.split_first_chunk() else { return };
    let good = &files.good[usize::from(*which) % files.good.len()];
    let mut bytes = good.clone();
    for edit in edits.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        if how & 1 != 0 && edit[2] == 0 {
            bytes.truncate(place.max(1));
        } else {
            bytes[place] ^= edit[2];
        }
    }
    if has_endless_heap(&bytes) {
        return;
    }
    fs::write(&files.path, &bytes).unwrap();
    let (wanted, is_all) = if how & 2 == 0 { (Wanted::All, true) } else { (Wanted::Columns(&[12, 0, 7]), false) };
    // Starting threads takes longer than all else: few executions have any.
    let (n_threads, depth) = (1 + usize::from(how & 12 == 12), if how & 24 == 24 { DEFAULT_DEPTH } else { 0 });
    let matrix = Matrix::open(&files.path, "X", wanted, &Budget::new(ENOUGH), depth);
    let read = matrix.and_then(|matrix| read(&matrix, n_threads));
    if bytes == *good && is_all {
        assert!(read.unwrap() == files.rows, "the rows are others");
    }
}));

/// Whether libhdf5 would walk a heap of texts for ever: it adds up the sizes of objects, and that of free space (number 0), which
/// counts its header, may be 0 in a damaged file (`H5HG__cache_heap_deserialize` of HDF5 2.0 and 2.2). Found by this program.
fn has_endless_heap(bytes: &[u8]) -> bool {
    // A damaged superblock may say that sizes have fewer bytes.
    let heaps = bytes.windows(4).enumerate().filter(|(_, word)| word == b"GCOL").map(|(start, _)| &bytes[start..]);
    heaps.flat_map(|heap| [2, 4, 8].map(|width| (heap, width))).any(|(heap, width)| {
        let number = |place: usize, width: usize| {
            let field = heap.get(place..place + width)?;
            Some(field.iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte)))
        };
        let end = number(8, width).map_or(0, |size| size.min(heap.len() as u64)) as usize;
        let mut place = 16;
        while place + 16 <= end {
            let Some((index, size)) = number(place, 2).zip(number(place + 8, width)) else { return false };
            let length = if index == 0 { size } else { (size.wrapping_add(7) / 8 * 8).wrapping_add(16) }; // as in C
            if length == 0 {
                return true;
            }
            place = place.saturating_add(length.min(1 << 32) as usize);
        }
        false
    })
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The bits of all rows, or of as many as there seem to be now.
fn read(matrix: &Matrix, n_threads: usize) -> Result<Vec<u32>> {
    let rows: Vec<u64> = (0..matrix.shape()[0].min(N_ROWS as u64)).collect();
    let block = matrix.read(&rows, &files::threads(n_threads))?;
    let n_cols = block.n_cols();
    assert_eq!(block.n_rows(), rows.len());
    if n_cols > 1 << 16 {
        return Ok(Vec::new());
    }
    let positions: Vec<i64> = (0..rows.len() as i64).collect();
    let mut dense = vec![f32::NAN; rows.len() * n_cols];
    block.dense(&positions, &mut dense, n_threads)?;
    let nnz = block.nnz(&positions);
    let (mut indptr, mut indices, mut data) = (vec![-1; rows.len() + 1], vec![-1; nnz], vec![f32::NAN; nnz]);
    block.csr(&positions, CsrOut { indptr: &mut indptr, indices: &mut indices, data: &mut data })?;
    let mut filled = vec![0.0; dense.len()];
    for (row, span) in indptr.windows(2).enumerate() {
        for i in span[0] as usize..span[1] as usize {
            filled[row * n_cols + indices[i] as usize] = data[i];
        }
    }
    let (dense, filled) = (bits(&dense), bits(&filled));
    assert!(dense.iter().zip(&filled).all(|(a, b)| a == b || (a | b) == 1 << 31), "CSR and dense rows differ");
    Ok(dense)
}
