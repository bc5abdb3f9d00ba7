"""What an operator looks at after a deployment: a list of checks against a service's address."""

import base64
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
import httpx
import numpy as np

from pagevec.wire.decode import decode_json, decode_npz

Outcome = tuple[str, bool, str]
"""Name of a check, whether it passed, what was seen."""

TIMEOUT = httpx.Timeout(600.0, connect=30.0)
"""Seconds that morphik-core, and so every check, waits for an answer and for a connection."""

_QUERIES = 5
_STRIPED_PNG = (  # 64 x 64 pixels, one bit each; the base install has no Pillow to make it
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQAAAACCEkxzAAAAFUlEQVR42mNgIAL8hwJ8jFFzRqQ5AAQD/wEJBSTAAA"
    "AAAElFTkSuQmCC"
)


class CheckFailed(Exception):
    """The service did not do what it should."""


def run_checks(url: str, key: str) -> Iterator[Outcome]:
    """Check the service at `url`; yield the outcome of each check."""
    with httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT, trust_env=False) as http:
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


def print_outcomes(outcomes: Iterable[Outcome]) -> bool:
    """Print a line for each outcome, PASS or FAIL, and a summary; return whether all passed."""
    failed = 0
    for name, passed, detail in outcomes:
        click.echo(f"{'PASS' if passed else 'FAIL'}  {name:34}{detail}")
        failed += not passed
    click.echo("all passed" if not failed else f"{failed} failed")
    return not failed


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
        return self._both_formats([_STRIPED_PNG], "image")

    def accept_decides(self) -> str:
        response = self._post(["hello"], path="/json/embeddings", accept="application/x-npz")
        return f"{len(decode_npz(response.content)[0])} vectors as npz from /json/embeddings"

    def bad_image_is_refused(self) -> str:
        good, bad = _STRIPED_PNG, base64.b64encode(b"no image").decode()
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
