"""What quantizing, encoding and negotiating promise, for all inputs."""

from io import BytesIO
from typing import Any, cast, get_args

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pagevec.types import Token
from pagevec.wire.decode import decode_json, decode_npz, decode_tokens
from pagevec.wire.encode import bytes_of_vector, encode
from pagevec.wire.negotiation import MEDIA_TYPES, WireFormat, choose_format
from pagevec.wire.quantize import Dtype, dequantize, quantize
from vectors import unit_vectors

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
FORMATS: tuple[WireFormat, ...] = get_args(WireFormat)
Vectors = np.ndarray[Any, np.dtype[np.float32]]

# The same examples on every machine, in every run.
hypothesis_settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
repeatable = hypothesis_settings(hypothesis_settings.get_profile("repeatable"), max_examples=200)


dims = st.integers(1, 20) | st.sampled_from([96, 100, 128])


def rows(
    low: float = -1.0, high: float = 1.0, least: int = 0, dims: st.SearchStrategy[int] = dims
) -> st.SearchStrategy[Vectors]:
    numbers = st.floats(low, high, width=32, allow_subnormal=False)
    shapes = st.tuples(st.integers(least, 6), dims)
    return cast(st.SearchStrategy[Vectors], arrays(np.float32, shapes, elements=numbers))


answers = dims.flatmap(lambda dim: st.lists(rows(least=1, dims=st.just(dim)), max_size=3))
"""Multi-vectors of one model."""


@repeatable
@given(rows())
def test_float16_error_is_bounded(vectors: Vectors) -> None:
    """Components of unit vectors lose less than 1e-3, whatever they are."""
    back = dequantize(quantize(vectors, "float16"), "float16")
    assert back.dtype == np.float32
    assert back.shape == vectors.shape
    assert (np.abs(back - vectors) < 1e-3).all()


@repeatable
@given(rows(-1e6, 1e6))
def test_int8_error_is_bounded(vectors: Vectors) -> None:
    """Half a scale at most; the scale is the largest component over 127; zeros stay zeros."""
    quantized = quantize(vectors, "int8")
    assert quantized.scales is not None
    assert quantized.scales.shape == vectors.shape[:1]
    assert quantized.scales.dtype == np.float32
    assert (quantized.scales > 0).all()
    back = dequantize(quantized, "int8")
    assert back.shape == vectors.shape
    assert (np.abs(back - vectors) <= 0.5001 * quantized.scales[:, None]).all()
    assert (back[vectors == 0] == 0).all()
    assert (np.sign(back) * np.sign(vectors) >= 0).all()


