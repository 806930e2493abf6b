//! The inflater beside libdeflate, on one core: pairs of chunks of column indices and of values, whole and cut.
//!
//! `cargo bench --bench inflate -- [ROUNDS] [FILE ...]`: chunks of each file's X (gzip without byte shuffle; CSR, or dense,
//! whose chunks are values), or without a file of made-up counts of 30,000 genes. The bytes are compared first. Both take
//! turns, round after round; a ratio is of one round, and the median of all rounds is printed. Time is that of the processor
//! in this thread, so other programs disturb little.
//!
//! Chunks are many: of one chunk, again and again, the processor learns by heart which way libdeflate's branches go.

mod made_up;

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use annfeed::internals::{ArrayLayout, Decoder, Filter, Front, MatrixLayout, Pipeline, Storage};
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use made_up::{ELEMENTS, indices, values};
use rustix::time::{ClockId, clock_gettime};

type Failure = Box<dyn Error>;

/// Chunks of one kind: more than the processor remembers of them.
const CHUNKS: usize = 48;
const ROUNDS: usize = 15;

fn main() -> Result<(), Failure> {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rounds = arguments.first().and_then(|first| first.parse().ok());
    if rounds.is_some() {
        arguments.remove(0);
    }
    let rounds = rounds.unwrap_or(ROUNDS).max(1);
    println!("| chunks | each | libdeflate, MB/s | pairs / libdeflate | first quarters in pairs / libdeflate, whole |");
    println!("|---|--:|--:|--:|--:|");
    if arguments.is_empty() {
        Chunks::made_up("made-up indices", indices, libdeflate)?.run(rounds)?;
        Chunks::made_up("made-up values", values, zlib)?.run(rounds)?;
    }
    for path in &arguments {
        let arrays = match annfeed::internals::layout(Path::new(path), "X")? {
            MatrixLayout::Csr(csr) => vec![("indices", csr.indices), ("values", csr.data)],
            MatrixLayout::Csc(csc) => vec![("indices", csc.indices), ("values", csc.data)],
            MatrixLayout::Dense(dense) => vec![("dense", dense)],
        };
        let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
        for (what, array) in arrays {
            Chunks::of(&format!("{stem}: {what}"), path, &array)?.run(rounds)?;
        }
    }
    Ok(())
}

/// Chunks as stored, all of one length.
struct Chunks {
    name: String,
    stored: Vec<Vec<u8>>,
    len: usize,
}

impl Chunks {
    /// Chunks of a dataset, from all over it.
    fn of(name: &str, path: &str, array: &ArrayLayout) -> Result<Self, Failure> {
        let Storage::Chunked(grid) = &array.storage else { return Err(format!("{name}: not chunked").into()) };
        if grid.pipeline != Pipeline::new(vec![Filter::Deflate]) {
            return Err(format!("{name}: not gzip alone").into());
        }
        let file = File::open(path)?;
        let mut stored = Vec::new();
        let step = grid.table.len().div_ceil(CHUNKS).max(1);
        for chunk in grid.table.iter().step_by(step).copied().flatten() {
            let mut bytes = vec![0; chunk.size as usize];
            file.read_exact_at(&mut bytes, chunk.address)?;
            stored.push(bytes);
        }
        // In pairs.
        stored.truncate(stored.len() / 2 * 2);
        let len = grid.chunk.iter().product::<u64>() as usize * array.fill.len();
        Ok(Self { name: name.to_owned(), stored, len })
    }

    fn made_up(name: &str, make: fn(u64) -> Vec<u8>, compress: Compress) -> Result<Self, Failure> {
        let stored = (0..CHUNKS).map(|seed| compress(&make(seed as u64))).collect::<Result<_, _>>()?;
        Ok(Self { name: name.to_owned(), stored, len: ELEMENTS * 4 })
    }

    fn run(&self, rounds: usize) -> Result<(), Failure> {
        let Self { name, stored, len } = self;
        if stored.is_empty() {
            println!("| {name} | none | | | |");
            return Ok(());
        }
        let (mut libdeflate, mut decoder) = (Decompressor::new(), Decoder::new());
        let pipeline = Pipeline::new(vec![Filter::Deflate]);
        let (mut out, mut their_out) = ([Vec::new(), Vec::new()], [vec![0; *len], vec![0; *len]]);
        let mut decode_pairs = |out: &mut [Vec<u8>; 2], wanted: usize, check: &mut dyn FnMut(usize, &[u8]) -> bool| {
            for (i, pair) in stored.chunks_exact(2).enumerate() {
                let [one, two] = &mut *out;
                let front = |stored, out| Front { stored: black_box(stored), mask: 0, wanted, out };
                let fronts = [front(&pair[0][..], one), front(&pair[1][..], two)];
                for (which, decoded) in pipeline.decode_two_fronts(&mut decoder, *len, fronts).into_iter().enumerate() {
                    if !check(2 * i + which, &out[which][..decoded?.min(wanted)]) {
                        return Err(format!("{name}: wrong bytes").into());
                    }
                }
            }
            Ok::<_, Failure>(())
        };
        // Every byte, before anything is timed.
        for wanted in [*len, len / 4] {
            let whole = &mut their_out[0];
            decode_pairs(&mut out, wanted, &mut |i, bytes| {
                let there = libdeflate.zlib_decompress(&stored[i], whole);
                there == Ok(*len) && bytes == &whole[..wanted]
            })?;
        }
        let (mut whole, mut cut, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = seconds();
            for (i, stored) in stored.iter().enumerate() {
                libdeflate.zlib_decompress(black_box(stored), &mut their_out[i % 2])?;
            }
            let theirs = seconds() - start;
            let mut time = |wanted: usize| {
                let start = seconds();
                decode_pairs(&mut out, wanted, &mut |_, _| true)?;
                Ok::<_, Failure>(seconds() - start)
            };
            whole.push(theirs / time(*len)?);
            cut.push(theirs / time(len / 4)?);
            rates.push((len * stored.len()) as f64 / theirs / 1e6);
        }
        let [whole, cut, rate] = [whole, cut, rates].map(median);
        println!("| {name} | {} of {len} bytes | {rate:.0} | {whole:.2} | {cut:.2} |", stored.len());
        Ok(())
    }
}

type Compress = fn(&[u8]) -> Result<Vec<u8>, Failure>;

/// libdeflate finds the short matches of indices as zlib does, the writer of files; zlib-rs at level 4 does not.
fn libdeflate(data: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut stored = vec![0; compressor.zlib_compress_bound(data.len())];
    let len = compressor.zlib_compress(data, &mut stored)?;
    stored.truncate(len);
    Ok(stored)
}

/// gzip 4, h5py's default.
fn zlib(data: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(4));
    encoder.write_all(data)?;
    Ok(encoder.finish()?)
}

/// The processor's time in this thread.
fn seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
