//! Matrices in plain rows, files that hold them in every layout, and what `Matrix` reads of them.

#![allow(dead_code, clippy::struct_excessive_bools, clippy::missing_panics_doc)]

use std::path::{Path, PathBuf};

use annfeed::internals::{Budget, CsrOut, DEFAULT_DEPTH, Matrix, Result, Wanted, Workers};
use hdf5::plist::dataset_create::{AllocTime, ChunkOpts};
use hdf5::types::VarLenUnicode;
use hdf5::{File, Group, H5Type};
use tempfile::TempDir;

pub(crate) const ENOUGH: u64 = 1 << 30;

/// A matrix in plain rows, and how a file keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) n_cols: usize,
    pub(crate) rows: Vec<Vec<f32>>,
}

/// How every array of a file is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Storage {
    pub(crate) chunk: Option<usize>,
    pub(crate) shuffle: bool,
    pub(crate) deflate: Option<u8>,
    pub(crate) fletcher32: bool,
    pub(crate) plain_edges: bool,
    pub(crate) early: bool,
    pub(crate) latest: bool,
}

pub(crate) const PLAIN: Storage = Storage {
    chunk: None,
    shuffle: false,
    deflate: None,
    fletcher32: false,
    plain_edges: false,
    early: false,
    latest: false,
};
pub(crate) const GZIP: Storage = Storage { chunk: Some(50), deflate: Some(4), ..PLAIN };

pub(crate) const LAYOUTS: [(&str, Storage); 9] = [
    ("contiguous", PLAIN),
    ("chunks", Storage { chunk: Some(7), ..PLAIN }),
    ("early", Storage { chunk: Some(7), early: true, latest: true, ..PLAIN }),
    ("gzip", GZIP),
    ("one chunk", Storage { chunk: Some(100_000), deflate: Some(9), ..PLAIN }),
    ("tiny chunks", Storage { chunk: Some(1), deflate: Some(1), latest: true, ..PLAIN }),
    ("shuffle", Storage { shuffle: true, ..GZIP }),
    ("all filters", Storage { shuffle: true, fletcher32: true, ..GZIP }),
    ("plain edges", Storage { plain_edges: true, latest: true, ..GZIP }),
];

impl Table {
    /// Counts, about one in three not zero, by a rule that is easy to follow.
    pub(crate) fn of(n_rows: usize, n_cols: usize) -> Self {
        let value = |i: usize| if i.is_multiple_of(3) { (i % 251) as f32 } else { 0.0 };
        Self { n_cols, rows: (0..n_rows).map(|r| (0..n_cols).map(|c| value(r * 7 + c * 5)).collect()).collect() }
    }

    pub(crate) fn transposed(&self) -> Self {
        let column = |c: usize| self.rows.iter().map(|row| row[c]).collect();
        Self { n_cols: self.rows.len(), rows: (0..self.n_cols).map(column).collect() }
    }

    pub(crate) fn compressed(&self) -> (Vec<f32>, Vec<i32>, Vec<i64>) {
        let (mut data, mut indices, mut indptr) = (Vec::new(), Vec::new(), vec![0]);
        for row in &self.rows {
            for (c, &x) in row.iter().enumerate().filter(|(_, x)| **x != 0.0) {
                data.push(x);
                indices.push(c as i32);
            }
            indptr.push(data.len() as i64);
        }
        (data, indices, indptr)
    }

    pub(crate) fn picked(&self, rows: &[u64], columns: Option<&[i64]>) -> Vec<f32> {
        let every: Vec<i64> = (0..self.n_cols as i64).collect();
        let columns = columns.unwrap_or(&every);
        let value = |row: &[f32], column: i64| usize::try_from(column).map_or(0.0, |column| row[column]);
        rows.iter().flat_map(|&r| columns.iter().map(move |&c| value(&self.rows[r as usize], c))).collect()
    }
}

pub(crate) fn create(path: &Path, storage: Storage) -> File {
    let options = File::with_options();
    let created = if storage.latest {
        options.clone().with_fapl(hdf5::plist::file_access::FileAccessBuilder::libver_latest).create(path)
    } else {
        options.create(path)
    };
    created.unwrap()
}

pub(crate) fn put<T: H5Type>(group: &Group, name: &str, values: &[T], shape: &[usize], storage: Storage) {
    let mut builder = group.new_dataset_builder();
    if let Some(chunk) = storage.chunk {
        // A square tile where there are two axes, and never longer than an axis.
        let side = if shape.len() == 1 { chunk } else { (chunk as f64).sqrt().ceil() as usize };
        builder = builder.chunk(shape.iter().map(|&n| side.min(n).max(1)).collect::<Vec<_>>());
        if storage.shuffle {
            builder = builder.shuffle();
        }
        if let Some(level) = storage.deflate {
            builder = builder.deflate(level);
        }
        if storage.fletcher32 {
            builder = builder.fletcher32();
        }
        if storage.plain_edges {
            builder = builder.chunk_opts(ChunkOpts::DONT_FILTER_PARTIAL_CHUNKS);
        }
    }
    if storage.early {
        builder = builder.alloc_time(Some(AllocTime::Early));
    }
    let dataset = builder.empty::<T>().shape(shape.to_vec()).create(name).unwrap();
    if !values.is_empty() {
        dataset.write_raw(values).unwrap();
    }
}

