"""Ten thousand malformed bodies against a real service: documented refusals, nothing else."""

import base64
import http.client
import itertools
import json
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.specs.openapi.checks import positive_data_acceptance

from conftest import KEY
from processes import Process, environment, serving

BODIES = 10_000
DOCUMENTED = {200, 400, 401, 404, 405, 413, 429, 503}
THREADS = 6
GETS = ("/health", "/ready", "/info", "/metrics")
PATHS = ("/embeddings", "/", "/json/embeddings", "/npz/embeddings")
HELLO = b'{"input_type": "text", "inputs": ["hello"]}'

# Small limits, so that bodies that break them are small too.
LIMITS = {
    "PAGEVEC_MAX_VISUAL_TOKENS": "16",
    "PAGEVEC_MAX_INPUTS": "8",
    "PAGEVEC_MAX_TEXT_CHARS": "64",
    "PAGEVEC_MAX_IMAGE_PIXELS": "4096",
    "PAGEVEC_MAX_IMAGE_BYTES": "8192",
    "PAGEVEC_MAX_BODY_BYTES": "16384",
    "PAGEVEC_LOG_LEVEL": "warning",
}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("fuzz")
    with serving(folder, environment(**LIMITS)) as started:
        yield started


# Bodies


def valid_texts() -> list[bytes]:
    """Small requests that are served."""
    bodies: list[dict[str, Any]] = [
        {"input_type": "text", "inputs": []},
        {"input_type": "text", "inputs": ["a"]},
        {"input_type": "text", "inputs": ["", "b"], "dtype": "int8"},
        {"input_type": "text", "inputs": ["é"], "pool_factor": 2, "dtype": "binary"},
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


# Sending


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    key: str
    body: bytes


def to_everywhere(bodies: list[bytes]) -> list[Request]:
    """Send most bodies where they belong; some elsewhere, with another method or a wrong key."""
    dice = random.Random(1)  # noqa: S311
    requests = []
    for body in bodies:
        method, path, key = "POST", dice.choice(PATHS), KEY
        match dice.randrange(50):
            case 0:
                key = dice.choice(["wrong", "", f"{KEY} x", "\xff"])
            case 1:
                path = dice.choice(["/nothing", "/embeddings/", "/%ff", "/npz"])
            case 2:
                method = dice.choice(["PUT", "PATCH", "DELETE", "GET", "OPTIONS"])
        requests.append(Request(method, path, key, body))
    return requests


def send(port: int, requests: list[Request]) -> Counter[int]:
    """Send `requests` through kept connections, several at a time; count the statuses.

    Every answer has the form that its status promises.
    """

    def send_some(some: list[Request]) -> Counter[int]:
        seen: Counter[int] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for one in some:
            headers = {"Authorization": f"Bearer {one.key}"}
            connection.request(one.method, one.path, one.body, headers)
            answer = connection.getresponse()
            content = answer.read()
            seen[answer.status] += 1
            assert answer.getheader("x-request-id")
            if answer.status != 200:
                assert {"error", "code"} <= set(json.loads(content)), (one, content)
            assert answer.status in DOCUMENTED, (one, content)
        connection.close()
        return seen

    with ThreadPoolExecutor(THREADS) as threads:
        shares = [requests[start::THREADS] for start in range(THREADS)]
        return sum(threads.map(send_some, shares), Counter())


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's account of memory")
def test_malformed_bodies(process: Process) -> None:
    """10,000 different malformed bodies: only documented statuses, no fault, no growth.

    The service's memory after them is within 5 % of that after a warm-up of whole bodies and other
    malformed ones; it has logged no fault, and gives a good request the same answer as before.
    """
    shaped = generated(2500)
    bodies = malformed(BODIES, 1, shaped)
    assert len(set(bodies)) == BODIES

    with process.client() as client:
        before = client.post("/embeddings", content=HELLO).json()
        whole = [*valid_texts(), *map(as_request, image_files())]
        served = send(process.port, [Request("POST", "/embeddings", KEY, body) for body in whole])
        assert set(served) == {200}
        send(process.port, to_everywhere(malformed(2000, 2, shaped[:500])))
        warm = process.memory()
        statuses = send(process.port, to_everywhere(bodies))
        grown = process.memory() / warm - 1
        print(f"{statuses}, {warm >> 20} MiB, grown by {grown:.2%}")

        assert sum(statuses.values()) == BODIES
        assert set(statuses) <= DOCUMENTED
        assert {200, 400, 401, 404, 405, 413} <= set(statuses)
        assert statuses[400] > BODIES * 0.8
        assert statuses[200] < BODIES * 0.1
        assert grown < 0.05
        assert process.popen.poll() is None
        assert client.get("/health").json() == {"status": "alive"}
        assert client.get("/ready").json() == {"status": "ready"}
        after = client.post("/embeddings", content=HELLO).json()
        np.testing.assert_allclose(after["embeddings"], before["embeddings"], atol=1e-6)
    log = process.log.read_text()
    assert "Traceback" not in log
    assert "[error" not in log


# The service's own description


@pytest.mark.parametrize(
    ("method", "path"),
    [*(("POST", path) for path in PATHS), *(("GET", path) for path in GETS)],
)
def test_description_holds(process: Process, method: str, path: str) -> None:
    """Requests made from /openapi.json get the statuses, types and shapes that it promises."""
    described = schemathesis.openapi.from_url(f"{process.url}/openapi.json")

    @repeatable(60 if method == "POST" else 3)
    @given(described[path][method].as_strategy())
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(
            headers={"Authorization": f"Bearer {KEY}"},
            # No schema can say that a string is the base64 of an image.
            excluded_checks=[positive_data_acceptance],
        )

    check()
