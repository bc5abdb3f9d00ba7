"""The paths of vLLM, Jina and OpenAI: their documented bodies, answered by the same vectors."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from conftest import KEY, Service, make_settings, png, running
from pagevec.engine.embedder import LocalEmbedder
from pagevec.search.maxsim import maxsim
from pagevec.types import MultiVector

PAGE = png(300, 200)
OTHER_PAGE = png(200, 300, seed=1)
TEXTS = ["What is the capital of France?", "The capital of France is Paris.", ""]


@pytest.fixture(scope="module")
def vllm(embedder: LocalEmbedder) -> Iterator[Service]:
    settings = make_settings(served_model_names="vidore/colqwen2-v1.0, alias", max_inputs=8)
    with running(embedder, settings) as service:
        yield service


@pytest.fixture
def http(vllm: Service) -> Iterator[httpx.Client]:
    with vllm.client() as client:
        yield client


def uri(file: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def part(file: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri(file)}}


def ask(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """Return the sentence of a refusal, which stands where both kinds of clients look for it."""
    content = answer.json()
    assert (answer.status_code, content["code"]) == (status, code), answer.text
    assert content["message"] == content["error"]
    return str(content["error"])


def embedded(http: httpx.Client, kind: str, *inputs: str) -> list[MultiVector]:
    """Return what `/embeddings` answers."""
    body = {"input_type": kind, "inputs": list(inputs)}
    answer = http.post("/json/embeddings", json=body).raise_for_status()
    return [np.array(one, np.float32) for one in answer.json()["embeddings"]]


def pages(http: httpx.Client, *files: bytes) -> list[MultiVector]:
    return embedded(http, "image", *(base64.b64encode(one).decode() for one in files))


def test_models(http: httpx.Client) -> None:
    """The checkpoint is listed, and the names that requests may give it."""
    listed = http.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["bundled", "vidore/colqwen2-v1.0", "alias"]


def test_pooling_of_texts(http: httpx.Client) -> None:
    """VLLM's `input`, one or several, in order, ragged: the vectors of `/embeddings`."""
    answer = ask(http, "/pooling", model="alias", input=TEXTS, task="token_embed", user="me")
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    assert answer["model"] == "alias"
    for one, expected in zip(answer["data"], embedded(http, "text", *TEXTS), strict=True):
        np.testing.assert_allclose(one["data"], expected, atol=1e-6)
    [alone] = ask(http, "/pooling", input=TEXTS[0])["data"]
    np.testing.assert_allclose(alone["data"], answer["data"][0]["data"], atol=1e-4)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 20


