//! Describes how a matrix is stored, also one that only h5py reads; reads no values except for the checks of [`super::layout`].

use std::path::Path;

use hdf5::plist::dataset_create::Layout;
use hdf5::{Dataset, LocationType};

use super::dtype::number_type;
use super::open::{COPY_AGAIN, check_readable, layout, locate, open_file};
use super::tenx::Form;
use crate::error::{Error, Place, Result};
use crate::filters::name_of;

/// One HDF5 dataset.
#[derive(Clone, Debug)]
pub(crate) struct ArrayFacts {
    /// Path inside the file.
    pub(crate) name: String,
    /// Type of an element, by numpy's name if it has one.
    pub(crate) dtype: String,
    /// Bytes of an element.
    pub(crate) item_size: u64,
    /// Elements along each axis.
    pub(crate) shape: Vec<u64>,
    /// "chunked", "contiguous", "compact", "virtual" or "external".
    pub(crate) storage: &'static str,
    /// Elements of a chunk along each axis.
    pub(crate) chunk: Option<Vec<u64>>,
    /// Names of the filters, first applied first.
    pub(crate) filters: Vec<String>,
    /// Bytes on disk.
    pub(crate) stored_bytes: u64,
}

/// A matrix.
#[derive(Clone, Debug)]
pub(crate) struct MatrixFacts {
    /// Path inside the file.
    pub(crate) path: String,
    /// "csr", "csc" or "dense".
    pub(crate) format: &'static str,
    /// Rows and columns.
    pub(crate) shape: [u64; 2],
    /// The values, then, for a sparse matrix, indices and indptr.
    pub(crate) arrays: Vec<ArrayFacts>,
    /// Why h5py has to read it, if it has to.
    pub(crate) declined: Option<String>,
}

/// Describes the matrix `elem` of the file at `path`.
///
/// # Errors
/// As [`layout`], except for matrices that h5py can read.
pub(crate) fn describe(path: &Path, elem: &str) -> Result<MatrixFacts> {
    let declined = match layout(path, elem) {
        Ok(_) => None,
        Err(Error::Unsupported { place, reason }) => Some(format!("'{}': {reason}", place.object)),
        Err(other) => return Err(other),
    };
    let place = Place::new(path.display().to_string(), elem);
    check_readable(path, &place)?;
    let file = open_file(path, &place)?;
    let found = locate(&file, elem, &place)?;
    let place = place.at(found.clone());
    let cannot = |e: &hdf5::Error| place.format(format!("HDF5 cannot describe it ({e})"), COPY_AGAIN);
    if matches!(file.loc_type_by_name(&found), Ok(LocationType::Dataset)) {
        let array = array_facts(&file.dataset(&found).map_err(|e| cannot(&e))?, &found).map_err(|e| cannot(&e))?;
        let &[rows, columns] = array.shape.as_slice() else {
            return Err(place.format(format!("an array of shape {:?}", array.shape), "Name a two-dimensional element"));
        };
        return Ok(MatrixFacts { path: found, format: "dense", shape: [rows, columns], arrays: vec![array], declined });
    }
    let group = file.group(&found).map_err(|e| cannot(&e))?;
    let form = Form::of(&group);
    let format = if matches!(&form, Form::Encoded(e) if e.starts_with("csc")) { "csc" } else { "csr" };
    let arrays = ["data", "indices", "indptr"].iter().map(|part| {
        let name = format!("{found}/{part}");
        array_facts(&group.dataset(part)?, &name)
    });
    let arrays = arrays.collect::<hdf5::Result<Vec<_>>>().map_err(|e| cannot(&e))?;
    Ok(MatrixFacts { shape: form.shape(&group, &place)?, path: found, format, arrays, declined })
}

fn array_facts(dataset: &Dataset, name: &str) -> hdf5::Result<ArrayFacts> {
    let datatype = dataset.dtype()?;
    let dtype = match (number_type(&datatype), datatype.to_descriptor()) {
        (Ok(number), _) => number.to_string(),
        (Err(_), Ok(descriptor)) => descriptor.to_string(),
        (Err(reason), Err(_)) => reason,
    };
    let plist = dataset.create_plist()?;
    let storage = match plist.get_layout()? {
        _ if !plist.get_external()?.is_empty() => "external",
        Layout::Contiguous => "contiguous",
        Layout::Chunked => "chunked",
        Layout::Compact => "compact",
        Layout::Virtual => "virtual",
    };
    let filters = plist.get_filters().map_or_else(
        |_| vec!["unknown".to_owned()],
        |filters| filters.iter().map(|filter| filter_name(filter.id())).collect(),
    );
    Ok(ArrayFacts {
        name: name.to_owned(),
        dtype,
        item_size: datatype.size() as u64,
        shape: dataset.space()?.shape().iter().map(|&n| n as u64).collect(),
        storage,
        chunk: plist.get_chunk()?.map(|chunk| chunk.iter().map(|&n| n as u64).collect()),
        filters,
        stored_bytes: dataset.storage_size(),
    })
}

fn filter_name(id: i32) -> String {
    match name_of(id) {
        "unknown name" => format!("HDF5 filter {id}"),
        name => name.to_owned(),
    }
}
