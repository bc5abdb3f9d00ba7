"""Calls of both clients that succeed: order, limits, progress, tokens, the real service."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from client.faulty import (
    Faulty,
    assert_answers,
    at_most,
    make_client,
    numbers,
    right,
    same,
    slow,
    vectors_of,
    with_tokens,
)
from conftest import EXAMPLES, Service, png
from pagevec import errors
from pagevec.client import AsyncClient, Client
from pagevec.client.faults import WrongAnswer
from pagevec.grid import PageResizing
from pagevec.types import Token


@given(st.integers(0, 25), st.integers(1, 9), st.integers(4, 40), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_order(served: Faulty, total: int, count: int, room: int, most: int) -> None:
    """However a call is split and halved, each input gets its own vectors, in order."""
    served.always = at_most(most)
    texts = numbers(total)
    served.info = {"limits": {"max_body_bytes": 256 + room}}
    with make_client(Client, served.url, max_inputs=count) as client:
        assert_answers(texts, client.embed_texts(texts))


@pytest.fixture(scope="module")
def served(_first: Faulty) -> Faulty:
    return _first.reset()


def test_limits_of_the_service(either_client: Any, faulty: Faulty) -> None:
    """Requests stay within the limits in /info, in inputs and in bytes."""
    faulty.info = {"limits": {"max_inputs": 5, "max_body_bytes": 1000}}
    texts = ["1" * 60 for _ in range(30)]
    faulty.always = same
    either_client(faulty.url).embed_texts(texts)
    assert max(len(one.inputs) for one in faulty.posts) == 5
    faulty.reset().info = {"limits": {"max_body_bytes": 600}}
    faulty.always = same
    either_client(faulty.url).embed_texts(texts)
    assert max(one.size for one in faulty.posts) <= 600
    assert max(len(one.inputs) for one in faulty.posts) > 1


def test_a_service_without_info(either_client: Any, faulty: Faulty) -> None:
    """For a service without /info the client's own limits count."""
    faulty.info = None
    assert_answers(numbers(5), either_client(faulty.url).embed_texts(numbers(5)))


def test_several_in_flight(either_client: Any, faulty: Faulty) -> None:
    """`in_flight` requests are at work at the same time, and not more."""
    faulty.always = slow(0.1)
    texts = numbers(12)
    assert_answers(texts, either_client(faulty.url, max_inputs=1, in_flight=3).embed_texts(texts))
    assert faulty.most == 3


def test_progress(either_client: Any, faulty: Faulty) -> None:
    """Progress is reported after each request, and ends with all inputs."""
    reports: list[tuple[int, int]] = []
    either_client(faulty.url, max_inputs=4).embed_texts(
        numbers(10), progress=lambda done, total: reports.append((done, total))
    )
    assert sorted(reports) == reports
    assert len(reports) == 3
    assert reports[-1] == (10, 10)


def test_nothing_and_one(either_client: Any, faulty: Faulty) -> None:
    """No input needs no request; a query needs one."""
    assert either_client(faulty.url).embed_texts([]) == []
    assert either_client(faulty.url).embed_images([]) == []
    assert faulty.asked == []
    assert either_client(faulty.url).embed_query("4").shape == (2, 8)
    assert faulty.paths == ["POST /npz/embeddings"]


def test_a_single_input_is_no_list(either_client: Any, faulty: Faulty) -> None:
    """A single text in place of a list is an error, not a list of letters."""
    with pytest.raises(TypeError):
        either_client(faulty.url).embed_texts("page")
    with pytest.raises(TypeError):
        either_client(faulty.url).embed_images(b"page")


@pytest.mark.parametrize("option", ["max_inputs", "max_bytes", "in_flight", "attempts"])
def test_wrong_numbers(option: str) -> None:
    """The constructor refuses a number below 1, and names it."""
    with pytest.raises(errors.ConfigurationError, match=f"{option}=0"):
        Client("http://a", **{option: 0})  # type: ignore[arg-type]


def test_defaults_of_the_constructor(either_client: Any, faulty: Faulty) -> None:
    """`dtype` and `resize` of the constructor hold for each call that does not give its own."""
    client = either_client(faulty.url, dtype="float32", resize=False)
    client.embed_query("1")
    client.embed_texts(["1"], dtype="int8")
    faulty.always = same
    client.embed_images([png(60, 60)])
    assert [one.options.get("dtype") for one in faulty.posts] == [None, "int8", None]
    assert "GET /info" not in faulty.paths  # nothing is resized, so the grid is not asked for
    client.embed_images([png(60, 60)], dtype="float16", resize=True)
    assert faulty.posts[-1].options["dtype"] == "float16"
    assert "GET /info" in faulty.paths


