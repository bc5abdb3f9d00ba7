"""What all frameworks are given: pages with text and picture, and pages ranked by a model."""

import asyncio
import base64
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from pagevec.errors import ConfigurationError, InvalidRequest, NotFound, PagevecError
from pagevec.ingest.pipeline import is_of_the_service
from pagevec.machine import thread_pool
from pagevec.search.aio import AsyncIndex
from pagevec.search.index import Index
from pagevec.search.maxsim import maxsim
from pagevec.search.results import Hit, check_query, check_width
from pagevec.types import Model, MultiVector

T = TypeVar("T")

WIDTH = 1024
"""Pixels of a page's width in a prompt: text of 10 points can be read, and models take it whole."""

JPEG = "image/jpeg"
"""The media type of all pictures of pages."""


@dataclass(frozen=True)
class RetrievedPage:
    """A page that was found, as a framework's own classes are made of it.

    Attributes:
        name: of the page, the same in each search.
        text: its text layer, or the text itself; empty where it has none.
        image: a JPEG file; None where there is none, or none was asked for.
        score: exact MaxSim.
        metadata: that of the page, with its `document` and the number of the `page`; `relevance`
            is what orders the pages: the score, and the words of the query that the text has;
            `document_error` says what is missing of the document, `image_error` why there is no
            picture, or only the small one in the store.
    """

    name: str
    text: str
    image: bytes | None = field(repr=False)
    score: float
    metadata: dict[str, Any]

    @cached_property
    def image_base64(self) -> str | None:
        """The picture in base64."""
        return None if self.image is None else base64.b64encode(self.image).decode()


@dataclass(frozen=True)
class PageSearch:
    """How pages are searched for.

    Attributes:
        index: has the pages.
        k: how many of them are wanted.
        width: of their pictures, in pixels at most.
        with_images: whether pictures are wanted.
        documents: only pages of these documents, as in `Index.search`.
        where: only pages whose metadata has these values.

    Raises:
        ConfigurationError: `index` is none.
        InvalidRequest: a picture cannot have such a width, or `documents` is a single text.
    """

    index: Index | AsyncIndex
    k: int
    width: int = WIDTH
    with_images: bool = True
    documents: Sequence[str] = ()
    where: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.index, Index | AsyncIndex):
            raise ConfigurationError(
                "index: expected a pagevec.Index or a pagevec.AsyncIndex, not a value of type "
                f"{type(self.index).__name__}"
            )
        check_width(self.width)
        if isinstance(self.documents, str):
            raise InvalidRequest(
                f"documents={self.documents!r}: expected a list of names, not a single one"
            )

    def run(self, query: str) -> list[RetrievedPage]:
        """Return the pages that answer `query` best, the best first.

        Raises:
            PagevecError: as `Index.search` does; and ConfigurationError if the index has to be
                awaited.
        """
        if isinstance(self.index, AsyncIndex):
            raise ConfigurationError(
                "a pagevec.AsyncIndex answers asynchronous calls alone: await them, or give a "
                "pagevec.Index, which answers both kinds"
            )
        hits = self.index.search(query, self.k, documents=self.documents, metadata=self.where)
        return self._read(hits)

    async def run_async(self, query: str) -> list[RetrievedPage]:
        """Return what `run` returns, while the event loop goes on."""
        if not isinstance(self.index, AsyncIndex):
            return await asyncio.to_thread(self.run, query)
        hits = await self.index.search(query, self.k, documents=self.documents, metadata=self.where)
        return await asyncio.to_thread(self._read, hits)

    def _read(self, hits: Sequence[Hit]) -> list[RetrievedPage]:
        # A page that was removed since it was found is left out, as a search leaves it out.
        return [page for page in thread_pool("pagevec-pages").map(self._read_one, hits) if page]

    def _read_one(self, hit: Hit) -> RetrievedPage | None:
        try:
            text = hit.text or ""
        except NotFound:
            return None
        image, image_error = self._draw(hit) if self.with_images else (None, None)
        metadata = {
            **hit.metadata,
            "document": hit.document,
            "page": hit.page,
            "relevance": hit.relevance,
        }
        notes = {"document_error": hit.error, "image_error": image_error}
        metadata |= {name: note for name, note in notes.items() if note is not None}
        name = f"{hit.document}#page={hit.page}"
        return RetrievedPage(name, text, image, hit.score, metadata)

    def _draw(self, hit: Hit) -> tuple[bytes | None, str | None]:
        try:
            picture = hit.jpeg(self.width)
        except PagevecError as error:
            return None, error.message
        return picture.content, picture.reason


