//! Matrices read from sources that are slow, give fewer bytes than wanted, fail or change: the rows are those that libhdf5 wrote,
//! or there is an error that says where.

#![allow(clippy::unwrap_used)]

mod files;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use annfeed::internals::{Budget, ByteSource, Error, Identity, Matrix, Wanted, Workers};
use files::{ENOUGH, FORMATS, GZIP, LAYOUTS, PLAIN, Storage, Table, read, write};

/// How a source behaves, and what was asked of it.
#[derive(Debug, Default)]
struct Behaviour {
    latency: Duration,
    /// Most bytes of one read; 0 for as many as are wanted.
    most: usize,
    /// Every so many reads one is interrupted by a signal; 0 for none.
    interrupt_every: usize,
    /// Whether it can tell what is at hand, and says that all is.
    at_hand: bool,
    /// Reads that contain this address fail, once it is set.
    bad: Mutex<Option<u64>>,
    /// The file ends here, once it is set.
    ends: Mutex<Option<u64>>,
    /// Whether it says that it was written to.
    changed: AtomicBool,
    reads: AtomicUsize,
    /// Reads of threads that only read.
    ahead: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    ranges: Mutex<Vec<(u64, usize)>>,
}

/// A file that behaves so.
#[derive(Debug)]
struct Source {
    file: File,
    path: PathBuf,
    identity: Identity,
    how: Arc<Behaviour>,
}

