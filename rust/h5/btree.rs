//! Chunk tables of version-1 B-trees, which h5py writes unless it is told otherwise: read level by level, all nodes of a level
//! at a time, where libhdf5 reads one node after the other and waits for each.
//!
//! Follows the HDF5 specification (III.A.1, IV.A.1, IV.A.2.i). Whatever is not as it says there, or of another kind, is left
//! to libhdf5: these functions then give `None`.

use std::collections::HashSet;

use crate::error::Place;
use crate::file::{DataFile, Extent};
use crate::layout::Chunk;

/// An address of nothing.
const UNDEFINED: u64 = u64::MAX;
/// Entries of a node, in files that do not say otherwise: twice the "indexed storage internal node K".
const MOST_ENTRIES: usize = 64;
/// Bytes of an object header that are read at first; few have more.
const HEADER: u64 = 1024;
/// Blocks of an object header, and levels of a tree: no file has nearly so many.
const MOST_BLOCKS: usize = 64;
const LAYOUT: u16 = 0x0008;
const CONTINUATION: u16 = 0x0010;

/// A stored chunk, and the element it begins with along each axis.
pub(super) type Entry = (Vec<u64>, Chunk);

/// All stored chunks of the dataset of `n_dims` axes whose object header lies at `header`.
pub(super) fn chunks(file: &DataFile, header: u64, n_dims: usize, place: &Place) -> Option<Vec<Entry>> {
    let reader = Reader { file, place };
    reader.check_superblock()?;
    let layout = reader.message(header, LAYOUT)?;
    let root = root_of(&layout, n_dims)?;
    if root == UNDEFINED { Some(Vec::new()) } else { reader.tree(root, n_dims) }
}

/// The root of the tree that a layout message names.
fn root_of(layout: &[u8], n_dims: usize) -> Option<u64> {
    // Version 3, chunked, and one axis more than there are: that of an element's bytes.
    (layout.get(..3)? == [3, 2, n_dims as u8 + 1]).then(|| number(layout, 3, 8)).flatten()
}

struct Reader<'a> {
    file: &'a DataFile,
    place: &'a Place,
}

impl Reader<'_> {
    /// Addresses and lengths of eight bytes, counted from the file's first byte.
    fn check_superblock(&self) -> Option<()> {
        let block = self.read(&[(0, 64)])?.pop()?;
        let is_usual = block.starts_with(b"\x89HDF\r\n\x1a\n")
            && match block[8] {
                0 => block[13..15] == [8, 8] && number(&block, 24, 8)? == 0,
                1 => block[13..15] == [8, 8] && number(&block, 28, 8)? == 0,
                2 | 3 => block[9..11] == [8, 8] && number(&block, 12, 8)? == 0,
                _ => false,
            };
        is_usual.then_some(())
    }

    /// Reads ranges of the file, all at a time; shorter where the file ends.
    fn read(&self, extents: &[Extent]) -> Option<Vec<Vec<u8>>> {
        let size = self.file.identity().size;
        let cut: Vec<Extent> = extents.iter().map(|&(at, len)| (at, len.min(size.saturating_sub(at)))).collect();
        let file = self.file.fetched(None, || cut.clone());
        let read = cut.iter().map(|&(at, len)| {
            let mut bytes = Vec::new();
            file.read(&mut bytes, at, len, self.place).ok().map(|()| bytes)
        });
        read.collect()
    }

    /// The first message of a kind in the object header at `address`.
    fn message(&self, address: u64, kind: u16) -> Option<Vec<u8>> {
        let start = self.read(&[(address, HEADER)])?.pop()?;
        let (form, at, len) = Form::of(&start)?;
        let mut blocks = vec![(address + at, len)];
        let mut next = 0;
        while let Some(&block) = blocks.get(next) {
            let (bytes, is_first) = (self.read(&[block])?.pop()?, next == 0);
            next += 1;
            for (found, body) in form.messages(&bytes, is_first)? {
                if found == kind {
                    return Some(body.to_vec());
                }
                if found == CONTINUATION {
                    blocks.push((number(body, 0, 8)?, number(body, 8, 8)?));
                }
            }
            if blocks.len() > MOST_BLOCKS {
                return None;
            }
        }
        None
    }

    fn tree(&self, root: u64, n_dims: usize) -> Option<Vec<Entry>> {
        let key = 8 + 8 * (n_dims + 1);
        let node_len = (24 + MOST_ENTRIES * (key + 8) + key) as u64;
        let (mut level, mut addresses) = (None, vec![root]);
        loop {
            let nodes = self.read(&addresses.iter().map(|&at| (at, node_len)).collect::<Vec<_>>())?;
            let mut entries = Vec::new();
            for node in &nodes {
                let is_tree = node.get(..5)? == b"TREE\x01";
                let (found, used) = (usize::from(*node.get(5)?), number(node, 6, 2)? as usize);
                if !is_tree || level.is_some_and(|level| level != found) || used > MOST_ENTRIES || found > MOST_BLOCKS {
                    return None;
                }
                level = Some(found);
                for i in 0..used {
                    let at = 24 + i * (key + 8);
                    let offset: Option<Vec<u64>> = (0..n_dims).map(|axis| number(node, at + 8 + 8 * axis, 8)).collect();
                    let (size, mask) = (number(node, at, 4)?, number(node, at + 4, 4)? as u32);
                    entries.push((offset?, Chunk { address: number(node, at + key, 8)?, size, mask }));
                }
            }
            match level? {
                0 => return Some(entries),
                above => level = Some(above - 1),
            }
            // Each chunk is named by one node only, so that there are no more nodes than the file has room for.
            addresses = entries.iter().map(|(_, child)| child.address).collect();
            if addresses.iter().collect::<HashSet<_>>().len() < addresses.len() {
                return None;
            }
        }
    }
}