def test_query_with_tokens(either_client: Any, faulty: Faulty) -> None:
    """Where the service tells tokens, a query has one for each vector, with its place in it."""
    faulty.info = {"tells_tokens": True}
    faulty.answers = [with_tokens(["17", "<|endoftext|>", "\u00e4"], [(0, 2), (-1, -1), (1, 2)])]
    query = either_client(faulty.url).embed_query_with_tokens("17")
    np.testing.assert_array_equal(query.vectors, vectors_of("17"))
    assert query.text == "17"
    assert query.tokens == (Token("17", 0, 2), Token("<|endoftext|>"), Token("\u00e4", 1, 2))
    assert faulty.posts[0].options["tokens"] is True


@pytest.mark.parametrize("info", [{}, {"tells_tokens": False}, None])
def test_query_without_tokens(either_client: Any, faulty: Faulty, info: Any) -> None:
    """A service that does not tell tokens is not asked for them; the query has none."""
    faulty.info = info
    query = either_client(faulty.url).embed_query_with_tokens("17")
    np.testing.assert_array_equal(query.vectors, vectors_of("17"))
    assert query.tokens == ()
    assert "tokens" not in faulty.posts[0].options


@pytest.mark.parametrize("answer", [right, with_tokens(["17"], [(0, 2)])])
def test_wrong_tokens(either_client: Any, faulty: Faulty, answer: Any) -> None:
    """An answer without tokens, or with fewer tokens than vectors, is an error."""
    faulty.info = {"tells_tokens": True}
    faulty.answers = [answer]
    with pytest.raises(WrongAnswer, match="token"):
        either_client(faulty.url).embed_query_with_tokens("17")


def test_info_of_another_version(either_client: Any, faulty: Faulty) -> None:
    """`info()` reads what it knows: newer services may say more, older ones less."""
    resizing = {"cell": 28, "min_pixels": 784, "max_pixels": 7840, "first": 4, "max_ratio": 200}
    faulty.info = {
        "model": "a/model",
        "later": 1,
        "limits": {"max_inputs": 3, "later": 2},
        "resizing": {**resizing, "later": 3},
    }
    info = either_client(faulty.url).info()
    assert (info.model, info.limits.max_inputs, info.dim) == ("a/model", 3, 0)
    assert info.resizing == PageResizing(**resizing)
    assert not info.tells_tokens


def test_info_was_a_mapping(either_client: Any, faulty: Faulty) -> None:
    """`info()["model"]` still works, and warns."""
    faulty.info = {"model": "a/model"}
    info = either_client(faulty.url).info()
    with pytest.warns(DeprecationWarning, match=r"info\(\)\.model"):
        assert info["model"] == "a/model"


@pytest.mark.parametrize("info", [[], "a model", {"resizing": {"cell": 28}}])
def test_wrong_info(either_client: Any, faulty: Faulty, info: Any) -> None:
    """An answer of /info that does not describe a model is an error, not half a description."""
    faulty.info = info
    with pytest.raises(WrongAnswer):
        either_client(faulty.url).info()


def test_all_forms_of_an_image(either_client: Any, service: Service, tmp_path: Path) -> None:
    """A path, bytes, a Pillow image and an array of one page give the same vectors."""
    data = png(300, 200)
    path = tmp_path / "page.png"
    path.write_bytes(data)
    image = Image.open(path)
    client = either_client(service.url, key=service.key)
    forms = [path, str(path), data, image, np.asarray(image), np.asarray(image.convert("RGB"))]
    vectors = client.embed_images(forms)
    for one in vectors:
        np.testing.assert_allclose(one, vectors[0], atol=2e-3)


def test_the_real_service(either_client: Any, service: Service) -> None:
    """Texts, a query and info; float16 on the wire is close to float32."""
    client = either_client(service.url, key=service.key)
    texts = ["night route", "", "fares in 2024"]
    half, full = client.embed_texts(texts), client.embed_texts(texts, dtype="float32")
    for one, other in zip(half, full, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=5e-4)
    np.testing.assert_allclose(client.embed_query("night route"), half[0], atol=5e-4)
    assert client.info().dim == 128


def test_the_real_service_blames(either_client: Any, service: Service) -> None:
    """The error names a bad input by its index, whether the client or the service finds it."""
    client = either_client(service.url, key=service.key, max_inputs=2)
    with pytest.raises(errors.InvalidImage) as raised:
        client.embed_images([png(60, 60)] * 4 + [b"no image"])
    assert raised.value.index == 4
    with pytest.raises(errors.InvalidImage) as raised:
        client.embed_images([png(60, 60), EXAMPLES / "missing.png"])
    assert raised.value.index == 1
    with pytest.raises(errors.InvalidText) as raised:
        client.embed_texts(["a", "b", "\ud800"])
    assert raised.value.index == 2
    with pytest.raises(errors.Unauthorized):
        either_client(service.url, key="wrong").embed_texts(["a"])


def test_async_calls_run_beside_each_other(service: Service) -> None:
    """One AsyncClient serves several calls of one event loop."""

    async def both() -> Any:
        async with AsyncClient(service.url, service.key) as client:
            return await asyncio.gather(client.embed_query("a"), client.embed_texts(["a", "b"]))

    query, texts = asyncio.run(both())
    np.testing.assert_allclose(query, texts[0], atol=2e-3)
