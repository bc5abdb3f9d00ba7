"""Errors -> answers, in the one form that the contract gives them."""

import math

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pagevec.errors import EngineFailed, InternalError, MethodNotAllowed, NotFound, PagevecError
from pagevec.server.telemetry import get_record

# Every 503 that passes says when to come back, even if nobody can know.
_DEFAULT_RETRY_SECONDS = 5.0


def error_response(error: PagevecError, *, with_message: bool = False) -> Response:
    """Return `error` as ``{"error": ..., "code": ..., "index": ...}`` with its status.

    Args:
        error: to be answered.
        with_message: whether the sentence is there as `message`, too, where others look for it.
    """
    body: dict[str, str | int] = {"error": error.message, "code": error.code}
    if with_message:
        body["message"] = error.message
    if error.index is not None:
        body["index"] = error.index
    headers = {}
    wait = error.retry_after
    if wait is None and error.status == 503 and not isinstance(error, EngineFailed):
        wait = _DEFAULT_RETRY_SECONDS
    if wait is not None:
        headers["Retry-After"] = str(math.ceil(wait))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, error.status, headers)


async def answer_pagevec_error(request: Request, error: Exception) -> Response:
    """Answer a declared error; an `InternalError` goes on to the middleware, which logs it."""
    if not isinstance(error, PagevecError) or isinstance(error, InternalError):
        raise error
    get_record(request).code = error.code
    return error_response(error)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router raises: unknown path, wrong method."""
    if not isinstance(error, HTTPException):
        raise error
    path, method = request.scope["path"], request.method
    if error.status_code == 405:
        known: PagevecError = MethodNotAllowed(f"{path} does not accept {method}; see /docs")
    elif error.status_code == 404:
        known = NotFound(f"there is nothing at {path}; see /docs")
    else:
        raise error
    get_record(request).code = known.code
    response = error_response(known)
    response.headers.update(error.headers or {})
    methods = _methods_at(request)
    if error.status_code == 405 and methods:
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def _methods_at(request: Request) -> set[str]:
    """Return the methods of all routes at the path; the router names those of the first."""
    routes = [one for one in request.app.routes if isinstance(one, Route)]
    path = request.scope["path"]
    return {method for one in routes if one.path_regex.match(path) for method in one.methods or ()}
