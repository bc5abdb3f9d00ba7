"""A request's body, read as it arrives: each input is made small at once, the rest stays short.

Nearly all of an honest body is within its inputs, which are strings. So strings are cut out of the
JSON where they begin and end, and what is left, its structure, is bounded: nobody's body makes a
million objects before its shape is checked. An input becomes a text or the bytes of a file while
it arrives, within the limits, and is kept in no other form.
"""

from dataclasses import dataclass
from typing import Any

from pagevec.errors import InvalidJSON, InvalidRequest, PagevecError, TooManyInputs
from pagevec.wire.cutting import JsonCutter
from pagevec.wire.schema import EmbeddingsRequest, check_field, check_request
from pagevec.wire.strings import BodyLimits, Misplaced, String, Unknown, Word, begin_input

# An honest body has some 100 bytes beside its strings; this leaves room for odd white space.
_STRUCTURE_BYTES = 32 * 1024
_BYTES_OF_AN_INPUT = 16  # in the structure


@dataclass(frozen=True, eq=False)
class Body:
    """A body that was read.

    Attributes:
        request: its fields; `inputs` are stand-ins.
        inputs: the texts, or the files, in order; in place of one that is at fault, its error.
    """

    request: EmbeddingsRequest
    inputs: list[str | bytes | PagevecError]


class BodyReader(JsonCutter):
    """Reads the body of a request to embed, in pieces of any size."""

    def __init__(self, limits: BodyLimits) -> None:
        super().__init__(_STRUCTURE_BYTES + _BYTES_OF_AN_INPUT * limits.max_inputs)
        self._limits = limits
        self._field = ""  # whose value comes next
        self._kind: str | None = None
        self._inputs = 0

    def finish(self) -> Body:
        """Return what was read. It may take long if `input_type` came after the inputs.

        Raises:
            InvalidJSON: the body is not JSON.
            InvalidRequest: its shape, a field or a value is not what the contract allows.
        """
        content = self._parse()
        if isinstance(content, dict):
            content = {self._word(name): self._word(value) for name, value in content.items()}
        request = check_request(content)
        return Body(request, [self._value(number, request) for number in request.inputs])

    def _begin_string(self) -> String:
        if self._brackets == b"{[" and self._field == "inputs":
            return self._begin_input()
        if self._brackets == b"{" and self._begins_a_name:
            return Word("", is_name=True)
        if self._brackets == b"{" and self._before == b":":
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

    def _end_string(self, string: String) -> None:
        super()._end_string(string)
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
