"""The application: a table of routes over one embedder."""

import logging
from concurrent.futures import Future
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from pagevec.engine.api import Embedder
from pagevec.errors import PagevecError
from pagevec.search.library import Library
from pagevec.server.budget import Rooms
from pagevec.server.docs import docs_routes
from pagevec.server.documents import DocumentRoutes
from pagevec.server.errors import answer_http_exception, answer_pagevec_error
from pagevec.server.gate import Gate
from pagevec.server.middleware import DrainUnreadBody, Observe
from pagevec.server.openapi import describe
from pagevec.server.page import page_routes
from pagevec.server.routes import Routes
from pagevec.server.sign_in import SignIn
from pagevec.server.telemetry import Metrics
from pagevec.server.tracing import open_tracing
from pagevec.server.vllm import VllmRoutes
from pagevec.settings import Settings
from pagevec.types import DocumentsAre

log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    embedder: Embedder,
    library: "Future[Library] | None" = None,
    sign_in: SignIn | None = None,
) -> FastAPI:
    """Return the ASGI application.

    Args:
        settings: keys, limits and formats.
        embedder: what embeds; the caller starts it and closes it.
        library: documents to show and search, once the model is ready; the caller closes it. None:
            the service only embeds.
        sign_in: gives the key to the page, where that is allowed.

    Raises:
        ConfigurationError: the keys or the storage of the rate limits cannot be used, or traces
            are wanted and a package for them is missing.
    """
    if settings.store is not None and library is None:
        log.warning("%s is not used: this deployment serves no store", settings.cite("store"))
    metrics = Metrics(embedder, library)
    gate = Gate(settings)
    are: DocumentsAre = None if library is None else "write" if settings.uploads else "read"
    rooms = Rooms(settings)
    routes = Routes(settings, embedder, metrics, gate, rooms, are)
    vllm = VllmRoutes(settings, embedder, gate, rooms)
    app = FastAPI(
        openapi_url=None,  # `describe` does it
        redirect_slashes=False,  # clients do not follow redirects: a 404 tells them more
        # FastAPI's own spans have what callers send: paths, queries, messages of exceptions.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.metrics = metrics
    app.add_middleware(Observe, metrics=metrics, tracing=open_tracing())
    app.add_middleware(DrainUnreadBody)
    app.add_exception_handler(PagevecError, answer_pagevec_error)
    app.add_exception_handler(HTTPException, answer_http_exception)

    posts: dict[str, Any] = {
        "/embeddings": routes.embeddings,
        "/": routes.embeddings,
        "/json/embeddings": routes.json_embeddings,
        "/npz/embeddings": routes.npz_embeddings,
        "/pooling": vllm.pooling,
        "/v1/embeddings": vllm.embeddings,
        **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), vllm.rerank),
        **dict.fromkeys(("/score", "/v1/score"), vllm.score),
    }
    gets: dict[str, Any] = {
        "/": routes.home,
        "/health": routes.health,
        "/ready": routes.ready,
        "/info": routes.info,
        "/metrics": routes.metrics,
        "/v1/models": vllm.models,
    }
    deletes: dict[str, Any] = {}
    if library is not None:
        documents = DocumentRoutes(settings, embedder, gate, library)
        posts |= {"/search": documents.search, "/documents": documents.upload}
        gets |= {
            "/documents": documents.documents,
            "/documents/{id}": documents.document,
            "/documents/{id}/pages/{number}": documents.page,
            "/documents/{id}/pages/{number}/image": documents.image,
            "/status": documents.status,
        }
        deletes["/documents/{id}"] = documents.remove
        app.router.routes.extend(page_routes())
    if sign_in is not None:
        posts["/sign-in"] = sign_in.answer
    added: dict[str, Any] = {"response_model": None, "include_in_schema": False}
    for path, endpoint in posts.items():
        app.add_api_route(path, endpoint, methods=["POST"], **added)
    for path, endpoint in deletes.items():
        app.add_api_route(path, endpoint, methods=["DELETE"], **added)
    for path, endpoint in gets.items():
        app.add_api_route(path, endpoint, methods=["GET"], **added)
        # The server leaves out the body.
        app.add_api_route(path, endpoint, methods=["HEAD"], **added)
    app.router.routes.extend(docs_routes(describe(settings.default_format, library is not None)))
    return app
