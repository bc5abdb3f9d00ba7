"""pagevec in Haystack: a retriever of pages, and a ranker of pages, for pipelines."""

import asyncio
import base64
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Generic, Self, TypeVar

from pagevec.client import Client
from pagevec.errors import ConfigurationError
from pagevec.extras import explain_missing
from pagevec.integrations.pages import (
    JPEG,
    WIDTH,
    PageSearch,
    PageToRank,
    RetrievedPage,
    rank_pages,
    require_model,
)
from pagevec.search.aio import AsyncIndex
from pagevec.search.index import Index
from pagevec.search.results import check_count, check_width
from pagevec.secrets import first_key, mask_secrets
from pagevec.stores import is_service
from pagevec.types import Model

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.dataclasses import ByteStream, ImageContent
    from haystack.utils import Secret
except ImportError as error:
    raise ImportError(explain_missing(error, "haystack"), name=error.name) from error

T = TypeVar("T")

_KEY = Secret.from_env_var("SERVICE_API_KEY", strict=False)
_PATIENCE = 60.0  # seconds; a person may be waiting for the pipeline


@component
class PagevecRetriever:
    """Finds the pages that answer a query, as Haystack's `Document`.

    `content` is the page's text, `blob` its picture, `meta` has its `document` and the number of
    the `page`. `images` are the same pictures, for the template of a `ChatPromptBuilder`. Where
    there is no picture, or only the small one in the store, `image_error` in `meta` says why.

    Args:
        store: a folder, `postgresql://...`, or the address of a service that has a store; one
            with a password as a `Secret`. Or an open `pagevec.Index`, which stays open; a pipeline
            with that cannot be saved.
        model: embeds the queries of a store that is opened here: what `pagevec.load` takes, the
            address of a service, or an open model, which stays open.
        api_key: of the service; default: the first key in SERVICE_API_KEY.
        top_k: how many pages at most.
        width: of the pictures, in pixels at most, from 16 to 2000.
        with_images: whether pictures are wanted at all.
        documents: only pages of these documents, or below these folders.
        where: only pages whose metadata has these values.
        patience: seconds to wait for a service that is busy, starting or away.

    Raises:
        ConfigurationError: the arguments do not belong together.
        InvalidRequest: a number is out of range; at a call: the query is blank.
        PagevecError: at a call, whatever opening the store or `Index.search` raises.

    >>> retriever = PagevecRetriever("http://127.0.0.1:8765", top_k=3)  # doctest: +SKIP
    >>> found = retriever.run(query="parcels and punctuality")["documents"]  # doctest: +SKIP
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | Secret | Index | AsyncIndex,
        *,
        model: str | Model | None = None,
        api_key: Secret | None = _KEY,
        top_k: int = 10,
        width: int = WIDTH,
        with_images: bool = True,
        documents: Sequence[str] = (),
        where: Mapping[str, Any] | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        check_count("top_k", top_k)
        check_width(width)
        _check_key(api_key)
        if isinstance(store, Index | AsyncIndex) and model is not None:
            raise ConfigurationError("model: the open index has one already; leave it out")
        self.store = os.fspath(store) if isinstance(store, os.PathLike) else store
        self.model, self.api_key, self.patience = model, api_key, patience
        self.top_k, self.width, self.with_images = top_k, width, with_images
        self.documents, self.where = documents, dict(where or {})
        self._index = _Opening(self._open)

    def warm_up(self) -> None:
        """Open the store, and load the model that embeds queries, if that is not done yet."""
        self._index.get()

    def close(self) -> None:
        """Close what was opened here; the next call opens it again."""
        self._index.close()

    def to_dict(self) -> dict[str, Any]:
        """Return what a saved pipeline keeps of this component: no key, no password."""
        return default_to_dict(
            self,
            store=_to_save("store", self.store),
            model=_to_save("model", self.model),
            api_key=self.api_key,
            top_k=self.top_k,
            width=self.width,
            with_images=self.with_images,
            documents=list(self.documents),
            where=self.where,
            patience=self.patience,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the component of which `to_dict` was saved."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document], images=list[ImageContent])
    def run(
        self,
        query: str,
        top_k: int | None = None,
        documents: list[str] | None = None,
        where: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the pages that answer `query` best, the best first.

        Args:
            query: in words.
            top_k: in place of the component's own, as are the others.
            documents: only pages of these documents, or below these folders.
            where: only pages whose metadata has these values.
        """
        return _found(self._search(top_k, documents, where).run(query))

    @component.output_types(documents=list[Document], images=list[ImageContent])
    async def run_async(
        self,
        query: str,
        top_k: int | None = None,
        documents: list[str] | None = None,
        where: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return what `run` returns, while the event loop goes on."""
        search = await asyncio.to_thread(self._search, top_k, documents, where)
        return _found(await search.run_async(query))

    def _search(
        self, top_k: int | None, documents: list[str] | None, where: dict[str, Any] | None
    ) -> PageSearch:
        if top_k is not None:
            check_count("top_k", top_k)
        return PageSearch(
            self._index.get(),
            self.top_k if top_k is None else top_k,
            self.width,
            self.with_images,
            self.documents if documents is None else documents,
            self.where if where is None else where,
        )

    def _open(self, opened: ExitStack) -> Index | AsyncIndex:
        if isinstance(self.store, Index | AsyncIndex):
            return self.store
        store = self.store.resolve_value() if isinstance(self.store, Secret) else self.store
        if store is None:
            raise ConfigurationError("store: the variable of its Secret is not set")
        if is_service(store):
            if self.model is not None:
                raise ConfigurationError("model: the service has one of its own; leave it out")
            key = _resolve(self.api_key)
            client = Client(store, key, patience=self.patience, resize=False)
            return Index(opened.enter_context(client))
        model = _open_model(opened, self.model, self.api_key, self.patience)
        return opened.enter_context(Index(store, model, create=False))


@component
class PagevecRanker:
    """Ranks pages by MaxSim with a query: by their pictures, else by their texts.

    The picture of a `Document` is its `blob`, if its media type is that of an image. `score` is
    the MaxSim; a document that could not be ranked has none and comes last. Its `meta` says why in
    `score_error`, as does that of one that has a picture and is ranked by its text.

    Args:
        model: embeds the query and the pages: what `pagevec.load` takes, the address of a service,
            or an open model, which stays open; a pipeline with that cannot be saved.
        api_key: of the service; default: the first key in SERVICE_API_KEY.
        top_k: how many documents are kept; None: all of them.
        patience: seconds to wait for a service that is busy, starting or away.

    Raises:
        ConfigurationError: an argument cannot be used.
        InvalidRequest: `top_k` is below 1; at a call: the query is blank.
        PagevecError: at a call, if the model cannot be loaded or does not answer.

    >>> ranker = PagevecRanker("http://127.0.0.1:8765", top_k=3)  # doctest: +SKIP
    >>> best = ranker.run(query="night route", documents=documents)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Model | None = None,
        *,
        api_key: Secret | None = _KEY,
        top_k: int | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        _check_key(api_key)
        if top_k is not None:
            check_count("top_k", top_k)
        self.model, self.api_key, self.top_k, self.patience = model, api_key, top_k, patience
        self._model = _Opening(
            lambda opened: _open_model(opened, self.model, self.api_key, self.patience)
        )

    def warm_up(self) -> None:
        """Load the model, if that is not done yet."""
        self._model.get()

    def close(self) -> None:
        """Close what was opened here; the next call opens it again."""
        self._model.close()

    def to_dict(self) -> dict[str, Any]:
        """Return what a saved pipeline keeps of this component: no key, no password."""
        return default_to_dict(
            self,
            model=_to_save("model", self.model),
            api_key=self.api_key,
            top_k=self.top_k,
            patience=self.patience,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the component of which `to_dict` was saved."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document], images=list[ImageContent])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, Any]:
        """Return `documents`, the best first.

        Args:
            query: in words.
            documents: pages with pictures or texts.
            top_k: in place of the component's own.
        """
        if top_k is not None:
            check_count("top_k", top_k)
        ranks = rank_pages(self._model.get(), query, list(map(_page_of, documents)))
        ranked = []
        for rank in ranks[: self.top_k if top_k is None else top_k]:
            document = documents[rank.place]
            note = {} if rank.fault is None else {"score_error": rank.fault}
            ranked.append(replace(document, score=rank.score, meta={**document.meta, **note}))
        return {"documents": ranked, "images": _images_of(ranked)}

    @component.output_types(documents=list[Document], images=list[ImageContent])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, Any]:
        """Return what `run` returns, while the event loop goes on."""
        found: dict[str, Any] = await asyncio.to_thread(self.run, query, documents, top_k)
        return found


class _Opening(Generic[T]):
    """Something that is opened when it is first needed, by whichever thread needs it."""

    def __init__(self, open_: Callable[[ExitStack], T]) -> None:
        self._open = open_
        self._lock = threading.Lock()
        self._opened: tuple[T, ExitStack] | None = None

    def get(self) -> T:
        with self._lock:
            if self._opened is None:
                with ExitStack() as opened:
                    self._opened = self._open(opened), opened.pop_all()
            return self._opened[0]

    def close(self) -> None:
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].close()


