"""Files in a multipart body (RFC 7578), written to the disk while they arrive."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from pagevec.errors import (
    BodyTooLarge,
    InvalidRequest,
    PagevecError,
    TooManyInputs,
    UnsupportedEncoding,
)
from pagevec.ingest.incoming import Incoming
from pagevec.server.bodies import received

_HEADER_BYTES = 16 * 1024  # of all header fields of one part
_ESCAPED = {b"%22": b'"', b"%0A": b"\n", b"%0D": b"\r"}
_MOST_FIELDS = 100  # parts that are no files, which are passed over


async def receive_files(
    receive: Receive,
    headers: Mapping[str, str],
    begin: Callable[[str], Incoming],
    most_bytes: int,
    most_files: int,
) -> list[Incoming]:
    """Receive the files of a request; the caller discards them unless it accepts them.

    Args:
        receive: the ASGI callable.
        headers: of the request.
        begin: returns where a file with this name is written to.
        most_bytes: of the whole body.
        most_files: in one request.

    Raises:
        UnsupportedEncoding: the body is compressed.
        InvalidRequest: the body is no multipart body with files, or ends too early, or a file's
            name cannot be used; `index` says which file.
        BodyTooLarge, TooManyInputs: it is over a limit.
        StorageFull: there is no room for it.
        ClientDisconnect: the caller left.
    """
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedEncoding("send files as they are, without a Content-Encoding")
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > most_bytes:
        raise _too_large(most_bytes)
    parts = _Parts(_boundary(headers), most_files)
    files: list[Incoming] = []
    size = 0
    try:
        async for piece in received(receive):
            size += len(piece)
            if size > most_bytes:
                raise _too_large(most_bytes)
            for filename, data in parts.feed(piece):
                if filename is not None:
                    files.append(_begin(begin, filename, len(files)))
                if data:
                    await asyncio.to_thread(files[-1].write, data)
        if not parts.ended:
            raise InvalidRequest("the multipart body ends too early: send all of it")
        if not files:
            raise InvalidRequest("there is no file in the body: send parts with a filename")
    except BaseException:
        for file in files:
            file.discard()
        raise
    return files


def _begin(begin: Callable[[str], Incoming], filename: str, index: int) -> Incoming:
    try:
        return begin(filename)
    except PagevecError as error:
        raise error.at(index) from None


def _boundary(headers: Mapping[str, str]) -> bytes:
    kind, parameters = parse_options_header(headers.get("content-type", ""))
    boundary = parameters.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:
        raise InvalidRequest("send files as multipart/form-data, with a boundary")
    return boundary


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"the limit of one upload is {most:,} bytes: send fewer files in one")


class _Parts:
    """The files in a multipart body: the name of each as it begins, then its content."""

    def __init__(self, boundary: bytes, most_files: int) -> None:
        self.ended = False
        self._most = most_files
        self._files = self._fields = 0
        self._found: list[tuple[str | None, bytearray]] = []
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._is_file = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_to_name,
                "on_header_value": self._add_to_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> list[tuple[str | None, bytearray]]:
        """Read the next piece; return each file that is in it: its name if it begins, content.

        The parser gives content in as many parts as look like the beginning of a boundary, which
        can be all of it: they are put together.
        """
        self._found = []
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise InvalidRequest(
                "the multipart body cannot be read: it is not well formed"
            ) from None
        return self._found

    def _begin_part(self) -> None:
        self._headers, self._header_bytes = {}, 0

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def _count_header(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > _HEADER_BYTES:
            raise InvalidRequest("the header of a part of the multipart body is too long")

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        _, parameters = parse_options_header(self._headers.get(b"content-disposition", b""))
        filename = parameters.get(b"filename")
        self._is_file = filename is not None
        if filename is None:
            self._fields += 1
        else:
            self._files += 1
            self._found.append((_decode(filename), bytearray()))
        if self._files > self._most:
            raise TooManyInputs(f"more than {self._most} files in one upload: send several")
        if self._fields > _MOST_FIELDS:
            raise TooManyInputs(f"more than {_MOST_FIELDS} parts that are no files in one upload")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            if not self._found:
                self._found.append((None, bytearray()))
            self._found[-1][1].extend(data[start:end])

    def _end(self) -> None:
        self.ended = True


def _decode(filename: bytes) -> str:
    # Browsers escape these characters, and no others (the HTML standard, "multipart/form-data").
    for escaped, character in _ESCAPED.items():
        filename = filename.replace(escaped, character)
    with suppress(UnicodeDecodeError):
        return filename.decode()
    return filename.decode("latin-1")
