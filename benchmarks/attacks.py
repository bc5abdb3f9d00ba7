"""What strangers do to a service: attacks of random size, each bounded and over within seconds."""

import gzip
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import BytesIO
from random import Random
from urllib.parse import urlsplit

import httpx
import pybase64
from PIL import Image

from benchmarks.services import Service

_MIB = 1024 * 1024
_PATIENCE = httpx.Timeout(60.0)
Attack = Callable[[Random, Service], int]
"""Attacks once; returns the status of the answer, 0 where there was none."""


def make_attacks() -> dict[str, Attack]:
    """Return every attack by its name."""
    pictures = {
        "PNG of empty chunks": _png_of_chunks,
        "JPEG of many scans": _jpeg_of_scans,
        "GIF larger than its file": _large_gif,
        "TIFF of one tile": _large_tile,
    }
    return {
        "nested bodies": _send_structure,
        "pooled texts": _send_pooled_text,
        "long answers": _send_dense_texts,
        "compressed bodies": _send_gzip,
        "endless headers": _send_headers,
        "upgrades": _ask_for_upgrade,
        "silent connections": _keep_silent,
        "slow bodies": _send_slowly,
        "answers never read": _never_read,
        "callers who leave": _leave,
        **{name: partial(_send_picture, make) for name, make in pictures.items()},
    }


def _post(service: Service, body: bytes, **headers: str) -> int:
    try:
        with service.client() as http:
            answer = http.post("/embeddings", content=body, headers=headers, timeout=_PATIENCE)
            return answer.status_code
    except httpx.HTTPError:
        return 0


def _texts(*texts: str, **options: object) -> bytes:
    return json.dumps({"input_type": "text", "inputs": texts, **options}).encode()


def _send_structure(random: Random, service: Service) -> int:
    piece = random.choice([b"[],", b'"",', b'{"a":', b"[", b"0,", b'"\\"",', b"null,"])
    count = random.randrange(1, 16 * _MIB) // len(piece)
    start = random.choice([b"", b"[", b'{"input_type": "text", "inputs": ['])
    return _post(service, start + piece * count)


def _send_pooled_text(random: Random, service: Service) -> int:
    text = "".join(random.choices("abcdefgh .,", k=random.randrange(1, 32_000)))
    return _post(service, _texts(text, pool_factor=random.randrange(2, 9)))


def _send_dense_texts(random: Random, service: Service) -> int:
    texts = [chr(random.randrange(0x4E00, 0x9FFF)) * 1000] * random.randrange(1, 256)
    return _post(service, _texts(*texts))


def _send_gzip(random: Random, service: Service) -> int:
    bomb = gzip.compress(b" " * random.randrange(_MIB, 64 * _MIB), compresslevel=6)
    return _post(service, bomb, **{"Content-Encoding": "gzip"})


def _send_picture(make: Callable[[Random], bytes], random: Random, service: Service) -> int:
    picture = pybase64.b64encode(make(random)).decode()
    return _post(service, json.dumps({"input_type": "image", "inputs": [picture]}).encode())


def _png_of_chunks(random: Random) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    empty = _chunk(random.choice([b"IDAT", b"teSt", b"tEXt"]), b"")
    rows = _chunk(b"IDAT", zlib.compress(bytes(9 * 8)))
    many = empty * random.randrange(1, 200_000)
    return b"\x89PNG\r\n\x1a\n" + header + many + rows + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _jpeg_of_scans(random: Random) -> bytes:
    file = BytesIO()
    side = random.randrange(64, 1024)
    Image.new("L", (side, side), 200).save(file, "JPEG", progressive=random.random() < 0.5)
    picture = file.getvalue()
    scan = picture[picture.index(b"\xff\xda") : -2]
    return picture[:-2] + scan * random.randrange(1, 2000) + picture[-2:]


def _large_gif(random: Random) -> bytes:
    side = random.randrange(1000, 65_536)
    size = struct.pack("<HH", side, side)
    frame = b"\x2c" + bytes(4) + size + b"\x00\x02\x02\x4c\x01\x00"
    return b"GIF89a" + size + b"\x80\x00\x00" + bytes(6) + frame + b"\x3b"


def _large_tile(random: Random) -> bytes:
    side = random.randrange(64, 2900) * 16
    pixels = zlib.compress(bytes(10 * _MIB))
    tags = {
        256: 100,  # width, length, bits, deflate, black is zero
        257: 100,
        258: 8,
        259: 8,
        262: 1,
        322: side,  # the tile's width and length, where it starts, its bytes
        323: side,
        324: 0,
        325: len(pixels),
    }
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, start if tag == 324 else value)
        for tag, value in tags.items()
    )
    return b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels


def _connect(service: Service) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=30)


def _head(service: Service, length: int, *more: str) -> bytes:
    lines = [
        "POST /npz/embeddings HTTP/1.1",
        "Host: service",
        f"Authorization: Bearer {service.key}",
        f"Content-Length: {length}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _send_headers(random: Random, service: Service) -> int:
    with suppress(OSError), _connect(service) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: service\r\n")
        field = b"X-%d: " % random.randrange(1000) + b"x" * random.randrange(1, 4000) + b"\r\n"
        for _ in range(2 * _MIB // len(field)):
            connection.sendall(field)
        return _status(connection)
    return 0


def _ask_for_upgrade(random: Random, service: Service) -> int:
    body = _texts("night route")
    protocol = random.choice(["h2c", "websocket", "TLS/1.2"])
    with suppress(OSError), _connect(service) as connection:
        upgrade = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}")
        connection.sendall(_head(service, len(body), *upgrade) + body)
        return _status(connection)
    return 0


def _keep_silent(random: Random, service: Service) -> int:
    open_ = [_connect(service) for _ in range(random.randrange(1, 100))]
    time.sleep(random.uniform(0, 5))
    for connection in open_:
        connection.close()
    return 0


def _send_slowly(random: Random, service: Service) -> int:
    with suppress(OSError), _connect(service) as connection:
        connection.sendall(_head(service, 1_000_000))
        for _ in range(random.randrange(1, 50)):
            connection.sendall(b" ")
            time.sleep(0.1)
    return 0


def _never_read(random: Random, service: Service) -> int:
    body = _texts(*["night route"] * random.randrange(1, 64))
    with suppress(OSError), _connect(service) as connection:
        connection.sendall(_head(service, len(body)) + body)
        time.sleep(random.uniform(0, 5))
    return 0


def _leave(random: Random, service: Service) -> int:
    body = _texts(*["night route"] * random.randrange(1, 64))
    with suppress(OSError), _connect(service) as connection:
        connection.sendall(_head(service, len(body)) + body[: random.randrange(1, len(body))])
    return 0


def _status(connection: socket.socket) -> int:
    start = connection.recv(64).split(b" ")
    return int(start[1]) if len(start) > 1 else 0
