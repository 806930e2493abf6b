//! From a path and an element's name to the layout of its matrix.
//!
//! Knows the encodings of anndata (`encoding-type`), those before 0.7 (`h5sparse_format`, `raw.X` at the top) and the bare
//! `csr`/`csc` that some writers use; `tenx` knows Cell Ranger's. obs and var are not read here: Python does that.

use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Attribute, File, Group, LocationType};

use super::array::describe;
use super::tenx::Form;
use crate::error::{Error, Place, Result};
use crate::file::{DEFAULT_DEPTH, DataFile};
use crate::layout::{ArrayLayout, MatrixLayout, SparseLayout};

pub(super) const COPY_AGAIN: &str = "Copy or download the file again";
/// Groups of one level that are searched for suggestions.
const MAX_GROUPS: usize = 50;

/// Finds the matrix `elem` ("X", "raw/X", "layers/counts", …) in `source`, which libhdf5 opens by its path.
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened, [`Error::Format`] if it is damaged or not HDF5,
/// [`Error::Missing`] without such an element, [`Error::Unsupported`] if only h5py can read it.
pub(crate) fn open(source: &DataFile, elem: &str) -> Result<MatrixLayout> {
    let path = source.path();
    let place = Place::new(path.display().to_string(), elem);
    check_readable(path, &place)?;
    let file = open_file(path, &place)?;
    let found = locate(&file, elem, &place)?;
    let place = place.at(found.clone());
    let kind = file
        .loc_type_by_name(&found)
        .map_err(|e| place.format(format!("HDF5 cannot follow the link ({e})"), COPY_AGAIN))?;
    match kind {
        LocationType::Dataset => dense(&file, &found, &place, source),
        LocationType::Group => sparse(&file, &found, &place, source),
        _ => Err(place.format("it is neither a group nor a dataset", "Name an element that holds a matrix")),
    }
}

/// Finds the array at `name` of `source`.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_array(source: &DataFile, name: &str) -> Result<ArrayLayout> {
    let path = source.path();
    let place = Place::new(path.display().to_string(), name);
    check_readable(path, &place)?;
    let file = open_file(path, &place)?;
    let dataset = file.dataset(name);
    let dataset = dataset
        .map_err(|e| place.format(format!("HDF5 cannot open the dataset ({e})"), "Name an array of this file"))?;
    describe(&file, &dataset, &place, source)
}

/// As [`open`], of the local file at `path`.
///
/// # Errors
/// As [`open`].
pub fn layout(path: &Path, elem: &str) -> Result<MatrixLayout> {
    open(&DataFile::open(path, DEFAULT_DEPTH)?, elem)
}

/// Checks that the operating system can read the file: its errors are clearer than those of HDF5.
pub(super) fn check_readable(path: &Path, place: &Place) -> Result<()> {
    let io = |doing: &str, source| Error::Io { file: place.file.clone(), doing: doing.into(), source };
    let meta = std::fs::metadata(path).map_err(|e| io("cannot open the file", e))?;
    if !meta.is_file() {
        // Before opening: to open a pipe would wait for a writer.
        let error = std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is not a regular file");
        return Err(io("cannot open the file", error));
    }
    let mut file = std::fs::File::open(path).map_err(|e| io("cannot open the file", e))?;
    file.read_exact(&mut [0u8; 1])
        .map_err(|_| place.at("/").format("the file is empty, not HDF5", "Give the path of an .h5ad file"))?;
    Ok(())
}

pub(super) fn open_file(path: &Path, place: &Place) -> Result<File> {
    // The wrapper takes only names in UTF-8; a descriptor gives the file another name.
    let held = path.to_str().is_none().then(|| std::fs::File::open(path)).transpose();
    let held =
        held.map_err(|source| Error::Io { file: place.file.clone(), doing: "cannot open the file".into(), source })?;
    let name = held.as_ref().map_or_else(|| path.to_owned(), |file| format!("/dev/fd/{}", file.as_raw_fd()).into());
    // Locking off: h5py or another process may hold the file, and network file systems often cannot lock.
    let opened = File::with_options().with_fapl(|p| p.file_locking(false)).open(name);
    opened.map_err(|e| {
        let text = e.to_string();
        let place = place.at("/");
        match Unopened::from_text(&text) {
            Unopened::Truncated => place.format(format!("the file is truncated ({text})"), COPY_AGAIN),
            Unopened::NotHdf5 => {
                place.format("the file is not HDF5 (no HDF5 signature)", "Give the path of an .h5ad file")
            }
            Unopened::Other => place.format(format!("HDF5 cannot open the file ({text})"), COPY_AGAIN),
        }
    })
}

/// Why HDF5 does not open a file.
#[derive(Debug, PartialEq, Eq)]
enum Unopened {
    Truncated,
    NotHdf5,
    Other,
}

impl Unopened {
    /// From the text of HDF5's message: its error numbers do not distinguish these.
    fn from_text(text: &str) -> Self {
        if text.contains("truncated") {
            Self::Truncated
        } else if text.contains("signature") {
            Self::NotHdf5
        } else {
            Self::Other
        }
    }
}