impl ByteSource for Source {
    fn path(&self) -> &Path {
        &self.path
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    fn identity_now(&self) -> io::Result<Identity> {
        let changed = self.how.changed.load(Ordering::SeqCst);
        Ok(Identity { modified_ns: self.identity.modified_ns + i64::from(changed), ..self.identity })
    }

    fn read(&self, buffer: &mut [u8], address: u64) -> io::Result<usize> {
        let how = &*self.how;
        let now = how.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        how.most_in_flight.fetch_max(now, Ordering::SeqCst);
        thread::sleep(how.latency);
        how.in_flight.fetch_sub(1, Ordering::SeqCst);
        let number = how.reads.fetch_add(1, Ordering::SeqCst) + 1;
        if thread::current().name() == Some("annfeed-io") {
            how.ahead.fetch_add(1, Ordering::SeqCst);
        }
        how.ranges.lock().unwrap().push((address, buffer.len()));
        if how.interrupt_every > 0 && number.is_multiple_of(how.interrupt_every) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = if how.most == 0 { buffer.len() } else { buffer.len().min(how.most) };
        let end = how.ends.lock().unwrap().unwrap_or(u64::MAX);
        let most = most.min(end.saturating_sub(address) as usize);
        if how.bad.lock().unwrap().is_some_and(|bad| (address..address + buffer.len() as u64).contains(&bad)) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.read_at(&mut buffer[..most], address)
    }

    fn read_at_hand(&self, buffer: &mut [u8], address: u64) -> Option<usize> {
        self.how.at_hand.then(|| self.file.read_at(buffer, address).unwrap())
    }

    fn advise(&self, _: u64, _: u64) {}
}

fn open(
    path: &Path,
    how: Behaviour,
    budget: u64,
    depth: usize,
) -> (Arc<Behaviour>, annfeed::internals::Result<Matrix>) {
    let (file, how) = (File::open(path).unwrap(), Arc::new(how));
    let meta = file.metadata().unwrap();
    let identity = Identity { device: meta.dev(), inode: meta.ino(), size: meta.size(), modified_ns: 7 };
    let source = Source { file, path: path.to_owned(), identity, how: Arc::clone(&how) };
    let budget = Budget::new(budget);
    (how, Matrix::open_from(Box::new(source), "X", Wanted::All, &budget, depth))
}

fn slow() -> Behaviour {
    Behaviour { latency: Duration::from_millis(1), ..Behaviour::default() }
}

/// A matrix whose rows lie in many chunks.
fn wide() -> (Table, Storage) {
    (Table::of(400, 41), Storage { chunk: Some(500), ..GZIP })
}

#[test]
fn rows_of_a_slow_source_are_those_that_were_written() {
    let table = Table::of(60, 41);
    let patterns: [&[u64]; 3] = [&(0..60).collect::<Vec<_>>(), &[59], &[0, 1, 2, 30, 58]];
    for format in FORMATS {
        let mut by_team = 0;
        for (name, storage) in LAYOUTS {
            let (_folder, path) = write(&table, format, storage);
            for (depth, budget) in [(0, ENOUGH), (3, ENOUGH), (32, 0)] {
                if budget == 0 && format == "csc_matrix" {
                    continue;
                }
                let latency = Duration::from_micros(400);
                let how = Behaviour { latency, most: 500, interrupt_every: 3, ..Behaviour::default() };
                let (how, matrix) = open(&path, how, budget, depth);
                let matrix = matrix.unwrap();
                for rows in patterns {
                    let asked = matrix.ask(rows, 2).unwrap();
                    assert_eq!(read(&matrix, rows, 2).unwrap(), table.picked(rows, None), "{format}, {name}, {depth}");
                    drop(asked);
                }
                let ahead = how.ahead.load(Ordering::SeqCst);
                assert!(ahead == 0 || depth > 0, "{format}, {name}: {ahead} reads were ahead");
                assert!(how.most_in_flight.load(Ordering::SeqCst) <= depth + 2);
                by_team += ahead;
            }
        }
        // Where there is one range only, the thread that decodes it may come first.
        assert!(by_team > 20, "{format}: {by_team}");
    }
}

#[test]
fn reads_are_in_flight_together_and_none_is_done_twice() {
    let (table, storage) = wide();
    let (_folder, path) = write(&table, "csr_matrix", storage);
    let all: Vec<u64> = (0..400).collect();
    for depth in [4, 16] {
        let (how, matrix) =
            open(&path, Behaviour { latency: Duration::from_millis(5), ..Behaviour::default() }, 0, depth);
        let matrix = matrix.unwrap();
        how.ranges.lock().unwrap().clear();
        let windows: Vec<&[u64]> = all.chunks(100).collect();
        let mut asked = matrix.ask(windows[0], 2).unwrap();
        assert!(asked.is_some());
        for (i, rows) in windows.iter().enumerate() {
            let next = windows.get(i + 1).and_then(|next| matrix.ask(next, 2).unwrap());
            assert_eq!(read(&matrix, rows, 2).unwrap(), table.picked(rows, None));
            asked = next;
        }
        drop(asked);
        let most = how.most_in_flight.load(Ordering::SeqCst);
        assert!((3..=depth + 2).contains(&most), "{most} reads in flight of {depth}");
        let ranges = how.ranges.lock().unwrap();
        let distinct: HashSet<_> = ranges.iter().collect();
        // A chunk that two windows share is read for each.
        assert!(ranges.len() - distinct.len() <= 2 * windows.len(), "{} of {}", ranges.len(), distinct.len());
    }
}

#[test]
fn what_is_at_hand_is_left_to_the_thread_that_decodes_it() {
    let (table, storage) = wide();
    let (_folder, path) = write(&table, "csr_matrix", storage);
    let (how, matrix) = open(&path, Behaviour { at_hand: true, ..slow() }, 0, 32);
    let matrix = matrix.unwrap();
    let rows: Vec<u64> = (0..400).collect();
    assert!(matrix.ask(&rows, 2).unwrap().is_none());
    assert_eq!(read(&matrix, &rows, 2).unwrap(), table.picked(&rows, None));
    assert_eq!(how.reads.load(Ordering::SeqCst), 0);
}

/// Where the values of row 300 lie.
fn address_in(path: &Path) -> u64 {
    let dataset = hdf5::File::open(path).unwrap().dataset("X/data").unwrap();
    dataset.chunk_info(dataset.num_chunks().unwrap() * 3 / 4).unwrap().addr
}

#[test]
fn a_read_that_fails_names_the_place_and_the_next_window_goes_on() {
    let (table, storage) = wide();
    let (_folder, path) = write(&table, "csr_matrix", storage);
    let bad = address_in(&path);
    let rows: Vec<u64> = (200..400).collect();
    for depth in [0, 8] {
        for is_asked in [false, true] {
            let (how, matrix) = open(&path, slow(), 0, depth);
            let matrix = matrix.unwrap();
            *how.bad.lock().unwrap() = Some(bad);
            let asked = if is_asked { matrix.ask(&rows, 2).unwrap() } else { None };
            match read(&matrix, &rows, 2).unwrap_err() {
                Error::Io { file, doing, source } => {
                    assert_eq!(source.raw_os_error(), Some(5));
                    assert!(file.ends_with("x.h5ad") && doing.contains("of 'X/data' at address"), "{file}: {doing}");
                }
                other => panic!("{other}"),
            }
            drop(asked);
            *how.bad.lock().unwrap() = None;
            assert_eq!(read(&matrix, &rows, 2).unwrap(), table.picked(&rows, None));
        }
    }
}

#[test]
fn a_file_that_ends_too_soon_or_changes_is_an_error() {
    let (table, storage) = wide();
    let (_folder, path) = write(&table, "csr_matrix", storage);
    let rows: Vec<u64> = (200..400).collect();
    let (how, matrix) = open(&path, slow(), 0, 8);
    let matrix = matrix.unwrap();
    let asked = matrix.ask(&rows, 2).unwrap();
    how.changed.store(true, Ordering::SeqCst);
    assert!(matches!(read(&matrix, &rows, 2), Err(Error::Stale { .. })), "also with bytes that came before it changed");
    how.changed.store(false, Ordering::SeqCst);
    drop(asked);
    assert_eq!(read(&matrix, &rows, 2).unwrap(), table.picked(&rows, None));
    *how.ends.lock().unwrap() = Some(address_in(&path) + 3);
    let asked = matrix.ask(&rows, 2).unwrap();
    match read(&matrix, &rows, 2).unwrap_err() {
        Error::Io { source, .. } => assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof),
        other => panic!("{other}"),
    }
    drop(asked);
}

