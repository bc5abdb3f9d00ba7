"""`"tokens": true`: the token behind each vector of a text, and not a byte changed without it."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from io import BytesIO
from typing import Any, get_args

import httpx
import numpy as np
import orjson
import pytest

from conftest import make_settings, running
from pagevec.engine.api import Embedded, Health, Memory
from pagevec.images import EncodedImage
from pagevec.types import ModelInfo, Token
from pagevec.wire.decode import decode_json, decode_npz, decode_tokens
from pagevec.wire.negotiation import MEDIA_TYPES, WireFormat
from pagevec.wire.quantize import Dtype, quantize
from server.calls import error, image, images, texts

FORMATS: tuple[WireFormat, ...] = get_args(WireFormat)
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
TEXTS = ["fare zones", "", "é fare"]
END = Token("<|endoftext|>")
TOKENS = [
    (Token("fare", 0, 4), Token("zones", 5, 10), END),
    (END,),
    (Token("é", 0, 1), Token("fare", 2, 6), END),
]


def vectors_of(name: bytes, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    seed = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)


class Words:
    """An embedder that gives each word of a text a vector, and one more for an end token."""

    def __init__(self, *, tells_tokens: bool = True) -> None:
        self._info = ModelInfo(model="words", dim=16, tells_tokens=tells_tokens)

    def info(self) -> ModelInfo:
        return self._info

    def embed_texts(
        self, texts: Sequence[str], pool_factor: int = 1, *, tokens: bool = False, **_: Any
    ) -> Future[Embedded]:
        vectors = [vectors_of(text.encode(), len(text.split()) + 1) for text in texts]
        embedded = Embedded(vectors, token_count=sum(map(len, vectors)))
        if tokens:
            embedded = replace(embedded, tokens=tuple(self._tokens(text) for text in texts))
        return answered(embedded)

    def embed_images(
        self, images: Sequence[EncodedImage], pool_factor: int = 1, **_: Any
    ) -> Future[Embedded]:
        return answered(Embedded([vectors_of(one.data, 5) for one in images]))

    def health(self) -> Health:
        return Health("ready", 0, 0, 0, Memory(0, 0, 0), 0.0)

    def close(self) -> None:
        pass

    @staticmethod
    def _tokens(text: str) -> tuple[Token, ...]:
        starts = [text.index(word) for word in text.split()]
        words = zip(text.split(), starts, strict=True)
        return (*(Token(word, start, start + len(word)) for word, start in words), END)


def answered(embedded: Embedded) -> Future[Embedded]:
    future: Future[Embedded] = Future()
    future.set_result(embedded)
    return future


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(Words(), make_settings()) as service, service.client() as opened:
        yield opened


def ask(client: httpx.Client, body: dict[str, Any], format_: WireFormat) -> httpx.Response:
    return client.post("/embeddings", json=body, headers={"Accept": MEDIA_TYPES[format_]})


def former_answer(
    vectors: list[np.ndarray[Any, np.dtype[np.float32]]],
    input_type: str,
    dtype: Dtype,
    format_: WireFormat,
) -> bytes:
    """The body as the service built it before there were tokens."""
    quantized = [quantize(one, dtype) for one in vectors]
    if format_ == "json":
        content: dict[str, Any] = {"embeddings": [one.values for one in quantized]}
        if dtype != "float32":
            content["dtype"] = dtype
        if dtype == "int8":
            content["scales"] = [one.scales for one in quantized]
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    arrays: dict[str, Any] = {f"emb_{i}": one.values for i, one in enumerate(quantized)}
    if dtype == "int8":
        arrays |= {f"scale_{i}": one.scales for i, one in enumerate(quantized)}
    if dtype != "float32":
        arrays["dtype"] = np.array(dtype)
    file = BytesIO()
    np.savez(file, count=np.array(len(vectors)), input_type=np.array(input_type), **arrays)
    return file.getvalue()


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("option", [{}, {"tokens": False}], ids=["absent", "false"])
def test_not_a_byte_changes_without_tokens(
    client: httpx.Client, option: dict[str, bool], kind: str, dtype: Dtype, format_: WireFormat
) -> None:
    """Without `tokens`, or with false, an answer has the bytes that it always had."""
    embedder = Words()
    if kind == "text":
        body, vectors = texts(*TEXTS), embedder.embed_texts(TEXTS).result().vectors
    else:
        body = images(image(32, 32), image(64, 96))
        vectors = [decode_npz(ask(client, images(one), "npz").content)[0] for one in body["inputs"]]
    answer = ask(client, {**body, "dtype": dtype, **option}, format_)
    assert answer.status_code == 200, answer.text
    assert answer.content == former_answer(vectors, kind, dtype, format_)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tokens_in_json(client: httpx.Client, dtype: Dtype) -> None:
    """JSON has an object for each vector: the text, and where it stands in the input, or null."""
    answer = ask(client, {**texts(*TEXTS), "dtype": dtype, "tokens": True}, "json")
    assert answer.json()["tokens"] == [
        [{"text": one.text, "start": one.start, "end": one.end} for one in tokens]
        for tokens in TOKENS
    ]
    assert list(map(len, decode_json(answer.content))) == list(map(len, TOKENS))


@pytest.mark.parametrize("dtype", DTYPES)
def test_tokens_in_npz(client: httpx.Client, dtype: Dtype) -> None:
    """An npz answer has texts and spans, loads without pickle, and decodes to the same tokens."""
    answer = ask(client, {**texts(*TEXTS), "dtype": dtype, "tokens": True}, "npz")
    assert decode_tokens(answer.content) == TOKENS
    assert list(map(len, decode_npz(answer.content))) == list(map(len, TOKENS))
    with np.load(BytesIO(answer.content), allow_pickle=False) as arrays:
        for index, tokens in enumerate(TOKENS):
            assert arrays[f"tokens_{index}"].dtype.kind == "U"
            assert arrays[f"tokens_{index}"].shape == (len(tokens),)
            assert arrays[f"spans_{index}"].dtype == np.int32
            assert arrays[f"spans_{index}"].shape == (len(tokens), 2)
            assert arrays[f"spans_{index}"][-1].tolist() == [-1, -1]


def test_vectors_are_the_same_with_tokens(client: httpx.Client) -> None:
    """Asking for tokens changes no vector."""
    plain = decode_npz(ask(client, texts(*TEXTS), "npz").content)
    with_tokens = decode_npz(ask(client, {**texts(*TEXTS), "tokens": True}, "npz").content)
    for one, other in zip(plain, with_tokens, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tokens_of_no_texts(client: httpx.Client) -> None:
    """Empty inputs have empty tokens, in both formats."""
    body = {**texts(), "tokens": True}
    assert ask(client, body, "json").json() == {"embeddings": [], "tokens": []}
    assert decode_tokens(ask(client, body, "npz").content) == []


@pytest.mark.parametrize(
    "body",
    [
        {**images(), "tokens": True},
        {**texts("a"), "tokens": True, "pool_factor": 2},
        *({**texts("a"), "tokens": wrong} for wrong in (None, 1, "true", [], {})),
    ],
)
def test_where_there_are_no_tokens(client: httpx.Client, body: dict[str, Any]) -> None:
    """Images, pooled vectors and anything but true or false: a 400 that names the field."""
    assert "tokens" in error(ask(client, body, "json"), 400, "invalid_request")


def test_a_model_that_does_not_tell_tokens() -> None:
    """Where the model cannot tell its tokens, asking for them is a 400; /info says so before."""
    with running(Words(tells_tokens=False), make_settings()) as service, service.client() as client:
        assert client.get("/info").json()["tells_tokens"] is False
        answer = ask(client, {**texts("a"), "tokens": True}, "json")
        assert "tokens" in error(answer, 400, "invalid_request")
        assert ask(client, {**texts("a"), "tokens": False}, "json").status_code == 200


def test_info_is_a_model_info(client: httpx.Client) -> None:
    """/info has the fields of `ModelInfo`, and reads back to what the service is."""
    info = ModelInfo.from_json(client.get("/info").json())
    settings = make_settings()
    assert (info.model, info.dim, info.tells_tokens) == ("words", 16, True)
    assert info.version
    assert info.default_format == "json"
    assert info.limits.max_inputs == settings.max_inputs
    assert info.limits.request_seconds == settings.request_seconds
