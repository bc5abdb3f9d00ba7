"""Malformed bodies, repeatable: damaged requests and images, garbage, JSON of any shape."""

import base64
import itertools
import json
import random
import struct
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image


def valid_texts() -> list[bytes]:
    """Small requests that are served."""
    bodies: list[dict[str, Any]] = [
        {"input_type": "text", "inputs": []},
        {"input_type": "text", "inputs": ["a"]},
        {"input_type": "text", "inputs": ["", "b"], "dtype": "int8"},
        {"input_type": "text", "inputs": ["é"], "pool_factor": 2, "dtype": "binary"},
        {"input_type": "text", "inputs": ["c"], "tokens": False},
    ]
    return [json.dumps(body).encode() for body in bodies]


def image_files() -> list[bytes]:
    """Tiny images of every format, in every mode that Pillow writes it in."""
    files = []
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"):
        for size in ((1, 1), (9, 7)):
            image = Image.new("L", size, 77).convert("L" if mode == "I;16" else mode)
            image = image.convert(mode) if mode == "I;16" else image
            for format_ in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
                file = BytesIO()
                try:
                    image.save(file, format_)
                except (OSError, ValueError, KeyError):
                    continue  # the format has no such mode
                files.append(file.getvalue())
    return files


def as_request(*files: bytes) -> bytes:
    inputs = [base64.b64encode(file).decode() for file in files]
    return json.dumps({"input_type": "image", "inputs": inputs}).encode()


def flipped(data: bytes, dice: random.Random) -> bytes:
    """Flip one to eight bits."""
    damaged = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        damaged[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def overwritten(data: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(data))
    end = start + dice.randint(1, 16)
    return data[:start] + dice.randbytes(end - start) + data[end:]


def repeated(data: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(data))
    part = data[start : start + dice.randint(1, 24)]
    return data[:start] + part * dice.randint(2, 6) + data[start:]


def left_out(data: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(data))
    return data[:start] + data[start + dice.randint(1, 8) :]


def with_extreme_number(data: bytes, dice: random.Random) -> bytes:
    """Put 0, -1 or the largest value over two or four bytes: sizes, counts, offsets."""
    kind = dice.choice(["<I", ">I", "<H", ">H"])
    value = struct.pack(kind, dice.choice([0, 1, 2 ** (8 * struct.calcsize(kind)) - 1]))
    start = dice.randrange(max(1, len(data) - len(value)))
    return data[:start] + value + data[start + len(value) :]


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [
    flipped,
    cut,
    overwritten,
    repeated,
    left_out,
    with_extreme_number,
]


def damaged_requests(dice: random.Random) -> Iterator[bytes]:
    """Valid bodies with damage anywhere: JSON, names, values, base64."""
    files = image_files()
    while True:
        whole = dice.choice([*valid_texts(), as_request(dice.choice(files))])
        yield dice.choice(DAMAGES)(whole, dice)


def damaged_images(dice: random.Random) -> Iterator[bytes]:
    """Valid JSON around damaged image files, sometimes beside a whole one."""
    files = image_files()
    while True:
        bad = dice.choice(DAMAGES)(dice.choice(files), dice)
        yield as_request(*([dice.choice(files), bad] if dice.random() < 0.1 else [bad]))


def garbage(dice: random.Random) -> Iterator[bytes]:
    """What no maker of JSON makes: NUL, bad UTF-8, surrogates, depth, huge numbers, doubles."""
    frame = b'{"input_type": "text", "inputs": [%s]}'
    image = b'{"input_type": "image", "inputs": ["%s"]}'
    pooled = b'{"input_type": "text", "inputs": [], "pool_factor": %s}'
    while True:
        n, byte, word = dice.randint(1, 3000), dice.randrange(256), dice.randbytes(4).hex().encode()
        yield from (
            dice.randbytes(dice.randint(1, 200)),
            frame % (b'"%s\x00"' % word),
            frame % (b'"%s\\u0000"' % word),
            frame % (b'"%s' % word + dice.randbytes(3) + b'"'),
            frame % (b'"%s\\ud8%02x"' % (word, byte)),
            frame % (b'"\\udc%02x\\ud8%02x%s"' % (n % 256, byte, word)),
            frame % (b"[" * n + b"]" * n),
            b'{"input_type":' * n + word,
            b"[" * n + word,
            frame % (b"9" * n),
            frame % (b"-0.%de%d" % (n, n)),
            pooled % (b"%d" % n * 9),
            pooled % (b"1e%d" % n),
            b'{"input_type": "text", "inputs": "%s", "inputs": ["a", 7]}' % word,
            b'{"input_type": "%s", "input_type": "image", "inputs": ["a"]}' % word,
            image % (b"data:%s;base64,%s" % (word, word)),
            image % (b"data:image/png," + word),
            image % (word * (n % 64)),
            image % (b"http://%s/" % word),
            json.dumps({word.decode(): n, "x" * n: 0}).encode(),
            json.dumps({"input_type": "text", "inputs": [n] * n}).encode(),
            frame % b",".join([b'"%s"' % word] * (9 + n % 100)),
            frame % (b'"%s"' % (word * 12)),
            frame % (b'"%s"' % word) + b" " * 17_000,
            b"\xef\xbb\xbf" + frame % word,
            (frame % (b'"%s"' % word)).decode().encode("utf-16"),
        )


def shapes() -> st.SearchStrategy[bytes]:
    """JSON of any shape, and requests with something wrong about their fields."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    anything = st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        ),
        max_leaves=8,
    )
    kinds = st.sampled_from(["text", "image", "TEXT", "", "audio"])
    like_a_request = st.fixed_dictionaries(
        {"input_type": kinds | anything, "inputs": anything | st.lists(anything, max_size=3)},
        optional={
            "dtype": st.sampled_from(["float16", "int8", "binary", "int4"]) | anything,
            "pool_factor": st.integers(-2, 70) | anything,
            "tokens": st.booleans() | anything,
            "extra": anything,
        },
    )
    return (anything | like_a_request).map(lambda value: json.dumps(value).encode(errors="replace"))


def repeatable(count: int) -> hypothesis_settings:
    """`count` examples, the same ones whenever and wherever a test runs."""
    return hypothesis_settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def generated(count: int) -> list[bytes]:
    """`count` examples of `shapes`, or less where some are the same."""
    found: dict[bytes, None] = {}

    @repeatable(count)
    @given(shapes())
    def collect(body: bytes) -> None:
        found[body] = None

    collect()
    return list(found)


def malformed(count: int, seed: int, shaped: list[bytes]) -> list[bytes]:
    """`count` different bodies: `shaped`, and damaged ones of all kinds in equal shares."""
    dice = random.Random(seed)  # noqa: S311
    makers = itertools.cycle([damaged_requests(dice), damaged_images(dice), garbage(dice)])
    found = dict.fromkeys(shaped)
    while len(found) < count:
        found[next(next(makers))] = None
    bodies = list(found)[:count]
    dice.shuffle(bodies)
    return bodies