def test_pooling_of_a_page(http: httpx.Client) -> None:
    """VLLM's chat form, with the prompt that its documentation shows, and without."""
    [expected] = pages(http, PAGE)
    for content in (
        [part(PAGE)],
        [part(PAGE), {"type": "text", "text": "Describe the image."}],
        [{"type": "image_url", "image_url": uri(PAGE)}],
    ):
        messages = [{"role": "user", "content": content}]
        [one] = ask(http, "/pooling", messages=messages)["data"]
        np.testing.assert_allclose(one["data"], expected, atol=1e-6)
    texts = [{"type": "text", "text": TEXTS[0]}]
    [one] = ask(http, "/pooling", messages=[{"role": "user", "content": texts}])["data"]
    [expected] = embedded(http, "text", TEXTS[0])
    np.testing.assert_allclose(one["data"], expected, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("endianness", ["native", "little", "big"])
def test_encodings(http: httpx.Client, precision: str, endianness: str) -> None:
    """base64 and bytes have the same numbers, of the precision and order that were asked for."""
    dtype = np.dtype(precision).newbyteorder({"big": ">", "little": "<"}.get(endianness, "="))
    expected = embedded(http, "text", *TEXTS)
    form = {"embed_dtype": precision, "endianness": endianness}
    answer = ask(http, "/pooling", input=TEXTS, encoding_format="base64", **form)
    for one, vectors in zip(answer["data"], expected, strict=True):
        read = np.frombuffer(base64.b64decode(one["data"]), dtype).reshape(-1, 128)
        np.testing.assert_allclose(read.astype(np.float32), vectors, atol=1e-3)
    body = {"input": TEXTS, "encoding_format": "bytes", **form}
    whole = http.post("/pooling", json=body)
    assert whole.headers["content-type"] == "application/octet-stream"
    metadata = json.loads(whole.headers["metadata"])
    for item, vectors in zip(metadata["data"], expected, strict=True):
        piece = whole.content[item["start"] : item["end"]]
        read = np.frombuffer(piece, dtype).reshape(item["shape"])
        np.testing.assert_allclose(read.astype(np.float32), vectors, atol=1e-3)
    bare = http.post("/pooling", json={**body, "encoding_format": "bytes_only"})
    assert bare.content == whole.content and "metadata" not in bare.headers


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank(http: httpx.Client, path: str) -> None:
    """Texts and pages of all forms are ordered by exact MaxSim, with their places."""
    documents = [
        TEXTS[1],
        {"text": "Horses and cows are both animals"},
        {"content": [part(PAGE)]},
        {"image": base64.b64encode(OTHER_PAGE).decode()},
    ]
    answer = ask(http, path, query=TEXTS[0], documents=documents)
    [query] = embedded(http, "text", TEXTS[0])
    texts = embedded(http, "text", TEXTS[1], "Horses and cows are both animals")
    scores = maxsim(query, [*texts, *pages(http, PAGE, OTHER_PAGE)])
    found = {one["index"]: one["relevance_score"] for one in answer["results"]}
    np.testing.assert_allclose([found[index] for index in range(4)], scores, rtol=1e-3)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    echoed = {one["index"]: one["document"]["text"] for one in answer["results"]}
    assert echoed == {0: TEXTS[1], 1: "Horses and cows are both animals", 2: None, 3: None}
    best = ask(http, path, query=TEXTS[0], documents=documents, top_n=2, return_documents=False)
    assert [one["index"] for one in best["results"]] == list(found)[:2]
    assert "document" not in best["results"][0]


def test_a_page_as_the_query(http: httpx.Client) -> None:
    """Either side may be a picture."""
    documents = [{"content": [part(OTHER_PAGE)]}, {"content": [part(PAGE)]}]
    answer = ask(http, "/rerank", query={"content": [part(PAGE)]}, documents=documents)
    assert answer["results"][0]["index"] == 1


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    "names",
    [("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2")],
)
def test_score(http: httpx.Client, path: str, names: tuple[str, str]) -> None:
    """Pairs, or one input with each of the others, as vLLM's documentation shows them."""
    left, right = names
    [query, *_] = queries = embedded(http, "text", TEXTS[0], TEXTS[1])
    page, other = pages(http, PAGE, OTHER_PAGE)
    documents = [{"content": [part(PAGE)]}, {"content": [part(OTHER_PAGE)]}]
    answer = ask(http, path, **{left: TEXTS[0], right: documents})
    found = [one["score"] for one in answer["data"]]
    np.testing.assert_allclose(found, maxsim(query, [page, other]), rtol=1e-3)
    answer = ask(http, path, **{left: TEXTS[:2], right: documents})
    expected = [maxsim(one, [two])[0] for one, two in zip(queries, (page, other), strict=True)]
    np.testing.assert_allclose([one["score"] for one in answer["data"]], expected, rtol=1e-3)
    [single] = ask(http, path, **{left: TEXTS[0], right: TEXTS[1]})["data"]
    assert (single["index"], single["object"]) == (0, "score")


def test_multi_vectors_as_jina_has_them(http: httpx.Client) -> None:
    """`return_multivector`, with texts and pictures in one list."""
    inputs = [{"text": TEXTS[0]}, {"image": uri(PAGE)}, TEXTS[1]]
    answer = ask(
        http,
        "/v1/embeddings",
        model="bundled",
        input=inputs,
        task="retrieval.query",
        return_multivector=True,
        embedding_type="float",
        truncate=False,
    )
    texts, [page] = embedded(http, "text", TEXTS[0], TEXTS[1]), pages(http, PAGE)
    for one, expected in zip(answer["data"], (texts[0], page, texts[1]), strict=True):
        np.testing.assert_allclose(one["embeddings"], expected, atol=1e-4)
    body = {"input": "a", "return_multivector": True, "encoding_format": "float"}
    assert "embedding" in ask(http, "/v1/embeddings", **body)["data"][0]  # as OpenAI's clients read


def test_one_dense_vector(http: httpx.Client) -> None:
    """Who asks for a dense vector is told where multi-vectors are."""
    answer = http.post("/v1/embeddings", json={"model": "bundled", "input": ["a"]})
    assert "POST /pooling" in refused(answer, 400, "invalid_request")


def test_models_that_are_not_served(http: httpx.Client) -> None:
    """Each path refuses them, and says which there are; `/embeddings` still knows no model."""
    for path, body in {
        "/pooling": {"input": "a"},
        "/v1/embeddings": {"input": "a", "return_multivector": True},
        "/score": {"queries": "a", "documents": "b"},
        "/rerank": {"query": "a", "documents": ["b"]},
    }.items():
        answer = http.post(path, json={"model": "gpt-4", **body})
        assert "bundled" in refused(answer, 404, "model_not_found")
    body = {"input_type": "text", "inputs": ["a"], "model": "bundled"}
    assert http.post("/embeddings", json=body).status_code == 400


