"""What an operator looks at after a deployment: a list of checks against a service's address."""

import base64
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import httpx
import numpy as np

from pagevec.client.base import bearer
from pagevec.client.connections import CertificateAuthority, trust
from pagevec.client.faults import without_key, wrap_error
from pagevec.client.retry import normalize_url
from pagevec.samples import TEXTS, draw_pages
from pagevec.secrets import mask_key, mask_secrets
from pagevec.types import MultiVector
from pagevec.wire.decode import decode_json, decode_npz

Outcome = tuple[str, bool, str]
"""Name of a check, whether it passed, what was seen."""

TIMEOUT = httpx.Timeout(600.0, connect=30.0)
"""Seconds that morphik-core, and so every check, waits for an answer and for a connection."""

_QUERIES = 5
_AT_ONCE = 4
_MOST_INPUTS = 100_000  # that a service may say it takes in one request

# Cosines. Reduced precision and other batches move a vector by less than the first; of inputs that
# have nothing in common, few vectors come as near to each other as the second.
_ALIKE = 0.99
_UNLIKE = 0.98

_INPUTS = {"text": TEXTS, "image": draw_pages()}


class CheckFailed(Exception):
    """The service did not do what it should."""


def run_checks(url: str, key: str, ca: CertificateAuthority | None = None) -> Iterator[Outcome]:
    """Check the service at `url`, trusting `ca`; yield the outcome of each check.

    Raises:
        ConfigurationError: `url` is no address, `key` cannot be sent, or `ca` holds no
            certificates.
    """
    bearer(key)
    client = httpx.Client(
        base_url=normalize_url(url), timeout=TIMEOUT, trust_env=False, verify=trust(ca, url)
    )
    with client as http:
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
            checks.same_input_twice_is_alike,
            checks.unlike_texts_are_unlike,
            checks.unlike_pages_are_unlike,
            checks.batch_equals_single,
            checks.requests_at_once_are_kept_apart,
            checks.bad_image_is_refused,
            checks.too_much_is_refused,
            checks.latency,
        ):
            name, passed, detail = _outcome(check)
            yield name, passed, mask_key(detail, key)


def _outcome(check: Callable[[], str]) -> Outcome:
    name = check.__name__.replace("_", " ")
    try:
        return name, True, check()
    except CheckFailed as error:
        return name, False, mask_secrets(str(error))
    except httpx.RequestError as error:
        return name, False, str(wrap_error(error, str(error.request.url)))
    except Exception as error:  # whatever the service answers, that is the outcome
        return name, False, mask_secrets(f"{type(error).__name__}: {error}")


