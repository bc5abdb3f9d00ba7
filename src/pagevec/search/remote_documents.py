"""The documents of a service: what it says of each, listed and removed."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

from pagevec.client import Client
from pagevec.client.core import Send
from pagevec.client.faults import ServiceError
from pagevec.client.requests import json_reader
from pagevec.errors import NoStore, NotFound
from pagevec.ingest.catalogue import StoredDocument, unknown_document

T = TypeVar("T")

_AT_A_TIME = 100  # documents of one answer


@dataclass(frozen=True)
class RemoteDocument:
    """What a service says of a document.

    Attributes:
        id: by which the service knows it.
        name: its name.
        state: `waiting`, `ingesting`, `complete`, `incomplete` or `failed`.
        stored: pages of it that are stored.
        pages: pages that it has; None while that is not known.
        error: why it failed, or which pages are missing.
    """

    id: str
    name: str
    state: str
    stored: int
    pages: int | None
    error: str | None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the document that `content` describes; what this version does not know is left.

        Raises:
            KeyError: something is missing.
        """
        return cls(**{name: content[name] for name in cls.__dataclass_fields__})

    @property
    def is_complete(self) -> bool:
        """Whether all of its pages are stored."""
        return self.state == "complete"

    @property
    def is_settled(self) -> bool:
        """Whether the service does no more about it by itself."""
        return self.state not in ("waiting", "ingesting")

    @property
    def has_former_version(self) -> bool:
        """Whether the pages are those of a former version, while it waits for another one."""
        return self.pages is not None and self.stored >= self.pages


class RemoteCatalogue:
    """The documents of a service, as `pagevec.ingest.catalogue.Catalogue` has those of a store.

    Args:
        client: asks the service.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> list[StoredDocument]:
        """Return all documents, by name.

        Raises:
            NoStore: the service has no store.
            PagevecError: one of `pagevec.client.faults`.
        """
        return [
            StoredDocument(one.name, one.stored, one.pages, one.is_complete, one.error)
            for one in self._walk()
        ]

    def find_ours(self, document: str | os.PathLike[str]) -> str:
        """Return the name of a document that is there.

        Raises:
            InvalidRequest: the service has no such document.
        """
        return self._find(document).name

    def remove(self, document: str | os.PathLike[str]) -> int:
        """Remove a document and return how many pages it had.

        Args:
            document: its name.

        Raises:
            InvalidRequest: the service has no such document.
            PagevecError: one of `pagevec.client.faults`; the service may not remove it.
        """
        request = Send("DELETE", path_of(self._find(document).id))
        return self._client.ask(request, json_reader(lambda answer: int(answer["removed_pages"])))

    def _find(self, document: str | os.PathLike[str]) -> RemoteDocument:
        name = os.fspath(document)
        found = next((one for one in self._walk(search=name) if one.name == name), None)
        if found is None:
            raise unknown_document(name, self.list(), "give its name, as the service has it")
        return found

    def _walk(self, **options: str) -> Iterator[RemoteDocument]:
        after: str | None = None
        while True:
            query = {"limit": str(_AT_A_TIME), **options, **({"after": after} if after else {})}
            request = Send("GET", f"/documents?{urlencode(query)}")
            documents, after = ask_for_documents(self._client, request, _read_listing)
            yield from documents
            if after is None or not documents:
                return


def ask_for_documents(
    client: Client, request: Send, read: Callable[[Any], T], stop: Event | None = None
) -> T:
    """Ask a service for what every service with a store answers.

    Args:
        client: asks it.
        request: for JSON.
        read: makes what is wanted of the JSON value.
        stop: once it is set, nothing more is sent.

    Raises:
        NoStore: the service has no store.
        PagevecError: one of `pagevec.client.faults`.
    """
    try:
        return client.ask(request, json_reader(read), stop)
    except ServiceError as error:
        if error.response.status_code != NotFound.status:
            raise
        raise NoStore(
            f"{error.response.url.copy_with(query=None)}: this service has no store: start it "
            "with `pagevec serve --store STORE`"
        ) from error


def path_of(identity: str) -> str:
    """Return the path of the document that a service knows by `identity`."""
    return f"/documents/{quote(str(identity), safe='')}"


def _read_listing(answer: Any) -> tuple[list[RemoteDocument], str | None]:
    return [RemoteDocument.from_json(one) for one in answer["documents"]], answer["next"]
