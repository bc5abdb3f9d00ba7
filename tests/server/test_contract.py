"""The HTTP contract, row by row, against a real server with a real model."""

import base64
import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from conftest import KEY, Service, make_settings, png, running
from pagevec.engine.loader import LoadedModel, load
from pagevec.engine.local import LocalEmbedder

PATHS = {
    "/embeddings": "json",
    "/": "json",
    "/json/embeddings": "json",
    "/npz/embeddings": "npz",
}
GETS = ("/health", "/ready", "/info", "/metrics")
TYPES = {"json": "application/json", "npz": "application/x-npz"}
HELLO = {"input_type": "text", "inputs": ["hello"]}
NOTHING: dict[str, Any] = {"input_type": "text", "inputs": []}

# What a client may send as Accept, and the format it gets; None: the path decides.
ACCEPTS: list[tuple[str | None, str | None]] = [
    (None, None),
    ("", None),
    ("*/*", None),
    ("text/html", None),
    ("text/html,application/xhtml+xml,*/*;q=0.8", None),
    ("application/*", None),
    ("application/json", "json"),
    ("APPLICATION/JSON; charset=utf-8", "json"),
    ("application/x-npz", "npz"),
    ("application/octet-stream", "npz"),
    ("text/html, application/x-npz", "npz"),
    ("application/json, */*", "json"),
    ("application/x-npz;q=0.1, */*", "npz"),
    ("application/json;q=0.4, application/x-npz;q=0.6", "npz"),
    ("application/json;q=0.6, application/x-npz;q=0.4", "json"),
    ("application/x-npz;q=0, application/json;q=0.1", "json"),
    ("application/json;q=0", None),
    ("application/json;q=high", None),
    (", ;;,", None),
]


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """The bundled model with small pages, for engines of this module's own."""
    return load(make_settings(max_visual_tokens=16))


def image(width: int = 32, height: int = 32, seed: int = 0) -> str:
    return base64.b64encode(png(width, height, seed)).decode()


def images(*inputs: str) -> dict[str, Any]:
    return {"input_type": "image", "inputs": list(inputs)}


def texts(*inputs: str) -> dict[str, Any]:
    return {"input_type": "text", "inputs": list(inputs)}


def vectors(answer: httpx.Response) -> list[np.ndarray[Any, Any]]:
    """The multi-vectors of a JSON answer."""
    assert answer.status_code == 200, answer.text
    return [np.array(rows, np.float32) for rows in answer.json()["embeddings"]]


def arrays(answer: httpx.Response) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an npz answer, read without pickle."""
    assert answer.status_code == 200, answer.text
    with np.load(BytesIO(answer.content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def error(answer: httpx.Response, status: int, code: str, index: int | None = None) -> str:
    """Check that `answer` is this error, in the contract's form and nothing else; its sentence."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    expected = {"error", "code"} if index is None else {"error", "code", "index"}
    assert set(content) == expected
    assert content["code"] == code
    assert content.get("index") == index
    assert len(content["error"]) > 10
    assert answer.headers["x-request-id"]
    assert "total;dur=" in answer.headers["server-timing"]
    sentence: str = content["error"]
    return sentence


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


# Formats and paths


