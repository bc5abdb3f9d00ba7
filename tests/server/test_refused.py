"""What the contract refuses: 400, 401, 404, 405; each answer names what is wrong."""

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

from conftest import KEY, Service, make_settings, png, running
from pagevec.engine.embedder import LocalEmbedder
from server.calls import (
    GETS,
    HELLO,
    NOTHING,
    PATHS,
    error,
    image,
    images,
    texts,
    vectors,
)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"input_type": "audio", "inputs": []}, "input_type"),
        ({"input_type": "Text", "inputs": []}, "input_type"),
        ({"input_type": "", "inputs": []}, "input_type"),
        ({"input_type": None, "inputs": []}, "input_type"),
        ({"input_type": 1, "inputs": []}, "input_type"),
        ({"inputs": []}, "input_type"),
        ({"input_type": "text"}, "inputs"),
        ({"input_type": "text", "inputs": None}, "inputs"),
        ({"input_type": "text", "inputs": "hello"}, "inputs"),
        ({"input_type": "text", "inputs": {"0": "hello"}}, "inputs"),
        ({"input_type": "text", "inputs": [], "input": []}, "'input'"),
        ({"input_type": "text", "inputs": [], "model": "x"}, "'model'"),
        ({"input_type": "text", "inputs": [], "k" * 5000: 1}, "'kkkk"),
        ([], "body"),
        (None, "body"),
        ("text", "body"),
        (12, "body"),
        ([{"input_type": "text", "inputs": []}], "body"),
    ],
)
def test_wrong_shapes(client: httpx.Client, body: Any, named: str) -> None:
    """Wrong shape, type, value or name: a 400 that names the place, in few words."""
    answer = client.post("/embeddings", content=json.dumps(body).encode())
    sentence = error(answer, 400, "invalid_request")
    assert named in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize("wrong", [None, 1, 1.5, True, [], ["x"], {"x": 1}])
def test_wrong_type_of_an_input(client: httpx.Client, wrong: Any) -> None:
    """An input that is not a string is blamed by its index; nothing is converted."""
    body = {"input_type": "text", "inputs": ["fine", "fine", wrong, wrong]}
    error(client.post("/embeddings", json=body), 400, "invalid_request", index=2)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"hello",
        b"{",
        b'{"input_type": "text", "inputs": []',
        b"{'input_type': 'text', 'inputs': []}",
        b'{"input_type": "text", "inputs": [],}',
        b'{"input_type": "text", "inputs": []} x',
        b'{"input_type": "text", "inputs": ["\xff"]}',
        b'{"input_type": "text", "inputs": ["\\ud800"]}',
        b'{"input_type": "text", "inputs": ["a\nb"]}',
        b'{"input_type": "text", "inputs": [NaN]}',
        b"[" * 100_000,
        b"\xef\xbb\xbf{}",
        json.dumps(NOTHING).encode("utf-16"),
        b"\x1f\x8b\x08\x00gzip",
        b"input_type=text&inputs=hello",
    ],
)
def test_not_json(client: httpx.Client, body: bytes) -> None:
    """A body that is not JSON (RFC 8259, UTF-8) is a 400 of its own code."""
    error(client.post("/embeddings", content=body), 400, "invalid_json")


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "hello",
        "!!!!",
        "aGVsbG8gd29ybGQ=",
        "https://example.com/page.png",
        "data:image/png,notbase64",
        base64.b64encode(png(32, 32)[:-20]).decode(),
        base64.b64encode(png(32, 32)[:30]).decode(),
        base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(),
        base64.b64encode(b"%PDF-1.7").decode(),
    ],
    ids=["empty", "word", "signs", "no file", "URL", "URI", "cut", "header", "SVG", "PDF"],
)
@pytest.mark.parametrize("path", ["/json/embeddings", "/npz/embeddings"])
def test_bad_image(client: httpx.Client, path: str, bad: str) -> None:
    """One bad image fails the whole request and is named by its index; nothing else comes back."""
    answer = client.post(path, json=images(image(), bad, image()))
    error(answer, 400, "invalid_image", index=1)


