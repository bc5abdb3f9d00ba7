"""Any JSON body, read within limits: wherever pictures and texts are in it, they stay small.

The value of a field named `url`, `image` or `image_url` is a picture, in base64 or as a data URI;
any other string is a text. Unlike `pagevec.wire.body`, this knows no request: what a body asks for
is read from its content afterwards (`pagevec.wire.vllm`).
"""

from dataclasses import dataclass, field
from typing import Any

from pagevec.errors import InvalidRequest, PagevecError, TooManyInputs
from pagevec.wire.cutting import JsonCutter
from pagevec.wire.strings import BodyLimits, File, String, Text

_STRUCTURE_BYTES = 32 * 1024
_BYTES_OF_AN_INPUT = 160  # in the structure: one part of a message, with white space
_STRINGS_OF_AN_INPUT = 12  # names and values around one picture, at most
_NAME_BYTES = 256
_PICTURES = ("url", "image", "image_url")


@dataclass(frozen=True, eq=False)
class Picture:
    """A string that is a picture.

    Attributes:
        content: the bytes of the file, or why there are none.
    """

    content: bytes | PagevecError = field(repr=False)


class ValueReader(JsonCutter):
    """Reads one body, in pieces of any size.

    Args:
        limits: on texts, on pictures, and on how many of both there are.
    """

    def __init__(self, limits: BodyLimits) -> None:
        super().__init__(_STRUCTURE_BYTES + _BYTES_OF_AN_INPUT * limits.max_inputs)
        self._limits = limits
        self._most_strings = 100 + _STRINGS_OF_AN_INPUT * limits.max_inputs
        self._pictures = 0
        self._names: dict[int, str] = {}  # of the field that is read, by the depth of its object

    def finish(self) -> Any:
        """Return the body's content: JSON values, and a `Picture` for each picture.

        Raises:
            InvalidJSON: it is not JSON.
            TextTooLong: a text in it is over the limit.
        """
        return self._resolve(self._parse())

    def _begin_string(self) -> String:
        if len(self._strings) >= self._most_strings:
            raise TooManyInputs(f"more than {self._limits.max_inputs} inputs: send fewer")
        if self._begins_a_name:
            return _Name()
        if self._names.get(self._depth) not in _PICTURES:
            return Text(None, self._limits.max_text_chars)
        self._pictures += 1
        if self._pictures > self._limits.max_inputs:
            raise TooManyInputs(f"more than {self._limits.max_inputs} pictures: send fewer")
        return File(None, self._limits.open_file())

    def _end_string(self, string: String) -> None:
        super()._end_string(string)
        if isinstance(string, _Name):
            self._names[self._depth] = string.finish()

    @property
    def _depth(self) -> int:
        """How deep the innermost object is that is read."""
        return self._brackets.rfind(b"{")

    def _resolve(self, content: Any) -> Any:
        if isinstance(content, str):
            return self._value(self._strings[int(content)])
        if isinstance(content, list):
            return [self._resolve(one) for one in content]
        if isinstance(content, dict):
            return {self._resolve(name): self._resolve(one) for name, one in content.items()}
        return content

    def _value(self, string: String) -> Any:
        if not isinstance(string, File):
            return string.finish()
        try:
            return Picture(string.finish())
        except PagevecError as error:
            return Picture(error)


class _Name:
    """The name of a field."""

    def __init__(self) -> None:
        self._text = Text(None, _NAME_BYTES)
        self._known: str | None = None

    def feed(self, raw: bytes) -> None:
        self._text.feed(raw)

    def finish(self) -> str:
        if self._known is None:
            try:
                self._known = self._text.finish()
            except PagevecError:
                raise InvalidRequest("a field has a name that no field has") from None
        return self._known
