//! One HDF5 dataset: its shape, type, filters and chunk table, checked against the file's size.

use hdf5::plist::dataset_create::{ChunkOpts, Layout};
use hdf5::{Dataset, File};

use super::btree;
use super::dtype::number_type;
use crate::dtype::{Kind, NumType};
use crate::error::{Error, Place, Result};
use crate::file::DataFile;
use crate::filters::Pipeline;
use crate::layout::{ArrayLayout, Chunk, ChunkGrid, Storage};

/// Largest decoded chunk: HDF5's own limit before 2.0 (spec IV.A.2.i stores 32 bits).
const MAX_CHUNK_BYTES: u64 = 1 << 32;

/// Describes `dataset` (found at `place` in `root`, which is `file`).
pub(super) fn describe(root: &File, dataset: &Dataset, place: &Place, file: &DataFile) -> Result<ArrayLayout> {
    let file_size = file.identity().size;
    let hdf5_failed = |doing: &str, e: &hdf5::Error| damaged(place, doing, e);
    // By number and not by name: an object behind an external link has the name that it has in the other file.
    let number = |l: &hdf5::Location| l.loc_info().map_err(|e| hdf5_failed("its file", &e)).map(|info| info.fileno);
    if number(dataset)? != number(root)? {
        return Err(place.unsupported("it lies in another file (external link)"));
    }
    let datatype = dataset.dtype().map_err(|e| hdf5_failed("the datatype", &e))?;
    let dtype = number_type(&datatype).map_err(|reason| place.unsupported(reason))?;
    let space = dataset.space().map_err(|e| hdf5_failed("the dataspace", &e))?;
    let shape: Vec<u64> = space.shape().iter().map(|&n| n as u64).collect();
    let size = dtype.kind.size() as u64;
    let bytes = checked_product(&shape, size)
        .ok_or_else(|| place.format(format!("the shape {shape:?} is absurd"), "The file is damaged"))?;
    // The convenience methods of the wrapper turn errors into defaults; the property list reports them.
    let plist = dataset.create_plist().map_err(|e| hdf5_failed("the creation properties", &e))?;
    if !plist.get_external().map_err(|e| hdf5_failed("the external storage list", &e))?.is_empty() {
        return Err(place.unsupported("the data lie in an external file"));
    }
    let storage = match plist.get_layout().map_err(|e| hdf5_failed("the layout", &e))? {
        Layout::Contiguous => match dataset.offset() {
            None => Storage::Unallocated,
            Some(address) => {
                check_extent(place, "the data", address, bytes, file_size)?;
                Storage::Contiguous(address)
            }
        },
        Layout::Chunked => {
            let chunk = plist
                .get_chunk()
                .map_err(|e| hdf5_failed("the chunk shape", &e))?
                .ok_or_else(|| place.format("it is chunked but has no chunk shape", "The file is damaged"))?;
            Storage::Chunked(chunk_grid(dataset, place, &shape, &chunk, size, &plist, file)?)
        }
        Layout::Compact => return Err(place.unsupported("compact layout")),
        Layout::Virtual => return Err(place.unsupported("virtual layout")),
    };
    let fill_value = fill_bytes(&plist, &datatype, dtype).map_err(|e| hdf5_failed("the fill value", &e))?;
    Ok(ArrayLayout { name: place.object.clone(), shape, dtype, fill: fill_value, storage })
}

fn damaged(place: &Place, doing: &str, e: &hdf5::Error) -> Error {
    place.format(format!("HDF5 cannot read {doing} ({e})"), "The file is damaged: copy or download it again")
}

fn checked_product(shape: &[u64], size: u64) -> Option<u64> {
    shape.iter().try_fold(size, |acc, &n| acc.checked_mul(n))
}

fn check_extent(place: &Place, what: &str, address: u64, size: u64, file_size: u64) -> Result<()> {
    match address.checked_add(size) {
        Some(end) if end <= file_size => Ok(()),
        _ => Err(place.format(
            format!("{what}: {size} bytes at address {address} reach past the end of the file ({file_size} bytes)"),
            "The file is truncated or damaged: copy or download it again",
        )),
    }
}

