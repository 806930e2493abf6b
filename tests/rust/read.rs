//! Files written by libhdf5, read through `Matrix`: what comes out is what plain arithmetic says went in.
//!
//! The Python tests hold the same readers against h5py and scipy, on more layouts; these need no Python.

#![allow(clippy::unwrap_used)]

mod files;

use std::fs;
use std::path::Path;

use annfeed::internals::{Budget, DEFAULT_DEPTH, Error, Matrix, Wanted};
use files::{ENOUGH, FORMATS, GZIP, LAYOUTS, PLAIN, Storage, Table, create, open, put, put_sparse, read, text, write};
use hdf5::File;
use proptest::prelude::*;

#[test]
fn every_layout_gives_the_rows_that_were_written() {
    let table = Table::of(60, 41);
    let patterns: [&[u64]; 5] = [&(0..60).collect::<Vec<_>>(), &[], &[59], &[0, 1, 2, 30, 58], &[7, 8, 9, 10, 11, 12]];
    for format in FORMATS {
        for (name, storage) in LAYOUTS {
            let (_folder, path) = write(&table, format, storage);
            for columns in [None, Some(&[40, 0, 17, 3][..])] {
                for budget in [0, ENOUGH] {
                    // Without a budget rows are not cached; columns cannot be had at all.
                    if budget == 0 && format == "csc_matrix" {
                        continue;
                    }
                    let matrix = open(&path, columns, budget).unwrap();
                    assert_eq!(matrix.shape(), [60, 41]);
                    for rows in patterns {
                        for n_threads in [1, 2, 4] {
                            let delivered = read(&matrix, rows, n_threads).unwrap();
                            assert_eq!(delivered, table.picked(rows, columns), "{format}, {name}, {n_threads} threads");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_has_no_rows_or_no_columns_is_empty() {
    for format in FORMATS {
        for (n_rows, n_cols) in [(0, 5), (5, 0), (0, 0)] {
            let (_folder, path) = write(&Table::of(n_rows, n_cols), format, PLAIN);
            let matrix = open(&path, None, ENOUGH).unwrap();
            assert_eq!(matrix.shape(), [n_rows as u64, n_cols as u64]);
            let rows: Vec<u64> = (0..n_rows as u64).collect();
            assert_eq!(read(&matrix, &rows, 1).unwrap(), [0.0f32; 0], "{format} {n_rows} x {n_cols}");
        }
    }
}

#[test]
fn a_reopened_matrix_reads_the_same() {
    let table = Table::of(60, 41);
    for format in FORMATS {
        let (_folder, path) = write(&table, format, GZIP);
        let matrix = open(&path, None, ENOUGH).unwrap();
        let again = matrix.reopen(&Budget::new(ENOUGH)).unwrap();
        assert_eq!(read(&again, &[3, 59], 2).unwrap(), table.picked(&[3, 59], None));
        assert_eq!((again.elem(), again.format()), ("X", matrix.format()));
    }
}

#[test]
fn repeated_columns_are_summed_and_sorted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5ad");
    let file = create(&path, PLAIN);
    let parts = (vec![1.0, 2.0, 4.0, 8.0, 16.0, 0.5], vec![3, 0, 3, 2, 1, 9], vec![0, 3, 3, 5]);
    // The last element belongs to no row, so that its column does not matter.
    put_sparse(&file, "csr_matrix", [3, 4], &parts, PLAIN);
    file.close().unwrap();
    let matrix = open(&path, None, 0).unwrap();
    assert_eq!(read(&matrix, &[0, 1, 2], 1).unwrap(), [2.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 16.0, 8.0, 0.0]);
}

/// Writes a good CSR file whose arrays `spoil` may change first, and gives the error of opening and reading it.
fn error_of(spoil: impl Fn(&mut (Vec<f32>, Vec<i32>, Vec<i64>))) -> Error {
    let table = Table::of(20, 30);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5ad");
    let mut parts = table.compressed();
    spoil(&mut parts);
    let file = create(&path, GZIP);
    put_sparse(&file, "csr_matrix", [20, 30], &parts, GZIP);
    file.close().unwrap();
    let rows: Vec<u64> = (0..20).collect();
    open(&path, None, 0).and_then(|matrix| read(&matrix, &rows, 2)).unwrap_err()
}

type Spoil = fn(&mut (Vec<f32>, Vec<i32>, Vec<i64>));

#[test]
fn broken_arrays_are_format_errors_that_name_the_place() {
    let cases: [(Spoil, &str, &str); 9] = [
        (|p| p.1[7] = 30, "X/indices", "element 7 is the index 30; expected 0 to 29"),
        (|p| p.1[198] = -1, "X/indices", "element 198 is the index -1; expected 0 to 29"),
        (|p| p.1[0] = i32::MAX, "X/indices", "element 0 is the index 2147483647"),
        (|p| p.2[0] = 1, "X/indptr", "begins with 1"),
        (|p| p.2[5] = 0, "X/indptr", "element 5 is 0, less than"),
        (|p| p.2[20] += 1, "X/indptr", "points to element 200, but there are 199"),
        (|p| p.2[3] = -4, "X/indptr", "less than -4 before it"),
        (|p| p.2.truncate(20), "X", "indptr has 20 elements"),
        (|p| p.0.truncate(198), "X", "data has 198 elements but indices has 199"),
    ];
    for (spoil, object, found) in cases {
        match error_of(spoil) {
            Error::Format { place, found: text, remedy } => {
                assert_eq!(place.object, object);
                assert!(place.file.ends_with("x.h5ad"));
                assert!(text.contains(found), "{text:?} has no {found:?}");
                assert!(!remedy.is_empty());
            }
            other => panic!("{found}: {other}"),
        }
    }
}

#[test]
fn a_damaged_chunk_is_told_whatever_the_number_of_threads() {
    let table = Table::of(60, 41);
    for format in FORMATS {
        let (_folder, path) = write(&table, format, Storage { fletcher32: true, ..GZIP });
        let name = if format == "dense" { "X" } else { "X/data" };
        let file = File::open(&path).unwrap();
        let chunk = file.dataset(name).unwrap().chunk_info(2).unwrap();
        file.close().unwrap();
        let mut raw = fs::read(&path).unwrap();
        raw[chunk.addr as usize + 5] ^= 4;
        fs::write(&path, raw).unwrap();
        for n_threads in [1, 2, 4] {
            let rows: Vec<u64> = (0..60).collect();
            let error = open(&path, None, ENOUGH).and_then(|m| read(&m, &rows, n_threads)).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::Format { .. }), "{text}");
            for part in [name, "fletcher32", &format!("{} bytes at address {}", chunk.size, chunk.addr)] {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}

type Change = fn(&Path);

#[test]
fn a_file_that_changed_is_stale() {
    let changes: [(&str, Change); 4] = [
        ("bytes", |path| fs::write(path, [fs::read(path).unwrap(), vec![0]].concat()).unwrap()),
        ("bytes", |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap()),
        ("replaced", |path| {
            fs::copy(path, path.with_extension("new")).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("removed", |path| fs::remove_file(path).unwrap()),
    ];
    for format in FORMATS {
        for (found, change) in changes {
            let (_folder, path) = write(&Table::of(20, 30), format, GZIP);
            let matrix = open(&path, None, ENOUGH).unwrap();
            assert!(read(&matrix, &[3], 1).is_ok());
            change(&path);
            for error in [read(&matrix, &[3], 1).unwrap_err(), matrix.reopen(&Budget::new(0)).unwrap_err()] {
                match error {
                    Error::Stale { change, .. } => assert!(change.contains(found), "{change}"),
                    other => panic!("{other}"),
                }
            }
        }
    }
}

#[test]
fn rows_and_columns_out_of_range_are_refused() {
    let (_folder, path) = write(&Table::of(20, 30), "csr_matrix", GZIP);
    let matrix = open(&path, None, 0).unwrap();
    assert!(matches!(read(&matrix, &[3, 20], 1), Err(Error::RowOutOfRange { row: 20, n_rows: 20, .. })));
    for wrong in [[3, 30], [3, 3], [0, -2]] {
        assert!(matches!(open(&path, Some(&wrong), 0), Err(Error::Format { .. })), "{wrong:?}");
    }
}

/// Wanted columns that the matrix does not have are zero; so are they where nothing was ever written but the fill value.
#[test]
fn columns_that_are_not_there_are_zero() {
    let table = Table::of(60, 41);
    let rows = [0, 3, 4, 30, 59];
    for columns in [&[-1, 40, -1, 0, 7, -1][..], &[-1, -1], &[5, -1, 3]] {
        for format in FORMATS {
            for (name, storage) in LAYOUTS {
                let (_folder, path) = write(&table, format, storage);
                for budget in [ENOUGH, 1 << 20] {
                    let matrix = open(&path, Some(columns), budget).unwrap();
                    let found = read(&matrix, &rows, 2).unwrap();
                    assert_eq!(found, table.picked(&rows, Some(columns)), "{format}, {name}, {columns:?}");
                }
            }
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5ad");
    let file = File::create(&path).unwrap();
    file.new_dataset_builder().chunk((4, 3)).empty::<f32>().fill_value(2.5f32).shape((8, 6)).create("X").unwrap();
    file.close().unwrap();
    let matrix = open(&path, Some(&[1, -1, 5]), 0).unwrap();
    assert_eq!(read(&matrix, &[2, 7], 1).unwrap(), [2.5, 0.0, 2.5, 2.5, 0.0, 2.5]);
}

#[test]
fn columns_beyond_the_budget_say_what_they_need() {
    let table = Table::of(60, 41);
    let (_folder, path) = write(&table, "csc_matrix", GZIP);
    let Err(Error::TooLarge { needed, budget: 100, .. }) = open(&path, None, 100) else { panic!() };
    assert!(open(&path, None, needed - 1).is_err());
    let matrix = open(&path, None, needed).unwrap();
    assert_eq!(read(&matrix, &[59], 1).unwrap(), table.picked(&[59], None));
}

#[test]
fn what_is_no_matrix_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("text"), "not HDF5").unwrap();
    fs::write(at("empty"), "").unwrap();
    let file = create(&at("odd"), PLAIN);
    put(&file, "vector", &[1.0f32; 5], &[5], PLAIN);
    text(&file.create_group("frame").unwrap(), "encoding-type", "dataframe");
    file.create_group("group").unwrap();
    file.close().unwrap();

    let error = |name: &str, elem: &str| {
        Matrix::open(&at(name), elem, Wanted::All, &Budget::new(0), DEFAULT_DEPTH).unwrap_err().to_string()
    };
    for (name, elem, found) in [
        ("none", "X", "No such file"),
        ("", "X", "not a regular file"),
        ("text", "X", "not HDF5"),
        ("empty", "X", "empty"),
        ("odd", "X", "'X' does not exist. There is no matrix in this file"),
        ("odd", "vector", "[5]; expected a matrix of rows and columns"),
        ("odd", "frame", "the encoding is 'dataframe'"),
        ("odd", "group", "no encoding-type"),
    ] {
        let text = error(name, elem);
        assert!(text.contains(found) && text.contains(&at(name).display().to_string()), "{name} {elem}: {text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_matrix_in_any_layout(
        (n_rows, n_cols) in (1usize..40, 1usize..30),
        seed in any::<u64>(),
        format in proptest::sample::select(FORMATS.to_vec()),
        storage in (proptest::option::of(1usize..200), any::<bool>(), proptest::option::of(0u8..10), any::<bool>(), any::<bool>())
            .prop_map(|(chunk, shuffle, deflate, fletcher32, latest)| Storage { chunk, shuffle, deflate, fletcher32, latest, ..PLAIN }),
        n_threads in proptest::sample::select(vec![1usize, 2, 4]),
        budget in proptest::sample::select(vec![1u64 << 16, ENOUGH]),
    ) {
        // A plain generator of numbers is enough here (Knuth's MMIX constants).
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut value = || match next() % 8 { 0 => next() as f32, 1 => -(next() as f32) / 7.0, 2 | 3 => (next() % 300) as f32, _ => 0.0 };
        let table = Table { n_cols, rows: (0..n_rows).map(|_| (0..n_cols).map(|_| value()).collect()).collect() };
        let rows: Vec<u64> = (0..n_rows as u64).filter(|_| next() % 2 == 0).collect();
        let columns: Vec<i64> = (0..n_cols as i64).rev().filter(|_| next() % 2 == 0).collect();

        let (_folder, path) = write(&table, format, storage);
        for columns in [None, Some(&columns[..])] {
            let matrix = open(&path, columns, budget).unwrap();
            // Twice: decoded, and out of the cache.
            for _ in 0..2 {
                prop_assert_eq!(read(&matrix, &rows, n_threads).unwrap(), table.picked(&rows, columns));
            }
        }
    }
}
