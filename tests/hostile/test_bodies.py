"""Bodies that cost more than they seem to: refused at once, in little memory, unnoticed."""

import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from conftest import KEY
from hostile.target import Target, attacked
from processes import MIB
from server.calls import HELLO

pytestmark = [pytest.mark.long, pytest.mark.alone]

# Bodies and answers, as docs/hosting.md has them by default, are 1 GiB; these attacks need less.
BUDGET = 640 * MIB
BLOCK = 64 * 1024
REFUSED = {400, 408, 413, 415, 431, 503}

Dice = random.Random
Body = Iterator[bytes]


def repeated(head: bytes, piece: bytes, size: int) -> Body:
    yield head
    block = piece * max(1, BLOCK // len(piece))
    for _ in range(size // len(block)):
        yield block


TEXTS = b'{"input_type": "text", "inputs": ['
IMAGES = b'{"input_type": "image", "inputs": ['


def shapes(dice: Dice, size: int) -> Body:
    """Parts that are tiny each, and many."""
    piece = dice.choice(
        [b"[],", b'"",', b'{"a":', b"[", b"{},", b"0,", b"null,", b'["a"],', b'{"a":[', b"1e9,"]
    )
    return repeated(dice.choice([b"", b"[", TEXTS, IMAGES, b'{"inputs": [']), piece, size)


def names(dice: Dice, size: int) -> Body:
    """Fields by the million: unknown, known, ever new."""
    known = dice.choice([b'"tokens":true,', b'"inputs":["a"],', b'"dtype":"int8",', b'"a":1,'])
    return repeated(b"{", known, size)


def giants(dice: Dice, size: int) -> Body:
    """One string, name or number without an end."""
    head = dice.choice([TEXTS + b'"', IMAGES + b'"', b'{"inputs": ["', b'{"', b'{"dtype": "'])
    return repeated(head, dice.choice([b"a", b'\\"', b"\\u0041", b"\\\\", b"\xc3\xa9"]), size)


def numbers(dice: Dice, size: int) -> Body:
    """A number of millions of digits."""
    head = dice.choice([b"", TEXTS, b'{"pool_factor": ', b'{"input_type": "text", "tokens": '])
    return repeated(head, dice.choice([b"9", b"0", b"-", b"1."]), size)


def compressed(dice: Dice, size: int) -> Body:
    """A stream that becomes a thousand times as much."""
    packer = zlib.compressobj(9, wbits=31)
    head, piece = dice.choice([(TEXTS, b"[],"), (b"", b" "), (TEXTS + b'"', b"a"), (b"", b"\x00")])
    for block in repeated(head, piece, size):
        yield packer.compress(block)
    yield packer.flush()


KINDS: dict[str, Callable[[Dice, int], Body]] = {
    one.__name__: one for one in (shapes, names, giants, numbers, compressed)
}


def send(target: Target, kind: str, dice: Dice, size: int) -> int:
    """Send a body of a kind; return the status of the answer."""
    content = KINDS[kind](dice, size)
    headers = {"Content-Encoding": "gzip"} if kind == "compressed" else {}
    with target.client() as client:
        answer = client.post("/embeddings", content=content, headers=headers)
    assert {"error", "code"} <= answer.json().keys()
    return answer.status_code


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with attacked(tmp_path_factory.mktemp("bodies")) as started:
        yield started


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_each_kind(target: Target, kind: str) -> None:
    """16 MiB of each kind get a documented refusal; the service keeps its memory and its pace."""
    dice = random.Random(kind)  # noqa: S311
    for _ in range(4):
        assert send(target, kind, dice, 16 * MIB) in REFUSED
    assert target.time_query() < 2
    target.check_alive(BUDGET)


def test_whole_bodies_of_tiny_parts(target: Target) -> None:
    """64 and 250 MiB of `[],` with their length announced: a 400, no pause, no memory."""
    for size in (64 * MIB, 250 * MIB):
        body = TEXTS + b"[]," * ((size - len(TEXTS)) // 3)
        with target.client() as client:
            answer = client.post("/embeddings", content=body)
        assert answer.status_code == 400
        assert target.time_query() < 2
    target.check_alive(BUDGET)


def test_a_gzip_bomb_within_a_bomb(target: Target) -> None:
    """A GiB of spaces in a MiB is a 413 once the limit is reached, not after."""
    bomb = gzip.compress(b" " * 1024 * MIB, compresslevel=6)
    with target.client() as client:
        headers = {"Content-Encoding": "gzip"}
        answer = client.post("/embeddings", content=bomb, headers=headers)
    assert answer.status_code == 413
    target.check_alive(BUDGET)


def test_any_kind_and_size(target: Target) -> None:
    """Sixty bodies of any kind and of 1 to 250 MiB, six at a time, beside an innocent caller."""
    dice = random.Random(13)  # noqa: S311
    plan = [
        (dice.choice(list(KINDS)), Dice(number), int(MIB * 250 ** dice.random()))
        for number in range(60)
    ]
    with ThreadPoolExecutor(6) as threads:
        sent = [threads.submit(send, target, *one) for one in plan]
        while not all(one.done() for one in sent):
            assert target.time_query() < 5
    assert {one.result() for one in sent} <= REFUSED
    target.check_alive(BUDGET)


def test_bodies_that_wait_hold_no_memory(tmp_path: Path) -> None:
    """40 bodies of 60 MB at once, of one key, stay within the budget; all are answered or told."""
    body = json.dumps({"input_type": "text", "inputs": ["a"]}).encode().ljust(60_000_000)
    with attacked(tmp_path) as target, ThreadPoolExecutor(40) as threads:

        def post(_: int) -> int:
            with target.client() as client:
                return client.post("/embeddings", content=body).status_code

        statuses = list(threads.map(post, range(40)))
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) > 30
        target.check_alive(BUDGET)


def test_served_afterwards(target: Target) -> None:
    """An attacker's honest requests are answered as before."""
    target.check_alive(BUDGET)
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{target.process.url}/embeddings", json=HELLO, headers=headers)
    assert answer.status_code == 200