/// The two forms of an object header.
enum Form {
    One,
    /// Whether each message says in which order it was made.
    Two {
        with_order: bool,
    },
}

impl Form {
    /// The form of a header that begins with `start`, where its messages begin, and their bytes.
    fn of(start: &[u8]) -> Option<(Self, u64, u64)> {
        if start.first() == Some(&1) {
            return Some((Self::One, 16, number(start, 8, 4)?));
        }
        let flags = *start.get(5)?;
        if start.get(..5)? != b"OHDR\x02" {
            return None;
        }
        let at = 6 + if flags & 0x20 == 0 { 0 } else { 16 } + if flags & 0x10 == 0 { 0 } else { 4 };
        let width = 1usize << (flags & 3);
        Some((Self::Two { with_order: flags & 4 != 0 }, (at + width) as u64, number(start, at, width)?))
    }

    /// The messages of a block, which, but for the first of a new header, begins with a signature and ends with a checksum.
    fn messages<'a>(&self, block: &'a [u8], is_first: bool) -> Option<Vec<(u16, &'a [u8])>> {
        let (head, mut rest) = match self {
            Self::One => (8, block),
            Self::Two { with_order } if is_first => (if *with_order { 6 } else { 4 }, block),
            Self::Two { with_order } => {
                let inner = block.strip_prefix(b"OCHK")?;
                (if *with_order { 6 } else { 4 }, inner.get(..inner.len().checked_sub(4)?)?)
            }
        };
        let mut messages = Vec::new();
        while rest.len() >= head {
            let (kind, len, flags) = match self {
                Self::One => (number(rest, 0, 2)? as u16, number(rest, 2, 2)?, rest[4]),
                Self::Two { .. } => (u16::from(rest[0]), number(rest, 1, 2)?, rest[3]),
            };
            let body = rest.get(head..head + len as usize)?;
            // A shared message lies elsewhere.
            if flags & 2 == 0 {
                messages.push((kind, body));
            }
            rest = &rest[head + len as usize..];
        }
        Some(messages)
    }
}

