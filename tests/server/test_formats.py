"""Paths, formats and inputs of the contract, row by row, with a real model."""

import json
from io import BytesIO

import httpx
import numpy as np
import pytest

from conftest import KEY, Service, make_settings, running
from pagevec.engine.embedder import LocalEmbedder
from server.calls import HELLO, NOTHING, PATHS, TYPES, arrays, image, images, texts, vectors

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
