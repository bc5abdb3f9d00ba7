"""One replica of Ray Serve: an engine, and the application over it."""

import asyncio

from fastapi import FastAPI
from ray import serve
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pagevec.deploy.ray.metrics import merged
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import load
from pagevec.server.app import create_app
from pagevec.server.logs import configure_logs
from pagevec.settings import Settings
from pagevec.types import ModelInfo

_METRICS_SECONDS = 5.0


@serve.ingress()
class Replica:
    """Ready when its constructor returns: Serve sends it nothing before."""

    def __init__(self, settings: Settings) -> None:
        configure_logs(settings)
        self._settings = settings
        self._embedder = LocalEmbedder.of(settings, lambda: load(settings))
        self._in_flight = 0
        self._embedder.wait_until_ready()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application: Serve calls this once, after the constructor."""
        self._app = create_app(self._settings, self._embedder)
        self._app.add_middleware(_BehindServe, replica=self)
        return self._app

    def check_health(self) -> None:
        """Raise where the model no longer answers: Serve replaces this replica."""
        if self._embedder.health().state == "failed":
            raise RuntimeError("the model failed; the reason is in the log")

    def info(self) -> ModelInfo:
        """Say what answers."""
        return self._embedder.info

    def exposition(self) -> tuple[str, str]:
        """Return this replica's name and its metrics in Prometheus' text format."""
        name = serve.get_replica_context().replica_id.unique_id
        return name, self._app.state.metrics.exposition().decode()

    async def drain(self) -> None:
        """Refuse what comes from now on (503); return when all else is answered."""
        await asyncio.to_thread(self._embedder.close)
        while self._in_flight:
            await asyncio.sleep(0.05)

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: with `app`, or for all replicas together."""
        self._in_flight += 1
        try:
            if scope["path"] == "/metrics":
                await (await self._metrics_of_all())(scope, receive, send)
            else:
                await app(scope, receive, send)
        finally:
            self._in_flight -= 1

    async def _metrics_of_all(self) -> Response:
        context = serve.get_replica_context()
        handle = serve.get_deployment_handle(context.deployment, context.app_name)
        answers = await handle.broadcast("exposition").results_async(
            timeout_s=_METRICS_SECONDS, return_exceptions=True
        )
        living = [answer for answer in answers if not isinstance(answer, BaseException)]
        return Response(merged(living), media_type="text/plain; version=0.0.4")

    def __del__(self) -> None:
        self._embedder.close()


class _BehindServe:
    """Middleware: what differs when Serve's proxy stands in front."""

    def __init__(self, app: ASGIApp, replica: Replica) -> None:
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_one_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The proxy sends the same one: it made it, or took the caller's.
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        if scope["type"] == "http":
            await self._replica.answer(self._app, scope, receive, send_one_id)
        else:
            await self._app(scope, receive, send)
