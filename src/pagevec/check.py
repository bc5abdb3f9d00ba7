"""What an operator looks at after a deployment, as a list of checks against its address."""

import base64
import json
import statistics
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np

from pagevec.wire.decode import decode_json, decode_npz

Outcome = tuple[str, bool, str]

_TIMEOUT = httpx.Timeout(600.0, connect=30.0)
_QUERIES = 5


class CheckFailed(Exception):
    """A check saw something else than it should have."""


def run_checks(url: str, key: str) -> Iterator[Outcome]:
    """Yield (name, passed, what was seen) of each check against the service at `url`."""
    with httpx.Client(base_url=url.rstrip("/"), timeout=_TIMEOUT, trust_env=False) as http:
        checks = _Checks(http, key)
        for check in (
            checks.alive,
            checks.ready,
            checks.model,
            checks.no_key_is_refused,
            checks.wrong_key_is_refused,
            checks.key_is_accepted,
            checks.text_in_both_formats,
            checks.image_in_both_formats,
            checks.accept_decides,
            checks.bad_image_is_refused,
            checks.too_much_is_refused,
            checks.latency,
        ):
            yield _outcome(check)


def _outcome(check: Callable[[], str]) -> Outcome:
    name = check.__name__.replace("_", " ")
    try:
        return name, True, check()
    except (CheckFailed, httpx.HTTPError, ValueError, KeyError) as error:
        return name, False, f"{type(error).__name__}: {error}"


class _Checks:
    def __init__(self, http: httpx.Client, key: str) -> None:
        self._http = http
        self._key = key

    def alive(self) -> str:
        return _status(self._http.get("/health"), 200)

    def ready(self) -> str:
        return _status(self._http.get("/ready"), 200)

    def model(self) -> str:
        info = self._info()
        notice = f"; {info['notice']}" if info.get("notice") else ""
        how = f"{info['dtype']}, {info.get('precision', 'full')} precision"
        return f"{info['model']} on {info['device']} in {how}{notice}"

    def no_key_is_refused(self) -> str:
        return _status(self._post(["hello"], key=None), 401)

    def wrong_key_is_refused(self) -> str:
        response = self._post(["hello"], key=self._key + "x")
        _expect(response.headers.get("www-authenticate") == "Bearer", "no WWW-Authenticate: Bearer")
        return _status(response, 401)

    def key_is_accepted(self) -> str:
        return _status(self._post(["hello"]), 200)

    def text_in_both_formats(self) -> str:
        return self._both_formats(["what does it cost?", ""], "text")

    def image_in_both_formats(self) -> str:
        return self._both_formats([_striped_png()], "image")

    def accept_decides(self) -> str:
        response = self._post(["hello"], path="/json/embeddings", accept="application/x-npz")
        return f"{len(decode_npz(response.content)[0])} vectors as npz from /json/embeddings"

    def bad_image_is_refused(self) -> str:
        good, bad = _striped_png(), base64.b64encode(b"no image").decode()
        response = self._post([good, bad], "image")
        _expect(response.json().get("index") == 1, f"the index is {response.json().get('index')}")
        return _status(response, 400)

    def too_much_is_refused(self) -> str:
        limit = self._info()["limits"]["max_inputs"]
        return _status(self._post([""] * (limit + 1)), 413)

    def latency(self) -> str:
        seconds = []
        for _ in range(_QUERIES):
            started = time.perf_counter()
            _status(self._post(["which route carried the most passengers?"]), 200)
            seconds.append(time.perf_counter() - started)
        return f"{statistics.median(seconds) * 1000:.0f} ms for a query (median of {_QUERIES})"

    def _both_formats(self, inputs: list[str], input_type: str) -> str:
        as_json = decode_json(self._post(inputs, input_type, path="/json/embeddings").content)
        as_npz = decode_npz(self._post(inputs, input_type, path="/npz/embeddings").content)
        _expect(len(as_json) == len(as_npz) == len(inputs), "not one multi-vector for each input")
        for one, other in zip(as_json, as_npz, strict=True):
            _expect(one.shape == other.shape and np.allclose(one, other, atol=1e-3), "they differ")
            lengths = np.linalg.norm(other, axis=1)
            _expect(bool(np.allclose(lengths, 1, atol=1e-2)), "vectors are not of unit length")
        return f"{sum(map(len, as_npz))} vectors of {as_npz[0].shape[1]}, equal"

    def _info(self) -> dict[str, Any]:
        response = self._http.get("/info")
        _status(response, 200)
        content: dict[str, Any] = response.json()
        return content

    def _post(
        self,
        inputs: list[str],
        input_type: str = "text",
        *,
        path: str = "/embeddings",
        key: str | None = "",
        accept: str = "*/*",
    ) -> httpx.Response:
        headers = {"Accept": accept}
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self._key}"
        body = json.dumps({"input_type": input_type, "inputs": inputs})
        return self._http.post(path, content=body, headers=headers)


def _status(response: httpx.Response, expected: int) -> str:
    _expect(response.status_code == expected, f"{response.status_code}: {response.text[:200]}")
    return str(expected)


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise CheckFailed(otherwise)


def _striped_png(side: int = 64) -> str:
    """Return a small PNG in base64; made by hand, since the base install has no Pillow."""
    rows = b"".join(b"\0" + (b"\0" if row % 8 < 4 else b"\xff") * side for row in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*chunk) for chunk in chunks)
    return base64.b64encode(png).decode()


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
