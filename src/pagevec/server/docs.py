"""/openapi.json, and the page at /docs that shows it, to read and to try: without a CDN."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

# Relative addresses: the service may stand below a path of another one.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pagevec</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"><p>This page needs JavaScript. What it would show is in
<a href="openapi.json">openapi.json</a>.</p></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# Requests go to where this page is. The validator would send the service's address to swagger.io.
_START = """
const file = "openapi.json";
const here = new URL(".", location).href.slice(0, -1);
fetch(file).then((answer) => answer.json()).then((spec) => {
  const ui = SwaggerUIBundle({
    spec: {...spec, servers: [{url: here}]},
    dom_id: "#swagger-ui",
    validatorUrl: null,
    tryItOutEnabled: true,
  });
  ui.specActions.updateUrl(file);
});
"""
# A browser loads nothing from elsewhere, and sends a key that is typed here nowhere else.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def docs_routes(description: dict[str, Any]) -> list[BaseRoute]:
    """Return the routes of the page and of what it loads.

    Args:
        description: of the service, in OpenAPI.
    """
    policy = {"Content-Security-Policy": _POLICY}
    return [
        _route("/openapi.json", lambda: JSONResponse(description)),
        _route("/docs", lambda: HTMLResponse(_PAGE, headers=policy)),
        _route("/docs/start.js", lambda: Response(_START, media_type="text/javascript")),
        # Swagger UI, as fastapi-offline carries it.
        Mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")])),
    ]


def _route(path: str, answer: Callable[[], Response]) -> Route:
    async def endpoint(request: Request) -> Response:
        return answer()

    return Route(path, endpoint)
