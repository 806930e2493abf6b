//! The yardstick: how fast this machine can inflate a gzip CSR file in file order when nothing else is asked for.
//!
//! `cargo bench --bench limit -- FILE THREADS MODE`, with a mode of `inflate`, `csr`, `genes` (2,000 of them, dense) or
//! `dense`. Each thread takes a stretch of rows, inflates each chunk of it once with libdeflate, and writes its rows into
//! buffers that it uses again: no plan, no batches, no checks, no order. Prints a line of JSON. Without a file it does
//! nothing, so that a plain `cargo bench` passes by.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Instant;

use annfeed::internals::{ArrayLayout, Chunk, Kind, MatrixLayout, Storage};
use libdeflater::Decompressor;

type Failure = Box<dyn Error + Send + Sync>;

/// Rows of the dense buffer that is written over and over.
const BATCH: usize = 128;
/// Genes of the narrow dense mode.
const GENES: usize = 2_000;
const UNWANTED: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Inflate,
    Csr,
    Genes,
    Dense,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [path, threads, mode] = arguments.as_slice() else {
        eprintln!("limit: give FILE THREADS MODE (inflate, csr, genes, dense)");
        return Ok(());
    };
    let mode = match mode.as_str() {
        "inflate" => Mode::Inflate,
        "csr" => Mode::Csr,
        "genes" => Mode::Genes,
        "dense" => Mode::Dense,
        other => return Err(format!("no such mode: {other}").into()),
    };
    let matrix = Matrix::open(Path::new(path))?;
    let (rows, threads) = (matrix.indptr.len() - 1, threads.parse::<usize>()?.max(1));
    let start = Instant::now();
    let sums = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|i| {
                let (matrix, rows) = (&matrix, rows * i / threads..rows * (i + 1) / threads);
                scope.spawn(move || matrix.stream(rows, mode))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    let sums: Result<Vec<u64>, Failure> = sums;
    let (sum, seconds) = (sums?.iter().sum::<u64>(), start.elapsed().as_secs_f64());
    println!("{{\"cells\": {rows}, \"seconds\": {seconds:.6}, \"values\": {sum}}}");
    Ok(())
}

/// A CSR matrix of float32 and int32, each filtered with deflate alone.
struct Matrix {
    file: File,
    data: Chunks,
    indices: Chunks,
    indptr: Vec<u64>,
    n_cols: usize,
}

struct Chunks {
    table: Vec<Chunk>,
    len: usize,
}

impl Matrix {
    fn open(path: &Path) -> Result<Self, Failure> {
        let MatrixLayout::Csr(layout) = annfeed::internals::layout(path, "X")? else {
            return Err("X is not CSR".into());
        };
        if (layout.data.dtype.kind, layout.indices.dtype.kind) != (Kind::F32, Kind::I32) {
            return Err("X is not of float32 and int32".into());
        }
        let handle = hdf5::File::open(path)?;
        let indptr = handle.dataset("X/indptr")?.read_raw::<u64>()?;
        let (data, indices) = (Chunks::of(&layout.data)?, Chunks::of(&layout.indices)?);
        Ok(Self { file: File::open(path)?, data, indices, indptr, n_cols: layout.shape[1] as usize })
    }

    /// Goes through `rows` once; returns how many values there were.
    fn stream(&self, rows: Range<usize>, mode: Mode) -> Result<u64, Failure> {
        let (mut data, mut indices) = (Inflated::new(&self.data), Inflated::new(&self.indices));
        let place = self.places(mode);
        let width = if mode == Mode::Genes { GENES } else { self.n_cols };
        let mut dense = if matches!(mode, Mode::Genes | Mode::Dense) { vec![0_f32; BATCH * width] } else { Vec::new() };
        let (mut values, mut columns) = (Vec::<f32>::new(), Vec::<i32>::new());
        let mut seen = 0;
        for (i, row) in rows.enumerate() {
            if i % BATCH == 0 {
                dense.fill(0.0);
                black_box(&mut dense);
                black_box((&mut values, &mut columns));
                values.clear();
                columns.clear();
            }
            let (mut at, end) = (self.indptr[row], self.indptr[row + 1]);
            while at < end {
                let (v, c) = (data.from(&self.file, at)?, indices.from(&self.file, at)?);
                let n = v.len().min(c.len()).min((end - at) as usize);
                let (v, c) = (&v[..n], &c[..n]);
                match mode {
                    Mode::Inflate => {}
                    Mode::Csr => {
                        values.extend(v.iter().map(|&v| f32::from_le_bytes(v)));
                        columns.extend(c.iter().map(|&c| i32::from_le_bytes(c)));
                    }
                    Mode::Dense => {
                        let out = &mut dense[i % BATCH * width..][..width];
                        v.iter()
                            .zip(c)
                            .for_each(|(&v, &c)| out[u32::from_le_bytes(c) as usize] = f32::from_le_bytes(v));
                    }
                    Mode::Genes => {
                        let out = &mut dense[i % BATCH * width..][..width];
                        for (&v, &c) in v.iter().zip(c) {
                            let to = place[u32::from_le_bytes(c) as usize];
                            if to != UNWANTED {
                                out[to as usize] = f32::from_le_bytes(v);
                            }
                        }
                    }
                }
                at += n as u64;
                seen += n as u64;
            }
        }
        Ok(seen)
    }

    /// Where each column goes in the narrow mode.
    fn places(&self, mode: Mode) -> Vec<u32> {
        let mut place = vec![UNWANTED; if mode == Mode::Genes { self.n_cols } else { 0 }];
        let step = (self.n_cols / GENES).max(1);
        for (to, slot) in place.iter_mut().step_by(step).take(GENES).enumerate() {
            *slot = to as u32;
        }
        place
    }
}

impl Chunks {
    fn of(array: &ArrayLayout) -> Result<Self, Failure> {
        let Storage::Chunked(grid) = &array.storage else { return Err("X is not chunked".into()) };
        let table: Option<Vec<Chunk>> = grid.table.iter().copied().collect();
        let table = table.ok_or("a chunk is missing")?;
        Ok(Self { table, len: grid.chunk[0] as usize })
    }
}

/// The chunk at hand, inflated.
struct Inflated<'a> {
    chunks: &'a Chunks,
    decompressor: Decompressor,
    stored: Vec<u8>,
    bytes: Vec<[u8; 4]>,
    current: Option<usize>,
}

impl<'a> Inflated<'a> {
    fn new(chunks: &'a Chunks) -> Self {
        let bytes = vec![[0; 4]; chunks.len];
        Self { chunks, decompressor: Decompressor::new(), stored: Vec::new(), bytes, current: None }
    }

    /// What the chunk with `element` holds from there on.
    fn from(&mut self, file: &File, element: u64) -> Result<&[[u8; 4]], Failure> {
        let chunk = element as usize / self.chunks.len;
        if self.current != Some(chunk) {
            let Chunk { address, size, .. } = self.chunks.table[chunk];
            self.stored.resize(size as usize, 0);
            file.read_exact_at(&mut self.stored, address)?;
            self.decompressor.zlib_decompress(&self.stored, self.bytes.as_flattened_mut())?;
            self.current = Some(chunk);
        }
        Ok(&self.bytes[element as usize % self.chunks.len..])
    }
}