#[allow(clippy::too_many_arguments)]
fn chunk_grid(
    dataset: &Dataset,
    place: &Place,
    shape: &[u64],
    chunk: &[usize],
    size: u64,
    plist: &hdf5::plist::DatasetCreate,
    file: &DataFile,
) -> Result<ChunkGrid> {
    let file_size = file.identity().size;
    let chunk: Vec<u64> = chunk.iter().map(|&n| n as u64).collect();
    let chunk_bytes = checked_product(&chunk, size).filter(|&b| (1..=MAX_CHUNK_BYTES).contains(&b));
    let Some(chunk_bytes) = chunk_bytes.filter(|_| chunk.len() == shape.len()) else {
        return Err(place.format(format!("chunks of shape {chunk:?} for shape {shape:?}"), "The file is damaged"));
    };
    let filters = plist.get_filters().map_err(|e| place.unsupported(format!("unreadable filter list ({e})")))?;
    let filters: Vec<(i32, Vec<u32>)> = filters.iter().map(filter_id).collect();
    let pipeline = Pipeline::from_hdf5(&filters, size as usize).map_err(|e| place.unsupported(e.to_string()))?;
    let plain_edges = plist
        .get_chunk_opts()
        .map_err(|e| damaged(place, "the chunk options", &e))?
        .is_some_and(|opts| opts.contains(ChunkOpts::DONT_FILTER_PARTIAL_CHUNKS));

    let counts: Vec<u64> = shape.iter().zip(&chunk).map(|(&n, &c)| n.div_ceil(c)).collect();
    let total = checked_product(&counts, 1).filter(|&n| n <= file_size.saturating_mul(8).max(1 << 20));
    let Some(total) = total else {
        return Err(place.format(format!("{counts:?} chunks of {chunk_bytes} bytes"), "The file is damaged"));
    };
    let mut table = vec![None; total as usize];
    let mut misplaced: Option<Vec<u64>> = None;
    let mut put = |offset: &[u64], found: Chunk| match position(offset, &chunk, &counts) {
        Some(at) => {
            table[at] = Some(found);
            0
        }
        // A chunk wholly outside the shape is a left-over of a shrunk dataset; one off the grid is damage.
        None if offset.iter().zip(&chunk).all(|(&o, &c)| o % c == 0) => 0,
        None => {
            misplaced = Some(offset.to_vec());
            1
        }
    };
    match address_of(dataset).and_then(|address| btree::chunks(file, address, shape.len(), place)) {
        Some(entries) => entries.iter().for_each(|(offset, chunk)| {
            put(offset, *chunk);
        }),
        None => dataset
            .chunks_visit(|info| {
                put(info.offset, Chunk { address: info.addr, size: info.size, mask: info.filter_mask })
            })
            .map_err(|e| damaged(place, "the chunk index", &e))?,
    }
    if let Some(offset) = misplaced {
        return Err(place.format(format!("a chunk at {offset:?}, off the grid of {chunk:?}"), "The file is damaged"));
    }
    for (i, c) in table.iter().enumerate() {
        if let Some(c) = c {
            check_extent(place, &format!("chunk {i}"), c.address, c.size, file_size)?;
        }
    }
    Ok(ChunkGrid { chunk, counts, table, pipeline, plain_edges })
}

/// The address of an object's header.
pub(super) fn address_of(dataset: &Dataset) -> Option<u64> {
    // The wrapper keeps it to itself, but shows it: sixteen bytes, of which the first eight are the address.
    let shown = format!("{:?}", dataset.loc_info().ok()?.token);
    let bytes = shown.split_once('[')?.1.split_once(']')?.0.split(", ").map(str::parse);
    let bytes: Vec<u8> = bytes.collect::<std::result::Result<_, _>>().ok()?;
    bytes.first_chunk().map(|address| u64::from_le_bytes(*address))
}

fn filter_id(filter: &hdf5::filters::Filter) -> (i32, Vec<u32>) {
    match filter {
        hdf5::filters::Filter::User(id, values) => (*id, values.clone()),
        // Only shuffle has a client value that matters here; its default is the element size.
        other => (other.id(), Vec::new()),
    }
}

fn position(offset: &[u64], chunk: &[u64], counts: &[u64]) -> Option<usize> {
    let mut at = 0u64;
    for ((&o, &c), &n) in offset.iter().zip(chunk).zip(counts) {
        let i = o / c;
        if o % c != 0 || i >= n {
            return None;
        }
        at = at * n + i;
    }
    Some(at as usize)
}

/// One fill element in the stored byte order; zeros if the file defines none, as in h5py.
fn fill_bytes(plist: &hdf5::plist::DatasetCreate, datatype: &hdf5::Datatype, dtype: NumType) -> hdf5::Result<Vec<u8>> {
    let size = dtype.kind.size();
    let Some(value) = plist.get_fill_value(&datatype.to_descriptor()?)? else {
        return Ok(vec![0; size]);
    };
    macro_rules! bytes {
        ($($kind:ident => $t:ty),*) => {
            match dtype.kind {
                Kind::Bool => value.cast::<bool>().map(|v| vec![u8::from(v)]),
                Kind::F16 => value.cast::<half::f16>().map(|v| v.to_le_bytes().to_vec()),
                $(Kind::$kind => value.cast::<$t>().map(|v| v.to_le_bytes().to_vec()),)*
            }
        };
    }
    let bytes = bytes!(U8 => u8, U16 => u16, U32 => u32, U64 => u64, I8 => i8, I16 => i16, I32 => i32, I64 => i64,
                       F32 => f32, F64 => f64);
    let mut bytes = bytes.map_err(|_| hdf5::Error::from("the fill value has another type"))?;
    if dtype.big_endian {
        bytes.reverse();
    }
    Ok(bytes)
}