@dataclass(frozen=True)
class PageToRank:
    """A page that is to be ranked.

    Attributes:
        text: ranks it where it has no image, or one that cannot be read.
        image: an image file, or its path.
        fault: why the image that it carries cannot be taken.
    """

    text: str
    image: bytes | Path | None = field(default=None, repr=False)
    fault: str | None = None

    @classmethod
    def from_base64(cls, text: str, image: str | bytes) -> Self:
        """Return a page whose image is in base64."""
        try:
            return cls(text, base64.b64decode(image, validate=True))
        except ValueError:
            return cls(text, fault="the image is not in base64")


@dataclass(frozen=True)
class Rank:
    """The place of a page among others.

    Attributes:
        place: of the page in the list that was given, from 0.
        score: exact MaxSim; None for a page that could not be embedded. Those come last.
        fault: why it is ranked by its text although it has an image, or not at all.
    """

    place: int
    score: float | None
    fault: str | None = None


def rank_pages(model: Model, query: str, pages: Sequence[PageToRank]) -> list[Rank]:
    """Return the ranks of `pages`, the best first, by MaxSim with `query`.

    Args:
        model: embeds the query and the pages: by their images, else by their texts.
        query: in words.
        pages: one that cannot be embedded does not keep the others from being ranked.

    Raises:
        InvalidRequest: the query is blank.
        PagevecError: the model does not answer.
    """
    check_query(query)
    if not pages:
        return []
    wanted = model.embed_query(query)
    faults = {place: page.fault for place, page in enumerate(pages) if page.fault}
    images = {place: page.image for place, page in enumerate(pages) if page.image is not None}
    vectors = _embed_each(model.embed_images, images, faults)
    texts = {
        place: page.text
        for place, page in enumerate(pages)
        if place not in vectors and page.text.strip()
    }
    vectors |= _embed_each(model.embed_texts, texts, faults)
    scores = dict(zip(vectors, map(float, maxsim(wanted, list(vectors.values()))), strict=True))
    ranked = sorted(scores, key=lambda place: (-scores[place], place))
    unranked = [place for place in range(len(pages)) if place not in scores]
    return [
        *(Rank(place, scores[place], faults.get(place)) for place in ranked),
        *(Rank(place, None, faults.get(place, _NOTHING)) for place in unranked),
    ]


_NOTHING = "the page has neither an image nor a text"


def _embed_each(
    embed: Callable[[list[T]], list[MultiVector]], inputs: Mapping[int, T], faults: dict[int, str]
) -> dict[int, MultiVector]:
    """Embed inputs, and write into `faults` why some of them could not be."""
    if not inputs:
        return {}
    try:
        return dict(zip(inputs, embed(list(inputs.values())), strict=True))
    except PagevecError as error:
        if is_of_the_service(error):
            raise
        if len(inputs) == 1:
            [place] = inputs
            faults[place] = error.message
            return {}
    # One of them is to blame: the others shall not share its fate.
    each = (_embed_each(embed, {place: one}, faults) for place, one in inputs.items())
    return {place: vectors for found in each for place, vectors in found.items()}


def require_model(model: Any) -> None:
    """Refuse what is no model, or one whose calls are awaited.

    Raises:
        ConfigurationError: it is not.
    """
    embed = getattr(model, "embed_query", None)
    if not callable(embed) or inspect.iscoroutinefunction(embed):
        raise ConfigurationError(
            "model: expected pagevec.load(...) or pagevec.Client(...), not a value of type "
            f"{type(model).__name__}"
        )
