"""The documents that an agent asks: in a store that is opened here, or behind a service.

Both answer what the HTTP contract of a service with a store answers.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlencode

import httpx

from pagevec.client import Client
from pagevec.client.core import Send
from pagevec.client.faults import ServiceError
from pagevec.client.requests import json_reader
from pagevec.errors import InvalidRequest, NotFound
from pagevec.search.library import Library
from pagevec.search.remote_documents import ask_for_documents, path_of
from pagevec.search.results import Picture
from pagevec.server.found import describe_hits, describe_listing, describe_page
from pagevec.stores import open_store, require_store
from pagevec.types import Model
from pagevec.wire.documents import (
    DocumentList,
    PageContent,
    SearchResponse,
    id_of,
    name_of,
)


class Documents(Protocol):
    """What tools ask. All methods block, and may be called from several threads.

    A document is meant by its id or its name, never by a path. What is asked of a document that
    is not there raises `InvalidRequest`, and of a page that is not there `NotFound`.
    """

    def search(self, query: str, k: int, documents: Sequence[str]) -> SearchResponse:
        """Return the `k` pages that answer `query` best, among those of `documents` if any."""
        ...

    def list(self, part: str, after: str, limit: int) -> DocumentList:
        """Return up to `limit` documents, by name.

        Args:
            part: of their names.
            after: what the answer before this one had as `next`; empty at first.
            limit: how many at most.
        """
        ...

    def page(self, document: str, number: int) -> PageContent:
        """Return the text and the metadata of a page."""
        ...

    def draw(self, document: str, number: int, width: int) -> Picture:
        """Return a picture of a page, `width` pixels wide at most."""
        ...

    def close(self) -> None:
        """Close the store or the connections."""
        ...


class LocalDocuments:
    """The documents of a store that is opened here.

    Args:
        store: its name.
        model: embeds queries; it stays open.
        ready: called before each query; returns once the model is ready, or raises why it is not.

    Raises:
        StoreError: the store cannot be opened, or there is none.
    """

    def __init__(self, store: str, model: Model, ready: Callable[[], object]) -> None:
        self._name = store
        self._library = Library(open_store(store, create=False), model)
        self._ready = ready

    def search(self, query: str, k: int, documents: Sequence[str]) -> SearchResponse:
        """See `Documents.search`."""
        library = self._open()
        self._ready()
        embedded = library.embed(query)
        hits = library.search(embedded, k, documents)
        return SearchResponse.model_validate(describe_hits(embedded, hits, with_maps=False))

    def list(self, part: str, after: str, limit: int) -> DocumentList:
        """See `Documents.list`."""
        found = self._open().listing(part, name_of(after) if after else "", limit)
        return DocumentList.model_validate(describe_listing(found))

    def page(self, document: str, number: int) -> PageContent:
        """See `Documents.page`."""
        library = self._open()
        page = library.page(library.find(document), number)
        return PageContent.model_validate(describe_page(page))

    def draw(self, document: str, number: int, width: int) -> Picture:
        """See `Documents.draw`."""
        library = self._open()
        return library.draw(library.find(document), number, width)

    def close(self) -> None:
        """See `Documents.close`."""
        self._library.close()

    def _open(self) -> Library:
        """Return the library, whose store SQLite would read on after its file was removed."""
        require_store(self._name)
        return self._library


class RemoteDocuments:
    """The documents of a service that has a store, which it searches itself.

    Args:
        client: asks the service; it is closed with this.
        ready: called before each call; returns once the service has answered, or raises.
    """

    def __init__(self, client: Client, ready: Callable[[], object]) -> None:
        self._client = client
        self._ready = ready

    def search(self, query: str, k: int, documents: Sequence[str]) -> SearchResponse:
        """See `Documents.search`."""
        self._ready()
        asked = json.dumps({"query": query, "k": k, "documents": list(documents)}).encode()
        request = Send("POST", "/search", asked, {"Content-Type": "application/json"})
        return ask_for_documents(self._client, request, SearchResponse.model_validate)

    def list(self, part: str, after: str, limit: int) -> DocumentList:
        """See `Documents.list`."""
        self._ready()
        query = {"search": part, "limit": limit, **({"after": after} if after else {})}
        request = Send("GET", f"/documents?{urlencode(query)}")
        return ask_for_documents(self._client, request, DocumentList.model_validate)

    def page(self, document: str, number: int) -> PageContent:
        """See `Documents.page`."""
        request = Send("GET", f"{self._find(document)}/pages/{number}")
        return self._client.ask(request, json_reader(PageContent.model_validate))

    def draw(self, document: str, number: int, width: int) -> Picture:
        """See `Documents.draw`."""
        request = Send("GET", f"{self._find(document)}/pages/{number}/image?width={width}")
        return self._client.ask(request, _read_picture)

    def close(self) -> None:
        """See `Documents.close`."""
        self._client.close()

    def _find(self, document: str) -> str:
        """Return the path of a document in the service."""
        self._ready()
        for path in map(path_of, _possible_ids(document)):
            try:
                self._client.ask(Send("GET", path), json_reader(dict))
            except ServiceError as error:
                if error.response.status_code != NotFound.status:
                    raise
            else:
                return path
        raise InvalidRequest(f"the service has no document {document[:200]!r}; give its id or name")


def _possible_ids(document: str) -> Iterator[str]:
    """Yield what may be the id of a document that is called by its id or name."""
    with suppress(NotFound):
        name_of(document)
        yield document
    yield id_of(document)


def _read_picture(answer: httpx.Response) -> Picture:
    return Picture(answer.content, answer.headers.get("Pagevec-Image-Reason"))