/// The path under which `elem` lies in this file.
pub(super) fn locate(file: &File, elem: &str, place: &Place) -> Result<String> {
    let wanted = elem.trim_matches('/');
    if exists(file, wanted) {
        return Ok(wanted.to_owned());
    }
    // Before anndata 0.7, raw was not a group, and obsm was one compound array.
    if wanted == "raw/X" && exists(file, "raw.X") {
        return Ok("raw.X".to_owned());
    }
    if let Some((parent, name)) = wanted.rsplit_once('/')
        && fields(file, parent).iter().any(|field| field == name)
    {
        return Err(place.unsupported("it is a field of a compound array (anndata before 0.7)"));
    }
    let is_mudata = text_attr(file, "encoding-type").is_some_and(|t| t.eq_ignore_ascii_case("mudata"));
    let remedy = if is_mudata || exists(file, "mod") {
        let modalities = members(file, "mod").join("', '");
        format!(
            "This is a MuData file with modalities '{modalities}': pass elem='mod/<modality>/X', or \
             elem={{'<name>': 'mod/<modality>/X', …}} for several"
        )
    } else {
        let found = matrices(file);
        if found.is_empty() {
            "There is no matrix in this file".to_owned()
        } else {
            format!("There are: '{}'. Pass one of them as elem=", found.join("', '"))
        }
    };
    Err(Error::Missing { place: place.clone(), remedy })
}

fn exists(group: &Group, path: &str) -> bool {
    let mut seen = String::new();
    !path.is_empty()
        && path.split('/').all(|part| {
            if !seen.is_empty() {
                seen.push('/');
            }
            seen.push_str(part);
            group.link_exists(&seen)
        })
}

fn members(file: &File, group: &str) -> Vec<String> {
    let names = file.group(group).and_then(|g| g.member_names()).unwrap_or_default();
    names.iter().map(|name| valid(name.as_bytes())).collect()
}

/// The names of the fields of a compound array; none if `path` is something else.
fn fields(file: &File, path: &str) -> Vec<String> {
    let is_dataset = exists(file, path) && matches!(file.loc_type_by_name(path), Ok(LocationType::Dataset));
    let datatype = is_dataset.then(|| file.dataset(path).and_then(|d| d.dtype()?.to_descriptor()));
    match datatype {
        Some(Ok(TypeDescriptor::Compound(compound))) => {
            compound.fields.iter().map(|f| valid(f.name.as_bytes())).collect()
        }
        _ => Vec::new(),
    }
}

/// Suggestions: the matrices of this file, or, if it has no X, those of nested objects.
fn matrices(file: &File) -> Vec<String> {
    let top = ["X", "raw/X", "raw.X"].iter().filter(|p| exists(file, p)).map(|p| (*p).to_owned());
    let nested = ["layers", "obsm"].iter().flat_map(|&group| {
        let names = members(file, group).into_iter().chain(fields(file, group));
        names.map(move |name| format!("{group}/{name}"))
    });
    let mut found: Vec<String> = top.chain(nested).collect();
    let mut groups = if exists(file, "X") { Vec::new() } else { members(file, "/") };
    // Breadth first, two levels: suggestions need not be complete.
    for _ in 0..2 {
        let inner =
            |group: &String| members(file, group).into_iter().map(|m| format!("{group}/{m}")).collect::<Vec<_>>();
        groups = groups.iter().take(MAX_GROUPS).flat_map(inner).collect();
        found.extend(
            groups.iter().filter(|path| path.ends_with("/X") && !found.contains(path)).cloned().collect::<Vec<_>>(),
        );
    }
    found
}

fn dense(file: &File, path: &str, place: &Place, source: &DataFile) -> Result<MatrixLayout> {
    let dataset =
        file.dataset(path).map_err(|e| place.format(format!("HDF5 cannot open the dataset ({e})"), COPY_AGAIN))?;
    if let Some(encoding) = text_attr(&dataset, "encoding-type").filter(|t| t != "array") {
        return Err(not_a_matrix(place, &encoding));
    }
    let array = describe(file, &dataset, place, source)?;
    if array.shape.len() != 2 {
        return Err(place.format(
            format!("an array of shape {:?}; expected a matrix of rows and columns", array.shape),
            "Name a two-dimensional element",
        ));
    }
    Ok(MatrixLayout::Dense(array))
}

fn not_a_matrix(place: &Place, encoding: &str) -> Error {
    place.format(
        format!("the encoding is '{encoding}'; expected 'csr_matrix', 'csc_matrix' or 'array'"),
        "Name an element that holds a matrix, or write the file again with anndata",
    )
}

