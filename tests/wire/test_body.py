"""Bodies that are read as they arrive: the same as JSON read at once, whatever the pieces."""

import base64
import itertools
import json
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pagevec.errors import (
    InvalidImage,
    InvalidJSON,
    InvalidRequest,
    PagevecError,
    TextTooLong,
    TooManyInputs,
)
from pagevec.images import DEFAULT_LIMITS
from pagevec.images.base64 import Base64Reader
from pagevec.wire.body import Body, BodyReader
from pagevec.wire.strings import BodyLimits

MIB = 1024 * 1024
LIMITS = BodyLimits(256, 32_000, lambda: Base64Reader(DEFAULT_LIMITS))
repeatable = hypothesis_settings(max_examples=300, derandomize=True, deadline=None, database=None)


def read(pieces: Iterable[bytes], limits: BodyLimits = LIMITS) -> Body:
    reader = BodyReader(limits)
    for piece in pieces:
        reader.feed(piece)
    return reader.finish()


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    for start, end in itertools.pairwise([0, *ends, len(data)]):
        yield data[start:end]


texts = st.text(st.characters(codec="utf-8"), max_size=12)
places = st.lists(st.integers(0, 10_000), max_size=12)
orders = st.permutations(["input_type", "inputs", "dtype"])


@repeatable
@given(st.lists(texts, max_size=6), orders, st.booleans(), st.integers(0, 3), places)
def test_texts_are_those_of_json(
    inputs: list[str], order: list[str], escaped: bool, indent: int, where: list[int]
) -> None:
    """Any texts, fields in any order, escaped or not, cut anywhere: each text as JSON has it."""
    fields: dict[str, Any] = {"input_type": "text", "inputs": inputs, "dtype": "int8"}
    content = {name: fields[name] for name in order}
    data = json.dumps(content, ensure_ascii=escaped, indent=indent or None).encode()
    body = read(cut(data, where))
    assert body.inputs == inputs
    assert body.request.dtype == "int8"


@repeatable
@given(st.lists(st.binary(max_size=80), max_size=4), orders, st.sampled_from("abcd"), places)
def test_files_are_those_of_base64(
    files: list[bytes], order: list[str], style: str, where: list[int]
) -> None:
    """Any files, with slashes escaped, in lines, as data URIs, cut anywhere: the same bytes."""
    dressed: dict[str, Callable[[bytes], str]] = {
        "a": lambda file: base64.b64encode(file).decode(),
        "b": lambda file: base64.urlsafe_b64encode(file).decode().rstrip("="),
        "c": lambda file: base64.encodebytes(file).decode(),
        "d": lambda file: "data:image/png;base64," + base64.b64encode(file).decode(),
    }
    fields: dict[str, Any] = {
        "input_type": "image",
        "inputs": [dressed[style](file) for file in files],
        "dtype": "float16",
    }
    data = json.dumps({name: fields[name] for name in order}).replace("/", "\\/").encode()
    data = data.replace(b"A", b"\\u0041")
    assert read(cut(data, where)).inputs == files