/// A little-endian number of `width` bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let raw = bytes.get(at..at + width)?;
    Some(raw.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hdf5::plist::file_access::FileAccessBuilder;
    use hdf5::{Dataset, File};
    use tempfile::TempDir;

    use super::super::array::address_of;
    use super::*;

    fn place() -> Place {
        Place::new("some.h5", "data")
    }

    /// What libhdf5 says.
    fn by_libhdf5(dataset: &Dataset) -> Vec<Entry> {
        let mut found = Vec::new();
        dataset
            .chunks_visit(|info| {
                found.push((
                    info.offset.to_vec(),
                    Chunk { address: info.addr, size: info.size, mask: info.filter_mask },
                ));
                0
            })
            .unwrap();
        found
    }

    fn by_us(path: &Path, dataset: &Dataset) -> Option<Vec<Entry>> {
        let file = DataFile::open(path, 4).unwrap();
        chunks(&file, address_of(dataset).unwrap(), dataset.ndim(), &place())
    }

    fn made(
        options: &hdf5::file::FileBuilder,
        build: impl Fn(&File) -> Dataset,
    ) -> (TempDir, std::path::PathBuf, Dataset) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.h5");
        let name = {
            let file = options.create(&path).unwrap();
            build(&file).name()
        };
        let dataset = File::open(&path).unwrap().dataset(&name).unwrap();
        (folder, path, dataset)
    }

    fn long(file: &File, n: usize, chunk: usize) -> Dataset {
        let values: Vec<u32> = (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        file.new_dataset_builder().chunk(chunk).deflate(1).with_data(&values).create("data").unwrap()
    }

    #[test]
    fn chunk_tables_are_those_of_libhdf5() {
        for n in [1, 7, 64, 65, 700, 9000] {
            let (_folder, path, dataset) = made(&File::with_options(), |file| long(file, n * 5, 5));
            let found = by_us(&path, &dataset).unwrap();
            assert_eq!(found.len(), n);
            assert_eq!(found, by_libhdf5(&dataset));
        }
    }

    #[test]
    fn tiles_are_too_and_those_that_were_never_written() {
        let tiles = |file: &File| file.new_dataset_builder().chunk((3, 4)).empty::<f32>().shape((90, 91));
        let (_folder, path, dataset) = made(&File::with_options(), |file| {
            let dataset = tiles(file).create("data").unwrap();
            dataset.write_raw(&vec![1.5f32; 90 * 91]).unwrap();
            dataset
        });
        let found = by_us(&path, &dataset).unwrap();
        assert_eq!(found.len(), 30 * 23);
        assert_eq!(found, by_libhdf5(&dataset));
        let (_folder, path, dataset) = made(&File::with_options(), |file| tiles(file).create("data").unwrap());
        assert_eq!(by_us(&path, &dataset), Some(Vec::new()));
    }

    #[test]
    fn a_header_may_go_on_elsewhere() {
        let (_folder, path, dataset) = made(&File::with_options(), |file| {
            let dataset = long(file, 700, 5);
            for i in 0..40 {
                dataset.new_attr::<u64>().create(format!("number {i}").as_str()).unwrap().write_scalar(&i).unwrap();
            }
            dataset
        });
        assert_eq!(by_us(&path, &dataset).unwrap(), by_libhdf5(&dataset));
    }

    #[test]
    fn other_kinds_are_left_to_libhdf5() {
        let mut latest = File::with_options();
        latest.with_fapl(FileAccessBuilder::libver_latest);
        let (_folder, path, dataset) = made(&latest, |file| long(file, 700, 5));
        assert_eq!(by_us(&path, &dataset), None);
        let mut behind = File::with_options();
        behind.with_fcpl(|p| p.userblock(512));
        let (_folder, path, dataset) = made(&behind, |file| long(file, 700, 5));
        assert_eq!(by_us(&path, &dataset), None);
    }

    #[test]
    fn damaged_nodes_are_left_to_libhdf5() {
        let (folder, path, dataset) = made(&File::with_options(), |file| long(file, 700, 5));
        let (whole, address) = (std::fs::read(&path).unwrap(), address_of(&dataset).unwrap());
        let nodes: Vec<usize> = (0..whole.len() - 4).filter(|&at| whole[at..].starts_with(b"TREE\x01")).collect();
        assert!(nodes.len() > 3);
        for &node in &nodes {
            for (at, value) in [(0, b'X'), (5, 9), (6, 200), (7, 1)] {
                let mut bytes = whole.clone();
                bytes[node + at] = value;
                let damaged = folder.path().join("damaged.h5");
                std::fs::write(&damaged, bytes).unwrap();
                let file = DataFile::open(&damaged, 4).unwrap();
                assert_eq!(chunks(&file, address, 1, &place()), None, "byte {at} of a node is {value}");
            }
        }
        for end in [100, 700, whole.len() / 2] {
            let cut = folder.path().join("cut.h5");
            std::fs::write(&cut, &whole[..end]).unwrap();
            let file = DataFile::open(&cut, 4).unwrap();
            assert_eq!(chunks(&file, address, 1, &place()), None, "cut at {end}");
        }
    }
}