pub(crate) fn text(group: &hdf5::Location, name: &str, value: &str) {
    let value: VarLenUnicode = value.parse().unwrap();
    group.new_attr::<VarLenUnicode>().create(name).unwrap().write_scalar(&value).unwrap();
}

pub(crate) fn put_sparse(
    file: &File,
    format: &str,
    shape: [usize; 2],
    parts: &(Vec<f32>, Vec<i32>, Vec<i64>),
    storage: Storage,
) {
    let group = file.create_group("X").unwrap();
    text(&group, "encoding-type", format);
    let shape = shape.map(|n| n as i64);
    group.new_attr_builder().with_data(&shape).create("shape").unwrap();
    put(&group, "data", &parts.0, &[parts.0.len()], storage);
    put(&group, "indices", &parts.1, &[parts.1.len()], storage);
    put(&group, "indptr", &parts.2, &[parts.2.len()], storage);
}

/// As Cell Ranger does: without attributes, with barcodes, and the columns of each row in no order.
fn put_tenx(
    file: &File,
    [n_rows, n_cols]: [usize; 2],
    (data, indices, indptr): &(Vec<f32>, Vec<i32>, Vec<i64>),
    storage: Storage,
) {
    let (mut data, mut indices) = (data.clone(), indices.clone());
    for row in indptr.windows(2).map(|w| w[0] as usize..w[1] as usize) {
        data[row.clone()].reverse();
        indices[row].reverse();
    }
    let group = file.create_group("X").unwrap();
    put(&group, "data", &data, &[data.len()], storage);
    put(&group, "indices", &indices, &[indices.len()], storage);
    put(&group, "indptr", indptr, &[indptr.len()], storage);
    put(&group, "shape", &[n_cols as i32, n_rows as i32], &[2], PLAIN);
    put(&group, "barcodes", &vec![0u8; n_rows], &[n_rows], storage);
}

/// Writes `table` as `format`; the file lives as long as the folder that comes with it.
pub(crate) fn write(table: &Table, format: &str, storage: Storage) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5ad");
    let file = create(&path, storage);
    let shape = [table.rows.len(), table.n_cols];
    match format {
        "dense" => put(&file, "X", &table.rows.concat(), &shape, storage),
        "csr_matrix" => put_sparse(&file, format, shape, &table.compressed(), storage),
        "tenx" => put_tenx(&file, shape, &table.compressed(), storage),
        _ => put_sparse(&file, format, shape, &table.transposed().compressed(), storage),
    }
    file.close().unwrap();
    (folder, path)
}

pub(crate) fn threads(n: usize) -> Workers<'static> {
    Workers { threads: n, interrupted: &|| false }
}

pub(crate) fn open(path: &Path, columns: Option<&[i64]>, budget: u64) -> Result<Matrix> {
    Matrix::open(path, "X", columns.map_or(Wanted::All, Wanted::Columns), &Budget::new(budget), DEFAULT_DEPTH)
}

/// The rows, dense; and the same through CSR.
pub(crate) fn read(matrix: &Matrix, rows: &[u64], n_threads: usize) -> Result<Vec<f32>> {
    let block = matrix.read(rows, &threads(n_threads))?;
    assert_eq!(block.n_rows(), rows.len());
    let positions: Vec<i64> = (0..rows.len() as i64).collect();
    let mut dense = vec![f32::NAN; rows.len() * block.n_cols()];
    assert_eq!(block.dense(&positions, &mut dense, n_threads)?, None, "nothing is rounded");

    let nnz = block.nnz(&positions);
    let (mut indptr, mut indices, mut data) = (vec![-1; rows.len() + 1], vec![-1; nnz], vec![f32::NAN; nnz]);
    let out = CsrOut { indptr: &mut indptr, indices: &mut indices, data: &mut data };
    assert_eq!(block.csr(&positions, out)?, None, "nothing is rounded");
    let mut filled = vec![0.0; dense.len()];
    for (row, span) in indptr.windows(2).enumerate() {
        let span = span[0] as usize..span[1] as usize;
        assert!(indices[span.clone()].windows(2).all(|w| w[0] < w[1]), "sorted and distinct");
        for i in span {
            filled[row * block.n_cols() + indices[i] as usize] = data[i];
        }
    }
    assert_eq!(filled, dense);
    Ok(dense)
}

pub(crate) const FORMATS: [&str; 4] = ["csr_matrix", "csc_matrix", "dense", "tenx"];