class _Checks:
    def __init__(self, http: httpx.Client, key: str) -> None:
        self._http = http
        self._key = key
        self._singles: dict[str, list[MultiVector]] = {}

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
        return self._both_formats(_INPUTS["image"][:1], "image")

    def accept_decides(self) -> str:
        response = self._post(["hello"], path="/json/embeddings", accept="application/x-npz")
        return f"{len(decode_npz(response.content)[0])} vectors as npz from /json/embeddings"

    def same_input_twice_is_alike(self) -> str:
        seen = []
        for kind, inputs in _INPUTS.items():
            again = self._embed(inputs[:1], kind)
            seen.append(_require_same(self._alone(kind)[0], again[0], f"{kind} 0, sent twice,"))
        return f"cosine {min(seen):.4f} or above"

    def unlike_texts_are_unlike(self) -> str:
        return _require_unlike(self._alone("text"), "text")

    def unlike_pages_are_unlike(self) -> str:
        return _require_unlike(self._alone("image"), "image")

    def batch_equals_single(self) -> str:
        most, seen = self._info()["limits"]["max_inputs"], []
        for kind, inputs in _INPUTS.items():
            for form in ("npz", "json"):
                together = self._embed(inputs[:most], kind, form)
                seen += _require_own(self._alone(kind), together, f"of a batch as {form}", kind)
        return f"cosine {min(seen):.4f} or above"

    def requests_at_once_are_kept_apart(self) -> str:
        alone = self._alone("text") * 2
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            answers = threads.map(lambda one: self._embed([one], "text")[0], _INPUTS["text"] * 2)
            _require_own(alone, list(answers), "of requests at the same time", "text")
        return f"{len(alone)} requests, {_AT_ONCE} at a time"

    def bad_image_is_refused(self) -> str:
        good, bad = _INPUTS["image"][0], base64.b64encode(b"no image").decode()
        response = self._post([good, bad], "image")
        _expect(response.json().get("index") == 1, f"the index is {response.json().get('index')}")
        return _status(response, 400)

    def too_much_is_refused(self) -> str:
        limit = self._info()["limits"]["max_inputs"]
        _expect(0 < limit <= _MOST_INPUTS, f"the service says that it takes {limit} inputs")
        return _status(self._post([""] * (limit + 1)), 413)

    def latency(self) -> str:
        seconds = []
        for _ in range(_QUERIES):
            started = time.perf_counter()
            _status(self._post(["which route carried the most passengers?"]), 200)
            seconds.append(time.perf_counter() - started)
        return f"{statistics.median(seconds) * 1000:.0f} ms for a query (median of {_QUERIES})"

    def _both_formats(self, inputs: Sequence[str], input_type: str) -> str:
        as_json = self._embed(inputs, input_type, "json")
        as_npz = self._embed(inputs, input_type, "npz")
        for one, other in zip(as_json, as_npz, strict=True):
            _expect(one.shape == other.shape and np.allclose(one, other, atol=1e-3), "they differ")
        return f"{sum(map(len, as_npz))} vectors of {as_npz[0].shape[1]}, equal"

    def _alone(self, kind: str) -> list[MultiVector]:
        """Return the answers to all inputs of a kind, each sent alone, once for all checks."""
        if kind not in self._singles:
            self._singles[kind] = [self._embed([one], kind)[0] for one in _INPUTS[kind]]
        return self._singles[kind]

    def _embed(self, inputs: Sequence[str], kind: str, form: str = "npz") -> list[MultiVector]:
        """Return the multi-vectors of `inputs`, one for each, of finite vectors of unit length."""
        response = self._post(inputs, kind, path=f"/{form}/embeddings")
        _status(response, 200)
        decode = decode_npz if form == "npz" else decode_json
        vectors = decode(response.content)
        _expect(
            len(vectors) == len(inputs),
            f"{len(vectors)} multi-vectors for {len(inputs)} {kind}s",
        )
        for number, one in enumerate(vectors):
            what = f"the answer to {kind} {number} of {len(inputs)}"
            _expect(one.ndim == 2 and one.size > 0, f"{what} has no vectors")
            _expect(one.shape[1] == vectors[0].shape[1], f"{what} has vectors of another length")
            _expect(bool(np.isfinite(one).all()), f"{what} has numbers that are not finite")
            off = float(np.abs(np.linalg.norm(one, axis=1) - 1).max())
            _expect(off < 1e-2, f"{what} has vectors that are not of unit length")
        return vectors

    def _info(self) -> dict[str, Any]:
        response = self._http.get("/info")
        _status(response, 200)
        content: dict[str, Any] = response.json()
        return content

    def _post(
        self,
        inputs: Sequence[str],
        input_type: str = "text",
        *,
        path: str = "/embeddings",
        key: str | None = "",
        accept: str = "*/*",
    ) -> httpx.Response:
        headers = {"Accept": accept}
        if key is not None:
            headers |= bearer(key or self._key)
        body = json.dumps({"input_type": input_type, "inputs": list(inputs)})
        return self._http.post(path, content=body, headers=headers)


def _status(response: httpx.Response, expected: int) -> str:
    said = without_key(response.text, response)[:200]  # before a cut could leave a part of it
    _expect(response.status_code == expected, f"{response.status_code}: {said}")
    return str(expected)


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise CheckFailed(otherwise)


def _similarity(one: MultiVector, other: MultiVector) -> float:
    """Return the mean MaxSim of two multi-vectors, both ways: 1 where they are equal."""
    _expect(one.shape[1] == other.shape[1], "vectors of two answers differ in length")
    cosines = one @ other.T
    return float(cosines.max(axis=0).mean() + cosines.max(axis=1).mean()) / 2


def _require_same(one: MultiVector, other: MultiVector, what: str) -> float:
    """Return the least cosine between the vectors of two answers that have to be alike."""
    _expect(one.shape == other.shape, f"{what} has {len(one)} vectors, then {len(other)}")
    least = float((one * other).sum(axis=1).min())
    _expect(least > _ALIKE, f"{what} has other vectors: cosine {least:.4f}")
    return least


def _require_unlike(vectors: Sequence[MultiVector], kind: str) -> str:
    """Check that inputs that have nothing in common have vectors of their own."""
    for number, own in enumerate(vectors):
        alone = len(own) == 1 or float((own @ own.T).min()) < _UNLIKE
        _expect(alone, f"all vectors of {kind} {number} are equal")
    nearest, i, j = max(
        (_similarity(vectors[i], vectors[j]), i, j) for i, j in combinations(range(len(vectors)), 2)
    )
    _expect(
        nearest < _UNLIKE,
        f"{kind}s {i} and {j} have nothing in common, and equal vectors: cosine {nearest:.4f}",
    )
    return f"cosine {nearest:.4f} at most"


def _require_own(
    alone: Sequence[MultiVector], answers: Sequence[MultiVector], where: str, kind: str
) -> list[float]:
    """Check that each answer is that of its own input, as it was when it was sent alone."""
    for number, answer in enumerate(answers):
        similar = [_similarity(one, answer) for one in alone]
        nearest = int(np.argmax(similar))
        _expect(
            similar[number] > similar[nearest] - (1 - _ALIKE),
            f"{kind} {number} {where} got the vectors of {kind} {nearest}",
        )
    pairs = enumerate(zip(alone, answers, strict=False))  # a batch may be shorter
    return [_require_same(one, other, f"{kind} {i} {where}") for i, (one, other) in pairs]
