//! The matrix of a Cell Ranger file (10x Genomics, `.h5`): a group without attributes, beside whose arrays are the barcodes.
//!
//! It is stored by columns of features x barcodes, which is by rows of barcodes x features. Which group it is, the caller knows.

use hdf5::Group;

use super::open::{COPY_AGAIN, shape_attr, text_attr};
use crate::error::{Place, Result};

/// How a sparse matrix says what it is.
pub(super) enum Form {
    /// An attribute names the encoding.
    Encoded(String),
    /// Cell Ranger's.
    TenX,
    /// Neither.
    Unknown,
}

impl Form {
    pub(super) fn of(group: &Group) -> Self {
        match text_attr(group, "encoding-type").or_else(|| text_attr(group, "h5sparse_format")) {
            Some(encoding) => Self::Encoded(encoding),
            None if group.link_exists("barcodes") => Self::TenX,
            None => Self::Unknown,
        }
    }

    /// Rows and columns.
    pub(super) fn shape(&self, group: &Group, place: &Place) -> Result<[u64; 2]> {
        if !matches!(self, Self::TenX) {
            return shape_attr(group, place);
        }
        let values = group.dataset("shape").and_then(|shape| shape.read_raw::<i64>());
        match values.as_deref() {
            Ok(&[features, barcodes]) if features >= 0 && barcodes >= 0 => Ok([barcodes as u64, features as u64]),
            Ok(other) => Err(place.format(format!("the array 'shape' is {other:?}; expected two sizes"), COPY_AGAIN)),
            Err(e) => Err(place.format(format!("the array 'shape' cannot be read ({e})"), COPY_AGAIN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::open::layout;
    use crate::layout::MatrixLayout;

    /// A file of three features and two barcodes with this array of the shape, opened.
    fn opened(shape: Option<&[i32]>) -> Result<MatrixLayout, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cells.h5");
        let file = hdf5::File::create(&path).unwrap();
        let group = file.create_group("matrix").unwrap();
        for (name, values) in [("data", vec![5, 6]), ("indices", vec![2, 0]), ("indptr", vec![0, 1, 2])] {
            group.new_dataset_builder().with_data(&values).create(name).unwrap();
        }
        group.new_dataset_builder().with_data(&[1u8, 2]).create("barcodes").unwrap();
        if let Some(shape) = shape {
            group.new_dataset_builder().with_data(shape).create("shape").unwrap();
        }
        drop(group);
        file.close().unwrap();
        layout(&path, "matrix").map_err(|e| e.to_string())
    }

    #[test]
    fn columns_of_features_are_rows_of_barcodes() {
        assert!(matches!(opened(Some(&[3, 2])), Ok(MatrixLayout::Csr(found)) if found.shape == [2, 3]));
    }

    #[test]
    fn a_shape_that_is_none_is_told() {
        assert!(opened(None).unwrap_err().contains("'shape' cannot be read"));
        assert!(opened(Some(&[3, -2])).unwrap_err().contains("'shape' is [3, -2]"));
        assert!(opened(Some(&[3])).unwrap_err().contains("'shape' is [3]"));
        assert!(opened(Some(&[3, 5])).unwrap_err().contains("indptr has 3 elements"));
    }
}
