"""dtype and pool_factor through the service."""

import base64
from collections.abc import Iterator
from io import BytesIO
from typing import Any, get_args

import httpx
import numpy as np
import pytest
from benchmarks.pooling import pool_as_colpali

from conftest import Service, png
from pagevec.wire.decode import decode_json, decode_npz
from pagevec.wire.negotiation import MEDIA_TYPES, WireFormat
from pagevec.wire.quantize import Dtype

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
FORMATS: tuple[WireFormat, ...] = get_args(WireFormat)
KINDS = ("text", "image")
Vectors = np.ndarray[Any, np.dtype[np.float32]]

INPUTS = {
    "text": ["a", "", "the third text is longer than the others are"],
    "image": [base64.b64encode(png(*size)).decode() for size in ((64, 64), (160, 96))],
}


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as opened:
        yield opened


def ask(client: httpx.Client, kind: str, format_: WireFormat, **options: Any) -> httpx.Response:
    body = {"input_type": kind, "inputs": INPUTS[kind], **options}
    return client.post("/embeddings", json=body, headers={"Accept": MEDIA_TYPES[format_]})


def decoded(answer: httpx.Response, format_: WireFormat) -> list[Vectors]:
    assert answer.status_code == 200, answer.text
    return {"json": decode_json, "npz": decode_npz}[format_](answer.content)


@pytest.fixture(scope="module")
def plain(client: httpx.Client) -> dict[str, list[Vectors]]:
    """The float32 answers."""
    return {kind: decoded(ask(client, kind, "npz"), "npz") for kind in KINDS}


def scales_of(answer: httpx.Response, format_: WireFormat) -> list[Vectors]:
    if format_ == "json":
        return [np.array(row, np.float32) for row in answer.json()["scales"]]
    with np.load(BytesIO(answer.content), allow_pickle=False) as content:
        return [content[f"scale_{index}"] for index in range(int(content["count"]))]


# dtype


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_dtype_says_what_it_is(
    client: httpx.Client, kind: str, dtype: Dtype, format_: WireFormat
) -> None:
    """The answer names a dtype other than float32, so that it can be read without the request."""
    answer = ask(client, kind, format_, dtype=dtype)
    others = set() if dtype == "float32" else {"dtype"}
    if format_ == "json":
        scales = {"scales"} if dtype == "int8" else set()
        content = answer.json()
        assert set(content) == {"embeddings"} | others | scales
        assert content.get("dtype", "float32") == dtype
        return
    with np.load(BytesIO(answer.content), allow_pickle=False) as file:
        names = [f"emb_{index}" for index in range(len(INPUTS[kind]))]
        scales = {f"scale_{i}" for i in range(len(names))} if dtype == "int8" else set()
        assert set(file.files) == {"count", "input_type", *names} | others | scales
        expected = np.uint8 if dtype == "binary" else np.dtype(dtype)
        for name in names:
            assert file[name].dtype == expected
            assert file[name].shape[1] == (16 if dtype == "binary" else 128)
        if others:
            assert file["dtype"].dtype.kind == "U"
            assert str(file["dtype"]) == dtype


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_the_default(
    client: httpx.Client, plain: dict[str, list[Vectors]], kind: str, format_: WireFormat
) -> None:
    """Asking for float32 gives what asking for nothing gives."""
    for one, expected in zip(
        decoded(ask(client, kind, format_, dtype="float32"), format_), plain[kind], strict=True
    ):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, expected, atol=1e-6)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_float16(
    client: httpx.Client, plain: dict[str, list[Vectors]], kind: str, format_: WireFormat
) -> None:
    """The error of float16 is below 1e-3 everywhere."""
    vectors = decoded(ask(client, kind, format_, dtype="float16"), format_)
    for one, expected in zip(vectors, plain[kind], strict=True):
        assert one.dtype == np.float32
        assert one.shape == expected.shape
        assert np.abs(one - expected).max() < 1e-3


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_int8(
    client: httpx.Client, plain: dict[str, list[Vectors]], kind: str, format_: WireFormat
) -> None:
    """The error of int8 is half a scale at most, and every vector has its own scale."""
    answer = ask(client, kind, format_, dtype="int8")
    vectors, scales = decoded(answer, format_), scales_of(answer, format_)
    for one, scale, expected in zip(vectors, scales, plain[kind], strict=True):
        assert one.shape == expected.shape
        assert scale.shape == (len(expected),)
        assert (np.abs(one - expected) <= 0.5001 * scale[:, None]).all()


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_binary(
    client: httpx.Client, plain: dict[str, list[Vectors]], kind: str, format_: WireFormat
) -> None:
    """Binary keeps exactly the signs of the float32 answer, as unit vectors."""
    vectors = decoded(ask(client, kind, format_, dtype="binary"), format_)
    for one, expected in zip(vectors, plain[kind], strict=True):
        np.testing.assert_array_equal(one > 0, expected > 0)
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
def test_no_inputs_in_every_dtype(client: httpx.Client, dtype: Dtype, format_: WireFormat) -> None:
    """Nothing in, nothing out, in every dtype and format."""
    body = {"input_type": "image", "inputs": [], "dtype": dtype, "pool_factor": 3}
    answer = client.post("/embeddings", json=body, headers={"Accept": MEDIA_TYPES[format_]})
    assert decoded(answer, format_) == []


