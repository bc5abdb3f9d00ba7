"""The service's description of itself, in OpenAPI: what /openapi.json answers and /docs shows.

It is written here rather than derived from the routes, which read bodies by hand (bounded, off the
event loop) and choose the format of an answer by themselves.
"""

import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from pagevec import __version__, errors
from pagevec.errors import InternalError, PagevecError
from pagevec.grid import PageResizing
from pagevec.samples import TEXTS, draw_pages
from pagevec.server.openapi_documents import (
    DOCUMENT_SCHEMAS,
    document_paths,
    json_content,
    ref,
)
from pagevec.server.openapi_vllm import vllm_paths
from pagevec.types import Limits, ModelInfo, Token
from pagevec.wire.negotiation import MEDIA_TYPES, WireFormat
from pagevec.wire.schema import EmbeddingsRequest, EmbeddingsResponse, ErrorResponse, ServiceStatus

Json = dict[str, Any]

_SCHEMAS = (
    EmbeddingsRequest,
    EmbeddingsResponse,
    ErrorResponse,
    Limits,
    ModelInfo,
    PageResizing,
    ServiceStatus,
    Token,
)
_TAGS = {
    "documents": "The documents of the service's store, and searches. Needs a key.",
    "embeddings": "Texts and page images become multi-vectors. Needs a key.",
    "vllm": "The same, and MaxSim, in the form of vLLM, Jina and OpenAI. Needs a key.",
    "service": "How the service is, and what it runs. Needs no key.",
}
# What any request may be answered, and what else one to embed may be.
_ALWAYS = (404, 405, 408, 431, 500, 503)
_EMBEDDING = (400, 401, 413, 415, 429)
_CHANGING = (403, 507)
_HEADERS: dict[int, Json] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "always `Bearer`"}},
    429: {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds to wait"}},
    503: {
        "Retry-After": {
            "schema": {"type": "integer"},
            "description": "seconds to wait; not there if the model failed for good",
        }
    },
}
_EXAMPLES: Json = {
    "texts": {
        "summary": "Queries or passages",
        "value": {"input_type": "text", "inputs": TEXTS[:2]},
    },
    "pages": {
        "summary": "Page images",
        "value": {"input_type": "image", "inputs": draw_pages()[:1]},
    },
    "fewer_bytes": {
        "summary": "Pooled, and as int8",
        "value": {"input_type": "text", "inputs": TEXTS[:1], "dtype": "int8", "pool_factor": 2},
    },
}
# Vectors of two components: those of a model fill pages.
_ANSWER = {"embeddings": [[[0.6, 0.8], [-1.0, 0.0]], [[0.0, 1.0]]]}


