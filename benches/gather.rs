//! How fast batches are made of decoded rows: 128 rows of 30,000 columns, dense and CSR, from narrow row groups.
//!
//! Each batch is checked against a plain loop before it is timed. The row groups hold more rows than a processor's cache does.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use annfeed::internals::{Columns, CsrOut, DecodedRows, RowGroup, Totals, Values};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ROWS: usize = 16_384;
const BATCH: usize = 128;
const N_COLS: usize = 30_000;
/// Rows of a row group: one chunk's.
const BAND: usize = 26;

fn gather(criterion: &mut Criterion) {
    for (name, narrow) in [("u8 values", true), ("f32 values", false)] {
        let (block, rows) = (block(narrow), batches());
        check(&block, &rows[0]);
        let mut group = criterion.benchmark_group(format!("batch of {name}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        for threads in [1, 2] {
            let mut out = vec![0_f32; BATCH * N_COLS];
            let mut turn = rows.iter().cycle();
            group.bench_function(format!("dense f32, {threads} threads"), |bencher| {
                bencher.iter(|| block.dense(turn.next().map_or(&[][..], |r| r), black_box(&mut out), threads));
            });
        }
        let mut turn = rows.iter().cycle();
        let mut csr = Csr::default();
        group.bench_function("CSR f32", |bencher| {
            bencher.iter(|| csr.fill(&block, black_box(turn.next().map_or(&[][..], |r| r))));
        });
    }
}

/// A CSR batch whose memory is used again.
#[derive(Default)]
struct Csr {
    indptr: Vec<i32>,
    indices: Vec<i32>,
    data: Vec<f32>,
}

impl Csr {
    fn fill(&mut self, block: &DecodedRows, positions: &[i64]) {
        let nnz = block.nnz(positions);
        self.indptr.resize(positions.len() + 1, 0);
        self.indices.resize(nnz, 0);
        self.data.resize(nnz, 0.0);
        let Self { indptr, indices, data } = self;
        assert!(matches!(block.csr(positions, CsrOut { indptr, indices, data }), Ok(None)));
    }
}

/// Every value where it belongs, and nothing else.
fn check(block: &DecodedRows, positions: &[i64]) {
    let mut dense = vec![f32::NAN; BATCH * N_COLS];
    assert!(matches!(block.dense(positions, &mut dense, 2), Ok(None)));
    let mut csr = Csr::default();
    csr.fill(block, positions);
    for (i, &position) in positions.iter().enumerate() {
        let mut expected = vec![0_f32; N_COLS];
        let (columns, values) = row(position as usize);
        columns.iter().zip(&values).for_each(|(&column, &value)| expected[usize::from(column)] = value);
        assert!(dense[i * N_COLS..(i + 1) * N_COLS] == expected, "dense row {i}");
        let span = csr.indptr[i] as usize..csr.indptr[i + 1] as usize;
        assert!(
            csr.indices[span.clone()].iter().copied().eq(columns.iter().map(|&c| i32::from(c))),
            "columns of row {i}"
        );
        assert!(csr.data[span] == values, "values of row {i}");
    }
}

/// Positions of batches in exact random order.
fn batches() -> Vec<Vec<i64>> {
    let mut random = Random(5);
    (0..64).map(|_| (0..BATCH).map(|_| i64::from(random.next()) % ROWS as i64).collect()).collect()
}

fn block(narrow: bool) -> DecodedRows {
    let mut block = DecodedRows::new(N_COLS);
    for first in (0..ROWS).step_by(BAND) {
        let (mut offsets, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        for (c, v) in (first..ROWS.min(first + BAND)).map(row) {
            columns.extend(c);
            values.extend(v);
            offsets.push(columns.len());
        }
        let values = if narrow { Values::U8(values.iter().map(|&v| v as u8).collect()) } else { Values::F32(values) };
        let totals = Totals::OfValues;
        block.push_group(Arc::new(RowGroup::Sparse {
            offsets,
            columns: Columns::U16(columns),
            values,
            all_positive: false,
            totals,
        }));
    }
    block
}

/// Sorted columns, and counts of which about half are 1: about 1,620 of each.
fn row(number: usize) -> (Vec<u16>, Vec<f32>) {
    let mut random = Random(number as u64 + 1);
    random.next();
    let mut at = 0;
    let step = std::iter::from_fn(|| {
        at += 1 + random.next() % 36;
        (at as usize <= N_COLS).then(|| (at as u16 - 1, (random.next().trailing_zeros() + 1) as f32))
    });
    step.unzip()
}

/// A linear congruential generator (constants of Knuth's MMIX): the same data on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}

criterion_group! { name = benches; config = quick(); targets = gather }
criterion_main!(benches);