@repeatable
@given(
    st.lists(st.sampled_from([*b'{}[],:"\\ \n\xc3\xa90ue', *range(256)]), max_size=24),
    st.integers(0, 60),
    places,
)
def test_damage_is_an_error_as_in_json(damage: list[int], at: int, where: list[int]) -> None:
    """A damaged body is refused, or it is what JSON says that it is; nothing else is raised."""
    whole = b'{"input_type": "text", "inputs": ["a\\u00e9", "b"], "pool_factor": 2}'
    data = whole[:at] + bytes(damage) + whole[at + len(damage) // 2 :]
    try:
        body = read(cut(data, where))
    except PagevecError as error:
        assert error.status in (400, 413)
        return
    content = json.loads(data)
    assert body.inputs == content["inputs"]
    assert set(content) <= {"input_type", "inputs", "pool_factor", "dtype", "tokens"}


def test_the_last_of_two_fields_counts() -> None:
    """As in any JSON: the inputs that were given last are those that are read, and counted."""
    few = BodyLimits(2, 10, LIMITS.open_file)
    twice = b'{"inputs": ["a", "b"], "input_type": "text", "inputs": ["c", "d"]}'
    assert read([twice], few).inputs == ["c", "d"]
    with pytest.raises(InvalidRequest, match="twice"):
        read([b'{"input_type": "text", "inputs": ["aGk="], "input_type": "image"}'])


def test_a_bad_file_is_said_only_if_nothing_else_is_wrong() -> None:
    """What makes a caller send less comes first; else the first bad input is in its place."""
    few = BodyLimits(2, 10, LIMITS.open_file)
    with pytest.raises(TooManyInputs):
        read([b'{"input_type": "image", "inputs": ["a", "a", "a"'], few)
    with pytest.raises(InvalidJSON):
        read([b'{"input_type": "image", "inputs": ["a"],}'], few)
    first, second = read([b'{"input_type": "image", "inputs": ["aGk=", "!"]}']).inputs
    assert first == b"hi"
    assert isinstance(second, InvalidImage)
    assert second.index == 1


def repeat(piece: bytes, size: int) -> Iterator[bytes]:
    block = piece * (65536 // len(piece))
    return itertools.repeat(block, size // len(block))


HEAD = b'{"input_type": "text", "inputs": ['
HOSTILE: dict[str, Iterable[bytes]] = {
    "lists": [HEAD, *repeat(b"[],", 4 * MIB)],
    "texts": [HEAD, *repeat(b'"",', 4 * MIB)],
    "unknown inputs": [b'{"inputs": [', *repeat(b'"",', 4 * MIB)],
    "objects": repeat(b'{"a":', 4 * MIB),
    "nested objects": [b'{"inputs": ', *repeat(b'{"a":', 4 * MIB)],
    "depth": repeat(b"[", 4 * MIB),
    "quotes": [HEAD, b'"', *repeat(b'\\"', 4 * MIB)],
    "long text": [HEAD, b'"', *repeat(b"a", 4 * MIB)],
    "long name": [b'{"', *repeat(b"a", 4 * MIB)],
    "long value": [b'{"dtype": "', *repeat(b"a", 4 * MIB)],
    "number": [HEAD, *repeat(b"9", 4 * MIB)],
    "keys": [b"{", *repeat(b'"a":1,', 4 * MIB)],
    "known keys": [b"{", *repeat(b'"tokens":true,', 4 * MIB)],
    "numbers": [HEAD, *repeat(b"1,", 4 * MIB)],
    "strings in strings": [HEAD, *repeat(b'["a"],', 4 * MIB)],
    "inputs again": [b"{", *repeat(b'"inputs":["a"],', 4 * MIB)],
}


def refuse(pieces: Iterator[bytes]) -> float:
    """Feed pieces until they are refused; return the processor's seconds of the longest one."""
    reader = BodyReader(LIMITS)
    longest = 0.0
    with pytest.raises((InvalidJSON, InvalidRequest, TooManyInputs, TextTooLong)):
        for piece in pieces:
            started = time.thread_time()
            try:
                reader.feed(piece)
            finally:
                longest = max(longest, time.thread_time() - started)
    return longest


@pytest.mark.parametrize("kind", HOSTILE)
def test_refused_at_once(kind: str) -> None:
    """Hostile bodies are refused after a few pieces, which took milliseconds and no memory."""
    body = list(HOSTILE[kind])
    assert min(refuse(iter(body)) for _ in range(3)) < 0.25
    pieces = iter(body)
    tracemalloc.start()
    try:
        refuse(pieces)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert next(pieces, None) is not None


def test_white_space_is_free() -> None:
    """Any amount of white space between the parts of a body is read, and not kept."""
    spaces = [b" \r\n\t" * 10_000] * 100
    body = [*spaces, HEAD, *spaces, b'"a"', *spaces, b",", *spaces, b'"b"', *spaces, b"]}", *spaces]
    assert read(body).inputs == ["a", "b"]


def test_one_copy_of_an_image() -> None:
    """While 48 MiB of base64 arrive, little more than the 36 MiB of the file is ever held."""
    block = base64.b64encode(bytes(48 * 1024))
    reader = BodyReader(LIMITS)
    tracemalloc.start()
    try:
        reader.feed(b'{"input_type": "image", "inputs": ["')
        for _ in range(48 * MIB // len(block)):
            reader.feed(block)
        reader.feed(b'"]}')
        (file,) = reader.finish().inputs
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file == bytes(36 * MIB)
    assert peak < 1.25 * 36 * MIB
