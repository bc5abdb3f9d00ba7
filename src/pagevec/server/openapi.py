"""The service's description of itself: what /docs shows."""

from typing import Any

from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from pagevec.errors import (
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    NotReady,
    PagevecError,
    RateLimited,
    Unauthorized,
)
from pagevec.wire.negotiation import MEDIA_TYPES
from pagevec.wire.schema import EmbeddingsRequest, EmbeddingsResponse, ErrorResponse

_FAULTS: tuple[type[PagevecError], ...] = (
    InvalidRequest,
    Unauthorized,
    BodyTooLarge,
    RateLimited,
    InternalError,
    NotReady,
)
_MEANINGS = {
    400: "The request or one of its inputs is not valid",
    401: "No key, or a wrong one",
    413: "Too large, or more than can be done in time: send fewer inputs",
    429: "Over the rate limit of this key",
    500: "A fault of ours",
    503: "Not ready, shutting down, or the queue is full",
}

# The bodies are read by hand (bounded, off the event loop), so they are described by hand too.
EMBEDDINGS: dict[str, Any] = {
    "response_model": None,
    "openapi_extra": {
        "security": [{"bearer": []}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": EmbeddingsRequest.model_json_schema()}},
        },
    },
    "responses": {
        200: {
            "description": "One multi-vector for each input, in order",
            "content": {
                MEDIA_TYPES["json"]: {"schema": EmbeddingsResponse.model_json_schema()},
                MEDIA_TYPES["npz"]: {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **{
            fault.status: {"description": _MEANINGS[fault.status], "model": ErrorResponse}
            for fault in _FAULTS
        },
    },
}

_NOT_READY: dict[str, Any] = {
    "responses": {NotReady.status: {"description": _MEANINGS[503], "model": ErrorResponse}}
}
GETS: dict[str, dict[str, Any]] = {
    "/ready": _NOT_READY,
    "/info": _NOT_READY,
    "/metrics": {"response_class": PlainTextResponse},
}


def documented(app: FastAPI) -> None:
    """Add the bearer scheme to the description of `app`."""
    schema = app.openapi()
    schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["bearer"] = {"type": "http", "scheme": "bearer"}
