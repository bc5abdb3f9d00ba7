"""A request's body, read as it arrives: each input is made small at once, the rest stays short.

Nearly all of an honest body is within its inputs, which are strings. So strings are cut out of the
JSON where they begin and end, and what is left, its structure, is bounded: nobody's body makes a
million objects before its shape is checked. An input becomes a text or the bytes of a file while
it arrives, within the limits, and is kept in no other form.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from pagevec.errors import InvalidJSON, InvalidRequest, PagevecError, TooManyInputs
from pagevec.wire.schema import EmbeddingsRequest, check_field, check_request
from pagevec.wire.strings import BodyLimits, Misplaced, String, Unknown, Word, begin_input

# An honest body has some 100 bytes beside its strings; this leaves room for odd white space.
_STRUCTURE_BYTES = 32 * 1024
_BYTES_OF_AN_INPUT = 16  # in the structure

_SPACE = re.compile(rb"[ \t\r\n]+")
_BRACKETS = re.compile(rb"[\[\]{}]")
_WITHIN_A_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


@dataclass(frozen=True, eq=False)
class Body:
    """A body that was read.

    Attributes:
        request: its fields; `inputs` are stand-ins.
        inputs: the texts, or the files, in order; in place of one that is at fault, its error.
    """

    request: EmbeddingsRequest
    inputs: list[str | bytes | PagevecError]


class BodyReader:
    """Reads one body, in pieces of any size."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._structure = bytearray()
        self._most_structure = _STRUCTURE_BYTES + _BYTES_OF_AN_INPUT * limits.max_inputs
        self._brackets = bytearray()  # those that are open
        self._field = ""  # whose value comes next
        self._kind: str | None = None
        self._string: String | None = None  # the one that is being read
        self._strings: list[String] = []
        self._inputs = 0
        self._escape = b""  # a backslash whose character is in the next piece

    def feed(self, data: bytes) -> None:
        """Read the next piece.

        Raises:
            InvalidJSON, InvalidRequest, TooManyInputs, TextTooLong: as soon as it is known.
        """
        data, self._escape = self._escape + data, b""
        at = 0
        while at < len(data):
            at = self._read_string(data, at) if self._string else self._read_structure(data, at)

    def finish(self) -> Body:
        """Return what was read. It may take long if `input_type` came after the inputs.

        Raises:
            InvalidJSON: the body is not JSON.
            InvalidRequest: its shape, a field or a value is not what the contract allows.
        """
        if self._string:
            raise InvalidJSON("the body is not valid JSON: it ends within a string")
        try:
            content = orjson.loads(self._structure)
        except orjson.JSONDecodeError as error:
            raise InvalidJSON(f"the body is not valid JSON: {error.msg}") from None
        if isinstance(content, dict):
            content = {self._word(name): self._word(value) for name, value in content.items()}
        request = check_request(content)
        return Body(request, [self._value(number, request) for number in request.inputs])

    def _read_structure(self, data: bytes, at: int) -> int:
        quote = data.find(b'"', at)
        self._add(data[at : len(data) if quote < 0 else quote])
        if quote < 0:
            return len(data)
        self._string = self._begin_string()
        return quote + 1

    def _add(self, structure: bytes) -> None:
        structure = _SPACE.sub(b" ", structure)
        if self._structure.endswith(b" "):
            structure = structure.lstrip(b" ")
        if len(self._structure) + len(structure) > self._most_structure:
            raise InvalidJSON(
                f"the body has more than {self._most_structure:,} bytes beside its strings, which "
                "no request has"
            )
        self._structure += structure
        for bracket in _BRACKETS.findall(structure):
            if bracket in (b"[", b"{"):
                self._brackets += bracket
            elif self._brackets:
                self._brackets.pop()

    def _begin_string(self) -> String:
        before = bytes(self._structure[-2:]).rstrip(b" ")[-1:]  # white space is one space by now
        if self._brackets == b"{[" and self._field == "inputs":
            return self._begin_input()
        if self._brackets == b"{" and before in (b"{", b","):
            return Word("", is_name=True)
        if self._brackets == b"{" and before == b":":
            return Word(self._field)
        return Misplaced()

    def _begin_input(self) -> String:
        index, self._inputs = self._inputs, self._inputs + 1
        if self._inputs > self._limits.max_inputs:
            raise TooManyInputs(
                f"more than {self._limits.max_inputs} inputs, which is the limit: send fewer"
            )
        if self._kind is None:
            return Unknown(index)
        return begin_input(self._kind, index, self._limits)

    def _read_string(self, data: bytes, at: int) -> int:
        string = self._string
        assert string is not None  # noqa: S101 - for the type checker
        end = data.find(b'"', at)
        stop = len(data) if end < 0 else end
        if data.find(b"\\", at, stop) >= 0:
            match = _WITHIN_A_STRING.match(data, at)
            stop = match.end() if match else at
            end = stop if data[stop : stop + 1] == b'"' else -1
        string.feed(data[at:stop])
        if end < 0:
            self._escape = data[stop:]
            return len(data)
        self._string = None
        self._end_string(string)
        return end + 1

    def _end_string(self, string: String) -> None:
        self._add(b'"%d"' % len(self._strings))
        self._strings.append(string)
        if not isinstance(string, Word):
            return
        word = string.finish()
        if string.is_name:
            check_field(word)
            self._field = word
            if word == "inputs":  # given twice: as in any JSON, the last one counts
                self._inputs = 0
        elif self._field == "input_type":
            self._set_kind(word)

    def _set_kind(self, kind: str) -> None:
        if self._kind not in (None, kind) and self._inputs:
            raise InvalidRequest("input_type: it is given twice, with different values")
        self._kind = kind if kind in ("text", "image") else None

    def _word(self, stand_in: Any) -> Any:
        """Return the word that `stand_in` stands for; anything else than a string stays."""
        return self._strings[int(stand_in)].finish() if isinstance(stand_in, str) else stand_in

    def _value(self, stand_in: str, request: EmbeddingsRequest) -> Any:
        string = self._strings[int(stand_in)]
        try:
            if isinstance(string, Unknown):
                return string.finish_as(request.input_type, self._limits)
            return string.finish()
        except InvalidJSON:
            raise
        except PagevecError as error:
            return error
