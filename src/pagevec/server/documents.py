"""The endpoints of a service with a store: documents, searches, pictures of pages."""

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pagevec.engine.api import Embedder
from pagevec.errors import (
    BodyTooLarge,
    InvalidRequest,
    NotFound,
    NotReady,
    QueueFull,
    TextTooLong,
)
from pagevec.search.fusion import Mix
from pagevec.search.library import Library, uploads_are_off
from pagevec.search.results import WIDTHS, DocumentState
from pagevec.server.bodies import receive_body
from pagevec.server.budget import ByteBudget
from pagevec.server.found import (
    describe_document,
    describe_hits,
    describe_listing,
    describe_page,
)
from pagevec.server.gate import Crew, Gate, unless_gone
from pagevec.server.multipart import receive_files
from pagevec.server.telemetry import get_record
from pagevec.settings import Settings
from pagevec.types import Query
from pagevec.wire.documents import SearchRequest, name_of, read_search

_Result = TypeVar("_Result")

_MIB = 1024 * 1024
_SEARCH_BYTES = 256 * 1024  # of a request to search
_MOST_LISTED, _LISTED = 1000, 100
_UPLOADS_AT_ONCE = 16


class DocumentRoutes:
    """The endpoints over one library.

    Args:
        settings: limits.
        embedder: embeds queries.
        gate: lets callers in.
        library: the documents, once the model is ready.
    """

    def __init__(
        self, settings: Settings, embedder: Embedder, gate: Gate, library: "Future[Library]"
    ) -> None:
        self._settings = settings
        self._embedder = embedder
        self._gate = gate
        self._opened = library
        self._bodies = ByteBudget(32 * _MIB)
        self._searches = Crew("pagevec-search", threads=2, most=128)
        self._readers = Crew("pagevec-documents", threads=4, most=256)
        self._drawers = Crew("pagevec-draw", threads=2, most=256)
        self._writers = Crew("pagevec-write", threads=4, most=64)
        self._uploading: list[str] = []

    async def search(self, request: Request) -> Response:
        """Answer `POST /search`."""
        key = await self._gate.admit(request)
        library = self._library()
        asked = await self._read_search(request, key)
        query = await self._embed(request, key, asked.query)
        record = get_record(request)
        with record.stage("search"):
            hits = await self._searches.run(
                key,
                request.receive,
                library.search,
                query,
                asked.k,
                asked.documents,
                asked.metadata,
                Mix(asked.text, asked.alpha, asked.fusion),
            )
        with record.stage("encode"):
            content = await self._readers.run(
                key, request.receive, lambda: describe_hits(query, hits, asked.maps)
            )
        return JSONResponse(content)

    async def upload(self, request: Request) -> Response:
        """Answer `POST /documents`."""
        key = await self._gate.admit(request)
        self._need_uploads()
        library = self._library()
        is_awaited = _read_flag(request, "wait")
        if len(self._uploading) >= _UPLOADS_AT_ONCE or (
            self._uploading.count(key) >= _UPLOADS_AT_ONCE // 2
        ):
            raise QueueFull("too many uploads at once: try again later")
        self._uploading.append(key)
        try:
            with get_record(request).stage("receive"):
                files = await receive_files(
                    request.receive,
                    request.headers,
                    library.receive,
                    self._settings.max_upload_bytes,
                    self._settings.max_inputs,
                )
        finally:
            self._uploading.remove(key)
        # Whoever sent all of it may leave now: it is kept all the same.
        names = await asyncio.to_thread(_accept, library, files)
        is_over = is_awaited and await self._wait(request, library, names)
        states = await self._read(request, key, lambda: [_state(library, one) for one in names])
        status = 200 if is_over or not any(one.is_at_work for one in states) else 202
        return JSONResponse({"documents": [describe_document(one) for one in states]}, status)

    async def documents(self, request: Request) -> Response:
        """Answer `GET /documents`."""
        key = await self._gate.admit(request)
        library = self._library()
        asked = request.query_params
        limit = _read_number(asked.get("limit"), "limit", range(1, _MOST_LISTED + 1), _LISTED)
        after = name_of(asked["after"]) if asked.get("after") else ""
        part = asked.get("search", "")[:1000]
        found = await self._read(request, key, lambda: library.listing(part, after, limit))
        return JSONResponse(describe_listing(found))

    async def document(self, request: Request) -> Response:
        """Answer `GET /documents/{id}`."""
        key = await self._gate.admit(request)
        library, name = self._library(), _name(request)
        found = await self._read(request, key, lambda: library.document(name))
        return JSONResponse(describe_document(found))

    async def remove(self, request: Request) -> Response:
        """Answer `DELETE /documents/{id}`."""
        key = await self._gate.admit(request)
        self._need_uploads()
        library, name = self._library(), _name(request)
        pages = await self._writers.run(key, request.receive, library.remove, name)
        return JSONResponse({"name": name, "removed_pages": pages})

    async def page(self, request: Request) -> Response:
        """Answer `GET /documents/{id}/pages/{number}`."""
        key = await self._gate.admit(request)
        library, name, number = self._library(), _name(request), _page_number(request)
        page = await self._read(request, key, lambda: library.page(name, number))
        return JSONResponse(describe_page(page))

    async def image(self, request: Request) -> Response:
        """Answer `GET /documents/{id}/pages/{number}/image`."""
        key = await self._gate.admit(request)
        library, name, number = self._library(), _name(request), _page_number(request)
        width = _read_number(request.query_params.get("width"), "width", WIDTHS, None)
        with get_record(request).stage("draw"):
            picture = await self._drawers.run(
                key, request.receive, library.draw, name, number, width
            )
        headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
        headers["Pagevec-Image"] = "file" if picture.reason is None else "thumbnail"
        if picture.reason is not None:
            headers["Pagevec-Image-Reason"] = _for_header(picture.reason)
        return Response(picture.content, media_type="image/jpeg", headers=headers)

    async def status(self, request: Request) -> Response:
        """Answer `GET /status`."""
        key = await self._gate.admit(request)
        library = self._library()
        stock = await self._read(request, key, library.stock)
        rate = stock.pages_per_second
        return JSONResponse(
            {
                "documents": stock.documents,
                "pages": stock.pages,
                "ingesting": stock.at_work,
                "pages_per_second": None if rate is None else round(rate, 3),
                "queued_inputs": self._embedder.health().queued_inputs,
                "device": self._embedder.info().device,
            }
        )

    def _library(self) -> Library:
        if not self._opened.done():
            self._embedder.info()  # says why there is none yet
            raise NotReady("the store is being opened", retry_after=1)
        return self._opened.result()

    def _need_uploads(self) -> None:
        if not self._settings.uploads:
            raise uploads_are_off()

    async def _read(self, request: Request, key: str, function: Callable[[], _Result]) -> _Result:
        with get_record(request).stage("store"):
            return await self._readers.run(key, request.receive, function)

    async def _read_search(self, request: Request, key: str) -> SearchRequest:
        body, record = _Body(), get_record(request)
        with record.stage("receive"), self._bodies.hold(key) as room:
            try:
                await receive_body(
                    request.receive,
                    request.headers,
                    body,
                    room,
                    _SEARCH_BYTES,
                    self._settings.request_seconds,
                )
            except BodyTooLarge:
                raise BodyTooLarge(
                    f"a search has {_SEARCH_BYTES:,} bytes at most: name fewer documents"
                ) from None
            asked = read_search(bytes(body.content))
        most = self._settings.max_text_chars
        if len(asked.query) > most:
            raise TextTooLong(f"query: {len(asked.query):,} characters, the limit is {most:,}")
        return asked

    async def _embed(self, request: Request, key: str, text: str) -> Query:
        record = get_record(request)
        tells = self._embedder.info().tells_tokens
        embedding = self._embedder.embed_texts([text], tokens=tells, caller=key)
        embedded = await unless_gone(asyncio.wrap_future(embedding), request.receive)
        record.input_type, record.inputs = "text", 1
        record.add_embedded(embedded)
        return Query(text, embedded.vectors[0], embedded.tokens[0] if embedded.tokens else ())

    async def _wait(self, request: Request, library: Library, names: Sequence[str]) -> bool:
        """Wait until `names` are ingested, as long as a request may take; return whether they are.

        It looks again and again, so that callers who wait hold no thread.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.request_seconds

        async def look() -> bool:
            while library.are_waiting(names):
                if loop.time() > end:
                    return False
                await asyncio.sleep(0.1)
            return True

        return await unless_gone(look(), request.receive)


class _Body:
    """A short body, as a whole."""

    def __init__(self) -> None:
        self.content = bytearray()

    def feed(self, data: bytes) -> None:
        self.content += data


def _accept(library: Library, files: Sequence[Any]) -> list[str]:
    try:
        return library.accept(files)
    finally:
        for file in files:
            file.discard()


def _state(library: Library, name: str) -> DocumentState:
    """Return the state of a document that was accepted."""
    try:
        return library.document(name)
    except NotFound:
        error = "it was removed meanwhile"
        return DocumentState(name, "failed", stored=0, pages=None, error=error, is_upload=True)


def _name(request: Request) -> str:
    return name_of(request.path_params["id"])


def _page_number(request: Request) -> int:
    given = request.path_params["number"]
    number = _read_number(given, "page", range(1, 2**31), None)
    return number or 1


def _read_number(given: str | None, name: str, among: range, default: Any) -> Any:
    if given is None:
        return default
    number = int(given) if re.fullmatch(r"[0-9]{1,10}", given, re.ASCII) else -1
    if number not in among:
        raise InvalidRequest(
            f"{name}={given[:20]}: expected a number from {among.start} to {among.stop - 1}"
        )
    return number


def _read_flag(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "false").lower()
    if given not in ("true", "false", "1", "0", ""):
        raise InvalidRequest(f"{name}={given[:20]}: expected true or false")
    return given in ("true", "1", "")


def _for_header(sentence: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", sentence)[:500]