def _open_model(
    opened: ExitStack, model: str | Model | None, api_key: Secret | None, patience: float
) -> Model:
    if model is not None and not isinstance(model, str):
        require_model(model)
        return model
    if model is not None and is_service(model):
        return opened.enter_context(Client(model, _resolve(api_key), patience=patience))
    try:
        from pagevec.local import load

        return opened.enter_context(load(model))
    except ImportError as error:
        raise ImportError(explain_missing(error, "serve"), name=error.name) from error


def _check_key(api_key: object) -> None:
    if api_key is not None and not isinstance(api_key, Secret):
        raise ConfigurationError(
            "api_key: expected Haystack's Secret, such as Secret.from_env_var('SERVICE_API_KEY'), "
            "so that no saved pipeline holds the key"
        )


def _resolve(api_key: Secret | None) -> str | None:
    return None if api_key is None else first_key(api_key.resolve_value())


def _to_save(name: str, value: Any) -> Any:
    """Return a store or a model as a saved pipeline names it."""
    if value is not None and not isinstance(value, str | Secret):
        raise ConfigurationError(
            f"{name}: a pipeline cannot be saved with an open one; name it: a folder or an address"
        )
    if isinstance(value, str) and mask_secrets(value) != value:
        raise ConfigurationError(
            f"{name}: it has a password, which would stand in the saved pipeline; give it as "
            f"Secret.from_env_var('...'), with {name!r} in that variable"
        )
    return value


def _found(pages: Sequence[RetrievedPage]) -> dict[str, Any]:
    documents = list(map(_document_of, pages))
    return {"documents": documents, "images": _images_of(documents)}


def _document_of(page: RetrievedPage) -> Document:
    blob = None if page.image is None else ByteStream(page.image, mime_type=JPEG)
    return Document(
        id=page.name, content=page.text, blob=blob, meta=page.metadata, score=page.score
    )


def _page_of(document: Document) -> PageToRank:
    picture = _picture_of(document)
    image = None if picture is None else picture.data
    return PageToRank(document.content or "", image)


def _images_of(documents: Sequence[Document]) -> list[ImageContent]:
    return [
        ImageContent(
            base64_image=base64.b64encode(picture.data).decode(),
            mime_type=picture.mime_type,
            meta=document.meta,
            validation=False,
        )
        for document in documents
        if (picture := _picture_of(document)) is not None
    ]


def _picture_of(document: Document) -> ByteStream | None:
    blob = document.blob
    return blob if blob is not None and (blob.mime_type or "").startswith("image/") else None
