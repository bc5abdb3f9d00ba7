"""A file as a form that is sent in pieces (multipart/form-data, RFC 7578)."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pagevec.errors import DocumentError

_PIECE = 256 * 1024  # bytes
# What browsers do with the characters that would end the name.
_ESCAPED = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


@dataclass(frozen=True)
class FileForm:
    """A form with one file, which is opened anew each time that the form is sent.

    Attributes:
        file: where it is.
        name: what the receiver is told that it is called.
        file_bytes: how long it is; one that gets longer or shorter is not sent to its end.
    """

    file: Path
    name: str
    file_bytes: int
    _boundary: str = field(default_factory=lambda: secrets.token_hex(16))

    @classmethod
    def of(cls, file: Path, name: str) -> Self:
        """Return the form that sends `file` as it is now.

        Raises:
            OSError: there is no such file.
        """
        return cls(file, name, file.stat().st_size)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of a request with this form."""
        size = len(self._head) + self.file_bytes + len(self._tail)
        return {
            "Content-Type": f"multipart/form-data; boundary={self._boundary}",
            "Content-Length": str(size),
        }

    def __iter__(self) -> Iterator[bytes]:
        """Yield the form in pieces.

        Raises:
            DocumentError: the file has changed.
            OSError: it cannot be read.
        """
        yield self._head
        left = self.file_bytes
        with self.file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                left -= len(piece)
                if left < 0:
                    break
                yield piece
        if left:
            raise DocumentError("the file changed while it was sent; ingest it again")
        yield self._tail

    @property
    def _head(self) -> bytes:
        name = self.name.translate(_ESCAPED)
        return (
            f"--{self._boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()

    @property
    def _tail(self) -> bytes:
        return f"\r\n--{self._boundary}--\r\n".encode()