@pytest.mark.parametrize("path", PATHS)
def test_json_on_every_path(client: httpx.Client, path: str) -> None:
    """JSON holds `embeddings` and nothing else: for each input unit rows of 128 numbers."""
    answer = client.post(path, json=HELLO, headers={"Accept": "application/json"})
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"embeddings"}
    (rows,) = vectors(answer)
    assert rows.ndim == 2
    assert rows.shape[1] == 128
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_npz_on_every_path(client: httpx.Client, path: str, kind: str) -> None:
    """An npz answer loads without pickle: count, input_type (unicode) and float32 emb_0, emb_1."""
    body = texts("a", "b and c") if kind == "text" else images(image(32, 32), image(64, 96))
    answer = client.post(path, json=body, headers={"Accept": "application/x-npz"})
    assert answer.headers["content-type"] == "application/x-npz"
    content = arrays(answer)
    assert set(content) == {"count", "input_type", "emb_0", "emb_1"}
    assert content["count"].shape == ()
    assert int(content["count"]) == 2
    assert content["input_type"].dtype.kind == "U"
    assert str(content["input_type"]) == kind
    for name in ("emb_0", "emb_1"):
        assert content[name].dtype == np.float32
        assert content[name].ndim == 2
        assert content[name].shape[1] == 128
        np.testing.assert_allclose(np.linalg.norm(content[name], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("accept", "wins"), ACCEPTS)
def test_negotiation(client: httpx.Client, path: str, accept: str | None, wins: str | None) -> None:
    """An explicit Accept wins by its weights; everything else leaves it to the path."""
    request = client.build_request("POST", path, json=NOTHING)
    del request.headers["Accept"]
    if accept is not None:
        request.headers["Accept"] = accept
    answer = client.send(request)
    expected = wins or PATHS[path]
    assert answer.headers["content-type"] == TYPES[expected]
    if expected == "json":
        assert answer.json() == {"embeddings": []}
    else:
        assert int(arrays(answer)["count"]) == 0


def test_accept_in_two_lines_is_one_list(client: httpx.Client) -> None:
    """Two Accept lines count like one with a comma (RFC 9110, 5.3)."""
    lines = [("Accept", "application/json;q=0.1"), ("Accept", "application/x-npz")]
    request = httpx.Request("POST", client.base_url.join("/embeddings"), json=NOTHING)
    request.headers = httpx.Headers(
        [*request.headers.multi_items(), ("Authorization", f"Bearer {KEY}"), *lines]
    )
    assert client.send(request).headers["content-type"] == TYPES["npz"]


def test_both_formats_carry_the_same_vectors(client: httpx.Client) -> None:
    """JSON numbers read as float32 are the numbers of npz."""
    content = arrays(client.post("/npz/embeddings", json=texts("one", "two words")))
    rows = vectors(client.post("/json/embeddings", json=texts("one", "two words")))
    for index, one in enumerate(rows):
        np.testing.assert_allclose(one, content[f"emb_{index}"], atol=1e-6)


def test_default_format_setting(embedder: LocalEmbedder) -> None:
    """PAGEVEC_DEFAULT_FORMAT=npz changes the bare paths only, and Accept still wins."""
    with running(embedder, make_settings(default_format="npz")) as npz, npz.client() as client:
        for path in ("/embeddings", "/", "/npz/embeddings"):
            assert client.post(path, json=NOTHING).headers["content-type"] == TYPES["npz"]
        assert client.post("/json/embeddings", json=NOTHING).json() == {"embeddings": []}
        explicit = client.post("/", json=NOTHING, headers={"Accept": "application/json"})
        assert explicit.json() == {"embeddings": []}


def test_request_of_morphik_core(service: Service) -> None:
    """Its headers, a new connection for each call, a domain with a path: npz as it reads it."""
    headers = {
        "Accept": "*/*",
        "Accept-Encoding": "gzip, deflate, br",
        "Connection": "close",
        "Authorization": f"Bearer {KEY}",
    }
    pages = images(image(64, 64), image(256, 1))
    answer = httpx.post(f"{service.url}/npz/embeddings", json=pages, headers=headers, timeout=60)
    assert "content-encoding" not in answer.headers
    content = np.load(BytesIO(answer.content))
    count = int(content["count"])
    assert [content[f"emb_{i}"].astype(np.float32).shape[1] for i in range(count)] == [128, 128]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_content_type_does_not_matter(client: httpx.Client, content_type: str | None) -> None:
    """The body is JSON whatever its header says, as with `curl -d`."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = client.post("/embeddings", content=json.dumps(NOTHING).encode(), headers=headers)
    assert answer.json() == {"embeddings": []}


# Inputs


@pytest.mark.parametrize("kind", ["text", "image"])
def test_no_inputs(client: httpx.Client, kind: str) -> None:
    """Empty inputs are answered with no embeddings, in both formats."""
    body = {"input_type": kind, "inputs": []}
    assert client.post("/embeddings", json=body).json() == {"embeddings": []}
    content = arrays(client.post("/npz/embeddings", json=body))
    assert set(content) == {"count", "input_type"}
    assert str(content["input_type"]) == kind


def test_order_of_texts(client: httpx.Client) -> None:
    """Each text of a request gets the vectors that it gets alone: in order, without padding."""
    inputs = ["short", "", "a text of some more words than the others have", "short again", "é"]
    together = vectors(client.post("/embeddings", json=texts(*inputs)))
    assert len({len(rows) for rows in together}) > 2  # ragged
    for text, rows in zip(inputs, together, strict=True):
        (alone,) = vectors(client.post("/embeddings", json=texts(text)))
        assert rows.shape == alone.shape
        np.testing.assert_allclose(rows, alone, atol=1e-4)


def test_order_of_images(client: httpx.Client) -> None:
    """Each image of a request gets the vectors that it gets alone: in order, without padding."""
    inputs = [image(96, 32, 1), image(32, 32, 2), image(160, 96, 3), image(32, 96, 4)]
    together = vectors(client.post("/embeddings", json=images(*inputs)))
    assert len({len(rows) for rows in together}) > 2
    for one, rows in zip(inputs, together, strict=True):
        (alone,) = vectors(client.post("/embeddings", json=images(one)))
        assert rows.shape == alone.shape
        np.testing.assert_allclose(rows, alone, atol=1e-4)


@pytest.mark.parametrize("text", ["", " ", "\n\t\u00a0"])
def test_blank_text(client: httpx.Client, text: str) -> None:
    """Blank text is a text: it has vectors of unit length."""
    (rows,) = vectors(client.post("/embeddings", json=texts(text)))
    assert len(rows) > 0
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_text_that_looks_like_a_data_uri_is_text(client: httpx.Client) -> None:
    """The kind is what input_type says, never guessed from the input."""
    uri = f"data:image/png;base64,{image()}"
    as_text, plain, as_image = (
        vectors(client.post("/embeddings", json=body))[0]
        for body in (texts(uri), texts("data: a report"), images(uri))
    )
    assert len(as_text) != len(as_image)
    assert len(plain) > 0


def test_image_bare_or_as_data_uri(client: httpx.Client) -> None:
    """Both ways of writing an image are the same image."""
    bare, uri = vectors(
        client.post("/embeddings", json=images(image(), f"data:image/png;base64,{image()}"))
    )
    np.testing.assert_allclose(bare, uri, atol=1e-4)


# 400


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


# 401


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


# 404, 405, redirects


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
    answer = client.request(method, path)
    error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", PATHS)
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
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", [*PATHS, *GETS, "/docs"])
def test_nothing_redirects(client: httpx.Client, method: str, path: str) -> None:
    """Clients do not follow redirects, so there are none, also not for a trailing slash."""
    assert not client.request(method, path).is_redirect
    if path != "/":
        error(client.request(method, f"{path}/"), 404, "not_found")


# 413


def test_too_many_inputs(embedder: LocalEmbedder) -> None:
    """One input too many is a 413; its halves are served, which is what callers do then."""
    with running(embedder, make_settings(max_inputs=4)) as small, small.client() as client:
        inputs = ["a", "b", "c", "d", "e"]
        error(client.post("/embeddings", json=texts(*inputs)), 413, "too_many_inputs")
        error(client.post("/embeddings", json=images(*inputs)), 413, "too_many_inputs")
        halves = [
            len(vectors(client.post("/embeddings", json=texts(*half))))
            for half in (inputs[:3], inputs[3:])
        ]
        assert halves == [3, 2]
        assert len(vectors(client.post("/embeddings", json=texts(*inputs[:4])))) == 4


@pytest.mark.parametrize("chunked", [False, True])
def test_body_over_the_limit(embedder: LocalEmbedder, chunked: bool) -> None:
    """One byte too many is a 413, announced by Content-Length or found while reading."""
    with running(embedder, make_settings(max_body_bytes=2000)) as small, small.client() as client:
        for size, status in ((2000, 200), (2001, 413), (300_000, 413), (2000, 200)):
            body = json.dumps(NOTHING).encode().ljust(size)
            parts = (body[start : start + 500] for start in range(0, size, 500))
            answer = client.post("/embeddings", content=parts if chunked else body)
            assert answer.status_code == status
            if status == 413:
                assert "2,000 bytes" in error(answer, 413, "body_too_large")


def test_more_work_than_time(model: LoadedModel) -> None:
    """What cannot be done in a request's time budget, at the measured speed, is a 413 at once."""
    settings = make_settings(request_seconds=1e-6)
    engine = LocalEmbedder.of(settings, lambda: model)
    engine.wait_until_ready()
    with running(engine, settings) as hurried, hurried.client() as client:
        for path in PATHS:
            for body in (texts("a"), texts("a", "b", "c"), images(image())):
                sentence = error(client.post(path, json=body), 413, "too_much_work")
                assert "fewer inputs" in sentence
            assert client.post(path, json=NOTHING).status_code == 200
    engine.close()


# 429


def test_rate_limit(embedder: LocalEmbedder) -> None:
    """A key's fourth request in a minute is a 429 with Retry-After; other keys are served."""
    settings = make_settings(rate_limit="3/minute", service_api_key=f"{KEY},other")
    with running(embedder, settings) as limited, limited.client() as client:
        paths = ["/embeddings", "/npz/embeddings", "/"]
        assert [client.post(path, json=NOTHING).status_code for path in paths] == [200] * 3
        for path in PATHS:
            answer = client.post(path, json=NOTHING)
            error(answer, 429, "rate_limited")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        other = {"Authorization": "Bearer other"}
        assert client.post("/embeddings", json=NOTHING, headers=other).status_code == 200
        wrong = {"Authorization": "Bearer wrong"}
        error(client.post("/embeddings", json=NOTHING, headers=wrong), 401, "unauthorized")
        for path in GETS:
            assert client.get(path).status_code == 200


# 500


def test_a_fault_of_ours(model: LoadedModel) -> None:
    """A model that gives no numbers is a 500: an id that is in the headers too, no inner detail."""
    settings = make_settings()
    spoilt = replace(model, model=copy.deepcopy(model.model))
    engine = LocalEmbedder.of(settings, lambda: spoilt)
    engine.wait_until_ready()
    with torch.no_grad():
        for parameter in spoilt.model.parameters():
            parameter.fill_(float("nan"))
    with running(engine, settings) as service, service.client() as client:
        for path in PATHS:
            answer = client.post(path, json=HELLO)
            assert answer.status_code == 500
            content = answer.json()
            assert content["code"] == "internal_error"
            assert answer.headers["x-request-id"] in content["error"]
            assert "finite" not in answer.text
            assert "total;dur=" in answer.headers["server-timing"]
        assert client.post("/embeddings", json=NOTHING).status_code == 200
        assert client.get("/health").status_code == 200
    engine.close()


# 503


def test_while_loading(model: LoadedModel) -> None:
    """Until the model answers: 503 with Retry-After, but /health lives; then 200."""
    released = threading.Event()

    def load_later() -> LoadedModel:
        released.wait()
        return model

    settings = make_settings()
    engine = LocalEmbedder.of(settings, load_later)
    with running(engine, settings) as service, service.client() as client:
        for path in PATHS:
            for body in (HELLO, NOTHING):
                answer = client.post(path, json=body)
                error(answer, 503, "not_ready")
                assert int(answer.headers["retry-after"]) > 0
        for path in ("/ready", "/info"):
            answer = client.get(path)
            error(answer, 503, "not_ready")
            assert int(answer.headers["retry-after"]) > 0
        assert client.get("/health").json() == {"status": "alive"}
        assert "pagevec_ready 0.0" in client.get("/metrics").text
        wrong = {"Authorization": "Bearer wrong"}
        error(client.post("/embeddings", json=HELLO, headers=wrong), 401, "unauthorized")

        released.set()
        engine.wait_until_ready()
        for path in PATHS:
            assert client.post(path, json=HELLO).status_code == 200
        assert client.get("/ready").json() == {"status": "ready"}
        assert client.get("/info").json()["model"] == "bundled"
        assert "pagevec_ready 1.0" in client.get("/metrics").text
    engine.close()


def test_when_loading_failed() -> None:
    """A model that does not load never becomes ready: 503 on everything that needs it."""

    def fail() -> LoadedModel:
        raise OSError("no such file")

    settings = make_settings()
    engine = LocalEmbedder.of(settings, fail)
    with pytest.raises(OSError, match="no such file"):
        engine.wait_until_ready()
    with running(engine, settings) as service, service.client() as client:
        for answer in (client.post("/", json=HELLO), client.get("/ready"), client.get("/info")):
            error(answer, 503, "not_ready")
            assert int(answer.headers["retry-after"]) > 0
        assert client.get("/health").status_code == 200
    engine.close()


def test_while_draining(model: LoadedModel) -> None:
    """A service that is shutting down takes nothing new: 503 with Retry-After."""
    settings = make_settings()
    engine = LocalEmbedder.of(settings, lambda: model)
    engine.wait_until_ready()
    engine.close()
    with running(engine, settings) as service, service.client() as client:
        for answer in (client.post("/embeddings", json=HELLO), client.get("/ready")):
            error(answer, 503, "draining")
            assert int(answer.headers["retry-after"]) > 0
        assert client.get("/health").status_code == 200


def test_full_queue(model: LoadedModel) -> None:
    """When no more inputs may wait: 503 with Retry-After; what was taken is answered."""
    settings = make_settings(max_queued_inputs=2)
    engine = LocalEmbedder.of(settings, lambda: model)
    engine.wait_until_ready()
    with (
        running(engine, settings) as service,
        service.client() as client,
        ThreadPoolExecutor() as threads,
    ):
        long = "many words " * 600
        first = threads.submit(client.post, "/npz/embeddings", json=texts(long, long))
        wait_for(lambda: "pagevec_queue_inputs 2.0" in client.get("/metrics").text)
        for body in (HELLO, images(image())):
            answer = client.post("/embeddings", json=body)
            error(answer, 503, "queue_full")
            assert int(answer.headers["retry-after"]) > 0
        assert not first.done()
        assert int(arrays(first.result())["count"]) == 2
        assert len(vectors(client.post("/embeddings", json=HELLO))) == 1
    engine.close()


# Headers of every answer


def every_kind_of_answer(client: httpx.Client) -> Iterator[tuple[int, httpx.Response]]:
    """Answers of this service, with the status that each should have."""
    yield 200, client.post("/embeddings", json=HELLO)
    yield 200, client.post("/npz/embeddings", json=NOTHING)
    yield 400, client.post("/embeddings", content=b"{")
    yield 401, client.post("/embeddings", headers={"Authorization": "no"})
    yield 404, client.get("/nothing")
    yield 405, client.options("/embeddings")
    yield 405, client.head("/embeddings")
    yield 413, client.post("/embeddings", json=texts(*["a"] * 257))
    for path in (*GETS, "/docs", "/openapi.json"):
        yield 200, client.get(path)


def test_request_id_is_made(client: httpx.Client) -> None:
    """Every answer, errors included, has an id of its own."""
    ids = set()
    for status, answer in every_kind_of_answer(client):
        assert answer.status_code == status
        ids.add(answer.headers["x-request-id"])
    assert len(ids) == 14
    assert all(len(one) == 32 for one in ids)


def test_request_id_is_echoed(service: Service) -> None:
    """The caller's id comes back on every answer, errors included, and only once."""
    with service.client() as client:
        client.headers["X-Request-ID"] = "Batch_7.page-3"
        for status, answer in every_kind_of_answer(client):
            assert answer.status_code == status
            assert answer.headers.get_list("x-request-id") == ["Batch_7.page-3"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "a;b", '"quoted"', "\xfc", "a\tb", "{}"])
