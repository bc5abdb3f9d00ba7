"""Ingestion from a real service that fails at random."""

import random
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from workers import small_pdf

from conftest import make_settings, running
from pagevec.client import Client
from pagevec.commands.ingest import ATTEMPTS
from pagevec.engine.embedder import LocalEmbedder
from pagevec.ingest.names import SourceDocument
from pagevec.ingest.worker import Worker
from pagevec.stores.sqlite.store import SqliteStore

PAGES, SHARE = 200, 0.3


class Unreliable:
    """Lets 30 % of all calls fail, each kind of fault in its turn."""

    def __init__(self, app: ASGIApp) -> None:
        self.met: Counter[str] = Counter()
        self.calls = 0
        self._app = app
        self._chance = random.Random(1)  # noqa: S311 - repeatable, not secret
        self._faults = cycle([self._unavailable, self._too_many, self._reset, self._silence])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_call = scope["type"] == "http" and scope["method"] == "POST"
        self.calls += is_call
        if not is_call or self._chance.random() >= SHARE:
            await self._app(scope, receive, send)
            return
        fault = next(self._faults)
        self.met[fault.__name__] += 1
        await fault(scope, receive, send)

    async def _unavailable(self, *connection: Any) -> None:
        await Response("no", 503)(*connection)

    async def _too_many(self, *connection: Any) -> None:
        await Response("no", 429, {"Retry-After": "1"})(*connection)

    async def _reset(self, scope: Scope, receive: Receive, send: Any) -> None:
        send.__self__.transport.abort()  # uvicorn's own: no answer, the connection is gone

    async def _silence(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


@pytest.mark.long
def test_thirty_percent_fail(embedder: LocalEmbedder, tmp_path: Path) -> None:
    """503, 429, resets and time-outs in 30 % of all calls: all 200 pages are stored, none fails."""
    document, store = small_pdf(tmp_path / "long.pdf", PAGES), SqliteStore(tmp_path / "store")
    services: list[Unreliable] = []

    def unreliable(app: ASGIApp) -> Unreliable:
        services.append(Unreliable(app))
        return services[0]

    with running(embedder, make_settings(), unreliable) as service:
        options = {"attempts": ATTEMPTS, "timeout": httpx.Timeout(2.0)}
        with Client(service.url, service.key, **options) as client:
            [outcome] = Worker(store, client).ingest([SourceDocument("long.pdf", document)])
    assert (outcome.error, outcome.stored) == (None, PAGES)
    assert store.has("long.pdf") == set(range(1, PAGES + 1))
    [unreliable_service] = services
    assert len(unreliable_service.met) == 4
    assert unreliable_service.met.total() >= 0.2 * unreliable_service.calls
    store.close()
