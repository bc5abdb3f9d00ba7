"""Documents in, answers with their place on the page out: the same calls here and over HTTP."""

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast, overload

from pagevec.client import Client
from pagevec.errors import ConfigurationError
from pagevec.ingest import LEASE_SECONDS
from pagevec.ingest.catalogue import Removal, StoredDocument
from pagevec.ingest.worker import Outcome
from pagevec.search.fusion import Mix
from pagevec.search.local import LocalIndex
from pagevec.search.remote import RemoteIndex
from pagevec.search.results import Hit, Paths, Report, check_count, check_query
from pagevec.stores import is_service
from pagevec.stores.base import Store
from pagevec.types import Fusion, Model, Progress


class Index:
    """Documents, searched with the model that embeds their pages.

    They are in a store that is opened here, or in the store of a service, which then also reads,
    embeds and searches them.

    Args:
        store: a folder, `postgresql://...`, or an open store, which stays open when the index is
            closed. Or the address of a service that has a store, `http://...`, or a
            `pagevec.Client` of one, which stays open, too.
        model: embeds pages and queries: `pagevec.load(...)` or `pagevec.Client(...)`; it stays
            open. With the address of a service: the service's key instead, if it needs one.
        lease_seconds: how long other workers wait before they take over the documents of one
            that was killed. Not for a service, as all that follow.
        passwords: tried on encrypted documents, in this order.
        create: whether a store in a folder is made if there is none.
        condense: the cosine from which on near-duplicate vectors of a page are kept once, in a
            store that has no pages yet; 2 keeps all. Default: what was measured to lose nothing
            with the model, and else 2.

    Raises:
        StoreError: the store cannot be opened, or is not there and shall not be made.
        ConfigurationError: the arguments do not belong together, or the key or the address is not
            valid.

    >>> with Index("./pagevec-store", model) as index:  # doctest: +SKIP
    ...     index.add(["reports/", "scan.png"])
    ...     hits = index.search("night route passengers", k=5)
    >>> with Index("http://127.0.0.1:8765", key) as index:  # doctest: +SKIP
    ...     hits = index.search("night route passengers", k=5)
    """

    @overload
    def __init__(
        self,
        store: str | os.PathLike[str] | Store,
        model: Model,
        *,
        lease_seconds: float = LEASE_SECONDS,
        passwords: Sequence[str] = (),
        create: bool = True,
        condense: float | None = None,
    ) -> None: ...

    @overload
    def __init__(self, service: str | Client, key: str | None = None, /) -> None: ...

    def __init__(self, store: Any, model: Any = None, **options: Any) -> None:
        self._index: LocalIndex | RemoteIndex
        if isinstance(store, Client) or (isinstance(store, str) and is_service(store)):
            _check_remote(store, model, options)
            self._index = RemoteIndex(store, model)
        else:
            _check_model(model)
            self._index = LocalIndex(store, cast(Model, model), **options)

    def add(
        self,
        paths: Paths,
        *,
        label: str | None = None,
        follow_links: bool = False,
        on_progress: Progress = lambda done, total: None,
        on_outcome: Callable[[Outcome], object] = lambda outcome: None,
    ) -> Report:
        """Ingest documents: embed their pages and store them. What is stored already is skipped.

        A page that fails costs that page, a document that fails stops no other. Killed at any
        moment and called again, this goes on where it stopped. A renamed file keeps its pages, and
        the same content under two names is embedded once.

        Files are sent to a service one by one, and this returns once it has ingested them. It goes
        on with those that it has, also when the caller is gone.

        Args:
            paths: files, folders with all documents below them, and addresses that fsspec knows,
                such as `s3://bucket/reports`.
            label: first part of the names of new documents; default: their folder's own name.
                A service puts one of its own before it.
            follow_links: whether links in a folder that lead out of it are followed.
            on_progress: called with the pages stored and the pages known so far.
            on_outcome: called with the outcome of each document as it comes.

        Returns:
            What became of each document.

        Raises:
            InvalidRequest: a path does not exist or is of an unsupported type, or a label stands
                for another folder already.
            StoreError: the pages in the store were embedded by another model; the service has no
                store.
            PagevecError: one of `pagevec.client.faults`, where the service cannot be reached, or
                takes no documents.
        """
        return self._index.add(
            paths,
            label=label,
            follow_links=follow_links,
            on_progress=on_progress,
            on_outcome=on_outcome,
        )

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        documents: Sequence[str | os.PathLike[str]] = (),
        metadata: Mapping[str, Any] | None = None,
        text: bool = True,
        alpha: float = 0.5,
        fusion: Fusion = "relative",
    ) -> list[Hit]:
        """Return the `k` pages that answer `query` best, the best first.

        Args:
            query: in words.
            k: how many pages at most.
            documents: only pages of these documents: names, or paths of their files; a folder
                stands for all documents below it. A service knows names alone.
            metadata: only pages whose metadata has these values.
            text: whether pages are found by the words of their text layers, too. A page without
                one, such as a scan, loses nothing by that.
            alpha: weight of the vectors, from 0 to 1; the words have the rest.
            fusion: how both are brought together: `relative`, by scores, or `rrf`, by places
                (reciprocal rank fusion).

        Raises:
            InvalidRequest: the query is blank, `k` is below 1, `alpha` or `fusion` is not what it
                may be, the store has no such document, or no page has such metadata.
            StoreError: the pages were embedded by another model; the service has no store.
            PagevecError: one of `pagevec.client.faults`.
        """
        check_query(query)
        check_count("k", k)
        mix = Mix(text, alpha, fusion)
        return self._index.search(query, k, documents=documents, metadata=metadata, mix=mix)

    def remove(self, document: str | os.PathLike[str]) -> int:
        """Remove a document and return how many pages it had. Its file stays where it is.

        A service removes the file that it keeps, too.

        Args:
            document: its name, or the path of its file; a service knows names alone.

        Raises:
            InvalidRequest: the store has no such document, or another program wrote it.
            PagevecError: one of `pagevec.client.faults`.
        """
        return self._index.remove(document)

    def prune(self, paths: Paths) -> Removal:
        """Remove the documents that came from `paths` and whose files are gone.

        Nothing is removed on doubtful evidence: not below a folder that is gone or empty, which
        may be a disk that is not mounted, nor below an address that cannot be listed completely.
        Other programs' documents are never removed.

        Args:
            paths: folders, files and addresses, as they were added.

        Raises:
            InvalidRequest: the documents are a service's, which does not know the files that they
                came from.
        """
        return self._index.prune(paths)

    def documents(self) -> list[StoredDocument]:
        """Return all documents in the store, by name; those of other programs, too.

        Raises:
            PagevecError: one of `pagevec.client.faults`.
        """
        return self._index.documents()

    def close(self) -> None:
        """Close the store or the connections, unless they were handed over open.

        The model stays open.
        """
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_remote(service: str | Client, key: Any, options: Mapping[str, Any]) -> None:
    """Refuse what makes no sense for a service, in the caller's words."""
    if isinstance(service, Client) and key is not None:
        raise ConfigurationError(
            f"Index({service!r}, ...): the client has its key, and the service a model of its own; "
            "leave the second argument out, or name a store before the client"
        )
    if key is not None and not isinstance(key, str):
        raise ConfigurationError(
            f"Index({service!r}, ...): a service embeds with a model of its own; give its key in "
            "place of a model, or a folder in place of the address"
        )
    if "passwords" in options:
        raise ConfigurationError(
            "passwords: a service is sent no passwords; add encrypted documents without them"
        )
    if options:
        raise ConfigurationError(
            f"{', '.join(sorted(options))}: only for a store that is opened here, not for a service"
        )


def _check_model(model: Any) -> None:
    if model is None or isinstance(model, str):  # it may be a key, and is not shown
        raise ConfigurationError(
            "an index of a store that is opened here needs a model: pagevec.load(...) or "
            "pagevec.Client(...); a key goes with the address of a service, http://..."
        )