@repeatable
@given(rows())
def test_binary_is_the_signs(vectors: Vectors) -> None:
    """Bit 1 exactly where a component is above 0 (not at 0), first component in the highest bit."""
    quantized = quantize(vectors, "binary")
    assert quantized.values.dtype == np.uint8
    assert quantized.values.shape == (vectors.shape[0], -(-vectors.shape[1] // 8))
    for row, packed in zip(vectors, quantized.values, strict=True):
        bits = "".join(f"{byte:08b}" for byte in packed)
        assert bits.rstrip("0") == "".join("1" if one > 0 else "0" for one in row).rstrip("0")
    back = dequantize(quantized, "binary")
    np.testing.assert_array_equal(back > 0, vectors > 0)
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, atol=1e-5)


@repeatable
@given(answers, st.sampled_from(DTYPES), st.sampled_from(FORMATS))
def test_formats_carry_quantized_vectors_unchanged(
    vectors: list[Vectors], dtype: Dtype, format_: WireFormat
) -> None:
    """What is decoded is exactly what was quantized, in every format, count and shape."""
    body = encode(vectors, "text", dtype, format_)
    decode = {"json": decode_json, "npz": decode_npz}[format_]
    for one, back in zip(vectors, decode(body), strict=True):
        np.testing.assert_array_equal(back, dequantize(quantize(one, dtype), dtype))
        assert back.flags.writeable


@pytest.mark.parametrize("dim", [8, 96, 128, 320, 4096])
def test_signs_that_fill_their_bytes_tell_no_dimension(dim: int) -> None:
    """Answers of models with a multiple of 8 dimensions are what they were before `dim`."""
    vectors = [unit_vectors(3, 1, dim)]
    assert set(orjson.loads(encode(vectors, "text", "binary", "json"))) == {"embeddings", "dtype"}
    with np.load(BytesIO(encode(vectors, "text", "binary", "npz"))) as arrays:
        assert set(arrays) == {"emb_0", "count", "input_type", "dtype"}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_only_signs_leave_the_dimension_open(dtype: Dtype) -> None:
    """Of other dtypes there is one number for each component, and no `dim`."""
    vectors = [unit_vectors(3, 1, 100)]
    assert "dim" not in orjson.loads(encode(vectors, "text", dtype, "json"))


@pytest.mark.parametrize("dim", [1, 48, 100, 128, 320, 2560, 4096])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
def test_the_bytes_of_an_answer_are_foreseen(dim: int, dtype: Dtype, format_: WireFormat) -> None:
    """What an answer is expected to take is enough for it, and not far more for long vectors."""
    vectors = unit_vectors(400, 1, dim)
    taken = len(encode([vectors], "text", dtype, format_))
    expected = 600 + len(vectors) * bytes_of_vector(dim, dtype, format_)
    assert taken <= expected
    assert dim < 100 or expected < 1.8 * taken


# numpy's unicode arrays drop NULs at the end; tokenizers spell them in another way.
token_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
places = st.tuples(st.integers(0, 9), st.integers(0, 9)) | st.just((None, None))
all_tokens = st.builds(lambda text, place: Token(text, *place), token_texts, places)


@repeatable
@given(st.lists(st.lists(all_tokens, max_size=4), max_size=3), st.sampled_from(DTYPES))
def test_formats_carry_tokens_unchanged(tokens: list[list[Token]], dtype: Dtype) -> None:
    """Tokens come back as they were, in both formats, and the vectors beside them too."""
    vectors = [np.zeros((len(of_input), 8), np.float32) for of_input in tokens]
    in_json = encode(vectors, "text", dtype, "json", tokens)
    in_npz = encode(vectors, "text", dtype, "npz", tokens)
    assert decode_tokens(in_npz) == [tuple(of_input) for of_input in tokens]
    read = orjson.loads(in_json)["tokens"]
    assert [[Token(**one) for one in of_input] for of_input in read] == tokens
    assert [one.shape for one in decode_npz(in_npz)] == [one.shape for one in vectors]


def test_an_answer_without_tokens_has_none_to_decode() -> None:
    """Reading tokens from an answer without them is a ValueError, not an empty list."""
    body = encode([np.zeros((2, 8), np.float32)], "text", "float32", "npz")
    with pytest.raises(ValueError, match="tokens_0"):
        decode_tokens(body)


@repeatable
@given(st.binary(max_size=200))
def test_decoding_something_else_is_a_value_error(body: bytes) -> None:
    """Bytes that are no answer raise ValueError and nothing else."""
    for decode in (decode_json, decode_npz, decode_tokens):
        with pytest.raises(ValueError, match="answer of this service"):
            decode(body)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"embeddings": None},
        {"embeddings": [[["x"]]]},
        {"embeddings": [[[1.0], [1.0, 2.0]]]},
        {"embeddings": [[[1, 2]]], "dtype": "int8"},
        {"embeddings": [[[1, 2]]], "dtype": "int8", "scales": []},
        {"embeddings": [[[1, 2]]], "dtype": "int8", "scales": [[1.0, 2.0]]},
        {"embeddings": [[[1000]]], "dtype": "int8", "scales": [[1.0]]},
        {"embeddings": [[[1.5]]], "dtype": "float64"},
        {"embeddings": [[[300]]], "dtype": "binary"},
        {"embeddings": [[[7]]], "dtype": "binary", "dim": 9},
        {"embeddings": [[[7, 7]]], "dtype": "binary", "dim": 8},
        {"embeddings": [[[7]]], "dtype": "binary", "dim": "five"},
        {"embeddings": [[1.0, 2.0]]},
        {"embeddings": "hello"},
        {"error": "no", "code": "no"},
    ],
)
def test_decoding_a_broken_answer_is_a_value_error(content: dict[str, Any]) -> None:
    """JSON of another shape raises ValueError and nothing else; no vectors are made up."""
    with pytest.raises(ValueError, match="answer of this service"):
        decode_json(orjson.dumps(content))


media_types = st.sampled_from(["application/json", "application/x-npz", "text/html", "*/*"])
weights = st.integers(0, 1000).map(lambda thousandth: thousandth / 1000)


@repeatable
@given(st.text(max_size=60) | st.none(), st.sampled_from(FORMATS))
def test_negotiation_never_fails(accept: str | None, default: WireFormat) -> None:
    """Whatever a client sends as Accept, there is a format; without our types it is the default."""
    chosen = choose_format(accept, default)
    assert chosen in FORMATS
    if not any(known in (accept or "").lower() for known in ("json", "npz", "octet")):
        assert chosen == default


@repeatable
@given(st.dictionaries(media_types, weights, max_size=4), st.sampled_from(FORMATS), st.randoms())
def test_negotiation_takes_the_highest_weight(
    offers: dict[str, float], default: WireFormat, random: Any
) -> None:
    """The type of ours with the highest weight above 0 wins, in any order, case and spacing."""
    ours = {
        format_: offers.get(media_type, 0.0)
        for format_, media_type in MEDIA_TYPES.items()
        if offers.get(media_type, 0.0) > 0
    }
    parts = [
        random.choice(["{}; q={}", "{};q={}", " {} ;Q= {}"]).format(
            random.choice([name, name.upper()]), weight
        )
        for name, weight in offers.items()
    ]
    random.shuffle(parts)
    chosen = choose_format(",".join(parts), default)
    best = [format_ for format_, weight in ours.items() if weight == max(ours.values())]
    assert chosen in (best or [default])