#[test]
fn an_interrupt_ends_the_wait() {
    // Some twenty jobs of one read each.
    let (_folder, path) = write(&Table::of(2500, 8000), "dense", PLAIN);
    let (how, matrix) = open(&path, Behaviour { latency: Duration::from_millis(20), ..Behaviour::default() }, 0, 2);
    let (matrix, rows) = (matrix.unwrap(), (0..2500).collect::<Vec<u64>>());
    let interrupted = || how.reads.load(Ordering::SeqCst) > 3;
    let result = matrix.read(&rows, &Workers { threads: 2, interrupted: &interrupted });
    assert!(matches!(result, Err(Error::Interrupted)));
    let read = how.reads.load(Ordering::SeqCst);
    assert!(read < 15, "{read} reads were begun");
}

#[test]
fn one_window_that_nobody_reads_does_not_hold_up_another() {
    // More bytes than may be held, of a matrix without filters.
    let table = Table::of(2500, 8000);
    let (_folder, path) = write(&table, "dense", PLAIN);
    let (how, matrix) = open(&path, slow(), 0, 4);
    let matrix = matrix.unwrap();
    let all: Vec<u64> = (0..2500).collect();
    let asked = matrix.ask(&all, 2).unwrap();
    assert!(asked.is_some());
    assert_eq!(read(&matrix, &[7, 2400], 2).unwrap(), table.picked(&[7, 2400], None));
    thread::sleep(Duration::from_millis(300));
    let held: usize = how.ranges.lock().unwrap().iter().map(|(_, len)| len).sum();
    assert!(held <= (64 << 20) + 2 * 32_000 + (1 << 20), "{held} bytes were read that nobody took");
    assert_eq!(read(&matrix, &[8], 1).unwrap(), table.picked(&[8], None));
    drop(asked);
}

#[test]
fn a_cache_is_asked_before_bytes_are() {
    let (table, storage) = wide();
    let (_folder, path) = write(&table, "csr_matrix", storage);
    let (how, matrix) = open(&path, slow(), ENOUGH, 8);
    let (matrix, rows) = (matrix.unwrap(), (0..200).collect::<Vec<u64>>());
    assert_eq!(read(&matrix, &rows, 2).unwrap(), table.picked(&rows, None));
    let before = how.reads.load(Ordering::SeqCst);
    assert!(matrix.ask(&rows, 2).unwrap().is_none(), "all of them are kept decoded");
    assert_eq!(read(&matrix, &rows, 2).unwrap(), table.picked(&rows, None));
    assert_eq!(how.reads.load(Ordering::SeqCst), before);
}

#[test]
fn many_threads_may_read_one_matrix() {
    let (table, storage) = wide();
    let (_folder, path) = write(&table, "csr_matrix", storage);
    let (_, matrix) = open(&path, slow(), 0, 4);
    let (matrix, table) = (&matrix.unwrap(), &table);
    thread::scope(|scope| {
        for n in 0..4u64 {
            scope.spawn(move || {
                for start in [0, 100, 200, 300] {
                    let rows: Vec<u64> = (start + n..start + 90).collect();
                    let asked = matrix.ask(&rows, 1).unwrap();
                    assert_eq!(read(matrix, &rows, 1).unwrap(), table.picked(&rows, None));
                    drop(asked);
                }
            });
        }
    });
}