def describe(default: WireFormat, has_documents: bool = False) -> Json:
    """Return the description of a service.

    Args:
        default: format of answers at the paths that name none.
        has_documents: whether it has a store.
    """
    other: WireFormat = "npz" if default == "json" else "json"
    any_format = (default, other)
    refusals = _refusals(*_EMBEDDING, *_ALWAYS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pagevec",
            "version": __version__,
            "summary": "Document pages in, ColPali multi-vectors out",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [
            {"name": name, "description": text}
            for name, text in _TAGS.items()
            if has_documents or name != "documents"
        ],
        "paths": {
            "/embeddings": _embedding("embed", any_format),
            "/": _embedding("embed_at_root", any_format),
            "/json/embeddings": _embedding("embed_as_json", ("json",)),
            "/npz/embeddings": _embedding("embed_as_npz", ("npz",)),
            "/health": _reading(
                "health",
                "Is the process alive?",
                "200 while it is; 503 once its model has failed for good.",
                json_content("ServiceStatus", {"status": "alive"}),
            ),
            "/ready": _reading(
                "ready",
                "Is the model ready?",
                "200 when it is; 503 while it is loaded, and when the service shuts down.",
                json_content("ServiceStatus", {"status": "ready"}),
            ),
            "/info": _reading(
                "info",
                "The model, and the limits of a request",
                "Later versions may add fields.",
                json_content("ModelInfo"),
            ),
            "/metrics": _reading(
                "metrics",
                "Prometheus metrics",
                "In the text format of Prometheus.",
                {"text/plain": {"schema": {"type": "string"}}},
            ),
            **vllm_paths(refusals),
            **(document_paths(refusals, _refusals(*_CHANGING)) if has_documents else {}),
        },
        "components": {
            "schemas": _schemas((*_SCHEMAS, *DOCUMENT_SCHEMAS) if has_documents else _SCHEMAS),
            "responses": {
                f"Error{status}": _error(status)
                for status in (*_ALWAYS, *_EMBEDDING, *(_CHANGING if has_documents else ()))
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _embedding(name: str, formats: tuple[WireFormat, ...]) -> Json:
    media: dict[WireFormat, Json] = {
        "json": json_content("EmbeddingsResponse", _ANSWER),
        "npz": {MEDIA_TYPES["npz"]: {"schema": {"type": "string", "format": "binary"}}},
    }
    which = " or ".join(formats)
    if len(formats) > 1:
        how = f"`Accept` decides between the formats; without it the answer is {formats[0]}."
    else:
        how = f"The answer is {which}, unless `Accept` names the other format."
    operation = {
        "operationId": name,
        "tags": ["embeddings"],
        "summary": f"Embed texts or page images ({which})",
        "description": f"One multi-vector for each input, in order; all of them, or none. {how}",
        "security": [{"bearer": []}],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": ref("EmbeddingsRequest"), "examples": _EXAMPLES}
            },
        },
        "responses": {
            "200": {
                "description": "One multi-vector for each input, in order",
                "content": {kind: entry for one in formats for kind, entry in media[one].items()},
            },
            **_refusals(*_EMBEDDING, *_ALWAYS),
        },
    }
    return {"post": operation}


def _reading(name: str, summary: str, description: str, content: Json) -> Json:
    operation = {
        "operationId": name,
        "tags": ["service"],
        "summary": summary,
        "description": description,
        "responses": {"200": {"description": summary, "content": content}, **_refusals(*_ALWAYS)},
    }
    return {"get": operation}


def _refusals(*statuses: int) -> Json:
    return {str(one): {"$ref": f"#/components/responses/Error{one}"} for one in sorted(statuses)}


def _error(status: int) -> Json:
    """Return the response of a status, with the errors that have it (`pagevec.errors`)."""
    kinds = [kind for kind in _errors() if kind.status == status]
    lines = [f"`{kind.code}`: {_docstring(kind)}" for kind in kinds]
    examples = {
        kind.code: {"value": {"error": "what is wrong, and what to do about it", "code": kind.code}}
        for kind in kinds
    }
    content = {"application/json": {"schema": ref("ErrorResponse"), "examples": examples}}
    headers = {"headers": _HEADERS[status]} if status in _HEADERS else {}
    return {"description": "  \n".join(lines), **headers, "content": content}


def _errors() -> list[type[PagevecError]]:
    """Return the errors that a caller of the service can get."""
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, PagevecError)
        and (kind is InternalError or kind.status != PagevecError.status)
    ]


def _schemas(kinds: Sequence[type]) -> Json:
    made: list[Any] = [(one.__name__, "validation", TypeAdapter(one)) for one in kinds]
    _, found = TypeAdapter.json_schemas(
        made,
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    schemas: Json = found["$defs"]
    for kind in kinds:
        schema = schemas[kind.__name__]
        if is_dataclass(kind):
            _complete(schema, kind)
        for field in schema["properties"].values():
            _put_default_in_words(field)
    return schemas


def _complete(schema: Json, kind: type) -> None:
    """Describe a dataclass of `pagevec.types` as it is answered: from its docstring, and whole."""
    purpose, _, attributes = _docstring(kind).partition("\n\nAttributes:\n")
    schema |= {"description": purpose, "required": list(schema["properties"])}
    for name, text in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", attributes, re.M):
        field = schema["properties"][name]
        field["description"] = " ".join(text.split()).rstrip(".")
        field.pop("default", None)


def _put_default_in_words(field: Json) -> None:
    """A field with a `default` is not optional in what openapi-typescript generates."""
    default = field.pop("default", None)
    if default is not None:
        field["description"] += f"; {json.dumps(default)} if it is not given"


def _docstring(kind: type) -> str:
    return (inspect.getdoc(kind) or "").replace("None", "null")


class _Untitled(GenerateJsonSchema):
    """Gives fields no titles, which repeat their names, and which generators make types of."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
