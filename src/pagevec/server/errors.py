"""Errors -> answers: the one form that the contract gives them."""

import math

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pagevec.errors import InternalError, MethodNotAllowed, NotFound, PagevecError
from pagevec.server.record import record_of

# Every 503 says when to come back, also where nobody can know.
_USUAL_WAIT_SECONDS = 5.0


def error_response(error: PagevecError) -> Response:
    """Return `error` as ``{"error": ..., "code": ..., "index": ...}`` with its status."""
    body: dict[str, str | int] = {"error": error.message, "code": error.code}
    if error.index is not None:
        body["index"] = error.index
    headers = {}
    wait = error.retry_after
    if wait is None and error.status == 503:
        wait = _USUAL_WAIT_SECONDS
    if wait is not None:
        headers["Retry-After"] = str(math.ceil(wait))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, error.status, headers)


async def answer_pagevec_error(request: Request, error: Exception) -> Response:
    """Answer a declared error. One of ours without a cause a caller may see goes on as a fault."""
    if not isinstance(error, PagevecError) or isinstance(error, InternalError):
        raise error
    record_of(request).code = error.code
    return error_response(error)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router raises: there is no such path, or no such method."""
    if not isinstance(error, HTTPException):
        raise error
    path, method = request.scope["path"], request.method
    if error.status_code == 405:
        known: PagevecError = MethodNotAllowed(f"{path} does not take {method}; see /docs")
    elif error.status_code == 404:
        known = NotFound(f"there is nothing at {path}; see /docs")
    else:
        raise error
    record_of(request).code = known.code
    response = error_response(known)
    response.headers.update(error.headers or {})
    return response
