"""The arrays of an npz file, read without numpy's loader. Needs numpy only.

`numpy.load` reads the header of each array with `ast.literal_eval`, which fails by chance where
several threads use it: CPython before 3.14 counts the recursion of all threads together ("AST
constructor recursion depth mismatch", https://github.com/python/cpython/issues/106905).
"""

import re
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray


class Npz(ZipFile):
    """An npz file that is open for reading; gives each array by its name.

    Args:
        file: a path, or an open binary file.

    Raises:
        zipfile.BadZipFile: `file` is no archive.
        OSError: `file` cannot be read.
    """

    def __contains__(self, name: str) -> bool:
        """Return whether there is an array of this name."""
        return f"{name}.npy" in self.namelist()

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return an array, which cannot be written to.

        Raises:
            KeyError: there is none of this name.
            ValueError: it is not an array of numbers or characters as numpy writes it.
            zipfile.BadZipFile: its bytes are damaged.
        """
        return _parse_npy(self.read(f"{name}.npy"))


# https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
_HEADER = re.compile(
    r"\{'descr': '(?P<dtype>[^']+)', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>[\d, ]*)\), \} *\n"
)


def _parse_npy(content: bytes) -> NDArray[Any]:
    if content[:6] != b"\x93NUMPY":
        raise ValueError("not an array in numpy's format")
    start = 10 if content[6] == 1 else 12
    end = start + int.from_bytes(content[8:start], "little")
    header = _HEADER.fullmatch(content[start:end].decode("latin-1"))
    if header is None:
        raise ValueError("not an array of numbers or characters")
    shape = tuple(int(length) for length in header["shape"].split(",") if length.strip())
    values = np.frombuffer(content, np.dtype(header["dtype"]), offset=end)
    return values.reshape(shape, order="F" if header["fortran"] == "True" else "C")
