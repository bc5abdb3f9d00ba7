"""What an index answers, wherever its documents are: hits, and what became of what was added."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pagevec.errors import InvalidRequest
from pagevec.ingest.addresses import Address, is_address
from pagevec.ingest.sources import Place
from pagevec.ingest.worker import Outcome
from pagevec.search.similarity_maps import PageMaps
from pagevec.types import FoundBy

if TYPE_CHECKING:
    from PIL import Image

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a folder or an address such as `s3://bucket/reports`, or several of them."""


State = Literal["waiting", "ingesting", "complete", "incomplete", "failed"]

_AT_WORK = ("waiting", "ingesting")

WIDTHS = range(16, 2001)
"""How wide a picture of a page can be asked for, in pixels."""


@dataclass(frozen=True)
class Report:
    """What became of documents that were added.

    Attributes:
        outcomes: one for each document.
        passed_over: what was not taken for a document, one sentence for each reason.
        renamed: former names of documents whose files have other names now.
    """

    outcomes: tuple[Outcome, ...]
    passed_over: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()

    @property
    def pages_stored(self) -> int:
        """Pages that were stored now."""
        return sum(outcome.stored for outcome in self.outcomes)

    @property
    def skipped(self) -> tuple[Outcome, ...]:
        """Documents that were complete in the store already."""
        return tuple(outcome for outcome in self.outcomes if outcome.skipped)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Documents that failed, or of which pages are missing; their `error` says why."""
        return tuple(outcome for outcome in self.outcomes if outcome.error is not None)


@dataclass(frozen=True)
class DocumentState:
    """A document of a library as it is now.

    Attributes:
        name: its name.
        state: complete: all pages can be found; incomplete: some are missing; failed: all are.
        stored: pages of it that can be found.
        pages: pages that it has; None where that is not known.
        error: why it failed, which pages are missing, or why it is not ingested yet.
        is_upload: whether its file was uploaded, and is kept here.
    """

    name: str
    state: State
    stored: int
    pages: int | None
    error: str | None
    is_upload: bool

    @property
    def is_at_work(self) -> bool:
        """Whether its state will change by itself."""
        return self.state in _AT_WORK


@dataclass(frozen=True)
class Listing:
    """Some of the documents of a library.

    Attributes:
        documents: by name.
        total: how many there are with those that follow and those before.
        last: name of the last one here, if more follow.
    """

    documents: Sequence[DocumentState]
    total: int
    last: str | None


@dataclass(frozen=True)
class Stock:
    """What a library has, and what it is doing.

    Attributes:
        documents: how many.
        pages: how many can be found.
        at_work: documents that wait, or are being ingested.
        pages_per_second: of the last minute; None if there were none.
    """

    documents: int
    pages: int
    at_work: int
    pages_per_second: float | None = None


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
        content: a JPEG file.
        reason: why it is the small picture in the store; None where it was drawn from the file.
    """

    content: bytes = field(repr=False)
    reason: str | None = None


class FoundPage(Protocol):
    """The page of a hit: in a store that is open here, or behind a service."""

    @property
    def text(self) -> str | None:
        """The page's text layer, or the text itself."""

    @property
    def thumbnail(self) -> bytes | None:
        """A small JPEG of the page."""

    def maps(self) -> PageMaps:
        """Return where on the page the query finds its answer."""

    def image_file(self) -> bytes | None:
        """Return the best picture of the page that there is, as an image file."""

    def jpeg(self, width: int) -> Picture | None:
        """Return a picture of the page, `width` pixels wide at most; None for a text."""


@dataclass(frozen=True, eq=False)
class Hit:
    """A page that answers a query.

    Attributes:
        document: name of the document.
        page: number of the page, from 1.
        score: exact MaxSim: the sum over the query's vectors of their highest cosine with one of
            the page's.
        relevance: what hits are ordered by: from 0 to 1, or by `rrf` at most 1 / 61. It is the
            score on the scale of all pages that were looked at, together with how well the page's
            text answers where that counts, too.
        found_by: why it was found: `vectors`: it is among the best by score; `text`: its text has
            words of the query.
        found_words: these words, as they were typed, without those that most pages have.
        path: where the document's file is, or was. Of a service, which keeps the files itself, and
            of an object, it is the document's name.
        error: what is missing of its document, where something is.
        metadata: metadata of the page.
    """

    document: str
    page: int
    score: float
    relevance: float
    found_by: tuple[FoundBy, ...]
    found_words: tuple[str, ...]
    path: Path
    error: str | None
    metadata: Mapping[str, Any] = field(repr=False)
    _found: FoundPage = field(repr=False)

    @property
    def text(self) -> str | None:
        """The page's text layer, or the text itself; None where it has none."""
        return self._found.text

    @property
    def thumbnail(self) -> bytes | None:
        """A small JPEG of the page; None for a text."""
        return self._found.thumbnail

    def maps(self) -> PageMaps:
        """Return where on the page the words of the query find their answer.

        Raises:
            InvalidRequest: the page has no patch grid: it is a text, its vectors are pooled, or
                the model cuts pages into tiles.
        """
        return self._found.maps()

    def picture(self) -> "Image.Image":
        """Return the picture of the page: from its file if that is unchanged, else the thumbnail.

        Raises:
            InvalidRequest: the page has neither.
            InvalidImage: the thumbnail in the store is damaged.
        """
        from pagevec.images import read_image

        picture = self._found.image_file()
        if picture is None:
            raise self._no_picture()
        return read_image(picture).decode()

    def jpeg(self, width: int) -> Picture:
        """Return the picture of the page as a JPEG file, as the prompts of models take it.

        Call it while the index is open.

        Args:
            width: pixels at most, from 16 to 2000.

        Returns:
            The file, drawn from the document where that is unchanged, else the small picture in
            the store, with the reason.

        Raises:
            InvalidRequest: the page has no picture, or the width is out of range.
            NotFound: the page was removed since it was found.
        """
        check_width(width)
        picture = self._found.jpeg(width)
        if picture is None:
            raise self._no_picture()
        return picture

    def _no_picture(self) -> InvalidRequest:
        return InvalidRequest(f"{self.document}, page {self.page}: there is no picture of it")


def check_query(query: object) -> None:
    """Refuse a query without words.

    Raises:
        InvalidRequest: it is no text, or blank.
    """
    if not isinstance(query, str):
        raise InvalidRequest(f"query: expected a text, not a value of type {type(query).__name__}")
    if not query.strip():
        raise InvalidRequest("query: it is blank; ask with words")


def check_count(name: str, count: object) -> None:
    """Refuse what is no number of pages.

    Args:
        name: of the argument, as the caller knows it.
        count: its value.

    Raises:
        InvalidRequest: it is no whole number, or below 1.
    """
    if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
        raise InvalidRequest(f"{name}={count!r}: expected a number of pages, at least 1")


def check_width(width: object) -> None:
    """Refuse what is no width of a picture.

    Raises:
        InvalidRequest: it is no whole number, or out of range.
    """
    if not isinstance(width, Integral) or width not in WIDTHS:
        allowed = f"from {WIDTHS[0]} to {WIDTHS[-1]}"
        raise InvalidRequest(f"width={width!r}: expected a number of pixels {allowed}")


def as_places(paths: Paths) -> list[Place]:
    """Return `paths` as a list, also where it is a single one.

    Raises:
        InvalidRequest: one is an address that documents are not read from.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    return [
        Address.parse(one) if isinstance(one, str) and is_address(one) else Path(one)
        for one in several
    ]
