"""The error classes of annfeed, each a subclass of one of Python's.

All other errors are Python's own, as TypeError or OSError. Messages are written where they are raised.
"""


class FormatError(ValueError):
    """A file is damaged, is not an .h5ad file, or contradicts itself.

    Examples
    --------
    >>> FormatError("atlas.h5ad: obs/age has 5 values, the obs has 6 rows")
    FormatError('atlas.h5ad: obs/age has 5 values, the obs has 6 rows')
    """


class StaleFileError(OSError):
    """A file is no longer the one that the dataset was made from: its size, modification time or inode changed.

    Examples
    --------
    >>> StaleFileError("atlas.h5ad changed on disk since it was opened; make the dataset again")
    StaleFileError('atlas.h5ad changed on disk since it was opened; make the dataset again')
    """


class StaleDataError(ValueError):
    """An AnnData no longer has the cells or genes that it had when the dataset was made, or the labels of sets.

    Examples
    --------
    >>> StaleDataError("AnnData has 30 cells now; expected the 40 that it had when the dataset was made")
    StaleDataError('AnnData has 30 cells now; expected the 40 that it had when the dataset was made')
    """


class UnknownNameError(KeyError):
    """An obs column, a gene, a layer or a key does not exist.

    A KeyError shows its message as a quoted string with escapes; this one shows it as it is.

    Examples
    --------
    >>> print(UnknownNameError("obs has no column 'age'"), KeyError("obs has no column 'age'"))
    obs has no column 'age' "obs has no column 'age'"
    """

    def __str__(self) -> str:
        """Return the message as it was given."""
        return str(self.args[0]) if self.args else ""


class UnsupportedError(FormatError):
    """A valid file has a format, filter, layout or type that annfeed does not read (with ``strict=True``: in Rust).

    Examples
    --------
    >>> issubclass(UnsupportedError, ValueError)
    True
    """


class AnnfeedWarning(UserWarning):
    """Something works, but more slowly or less exactly than expected, or with other rows or columns.

    Examples
    --------
    >>> issubclass(AnnfeedWarning, UserWarning)
    True
    """
