"""Documents, pages and what a search has found, in JSON: with addresses, snippets and maps."""

import base64
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pagevec.errors import InvalidRequest
from pagevec.search.results import DocumentState, Hit, Listing
from pagevec.search.similarity_maps import PageMaps, find_words
from pagevec.types import Page, Query
from pagevec.wire.documents import id_of

_SNIPPET_CHARS = 300


def describe_hits(query: Query, hits: Sequence[Hit], with_maps: bool) -> dict[str, Any]:
    """Return the answer to a search.

    Args:
        query: as it was embedded.
        hits: what was found.
        with_maps: whether each hit says where on its page the words find their answer.
    """
    words = [word for word, _ in find_words(query.text, query.tokens)]
    return {
        "query": query.text,
        "words": words,
        "hits": [_describe_hit(hit, words or query.text.split(), with_maps) for hit in hits],
    }


def describe_document(document: DocumentState) -> dict[str, Any]:
    """Return a document as it is now."""
    return {"id": id_of(document.name), **asdict(document)}


def describe_listing(found: Listing) -> dict[str, Any]:
    """Return the answer to who lists documents."""
    return {
        "documents": [describe_document(one) for one in found.documents],
        "total": found.total,
        "next": None if found.last is None else id_of(found.last),
    }


def describe_page(page: Page) -> dict[str, Any]:
    """Return what is stored of a page, its vectors excepted."""
    name, number = page.key.document, page.key.number
    return {
        "document": _name_document(name),
        "page": number,
        "text": page.text,
        "metadata": dict(page.metadata),
        "image": None if page.thumbnail is None else _image_address(name, number),
    }


def _describe_hit(hit: Hit, words: Sequence[str], with_maps: bool) -> dict[str, Any]:
    maps, reason = _describe_maps(hit) if with_maps else (None, None)
    return {
        "document": _name_document(hit.document),
        "page": hit.page,
        "score": hit.score,
        "relevance": hit.relevance,
        "found_by": list(hit.found_by),
        "found_words": list(hit.found_words),
        "snippet": cut_snippet(hit.text, words) if hit.text else None,
        "error": hit.error,
        "metadata": dict(hit.metadata),
        "image": None if hit.thumbnail is None else _image_address(hit.document, hit.page),
        "page_url": _page(hit.document, hit.page),
        "maps": maps,
        "no_maps": reason,
    }


def _describe_maps(hit: Hit) -> tuple[dict[str, Any] | None, str | None]:
    try:
        maps: PageMaps = hit.maps()
    except InvalidRequest as error:
        return None, error.message
    rows, columns = maps.overall.values.shape
    whole, *words = (
        base64.b64encode(one.levels().tobytes()).decode() for one in (maps.overall, *maps.words)
    )
    return {"rows": rows, "columns": columns, "whole": whole, "words": words}, None


def cut_snippet(text: str, words: Sequence[str]) -> str | None:
    """Return the part of `text` in which most of `words` stand, in one line.

    Args:
        text: of a page.
        words: of a query.
    """
    line = " ".join(text.split())
    if len(line) <= _SNIPPET_CHARS:
        return line or None
    wanted = {word.casefold() for word in words}
    places = [
        (found.start(), found.group().casefold())
        for found in re.finditer(r"\w+", line)
        if found.group().casefold() in wanted
    ]
    room = _SNIPPET_CHARS - 2  # for the marks of what is left out

    def count_words(start: int) -> int:
        return len({word for place, word in places if start <= place < start + room})

    first = max((place for place, _ in places), key=count_words, default=0)
    start = max(0, min(first - 40, len(line) - room))
    start = line.find(" ", start) + 1 if start else 0
    cut = line[start : start + room]
    end = "…" if start + room < len(line) else ""
    return f"{'…' if start else ''}{cut}{end}"


def _name_document(name: str) -> dict[str, str]:
    """Return which document it is, by id and name."""
    return {"id": id_of(name), "name": name}


def _page(name: str, number: int) -> str:
    return f"documents/{id_of(name)}/pages/{number}"


def _image_address(name: str, number: int) -> str:
    """Return the address of the picture of a page, relative to the service's."""
    return f"{_page(name, number)}/image"
