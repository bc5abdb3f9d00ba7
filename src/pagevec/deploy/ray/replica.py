"""One replica of Ray Serve: an engine, the HTTP application over it, and the metrics of all."""

import asyncio
from collections.abc import Iterable, Sequence

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from ray import serve
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pagevec.engine.backends import load
from pagevec.engine.embedder import LocalEmbedder, supervise
from pagevec.server.app import create_app
from pagevec.server.run import configure_logs
from pagevec.settings import Settings
from pagevec.types import ModelInfo

_METRICS_SECONDS = 5.0


@serve.ingress()
class Replica:
    """An actor of Ray Serve that embeds.

    Serve sends it requests only once its constructor has returned, with the model loaded.

    Args:
        settings: of the service, as read where the deployment was made.
    """

    def __init__(self, settings: Settings) -> None:
        configure_logs(settings)
        self._settings = settings
        self._embedder = LocalEmbedder.of(settings, lambda: load(settings))
        self._in_flight = 0
        self._embedder.wait_until_ready()
        # Serve starts another replica when this one's process is gone, or is not healthy.
        supervise(self._embedder, lambda: None)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the HTTP application; Serve calls this once, after the constructor."""
        self._app = create_app(self._settings, self._embedder)
        self._app.add_middleware(_BehindServe, replica=self)
        return self._app

    def check_health(self) -> None:
        """Raise if the model has failed, so that Serve replaces this replica.

        Raises:
            RuntimeError: the model has failed.
        """
        if self._embedder.health().state == "failed":
            raise RuntimeError("the model has failed: see the log for the reason")

    def info(self) -> ModelInfo:
        """Return the description of the model."""
        return self._embedder.info()

    def exposition(self) -> tuple[str, str]:
        """Return this replica's name, and its metrics in the Prometheus text format."""
        name = serve.get_replica_context().replica_id.unique_id
        return name, self._app.state.metrics.exposition().decode()

    async def drain(self) -> None:
        """Answer new requests with a 503 and return once those in flight are answered."""
        await asyncio.to_thread(self._embedder.close)
        while self._in_flight:
            await asyncio.sleep(0.05)

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: with `app`, except for `/metrics`, which covers all replicas."""
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
        return Response(merge_metrics(living), media_type="text/plain; version=0.0.4")

    def __del__(self) -> None:
        self._embedder.close()


class _BehindServe:
    """Middleware for what is different behind the proxy of Serve."""

    def __init__(self, app: ASGIApp, replica: Replica) -> None:
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The proxy adds this header itself, with the same value.
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        if scope["type"] == "http":
            await self._replica.answer(self._app, scope, receive, send_without_id)
        else:
            await self._app(scope, receive, send)


def merge_metrics(expositions: Sequence[tuple[str, str]]) -> bytes:
    """Merge the metrics of several replicas into one page.

    Args:
        expositions: for each replica its name, and its metrics in the Prometheus text format.

    Returns:
        All samples in the Prometheus text format, each with the label `replica`.
    """
    families: dict[str, Metric] = {}
    for replica, text in expositions:
        for family in text_string_to_metric_families(text):
            merged = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                merged.samples.append(sample._replace(labels={**sample.labels, "replica": replica}))
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
