"""The page at `/`: what a person sees who opens the service's address in a browser."""

import base64
import hashlib
from html import escape
from typing import Literal

from starlette.responses import HTMLResponse, JSONResponse, Response

from pagevec import __version__
from pagevec.server.page import page_response
from pagevec.types import ModelInfo
from pagevec.wire.negotiation import choose

_TYPES: dict[str, Literal["html", "json"]] = {"text/html": "html", "application/json": "json"}
_STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }
pre { padding: 1rem; overflow-x: auto; background: #8882 }
"""
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>pagevec</title>
<link rel="icon" href="data:,">
<style>{style}</style>
<h1>pagevec {version}</h1>
<p>This service turns pages of documents, and questions about them, into multi-vectors.</p>
<p>The model: {model}</p>
<h2>What to do next</h2>
<p>Ask your documents, in a terminal with pagevec installed:</p>
<pre>export PAGEVEC_URL=<i>the address of this page</i>
export SERVICE_API_KEY=<i>what pagevec serve printed, or you were given</i>
pagevec ingest <i>folder</i>
pagevec search "<i>words</i>"</pre>
<p>Or call it from a program: <a href="docs">the HTTP interface</a>. Without a key it tells its
<a href="info">model and limits</a>, and whether it is <a href="ready">ready</a>.</p>
</html>
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}


def home_response(
    accept: str | None, model: ModelInfo | str, has_documents: bool = False
) -> Response:
    """Return what is at `/`: a page where `accept` prefers HTML, else a few words of JSON.

    Args:
        accept: the Accept header.
        model: the model, or why there is none yet.
        has_documents: whether the page is the one on which documents are searched.
    """
    if choose(accept, _TYPES, "json") == "json":
        content = {"service": "pagevec", "version": __version__, "docs": "/docs", "info": "/info"}
        return JSONResponse(content, headers=_HEADERS)
    if has_documents:
        return page_response()
    page = _PAGE.format(style=_STYLE, version=__version__, model=escape(_describe(model)))
    return HTMLResponse(page, headers=_HEADERS)


def _describe(model: ModelInfo | str) -> str:
    if isinstance(model, str):
        return model
    notice = f"; {model.notice}" if model.notice else ""
    return f"{model.model} ({model.family}, on {model.device}){notice}."
