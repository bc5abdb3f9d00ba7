"""The service's description of itself: what /docs shows."""

from typing import Any

from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from pagevec.errors import (
    BodyTooLarge,
    HeadersTooLarge,
    InternalError,
    InvalidRequest,
    NotReady,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    UnsupportedEncoding,
)
from pagevec.wire.negotiation import MEDIA_TYPES
from pagevec.wire.schema import EmbeddingsRequest, EmbeddingsResponse, ErrorResponse

_ERRORS: dict[int | str, dict[str, Any]] = {
    error.status: {"description": meaning, "model": ErrorResponse}
    for error, meaning in {
        InvalidRequest: "The request or one of its inputs is not valid",
        Unauthorized: "The key is missing or wrong",
        RequestTimeout: "The header or the body did not come in time",
        UnsupportedEncoding: "The Content-Encoding is not read here",
        HeadersTooLarge: "Too many or too long header fields",
        BodyTooLarge: "Too large, or more than can be done in time: send fewer inputs",
        RateLimited: "Over the rate limit of this key",
        InternalError: "Internal error; its request id is in the service's log",
        NotReady: "Not ready, shutting down, or the queue is full",
    }.items()
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
            "model": EmbeddingsResponse,
            "content": {MEDIA_TYPES["npz"]: {"schema": {"type": "string", "format": "binary"}}},
        },
        **_ERRORS,
    },
}

_NOT_READY: dict[str, Any] = {"responses": {NotReady.status: _ERRORS[NotReady.status]}}
GETS: dict[str, dict[str, Any]] = {
    "/ready": _NOT_READY,
    "/info": _NOT_READY,
    "/metrics": {"response_class": PlainTextResponse},
}


def add_bearer_scheme(app: FastAPI) -> None:
    """Add the bearer scheme to the description of `app`."""
    schema = app.openapi()
    schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["bearer"] = {"type": "http", "scheme": "bearer"}
