"""Calls that succeed: splitting, order, progress, the real service."""

import asyncio
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from client.faulty import Faulty, assert_answers, at_most, made, numbers, same, slow
from conftest import EXAMPLES, Service, png
from pagevec import errors
from pagevec.client import AsyncClient, Client
from pagevec.client._protocol import Call
from pagevec.client.splitting import by_bytes, by_count, halves


@given(st.integers(0, 300), st.integers(1, 40))
def test_count_loses_nothing(total: int, most: int) -> None:
    """Runs by count hold every position once, in order, within the limit."""
    runs = by_count(total, most)
    assert list(chain(*runs)) == list(range(total))
    assert all(1 <= len(run) <= most for run in runs)


@given(st.lists(st.binary(max_size=20)), st.integers(1, 50))
def test_bytes_lose_nothing(inputs: list[bytes], most: int) -> None:
    """Runs by bytes hold every position once, in order, within the limit unless alone."""
    runs = list(by_bytes(inputs, most))
    assert list(chain(*runs)) == list(range(len(inputs)))
    for run in runs:
        size = sum(len(inputs[position]) + 1 for position in run)
        assert len(run) == 1 or (run and size <= most)


@given(st.integers(0, 50), st.integers(2, 50))
def test_halves_lose_nothing(start: int, count: int) -> None:
    """Two halves are the whole, and neither is empty."""
    first, second = halves(range(start, start + count))
    assert [*first, *second] == list(range(start, start + count))
    assert first
    assert second


@given(st.integers(0, 25), st.integers(1, 9), st.integers(4, 40), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_order(served: Faulty, total: int, count: int, room: int, most: int) -> None:
    """However a call is split and halved, each input gets its own vectors, in its place."""
    served.always = at_most(most)
    texts = numbers(total)
    served.info = {"limits": {"max_body_bytes": 256 + room}}
    with made(Client, served.url, max_inputs=count) as client:
        assert_answers(texts, client.embed_texts(texts))


@pytest.fixture(scope="module")
def served(_first: Faulty) -> Faulty:
    return _first.reset()


def test_limits_of_the_service(twin: Any, faulty: Faulty) -> None:
    """Requests stay within the limits that /info tells, in inputs and in bytes."""
    faulty.info = {"limits": {"max_inputs": 5, "max_body_bytes": 1000}}
    texts = ["1" * 60 for _ in range(30)]
    faulty.always = same
    twin(faulty.url).embed_texts(texts)
    assert max(len(one.inputs) for one in faulty.posts) == 5
    faulty.reset().info = {"limits": {"max_body_bytes": 600}}
    faulty.always = same
    twin(faulty.url).embed_texts(texts)
    assert max(one.size for one in faulty.posts) <= 600
    assert max(len(one.inputs) for one in faulty.posts) > 1


def test_a_service_without_info(twin: Any, faulty: Faulty) -> None:
    """A service that has no /info is asked by the client's own limits."""
    faulty.info = None
    assert_answers(numbers(5), twin(faulty.url).embed_texts(numbers(5)))


def test_several_in_flight(twin: Any, faulty: Faulty) -> None:
    """As many requests as allowed are at work at the same time, not more."""
    faulty.always = slow(0.1)
    texts = numbers(12)
    assert_answers(texts, twin(faulty.url, max_inputs=1, in_flight=3).embed_texts(texts))
    assert faulty.most == 3


def test_progress(twin: Any, faulty: Faulty) -> None:
    """Progress is told after each request, and ends at all."""
    told: list[tuple[int, int]] = []
    twin(faulty.url, max_inputs=4).embed_texts(
        numbers(10), progress=lambda done, total: told.append((done, total))
    )
    assert sorted(told) == told
    assert len(told) == 3
    assert told[-1] == (10, 10)


def test_nothing_and_one(twin: Any, faulty: Faulty) -> None:
    """No input needs no request; a query needs one."""
    assert twin(faulty.url).embed_texts([]) == []
    assert twin(faulty.url).embed_images([]) == []
    assert faulty.asked == []
    assert twin(faulty.url).embed_query("4").shape == (2, 8)
    assert faulty.paths == ["POST /npz/embeddings"]


def test_a_single_input_is_no_list(twin: Any, faulty: Faulty) -> None:
    """One text in the place of a list is a mistake, not a list of letters."""
    with pytest.raises(TypeError):
        twin(faulty.url).embed_texts("page")
    with pytest.raises(TypeError):
        twin(faulty.url).embed_images(b"page")


@pytest.mark.parametrize("option", ["max_inputs", "max_bytes", "in_flight", "attempts"])
def test_wrong_numbers(option: str) -> None:
    """A number below 1 is refused when the client is made."""
    with pytest.raises(errors.ConfigurationError):
        Client("http://a", **{option: 0})  # type: ignore[arg-type]


def test_body() -> None:
    """The body is the contract's JSON; what is default there is left out."""
    body = json.loads(Call("text", "float16", 2).body([b'"a"', '"\u00e4"'.encode()]))
    assert body == {
        "input_type": "text",
        "inputs": ["a", "ä"],
        "dtype": "float16",
        "pool_factor": 2,
    }
    assert json.loads(Call("image", "float32").body([])) == {"input_type": "image", "inputs": []}


def test_all_forms_of_an_image(twin: Any, service: Service, tmp_path: Path) -> None:
    """A path, bytes, a Pillow image and an array of one page give the same vectors."""
    data = png(300, 200)
    path = tmp_path / "page.png"
    path.write_bytes(data)
    image = Image.open(path)
    client = twin(service.url, key=service.key)
    forms = [path, str(path), data, image, np.asarray(image), np.asarray(image.convert("RGB"))]
    vectors = client.embed_images(forms)
    for one in vectors:
        np.testing.assert_allclose(one, vectors[0], atol=2e-3)


def test_the_real_service(twin: Any, service: Service) -> None:
    """Texts, a query and info; float16 on the wire is close to float32."""
    client = twin(service.url, key=service.key)
    texts = ["night route", "", "fares in 2024"]
    half, full = client.embed_texts(texts), client.embed_texts(texts, dtype="float32")
    for one, other in zip(half, full, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=5e-4)
    np.testing.assert_allclose(client.embed_query("night route"), half[0], atol=5e-4)
    assert client.info()["dim"] == 128


def test_the_real_service_blames(twin: Any, service: Service) -> None:
    """A bad input is named by its place, whether the client or the service finds it."""
    client = twin(service.url, key=service.key, max_inputs=2)
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
        twin(service.url, key="wrong").embed_texts(["a"])


def test_async_calls_run_beside_each_other(service: Service) -> None:
    """One AsyncClient serves several calls of one event loop."""

    async def both() -> Any:
        async with AsyncClient(service.url, service.key) as client:
            return await asyncio.gather(client.embed_query("a"), client.embed_texts(["a", "b"]))

    query, texts = asyncio.run(both())
    np.testing.assert_allclose(query, texts[0], atol=2e-3)
