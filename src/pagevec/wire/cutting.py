"""JSON that is read as it arrives: its strings are cut out, and what is left is bounded.

Nearly all of an honest body is within its strings: texts, and files in base64. So strings are cut
out of the JSON where they begin and end, each is made small at once, and the rest, its structure,
stays short: nobody's body makes a million objects before its shape is checked.
"""

import re
from abc import ABC, abstractmethod
from typing import Any

import orjson

from pagevec.errors import InvalidJSON
from pagevec.wire.strings import String

_SPACE = re.compile(rb"[ \t\r\n]+")
_BRACKETS = re.compile(rb"[\[\]{}]")
_WITHIN_A_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


class JsonCutter(ABC):
    """Reads one body, in pieces of any size. Where a string stood, its number stands in for it.

    Args:
        most_structure: bytes beside the strings, at most.
    """

    def __init__(self, most_structure: int) -> None:
        self._structure = bytearray()
        self._most_structure = most_structure
        self._brackets = bytearray()  # those that are open
        self._string: String | None = None  # the one that is being read
        self._strings: list[String] = []
        self._escape = b""  # a backslash whose character is in the next piece

    def feed(self, data: bytes) -> None:
        """Read the next piece.

        Raises:
            InvalidJSON: it has too much beside its strings.
            PagevecError: what a string raises, as soon as it is known.
        """
        data, self._escape = self._escape + data, b""
        at = 0
        while at < len(data):
            at = self._read_string(data, at) if self._string else self._read_structure(data, at)

    @abstractmethod
    def _begin_string(self) -> String:
        """Return what reads the string that begins here."""

    def _end_string(self, string: String) -> None:
        """Keep a string that has ended."""
        self._add(b'"%d"' % len(self._strings))
        self._strings.append(string)

    def _parse(self) -> Any:
        """Return the structure, with numbers in place of its strings.

        Raises:
            InvalidJSON: the body is not JSON.
        """
        if self._string:
            raise InvalidJSON("the body is not valid JSON: it ends within a string")
        try:
            return orjson.loads(self._structure)
        except orjson.JSONDecodeError as error:
            raise InvalidJSON(f"the body is not valid JSON: {error.msg}") from None

    @property
    def _begins_a_name(self) -> bool:
        """Whether a string that begins here is the name of a field."""
        return self._brackets[-1:] == b"{" and self._before in (b"{", b",")

    @property
    def _before(self) -> bytes:
        """The last character of the structure so far."""
        return bytes(self._structure[-2:]).rstrip(b" ")[-1:]  # white space is one space by now

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
