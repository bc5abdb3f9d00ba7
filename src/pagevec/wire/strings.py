"""The strings of a request's body, each kept in the smallest form that it can have."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from pagevec.errors import InvalidJSON, InvalidRequest, PagevecError, TextTooLong
from pagevec.wire.schema import check_field

_NAME_BYTES = 1024  # of a field's name, or of a value that is a word
_CHARACTER_BYTES = 12  # of one character at most, as two escaped surrogates
_ESCAPE_BYTES = 6
_PIECE_BYTES = 64 * 1024


class FileReader(Protocol):
    """Makes the bytes of a file from pieces of text, such as base64."""

    def feed(self, text: bytes) -> None:
        """Read the next piece."""
        ...

    def finish(self) -> bytes:
        """Return the file."""
        ...


@dataclass(frozen=True)
class BodyLimits:
    """What a body may hold.

    Attributes:
        max_inputs: inputs in it.
        max_text_chars: characters of one text.
        open_file: begins to read an image; what it returns has limits of its own.
    """

    max_inputs: int
    max_text_chars: int
    open_file: Callable[[], FileReader]


class String(Protocol):
    """A string of a body, fed with what is between its quotes."""

    def feed(self, raw: bytes) -> None:
        """Read the next piece."""
        ...

    def finish(self) -> Any:
        """Return what the string is.

        Raises:
            PagevecError: it is not what it has to be.
        """
        ...


class Misplaced:
    """A string where no request has one: the shape of the body is wrong, whatever it says."""

    def feed(self, raw: bytes) -> None:
        pass

    def finish(self) -> str:
        return ""


class Word:
    """The name of a field, or its value."""

    def __init__(self, field: str, is_name: bool = False) -> None:
        self.is_name = is_name
        self._field = field
        self._raw = bytearray()
        self._word: str | None = None

    def feed(self, raw: bytes) -> None:
        self._raw += raw[: _NAME_BYTES + 1]
        if len(self._raw) > _NAME_BYTES and self.is_name:
            check_field(self._raw.decode(errors="replace"))
        if len(self._raw) > _NAME_BYTES:
            raise InvalidRequest(f"{self._field or 'body'}: not a value that it can have")

    def finish(self) -> str:
        if self._word is None:
            self._word = _unquote(bytes(self._raw))
        return self._word


class Text:
    """A text."""

    def __init__(self, index: int | None, max_chars: int) -> None:
        self._index = index
        self._max_chars = max_chars
        self._raw = bytearray()
        self._text: str | None = None

    def feed(self, raw: bytes) -> None:
        if len(self._raw) + len(raw) > _CHARACTER_BYTES * self._max_chars:
            raise self._too_long(f"more than {self._max_chars}")
        self._raw += raw

    def finish(self) -> str:
        if self._text is None:
            self._text = _unquote(bytes(self._raw))
            self._raw.clear()
        if len(self._text) > self._max_chars:
            raise self._too_long(str(len(self._text)))
        return self._text

    def _too_long(self, count: str) -> TextTooLong:
        return TextTooLong(
            f"the text has {count} characters, the limit is {self._max_chars}: split it",
            index=self._index,
        )


class File:
    """An image file. If it is at fault, that is said once the whole body is known to be one."""

    def __init__(self, index: int | None, reader: FileReader) -> None:
        self._index = index
        self._reader: FileReader | None = reader
        self._escape = b""  # perhaps not complete
        self._file: bytes | None = None
        self._fault: PagevecError | None = None

    def feed(self, raw: bytes) -> None:
        self._feed(raw, is_last=False)

    def finish(self) -> bytes:
        self._feed(b"", is_last=True)
        if self._reader and not self._fault:
            try:
                self._file = self._reader.finish()
            except PagevecError as error:
                self._fault = error if self._index is None else error.at(self._index)
        self._reader = None
        if self._fault:
            raise self._fault
        return self._file or b""

    def _feed(self, raw: bytes, *, is_last: bool) -> None:
        if not self._reader or self._fault:
            return
        if any(control in raw for control in (b"\n", b"\r", b"\t")):
            # Base64 could have them, a string of JSON cannot.
            raise InvalidJSON(_CONTROL)
        raw, self._escape = self._escape + raw, b""
        if b"\\" in raw:
            if not is_last and (cut := raw.rfind(b"\\", -_ESCAPE_BYTES)) >= 0:
                raw, self._escape = raw[:cut], raw[cut:]
            raw = _unquote(raw).encode("ascii", "replace")
        try:
            self._reader.feed(raw)
        except PagevecError as error:
            self._fault = error if self._index is None else error.at(self._index)
            self._reader = None


class Unknown:
    """An input that came before `input_type`: it is kept as it came."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._pieces: list[bytearray] = []

    def feed(self, raw: bytes) -> None:
        if not self._pieces or len(self._pieces[-1]) > _PIECE_BYTES:
            self._pieces.append(bytearray())
        self._pieces[-1] += raw

    def finish(self) -> str:
        return ""

    def finish_as(self, kind: str, limits: BodyLimits) -> Any:
        known = begin_input(kind, self._index, limits)
        self._pieces.reverse()
        while self._pieces:
            known.feed(bytes(self._pieces.pop()))
        return known.finish()


def begin_input(kind: str, index: int, limits: BodyLimits) -> Text | File:
    """Return the string of an input of this kind."""
    if kind == "text":
        return Text(index, limits.max_text_chars)
    return File(index, limits.open_file())


_CONTROL = "the body is not valid JSON: control character in a string; write it as an escape"


def _unquote(raw: bytes) -> str:
    try:
        text: str = orjson.loads(b'"%b"' % raw)
    except orjson.JSONDecodeError as error:
        raise InvalidJSON(f"the body is not valid JSON: {error.msg}") from None
    return text