ADDRESS = {"type": "image_url", "image_url": {"url": "https://example.org/page.png"}}
USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/pooling", {}, 400, "input: it is missing"),
        ("/pooling", {"input": []}, 400, "empty"),
        ("/pooling", {"input": [1, 2]}, 400, "token ids"),
        ("/pooling", {"input": [[1, 2]]}, 400, "token ids"),
        ("/pooling", {"input": "a", "messages": [USER]}, 400, "either input or messages"),
        ("/pooling", {"input": "a", "inputs": ["b"]}, 400, "unknown field 'inputs'"),
        ("/pooling", {"input": "a", "dimensions": 64}, 400, "dimensions"),
        ("/pooling", {"input": "a", "truncate_prompt_tokens": 8}, 400, "never cut"),
        ("/pooling", {"input": "a", "encoding_format": "int8"}, 400, "encoding_format"),
        ("/pooling", {"input": "a", "task": "classify"}, 400, "task"),
        ("/pooling", {"input": "a", "task": ["b"]}, 400, "task"),
        ("/pooling", {"input": "a", "model": 7}, 400, "model"),
        ("/pooling", {"messages": []}, 400, "one message"),
        ("/pooling", {"messages": [USER, USER]}, 400, "one message"),
        ("/pooling", {"messages": [{"role": "system", "content": "a"}]}, 400, "of the user"),
        ("/pooling", {"messages": [{"role": "user", "content": []}]}, 400, "content"),
        ("/pooling", {"messages": [{"role": "user", "content": [ADDRESS]}]}, 400, "never fetched"),
        ("/pooling", {"messages": [{"role": "user", "content": [part(PAGE)] * 2}]}, 400, "one"),
        ("/pooling", {"input": [{"image": "no picture"}]}, 400, "base64"),
        ("/rerank", {"documents": ["a"]}, 400, "query"),
        ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, 400, "top_n"),
        ("/rerank", {"query": "a", "documents": ["b"], "top_n": True}, 400, "top_n"),
        ("/rerank", {"query": "a", "documents": ["b", 7]}, 400, "expected a text"),
        ("/rerank", {"query": "a", "documents": ["b"] * 9}, 413, "the limit is"),
        ("/score", {"queries": "a"}, 400, "send queries and documents"),
        ("/score", {"queries": ["a", "b"], "documents": ["c"] * 3}, 400, "as many, or one"),
        ("/score", {"queries": ["a"] * 5, "documents": ["c"] * 5}, 413, "the limit is"),
    ],
)
def test_refusals(
    http: httpx.Client, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    """What is not of the documented form is refused in words, with the field or input at fault."""
    answer = http.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["message"]


def test_an_input_at_fault(http: httpx.Client) -> None:
    """Its place is that in the request, whichever kind of input it is."""
    documents = [TEXTS[0], {"content": [part(PAGE)]}, {"content": [part(PAGE[:80])]}]
    answer = http.post("/rerank", json={"query": "a", "documents": documents})
    assert answer.json()["code"] == "invalid_image"
    answer = http.post("/pooling", json={"input": ["a", {"content": [part(b"no picture")]}]})
    assert answer.json()["index"] == 1


def test_more_pictures_than_a_request_may_carry(vllm: Service) -> None:
    """A rerank of a thousand pages is refused at the ninth: nothing is embedded for it."""
    documents = [{"content": [part(PAGE)]}] * 1000
    with vllm.client() as http:
        answer = http.post("/rerank", json={"query": "a", "documents": documents})
        assert "more than 8 pictures" in refused(answer, 413, "too_many_inputs")


def test_the_key(vllm: Service) -> None:
    """Every path needs it; where a client has no other way, it is the password in the address."""
    posts = ("/pooling", "/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score")
    with httpx.Client(base_url=vllm.url) as stranger:
        for path in (*posts, "/v1/embeddings"):
            refused(stranger.post(path, json={}), 401, "unauthorized")
        refused(stranger.get("/v1/models"), 401, "unauthorized")
        for password, status in ((KEY, 200), ("wrong", 401), ("", 401)):
            basic = httpx.BasicAuth("anybody", password)
            assert stranger.get("/v1/models", auth=basic).status_code == status
            answer = stranger.post("/pooling", json={"input": "a"}, auth=basic)
            assert answer.status_code == status
        body = {"input_type": "text", "inputs": ["a"]}
        basic = httpx.BasicAuth("anybody", KEY)
        assert stranger.post("/embeddings", json=body, auth=basic).status_code == 401
        assert stranger.get("/v1/models", headers={"Authorization": "Basic %%"}).status_code == 401