def test_image_over_the_limits(embedder: LocalEmbedder) -> None:
    """Too many pixels, too long a side, too many bytes: a 400 with the index, never less data."""
    settings = make_settings(max_image_pixels=2000, max_image_side=100, max_image_bytes=3000)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8).tobytes()
    heavy = base64.b64encode(b"BM" + noise).decode()
    with running(embedder, settings) as small, small.client() as client:
        assert len(vectors(client.post("/embeddings", json=images(image(44, 44))))) == 1
        for bad in (image(45, 45), image(101, 2), heavy):
            answer = client.post("/embeddings", json=images(image(), bad))
            error(answer, 400, "image_too_large", index=1)


def test_text_over_the_limit(embedder: LocalEmbedder) -> None:
    """A text is never cut: one character too many is a 400 with the index, in characters."""
    with running(embedder, make_settings(max_text_chars=10)) as small, small.client() as client:
        assert len(vectors(client.post("/embeddings", json=texts("ü" * 10, "")))) == 2
        answer = client.post("/embeddings", json=texts("fine", "ü" * 11))
        assert "split it" in error(answer, 400, "text_too_long", index=1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        f"Bearer {KEY}x",
        f"Bearer {KEY} x",
        f"Bearer {KEY},other",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY.upper()}",
        f"Basic {KEY}",
        f"Bearer{KEY}",
        f"Token {KEY}",
        KEY,
        f"Bearer \xfc{KEY}",
    ],
)
def test_wrong_keys(service: Service, path: str, authorization: str | None) -> None:
    """No key, a wrong one, another scheme, garbage around a right one: 401 with the challenge."""
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    answer = httpx.post(f"{service.url}{path}", json=HELLO, headers=headers, timeout=60)
    error(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.text


def test_401_comes_before_the_body_is_looked_at(service: Service) -> None:
    """Who has no key does not learn what is wrong with a body."""
    error(httpx.post(f"{service.url}/embeddings", content=b"{"), 401, "unauthorized")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_scheme_in_any_case(service: Service, scheme: str) -> None:
    """Scheme names are case-insensitive (RFC 9110, 11.1)."""
    headers = {"Authorization": f"{scheme} {KEY}"}
    answer = httpx.post(f"{service.url}/embeddings", json=NOTHING, headers=headers)
    assert answer.status_code == 200


def test_several_keys_for_rotation(embedder: LocalEmbedder) -> None:
    """While keys are rotated all of them are valid; their list as a whole is not a key."""
    settings = make_settings(service_api_key="old-key, new-key")
    with running(embedder, settings) as service:
        for key, status in (("old-key", 200), ("new-key", 200), ("old-key, new-key", 401)):
            headers = {"Authorization": f"Bearer {key}"}
            answer = httpx.post(f"{service.url}/embeddings", json=NOTHING, headers=headers)
            assert answer.status_code == status, key


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/nothing", "/embeddings/more", "/json", "/%ff%00", "/v1//x"])
def test_not_found(client: httpx.Client, method: str, path: str) -> None:
    """A path that is not there is a 404 in the error form (HEAD: its headers)."""
    answer = client.request(method, path)
    if method == "HEAD":
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/json"
        assert answer.content == b""
    else:
        error(answer, 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", PATHS)
def test_method_not_allowed(client: httpx.Client, method: str, path: str) -> None:
    """Only POST asks for embeddings; others are told so in the error form, with Allow."""
    if (method, path) == ("GET", "/"):
        return  # tests/server/test_home.py
    answer = client.request(method, path)
    error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == ("GET, HEAD, POST" if path == "/" else "POST")


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/"])
def test_head_is_not_allowed(client: httpx.Client, path: str) -> None:
    """HEAD has the headers of its 405 and no body; the connection goes on."""
    answer = client.head(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert int(answer.headers["content-length"]) > 0
    assert answer.content == b""
    assert client.post(path, json=NOTHING).status_code == 200


@pytest.mark.parametrize("path", GETS)
def test_posts_where_only_get_is(client: httpx.Client, path: str) -> None:
    """What is read cannot be posted to."""
    answer = client.post(path, json=HELLO)
    error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", [*PATHS, *GETS, "/docs"])
def test_nothing_redirects(client: httpx.Client, method: str, path: str) -> None:
    """Clients do not follow redirects, so there are none, also not for a trailing slash."""
    assert not client.request(method, path).is_redirect
    if path != "/":
        error(client.request(method, f"{path}/"), 404, "not_found")
