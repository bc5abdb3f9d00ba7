"""Any JSON body, read in pieces: its texts, its pictures, its limits."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagevec.errors import InvalidJSON, InvalidRequest, PagevecError, TextTooLong, TooManyInputs
from pagevec.images.base64 import Base64Reader
from pagevec.limits import ImageLimits
from pagevec.wire.strings import BodyLimits
from pagevec.wire.values import Picture, ValueReader

LIMITS = BodyLimits(8, 200, lambda: Base64Reader(ImageLimits()))
FILE = b"not a picture, but bytes"
URI = f"data:image/png;base64,{base64.b64encode(FILE).decode()}"

# Names that are not those of pictures.
NAMES = st.text(st.characters(codec="utf-8"), max_size=8).filter(
    lambda name: name not in ("url", "image", "image_url")
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def read(body: bytes, size: int = 1 << 20) -> Any:
    reader = ValueReader(LIMITS)
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    return reader.finish()


@given(VALUES, st.integers(1, 40), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_any_json(content: Any, size: int, ascii_only: bool, indent: Any) -> None:
    """Whatever a body is and however it arrives, its content is that of any other reader."""
    body = json.dumps(content, ensure_ascii=ascii_only, indent=indent)
    assert read(body.encode("utf-8", "surrogatepass"), size) == content


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_pictures(size: int) -> None:
    """The values of three names are pictures, wherever they are; their neighbours are texts."""
    content = {
        "input": [{"image": URI}, "data:text", {"text": "url", "url": URI}, "a"],
        "messages": [{"content": [{"type": "image_url", "image_url": {"url": URI}}, "b"]}],
        "image_url": URI,
        "image": [URI, "%"],
        "last": "image",
    }
    found = read(json.dumps(content).encode(), size)
    first, text, second, letter = found["input"]
    assert (text, letter, second["text"], found["last"]) == ("data:text", "a", "url", "image")
    nested = found["messages"][0]["content"]
    assert nested[0]["type"] == "image_url" and nested[1] == "b"
    pictures = [first["image"], second["url"], nested[0]["image_url"]["url"], found["image_url"]]
    for one in (*pictures, found["image"][0]):
        assert isinstance(one, Picture) and one.content == FILE
    assert isinstance(found["image"][1].content, PagevecError)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", InvalidJSON),
        (b'{"a": "b', InvalidJSON),
        (b'{"a": 1}}', InvalidJSON),
        (b'"\x01"', InvalidJSON),
        (b"[" * 100_000, InvalidJSON),
        (b'{"a": "%s"}' % (b"x" * 201), TextTooLong),
        (b'{"%s": 1}' % (b"x" * 300), InvalidRequest),
        (json.dumps([{"url": "YQ=="}] * 9).encode(), TooManyInputs),
        (json.dumps(["a"] * 10_000).encode(), PagevecError),
        (json.dumps([1] * 100_000).encode(), InvalidJSON),
    ],
)
def test_limits(body: bytes, error: type[PagevecError]) -> None:
    """What is no JSON, or too much of it, is refused."""
    with pytest.raises(error):
        read(body, 1000)
