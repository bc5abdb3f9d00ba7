"""The page for people: files that the package carries, served with a strict policy."""

import hashlib
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pagevec.errors import NotFound

# A browser loads nothing from elsewhere and runs no script that is not one of these files.
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_INDEX = "index.html"
# The system's own table may call a module something that browsers refuse to run.
_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


def page_routes() -> list[BaseRoute]:
    """Return the routes of what the page loads."""
    return [Route("/static/{name}", _asset, methods=["GET", "HEAD"])]


def page_response(if_none_match: str | None = None) -> Response:
    """Return the page itself."""
    return _answer(_INDEX, if_none_match, {"Vary": "Accept"})


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _files():
        raise NotFound(f"there is nothing at /static/{name[:40]}; see /docs")
    return _answer(name, request.headers.get("if-none-match"), {})


def _answer(name: str, if_none_match: str | None, more: dict[str, str]) -> Response:
    content, tag = _files()[name]
    headers = {**HEADERS, **more, "ETag": tag}
    if if_none_match == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    folder = resources.files("pagevec.server") / "static"
    files = {one.name: one.read_bytes() for one in folder.iterdir() if _is_asset(one.name)}
    return {
        name: (content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        for name, content in files.items()
    }


def _is_asset(name: str) -> bool:
    return name.rpartition(".")[2] in _TYPES