def test_unusable_request_id_is_replaced(client: httpx.Client, given: str) -> None:
    """An id that could spoil a log or a header is replaced by one of ours."""
    answer = client.post(
        "/embeddings", json=NOTHING, headers={"X-Request-ID": given.encode("latin-1")}
    )
    assert answer.status_code == 200
    assert len(answer.headers["x-request-id"]) == 32


def test_server_timing_on_every_answer(client: httpx.Client) -> None:
    """Server-Timing is on every answer; a served request's names all of its stages."""
    for _, answer in every_kind_of_answer(client):
        assert "total;dur=" in answer.headers["server-timing"]
    served = client.post("/embeddings", json=HELLO).headers["server-timing"]
    stages = dict(stage.split(";dur=") for stage in served.split(", "))
    assert list(stages) == [
        "receive",
        "decode",
        "prepare",
        "queue",
        "model",
        "encode",
        "total",
    ]
    assert all(float(milliseconds) >= 0 for milliseconds in stages.values())
    assert float(stages["total"]) >= float(stages["model"]) > 0


def test_info(client: httpx.Client) -> None:
    """/info says what answers, what the bundled weights are good for, and the limits."""
    content = client.get("/info").json()
    assert content["dim"] == 128
    assert "does not understand" in content["notice"]
    assert content["limits"]["max_inputs"] == 256
    assert content["limits"]["max_body_bytes"] == 256 * 1024 * 1024
    assert KEY not in json.dumps(content)


def test_metrics(client: httpx.Client) -> None:
    """Requests are counted by route and status; paths of strangers do not become labels."""
    client.post("/npz/embeddings", json=HELLO)
    client.get("/a-path-that-a-stranger-made-up")
    text = client.get("/metrics").text
    assert 'pagevec_requests_total{method="POST",path="/npz/embeddings",status="200"}' in text
    assert 'pagevec_requests_total{method="GET",path="other",status="404"}' in text
    assert "stranger" not in text


def test_description_names_every_status(client: httpx.Client) -> None:
    """/openapi.json describes all paths, the key, and every status a caller has to expect."""
    described = client.get("/openapi.json").json()
    for path in PATHS:
        operation = described["paths"][path]["post"]
        assert {"200", "400", "401", "413", "429", "500", "503"} <= set(operation["responses"])
        assert set(operation["responses"]["200"]["content"]) == set(TYPES.values())
        assert operation["security"] == [{"bearer": []}]
    assert described["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