fn sparse(file: &File, path: &str, place: &Place, source: &DataFile) -> Result<MatrixLayout> {
    let group = file.group(path).map_err(|e| place.format(format!("HDF5 cannot open the group ({e})"), COPY_AGAIN))?;
    let form = Form::of(&group);
    let rows_first = match &form {
        Form::TenX => true,
        Form::Encoded(encoding) => match encoding.as_str() {
            "csr_matrix" | "csr" => true,
            "csc_matrix" | "csc" => false,
            other => return Err(not_a_matrix(place, other)),
        },
        Form::Unknown => {
            return Err(place.format(
                "the group has no encoding-type; expected 'csr_matrix' or 'csc_matrix'",
                "Write the file again with anndata",
            ));
        }
    };
    let shape = form.shape(&group, place)?;
    let part = |name: &str| -> Result<ArrayLayout> {
        let place = place.at(format!("{path}/{name}"));
        let dataset = group
            .dataset(name)
            .map_err(|e| place.format(format!("the dataset cannot be opened ({e})"), "Write the file again"))?;
        let array = describe(file, &dataset, &place, source)?;
        if array.shape.len() != 1 {
            return Err(place.format(format!("shape {:?}; expected one axis", array.shape), COPY_AGAIN));
        }
        if name != "data" && !array.dtype.kind.is_integer() {
            return Err(place.format(format!("dtype {}; expected an integer", array.dtype), COPY_AGAIN));
        }
        Ok(array)
    };
    let layout = SparseLayout { shape, data: part("data")?, indices: part("indices")?, indptr: part("indptr")? };
    check_lengths(&layout, rows_first, place)?;
    Ok(if rows_first { MatrixLayout::Csr(layout) } else { MatrixLayout::Csc(layout) })
}

fn check_lengths(layout: &SparseLayout, rows_first: bool, place: &Place) -> Result<()> {
    if layout.data.len() != layout.indices.len() {
        let (data, indices) = (layout.data.len(), layout.indices.len());
        return Err(place.format(format!("data has {data} elements but indices has {indices}"), COPY_AGAIN));
    }
    let major = layout.shape[usize::from(!rows_first)];
    // Some programs write an empty indptr for an empty matrix.
    let expected = major.saturating_add(1);
    if layout.indptr.len() != expected && !(major == 0 && layout.indptr.is_empty()) {
        return Err(place.format(
            format!("indptr has {} elements, where shape {:?} needs {expected}", layout.indptr.len(), layout.shape),
            COPY_AGAIN,
        ));
    }
    if layout.shape[usize::from(rows_first)] > u64::from(u32::MAX) {
        return Err(place.unsupported(format!("shape {:?} has more than 2^32 columns", layout.shape)));
    }
    Ok(())
}

pub(super) fn shape_attr(group: &Group, place: &Place) -> Result<[u64; 2]> {
    let attr = group.attr("shape").or_else(|_| group.attr("h5sparse_shape"));
    let values = attr.and_then(|a| a.read_raw::<i64>());
    match values.as_deref() {
        Ok(&[rows, columns]) if rows >= 0 && columns >= 0 => Ok([rows as u64, columns as u64]),
        Ok(other) => Err(place.format(format!("the attribute 'shape' is {other:?}"), "Write the file again")),
        Err(e) => Err(place.format(format!("the attribute 'shape' cannot be read ({e})"), "Write the file again")),
    }
}

/// Bytes of a file as text: the wrapper does not check that they are UTF-8.
fn valid(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A text attribute of any string type.
pub(super) fn text_attr(location: &hdf5::Location, name: &str) -> Option<String> {
    fn first<T: hdf5::H5Type>(attr: &Attribute, bytes: fn(&T) -> &[u8]) -> Option<String> {
        attr.read_raw::<T>().ok()?.first().map(|text| valid(bytes(text)))
    }
    let attr: Attribute = location.attr(name).ok()?;
    match attr.dtype().ok()?.to_descriptor().ok()? {
        TypeDescriptor::VarLenUnicode => first(&attr, |t: &VarLenUnicode| t.as_bytes()),
        TypeDescriptor::VarLenAscii => first(&attr, |t: &VarLenAscii| t.as_bytes()),
        TypeDescriptor::FixedAscii(_) => first(&attr, |t: &FixedAscii<256>| t.as_bytes()),
        TypeDescriptor::FixedUnicode(_) => first(&attr, |t: &FixedUnicode<256>| t.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What HDF5 says of a file with these bytes.
    fn reason(bytes: &[u8]) -> Unopened {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.h5");
        std::fs::write(&path, bytes).unwrap();
        Unopened::from_text(&File::open(&path).unwrap_err().to_string())
    }

    #[test]
    fn the_words_of_hdf5_tell_what_is_wrong_with_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whole.h5");
        let file = File::create(&path).unwrap();
        file.new_dataset_builder().with_data(&[7u8; 10_000]).create("data").unwrap();
        file.close().unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(reason(&whole[..whole.len() / 2]), Unopened::Truncated);
        assert_eq!(reason(b"no HDF5 file, but text"), Unopened::NotHdf5);
        let mut unknown_version = whole;
        unknown_version[8] = 99;
        assert_eq!(reason(&unknown_version), Unopened::Other);
    }
}
