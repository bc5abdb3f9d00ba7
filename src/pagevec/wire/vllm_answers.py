"""Multi-vectors as clients of vLLM, Jina and OpenAI read them: in JSON, in base64, or as bytes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pybase64

from pagevec.types import MultiVector

Encoding = Literal["float", "base64", "bytes", "bytes_only"]
Precision = Literal["float32", "float16"]
Endianness = Literal["native", "little", "big"]


@dataclass(frozen=True)
class VectorForm:
    """How multi-vectors are sent back.

    Attributes:
        encoding: as numbers, as base64 in JSON, or as bytes with metadata in a header or without.
        precision: of the bytes.
        endianness: of the bytes.
    """

    encoding: Encoding = "float"
    precision: Precision = "float32"
    endianness: Endianness = "native"


def bytes_of_component(form: VectorForm) -> float:
    """Return how many bytes one component of a vector takes in an answer, rather too many."""
    if form.encoding == "float":
        return 13.5
    return (4 if form.precision == "float32" else 2) * (4 / 3 if form.encoding == "base64" else 1)


def list_in_json(
    head: dict[str, Any],
    vectors: Sequence[MultiVector],
    usage: dict[str, int],
    form: VectorForm,
    names: tuple[str, str],
) -> list[bytes]:
    """Return a list of multi-vectors in JSON, in pieces, which are better not joined.

    Args:
        head: the first fields of the answer.
        vectors: of each input.
        usage: the last field.
        form: how vectors are written.
        names: what an item is called in `object`, and the field in which its vectors are.
    """
    kind, field = names
    pieces = [json.dumps({**head, "object": "list"})[:-1].encode(), b', "data": [']
    for index, one in enumerate(vectors):
        item = f'{{"index": {index}, "object": "{kind}", "{field}": '.encode()
        pieces += [b"," if index else b"", item, _encode(one, form), b"}"]
    return [*pieces, b'], "usage": %s}' % json.dumps(usage).encode()]


def list_in_bytes(
    vectors: Sequence[MultiVector], form: VectorForm
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Return the bytes of each multi-vector, and where and what they are."""
    pieces, items, start = [], [], 0
    for index, one in enumerate(vectors):
        pieces.append(_pack(one, form))
        end = start + len(pieces[-1])
        items.append(
            {
                "index": index,
                "embed_dtype": form.precision,
                "endianness": form.endianness,
                "start": start,
                "end": end,
                "shape": list(one.shape),
            }
        )
        start = end
    return pieces, items


def _encode(vectors: MultiVector, form: VectorForm) -> bytes:
    """Return a multi-vector as JSON: an array of arrays, or a string of base64."""
    if form.encoding == "float":
        return orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY)
    return b'"%s"' % pybase64.b64encode(_pack(vectors, form))


def _pack(vectors: MultiVector, form: VectorForm) -> bytes:
    """Return a multi-vector as bytes, row by row, as vLLM does."""
    order = {"native": "=", "little": "<", "big": ">"}[form.endianness]
    return vectors.astype(f"{order}f{4 if form.precision == 'float32' else 2}").tobytes()