def test_quantized_answers_are_smaller(client: httpx.Client) -> None:
    """What the options are for: fewer bytes, in the order that one expects."""
    sizes = [len(ask(client, "image", "npz", dtype=dtype).content) for dtype in DTYPES]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 10


# pool_factor


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [2, 3, 7, 64])
def test_pooling_is_that_of_colpali_engine(
    client: httpx.Client, plain: dict[str, list[Vectors]], kind: str, factor: int
) -> None:
    """Pooled vectors are those of colpali-engine's pooler, unit rows, about n / factor of them."""
    answer = ask(client, kind, "npz", pool_factor=factor)
    for one, whole in zip(decoded(answer, "npz"), plain[kind], strict=True):
        assert 1 <= len(one) <= max(1, len(whole) // factor)
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(one, pool_as_colpali(whole, factor), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_pool_factor_one_changes_nothing(
    client: httpx.Client, plain: dict[str, list[Vectors]], kind: str
) -> None:
    """The factor 1 leaves all vectors as they are."""
    for one, whole in zip(
        decoded(ask(client, kind, "npz", pool_factor=1), "npz"), plain[kind], strict=True
    ):
        np.testing.assert_allclose(one, whole, atol=1e-6)


@pytest.mark.parametrize("format_", FORMATS)
def test_pooled_and_quantized(client: httpx.Client, format_: WireFormat) -> None:
    """Both options together: the signs of the pooled vectors."""
    pooled = decoded(ask(client, "image", format_, pool_factor=3), format_)
    both = decoded(ask(client, "image", format_, pool_factor=3, dtype="binary"), format_)
    for one, signs in zip(pooled, both, strict=True):
        np.testing.assert_array_equal(one > 0, signs > 0)


# What is not allowed


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("dtype", value) for value in ("float64", "FLOAT16", "bfloat16", "", "int4", "i1")),
        *(("dtype", value) for value in (None, 16, True, ["int8"], {})),
        *(("pool_factor", value) for value in (0, -1, 65, 10**30, 1.5, 2.0, "2", "", None)),
        *(("pool_factor", value) for value in (True, [2], {})),
    ],
)
def test_values_that_are_not_allowed(client: httpx.Client, option: str, value: Any) -> None:
    """Any other value is a 400 that names the option; nothing is rounded or converted."""
    answer = ask(client, "text", "json", **{option: value})
    assert answer.status_code == 400
    content = answer.json()
    assert set(content) == {"error", "code"}
    assert content["code"] in {"invalid_request", "invalid_json"}  # 10**30: beyond JSON's integers
    assert option in content["error"] or content["code"] == "invalid_json"
