"""Base64 -> the bytes of an image file, piece by piece: an upload is never held twice."""

import re
from io import BytesIO

import pybase64

from pagevec.errors import ImageTooLarge, InvalidImage
from pagevec.limits import ImageLimits

_WHITE_SPACE = b" \t\r\n"
_URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_ADDRESS = re.compile(rb"[a-z][a-z0-9+.-]*://", re.I)
_HEAD_BYTES = 1024  # what comes before the base64 in a data URI is far shorter
_BLOCK = 256 * 1024


class Base64Reader:
    """Decodes base64, bare or in a data URI, of the standard or the URL-safe alphabet.

    White space and missing padding are accepted; any other character is not.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._file = BytesIO()  # its bytes are handed out without a copy
        self._head: bytes | None = b""
        self._carry = b""
        self._padded = False

    def feed(self, text: bytes) -> None:
        """Decode the next piece of the text.

        Raises:
            InvalidImage: the text is not base64; addresses are never fetched.
            ImageTooLarge: the file would be over the limit; known before it is decoded.
        """
        if self._head is None:
            self._decode(text)
            return
        self._head = (self._head + text).lstrip(_WHITE_SPACE)
        if len(self._head) >= _HEAD_BYTES:
            self._end_head()

    def finish(self) -> bytes:
        """Return the file.

        Raises:
            InvalidImage, ImageTooLarge: as for `feed`.
        """
        self._end_head()
        rest = _tidy(self._carry)
        self._carry = b""
        self._write(rest + b"=" * (-len(rest) % 4))
        return self._file.getvalue()

    def _end_head(self) -> None:
        if self._head is not None:
            text, self._head = _without_data_prefix(self._head), None
            self._decode(text)

    def _decode(self, text: bytes) -> None:
        digits = self._carry + text
        whole = len(digits) & ~3
        try:
            # Cleaning costs many times what decoding does, so it is done only where it is needed.
            self._write(digits[:whole])
        except InvalidImage:
            digits = _tidy(digits)
            whole = len(digits) & ~3
            self._write(digits[:whole])
        self._carry = digits[whole:]

    def _write(self, digits: bytes) -> None:
        if not digits:
            return
        at_least = self._file.tell() + _decoded_length(digits)
        if at_least > self._limits.max_bytes:
            spaces = sum(map(digits.count, (b"%c" % space for space in _WHITE_SPACE)))
            check_bytes(at_least - spaces * 3 // 4, self._limits)
        try:
            if self._padded:
                raise ValueError("digits after the padding")
            self._file.write(pybase64.b64decode(digits, validate=True))
        except ValueError as error:
            raise InvalidImage(
                "the image is not valid base64; send an image file as base64, bare or as a data URI"
            ) from error
        self._padded = digits.endswith(b"=")


def decode_base64(text: str, limits: ImageLimits) -> bytes:
    """Decode a whole text; see `Base64Reader`.

    Raises:
        InvalidImage, ImageTooLarge: as for `Base64Reader.feed`.
    """
    reader = Base64Reader(limits)
    for start in range(0, len(text), _BLOCK):
        # What is not ASCII becomes a character that is not base64 either.
        reader.feed(text[start : start + _BLOCK].encode("ascii", "replace"))
    return reader.finish()


def check_bytes(count: int, limits: ImageLimits) -> None:
    """Check the size of an image file.

    Raises:
        ImageTooLarge: it is over the limit.
    """
    if count > limits.max_bytes:
        raise ImageTooLarge(
            f"the image file has {count:,} bytes, more than the {limits.max_bytes:,} allowed; "
            "send a smaller or more compressed one"
        )


def _tidy(digits: bytes) -> bytes:
    return digits.translate(_URL_SAFE_TO_STANDARD, _WHITE_SPACE)


def _decoded_length(digits: bytes) -> int:
    return len(digits) * 3 // 4 - 2  # up to two bytes are padding


def _is_printable(header: bytes) -> bool:
    try:
        return header.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _without_data_prefix(text: bytes) -> bytes:
    if _ADDRESS.match(text):
        raise InvalidImage(
            "the image is given as an address, and addresses are never fetched; "
            "send the file itself as base64"
        )
    if text[:5].lower() != b"data:":
        return text
    header, _, body = text.partition(b",")
    if not _is_printable(header) or not header.replace(b" ", b"").lower().endswith(b";base64"):
        raise InvalidImage(
            'the data URI is not base64; it has to start like "data:image/png;base64,"'
        )
    return body
