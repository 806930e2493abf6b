//! What planning costs before a byte is read: row starts, runs, jobs, pieces and reads of one window.
//!
//! The matrix is one of 200,000 cells with about 1,620 values each, in chunks of 41,754; a window is 16,384 rows of it.

use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use annfeed::internals::{RowStarts, plan};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ROWS: u64 = 200_000;
const WINDOW: u64 = 16_384;
const CHUNK: u64 = 41_754;
/// Bytes of a stored chunk.
const STORED: u64 = 51_000;

fn row_starts(criterion: &mut Criterion) {
    let indptr = indptr();
    let mut group = criterion.benchmark_group("row starts");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("from indptr", |bencher| bencher.iter(|| RowStarts::new(black_box(&indptr))));
    let Ok(starts) = RowStarts::new(&indptr) else { panic!("the indptr is monotone") };
    for (row, &start) in (0..).zip(&indptr) {
        assert_eq!(starts.start(row), start, "row {row}");
    }
    group.throughput(Throughput::Elements(WINDOW));
    for (order, rows) in windows() {
        group.bench_function(format!("spans, {order}"), |bencher| {
            bencher.iter(|| rows.iter().map(|&row| starts.span(row).end).sum::<u64>());
        });
    }
}

fn window(criterion: &mut Criterion) {
    let Ok(starts) = RowStarts::new(&indptr()) else { panic!("the indptr is monotone") };
    let mut group = criterion.benchmark_group("plan of a window");
    group.throughput(Throughput::Elements(WINDOW));
    for (order, rows) in windows() {
        let runs = plan::runs(&rows);
        let spans: Vec<Range<u64>> =
            runs.iter().map(|run| starts.start(run.start)..starts.span(run.end - 1).end).collect();
        let pieces = plan::pieces(&spans, CHUNK);
        let elements = |spans: &[Range<u64>]| spans.iter().map(|span| span.end - span.start).sum::<u64>();
        assert_eq!(pieces.iter().map(|piece| piece.to - piece.from).sum::<u64>(), elements(&spans));
        let mut chunks: Vec<u64> = pieces.iter().map(|piece| piece.chunk).collect();
        chunks.dedup();
        let extents: Vec<(u64, u64)> = chunks.iter().map(|chunk| (chunk * STORED, STORED)).collect();

        group.bench_function(format!("runs, {order}"), |bencher| bencher.iter(|| plan::runs(black_box(&rows))));
        group.bench_function(format!("jobs, {order}"), |bencher| {
            bencher.iter(|| plan::jobs(black_box(&rows), |row| starts.start(row) / CHUNK, 8));
        });
        group.bench_function(format!("pieces, {order}"), |bencher| {
            bencher.iter(|| plan::pieces(black_box(&spans), CHUNK));
        });
        group.bench_function(format!("reads, {order}"), |bencher| bencher.iter(|| plan::reads(black_box(&extents))));
    }
}

/// Sorted rows of a window in the three kinds of order.
fn windows() -> [(&'static str, Vec<u64>); 3] {
    let mut random = Random(3);
    let mut exact: Vec<u64> = (0..WINDOW).map(|_| random.next() % ROWS).collect();
    exact.sort_unstable();
    exact.dedup();
    let mut blocks: Vec<u64> = (0..WINDOW / 16).map(|_| random.next() % (ROWS / 16)).collect();
    blocks.sort_unstable();
    blocks.dedup();
    let blocks = blocks.iter().flat_map(|block| block * 16..block * 16 + 16).collect();
    [("file order", (0..WINDOW).collect()), ("blocks of 16", blocks), ("exact random", exact)]
}

/// Rows of 500 to 2,740 values.
fn indptr() -> Vec<u64> {
    let mut random = Random(4);
    let mut at = 0;
    let mut starts = vec![0];
    for _ in 0..ROWS {
        at += 500 + random.next() % 2_241;
        starts.push(at);
    }
    starts
}

/// A linear congruential generator (constants of Knuth's MMIX): the same data on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 32
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .without_plots()
}

criterion_group! { name = benches; config = quick(); targets = row_starts, window }
criterion_main!(benches);
