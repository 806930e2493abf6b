//! How fast each filter is undone, in bytes of the decoded chunk.
//!
//! The chunks are those of a CSR matrix of counts as h5py writes it: 41,754 values (float32) or column indices (int32).
//! Every decoder is checked against the data before it is timed.

mod made_up;

use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

use annfeed::internals::{Decoder, Filter, Pipeline};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use made_up::{indices, values};

fn decode(criterion: &mut Criterion) {
    let mut decoder = Decoder::new();
    let shuffle = || Filter::Shuffle { element_size: 4 };
    for (what, data) in [("values", values(1)), ("indices", indices(2))] {
        let mut group = criterion.benchmark_group(format!("decode {what}"));
        group.throughput(Throughput::Bytes(data.len() as u64));
        for (name, filters) in [
            ("plain", vec![]),
            ("deflate", vec![Filter::Deflate]),
            ("shuffle", vec![shuffle()]),
            ("shuffle + deflate", vec![shuffle(), Filter::Deflate]),
            ("fletcher32", vec![Filter::Fletcher32]),
            ("lzf", vec![Filter::Lzf]),
            ("lz4", vec![Filter::Lz4]),
            ("zstd", vec![Filter::Zstd]),
        ] {
            let stored = filters.iter().fold(data.clone(), |data, filter| encode(filter, &data));
            let pipeline = Pipeline::new(filters);
            let mut out = vec![0; data.len()];
            let mut run = |out: &mut [u8]| {
                let result = pipeline.decode(&mut decoder, black_box(&stored), 0, out);
                assert_eq!(result, Ok(()), "{name}");
            };
            run(&mut out);
            assert!(out == data, "{name}: wrong bytes");
            group.bench_function(name, |bencher| bencher.iter(|| run(black_box(&mut out))));
        }
    }
}

/// The other element sizes, in cache.
fn unshuffle(criterion: &mut Criterion) {
    let mut decoder = Decoder::new();
    let data = indices(2);
    let mut group = criterion.benchmark_group("unshuffle");
    group.throughput(Throughput::Bytes(data.len() as u64));
    for element_size in [2, 3, 4, 8] {
        let filter = Filter::Shuffle { element_size };
        let stored = encode(&filter, &data);
        let pipeline = Pipeline::new(vec![filter]);
        let mut out = vec![0; data.len()];
        let mut run = |out: &mut [u8]| {
            let result = pipeline.decode(&mut decoder, black_box(&stored), 0, out);
            assert_eq!(result, Ok(()));
        };
        run(&mut out);
        assert!(out == data, "element size {element_size}: wrong bytes");
        group.bench_function(BenchmarkId::from_parameter(element_size), |bencher| {
            bencher.iter(|| run(black_box(&mut out)));
        });
    }
}

/// The first row of a chunk, and where streaming stops being worth it: time a chunk, not bytes.
fn prefix(criterion: &mut Criterion) {
    let mut decoder = Decoder::new();
    let data = indices(2);
    let mut group = criterion.benchmark_group("prefix of indices");
    for (name, filter) in [("deflate", Filter::Deflate), ("zstd", Filter::Zstd), ("lzf", Filter::Lzf)] {
        let stored = encode(&filter, &data);
        let pipeline = Pipeline::new(vec![filter]);
        for percent in [4, 25, 50, 100] {
            let wanted = data.len() * percent / 100;
            let mut out = vec![0; wanted];
            let mut run = |out: &mut [u8]| {
                let result = pipeline.decode_prefix(&mut decoder, black_box(&stored), 0, data.len(), out, wanted);
                assert_eq!(result, Ok(()), "{name}");
            };
            run(&mut out);
            assert!(out == data[..wanted], "{name}: wrong bytes");
            group.bench_function(BenchmarkId::new(name, format!("{percent} %")), |bencher| {
                bencher.iter(|| run(black_box(&mut out)));
            });
        }
    }
}

fn encode(filter: &Filter, data: &[u8]) -> Vec<u8> {
    match filter {
        Filter::Deflate => deflate(data),
        Filter::Shuffle { element_size } => shuffle(data, *element_size),
        Filter::Fletcher32 => fletcher32(data),
        Filter::Lzf => lzf(data),
        Filter::Lz4 => lz4(data),
        Filter::Zstd => zstd::bulk::compress(data, 3).unwrap_or_default(),
        Filter::Bitshuffle(_) | Filter::Blosc => unimplemented!("neither is timed here"),
    }
}

/// gzip 4, h5py's default.
fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(4));
    encoder.write_all(data).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn shuffle(data: &[u8], element_size: usize) -> Vec<u8> {
    let count = data.len() / element_size;
    let whole = &data[..count * element_size];
    let planes = (0..element_size).flat_map(|byte| whole[byte..].iter().step_by(element_size));
    planes.chain(&data[whole.len()..]).copied().collect()
}

fn fletcher32(data: &[u8]) -> Vec<u8> {
    let (mut sum1, mut sum2) = (0_u32, 0_u32);
    for word in data.chunks(2) {
        sum1 += u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low));
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 += sum1;
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    }
    [data, &(sum2 << 16 | sum1).to_le_bytes()].concat()
}

/// One block, as the plugin's default block size of 1 GiB gives it.
fn lz4(data: &[u8]) -> Vec<u8> {
    let block = lz4_flex::block::compress(data);
    let (total, size) = ((data.len() as u64).to_be_bytes(), (data.len() as u32).to_be_bytes());
    [&total[..], &size, &(block.len() as u32).to_be_bytes(), &block].concat()
}

/// Greedy with a hash of three bytes, as liblzf does it.
fn lzf(data: &[u8]) -> Vec<u8> {
    let mut last_seen = vec![usize::MAX; 1 << 16];
    let (mut stored, mut literals) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < data.len() {
        let length = data.get(at..at + 3).map_or(0, |next| {
            let hash = next.iter().fold(0_usize, |hash, &byte| hash * 211 + usize::from(byte)) & 0xffff;
            let seen = std::mem::replace(&mut last_seen[hash], at);
            let near = seen != usize::MAX && at - seen <= 8192;
            let same = if near {
                data[at..].iter().zip(&data[seen..]).take(264).take_while(|(a, b)| a == b).count()
            } else {
                0
            };
            if same > 2 {
                flush(&mut literals, &mut stored);
                let (run, back) = (same - 2, at - seen - 1);
                stored.push((run.min(7) << 5 | back >> 8) as u8);
                stored.extend((run >= 7).then(|| (run - 7) as u8));
                stored.push((back & 0xff) as u8);
            }
            if same > 2 { same } else { 0 }
        });
        if length == 0 {
            literals.push(data[at]);
        }
        at += length.max(1);
    }
    flush(&mut literals, &mut stored);
    stored
}

fn flush(literals: &mut Vec<u8>, stored: &mut Vec<u8>) {
    for run in literals.chunks(32) {
        stored.push(run.len() as u8 - 1);
        stored.extend(run);
    }
    literals.clear();
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .without_plots()
}

criterion_group! { name = benches; config = quick(); targets = decode, unshuffle, prefix }
criterion_main!(benches);
