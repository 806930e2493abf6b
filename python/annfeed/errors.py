"""The errors that are annfeed's own, each a kind of error that Python users already catch.

They exist so that a caller can tell "the file is not what it says" or "the file changed" from other trouble. Everything
else is raised as a plain TypeError, ValueError, IndexError or OSError. This file decides no wording: who raises, words.
"""


class FormatError(ValueError):
    """A file is not what it says it is, or holds something that annfeed does not read.

    Examples
    --------
    >>> FormatError("atlas.h5ad: obs/age has 5 values, the obs has 6 rows")
    FormatError('atlas.h5ad: obs/age has 5 values, the obs has 6 rows')
    """


class StaleFileError(OSError):
    """A file is no longer the one that the dataset was made from: its size, time or inode changed.

    Examples
    --------
    >>> StaleFileError("atlas.h5ad changed on disk since it was opened; make the dataset again")
    StaleFileError('atlas.h5ad changed on disk since it was opened; make the dataset again')
    """


class StaleDataError(ValueError):
    """An AnnData no longer has the cells or genes that it had when the dataset was made of it.

    Examples
    --------
    >>> StaleDataError("AnnData has 30 cells now; expected the 40 that it had when the dataset was made")
    StaleDataError('AnnData has 30 cells now; expected the 40 that it had when the dataset was made')
    """


class UnknownNameError(KeyError):
    """A name (of a column, a gene, a layer, a key) is not in the place where it was looked for.

    A KeyError shows its message as a quoted string with escapes; this one reads like any other message.

    Examples
    --------
    >>> print(UnknownNameError("obs has no column 'age'"), KeyError("obs has no column 'age'"))
    obs has no column 'age' "obs has no column 'age'"
    """

    def __str__(self) -> str:
        """Return the message as it was given."""
        return str(self.args[0]) if self.args else ""


class UnsupportedError(FormatError):
    """A valid file uses a filter, layout or type that annfeed cannot read as asked (with ``strict=True``, or at all).

    Examples
    --------
    >>> issubclass(UnsupportedError, ValueError)
    True
    """


class AnnfeedWarning(UserWarning):
    """Something works, but slower or less exactly than it looks.

    Examples
    --------
    >>> issubclass(AnnfeedWarning, UserWarning)
    True
    """
