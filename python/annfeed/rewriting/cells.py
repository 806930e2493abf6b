"""What else goes along with the cells when their rows come in another order: obs, and frames and arrays in obsm."""

from __future__ import annotations

from typing import Any

from annfeed.arrays import Int64Array
from annfeed.errors import UnsupportedError
from annfeed.h5ad.file import text_of
from annfeed.rewriting.tree import copy_attributes

#: By encoding of a column that is a group: the arrays in it that have a value for each cell.
_ARRAYS = {
    "categorical": ("codes",),
    "nullable-integer": ("values", "mask"),
    "nullable-boolean": ("values", "mask"),
    "nullable-string-array": ("values", "mask"),
}


def write_cells(node: Any, parent: Any, name: str, order: Int64Array, path: str) -> None:
    """Write an array or a frame over cells in another order.

    Parameters
    ----------
    node
        A dataset, or a group with one for each column.
    parent, name
        Where it goes.
    order
        int64, the old row of each new one.
    path
        The file, for messages.

    Raises
    ------
    UnsupportedError
        If it is neither.
    """
    if not hasattr(node, "keys"):
        _write_array(node, parent, name, order)
        return
    is_frame = text_of(node.attrs.get("encoding-type", "dataframe")) == "dataframe"
    group = parent.create_group(name, track_order=bool(node.id.get_create_plist().get_link_creation_order()))
    copy_attributes(node, group)
    for key in node:
        column = node[key]
        if not is_frame:
            raise _unknown(node, path)
        if key == "__categories":  # of anndata before 0.8
            node.copy(key, group, key)
        elif not hasattr(column, "keys"):
            _write_array(column, group, key, order)
        else:
            _write_column(column, group, key, order, path)


def _write_column(column: Any, parent: Any, name: str, order: Int64Array, path: str) -> None:
    arrays = _ARRAYS.get(text_of(column.attrs.get("encoding-type", "")))
    if arrays is None and {"codes", "categories"} <= set(column):  # written without its encoding
        arrays = ("codes",)
    if arrays is None:
        raise _unknown(column, path)
    group = parent.create_group(name)
    copy_attributes(column, group)
    for key in column:
        if key in arrays:
            _write_array(column[key], group, key, order)
        else:
            column.copy(key, group, key)


def _write_array(dataset: Any, parent: Any, name: str, order: Int64Array) -> None:
    import h5py

    made = h5py.h5d.create(
        parent.id, name.encode(), dataset.id.get_type(), dataset.id.get_space(), dataset.id.get_create_plist()
    )
    new = h5py.Dataset(made)
    copy_attributes(dataset, new)
    values = dataset[()]
    if values.dtype.hasobject:
        new[...] = values[order]
        return
    # In the type of the file, so that nothing is converted.
    dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values, mtype=dataset.id.get_type())
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, values[order], mtype=dataset.id.get_type())


def _unknown(node: Any, path: str) -> UnsupportedError:
    found = text_of(node.attrs.get("encoding-type", "unknown"))
    return UnsupportedError(
        f"{path}: '{node.name.lstrip('/')}' has the encoding '{found}'; expected an array or a DataFrame, whose rows "
        "can be put into another order. Leave it out of the file, or keep the order"
    )
