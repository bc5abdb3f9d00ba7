"""The asynchronous twin of `pagevec.search.index`."""

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

from pagevec.client import Client
from pagevec.ingest import LEASE_SECONDS
from pagevec.ingest.catalogue import Removal, StoredDocument
from pagevec.ingest.worker import Outcome
from pagevec.search.index import Index
from pagevec.search.results import Hit, Paths, Report
from pagevec.stores.base import Store
from pagevec.types import (
    AsyncModel,
    Fusion,
    ImageInput,
    Model,
    ModelInfo,
    MultiVector,
    Progress,
    Query,
)

T = TypeVar("T")


class AsyncIndex:
    """The asynchronous twin of `Index`: its calls are awaited, its work runs in a thread.

    Args:
        store: as in `Index`.
        model: `pagevec.AsyncClient(...)`, or any model that `Index` takes; with the address of a
            service, its key.
        lease_seconds: as in `Index`.
        passwords: as in `Index`.

    >>> async with AsyncIndex("./pagevec-store", client) as index:  # doctest: +SKIP
    ...     hits = await index.search("night route passengers", k=5)
    """

    @overload
    def __init__(
        self,
        store: str | os.PathLike[str] | Store,
        model: AsyncModel | Model,
        *,
        lease_seconds: float = LEASE_SECONDS,
        passwords: Sequence[str] = (),
    ) -> None: ...

    @overload
    def __init__(self, service: str | Client, key: str | None = None, /) -> None: ...

    def __init__(self, store: Any, model: Any = None, **options: Any) -> None:
        is_async = inspect.iscoroutinefunction(getattr(model, "embed_texts", None))
        self._bridge = _Bridge(cast(AsyncModel, model)) if is_async else None
        self._index = Index(store, self._bridge or model, **options)

    async def add(
        self,
        paths: Paths,
        *,
        label: str | None = None,
        follow_links: bool = False,
        on_progress: Progress = lambda done, total: None,
        on_outcome: Callable[[Outcome], object] = lambda outcome: None,
    ) -> Report:
        """Ingest documents, as `Index.add` does; the callbacks are called in a thread."""
        return await self._run(
            lambda: self._index.add(
                paths,
                label=label,
                follow_links=follow_links,
                on_progress=on_progress,
                on_outcome=on_outcome,
            )
        )

    async def search(
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
        """Return the pages that answer `query`, as `Index.search` does."""
        return await self._run(
            lambda: self._index.search(
                query,
                k,
                documents=documents,
                metadata=metadata,
                text=text,
                alpha=alpha,
                fusion=fusion,
            )
        )

    async def remove(self, document: str | os.PathLike[str]) -> int:
        """Remove a document, as `Index.remove` does."""
        return await self._run(lambda: self._index.remove(document))

    async def prune(self, paths: Paths) -> Removal:
        """Remove documents whose files are gone, as `Index.prune` does."""
        return await self._run(lambda: self._index.prune(paths))

    async def documents(self) -> list[StoredDocument]:
        """Return all documents in the store, by name."""
        return await self._run(self._index.documents)

    async def aclose(self) -> None:
        """Close the store, as `Index.close` does."""
        await self._run(self._index.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self, call: Callable[[], T]) -> T:
        if self._bridge is not None:
            self._bridge.loop = asyncio.get_running_loop()
        return await asyncio.to_thread(call)


class _Bridge:
    """An asynchronous model as a `Model`, for threads beside its event loop."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, model: AsyncModel) -> None:
        self._model = model

    def embed_images(self, images: Sequence[ImageInput]) -> list[MultiVector]:
        return self._wait(self._model.embed_images(images))

    def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        return self._wait(self._model.embed_texts(texts))

    def embed_query(self, text: str) -> MultiVector:
        return self._wait(self._model.embed_query(text))

    def embed_query_with_tokens(self, text: str) -> Query:
        with_tokens = getattr(self._model, "embed_query_with_tokens", None)
        return self._wait(with_tokens(text)) if with_tokens else Query(text, self.embed_query(text))

    def info(self) -> ModelInfo:
        return self._wait(self._model.info())

    def close(self) -> None:
        """Leave the model open: it belongs to the caller."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self.loop).result()
