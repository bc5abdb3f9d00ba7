"""Measures a model: held-out pages and real ones, in every form that vectors are kept in."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.models import name_of
from benchmarks.retrieval.metrics import ranks, scores
from benchmarks.retrieval.pages import write_pages
from benchmarks.retrieval.queries import Query, make_queries
from benchmarks.retrieval.real import real_pages
from benchmarks.retrieval.report import Report, Table, quality_by
from benchmarks.retrieval.yardstick import bm25_scores
from benchmarks.servers import pagevec
from pagevec.client import Client
from pagevec.engine.models.torchvision_fix import import_torchvision
from pagevec.engine.pooling import pool
from pagevec.ingest.page import SourcePage
from pagevec.ingest.pdf import pdf_pages
from pagevec.search.retriever import Retriever
from pagevec.stores.sqlite.store import EmbeddedStore
from pagevec.types import MultiVector, Page, PageKey
from pagevec.wire.quantize import Dtype, dequantize, quantize

_BATCH = 16
_DTYPES: tuple[Dtype, ...] = ("float16", "int8", "binary")
Ranks = NDArray[np.int64]


def measure(model: Path, pages: int, real: int) -> Report:
    """Embed `pages` held-out pages and up to `real` real ones through a service; rank them all.

    Raises:
        FontsMissing, WordListMissing, DocumentsMissing: Debian packages are not installed.
        ServerFailed: the service did not start.
    """
    import_torchvision()  # before colpali-engine, whose pooler runs in this process
    with tempfile.TemporaryDirectory() as folder, pagevec(model) as server:
        with Client(server.url, server.key, in_flight=2, max_inputs=4) as client:
            tables = _held_out(client, Path(folder), pages)
            if real:
                tables.append(_real(client, Path(folder), real))
        return Report({**machine(), "model": name_of(model), "pages": pages}, tables)


def _held_out(client: Client, folder: Path, count: int) -> list[Table]:
    file = folder / "held-out.pdf"
    queries = make_queries(write_pages(file, count))
    with pdf_pages(file) as document:
        sources = [document.make(number) for number in range(1, count + 1)]
    vectors = _embed(client, sources)
    asked = client.embed_texts([query.text for query in queries], dtype="float32")
    right = [query.page.number - 1 for query in queries]
    exact = ranks(scores(asked, vectors), right)
    forms = {"float32": exact}
    for name, change in _forms().items():
        forms[name] = ranks(scores(asked, [change(page) for page in vectors]), right)
    forms["service and store, float16"] = _stored(client, folder, queries, vectors)
    texts = [source.text or "" for source in sources]
    forms["BM25, text layer"] = ranks(bm25_scores([query.text for query in queries], texts), right)
    return [_by_form(queries, forms), *_by_page(queries, exact, forms["BM25, text layer"])]


def _forms() -> dict[str, Callable[[MultiVector], MultiVector]]:
    kept: dict[str, Callable[[MultiVector], MultiVector]] = {
        dtype: partial(_as_kept, dtype=dtype) for dtype in _DTYPES
    }
    return kept | {f"pooled {factor}x": partial(pool, factor=factor) for factor in (2, 3)}


def _as_kept(vectors: MultiVector, dtype: Dtype) -> MultiVector:
    return dequantize(quantize(vectors, dtype), dtype)


def _embed(client: Client, sources: Sequence[SourcePage]) -> list[MultiVector]:
    images = [source.content for source in sources if isinstance(source.content, bytes)]
    return client.embed_images(images, dtype="float32")


def _stored(
    client: Client, folder: Path, queries: Sequence[Query], vectors: Sequence[MultiVector]
) -> Ranks:
    """Return the ranks by the whole way: the client asks, the store keeps, the retriever finds."""
    store = EmbeddedStore(folder / "store")
    kept = [Page(PageKey("held-out", n), page) for n, page in enumerate(vectors, start=1)]
    for first in range(0, len(kept), _BATCH):
        store.add(kept[first : first + _BATCH])
    retriever = Retriever(client, store)
    found = [_rank(retriever, query, len(kept)) for query in queries]
    store.close()
    return np.array(found)


def _rank(retriever: Retriever, query: Query, pages: int) -> int:
    numbers = [hit.key.number for hit in retriever.search(query.text, k=5)]
    return numbers.index(query.page.number) if query.page.number in numbers else pages


def _real(client: Client, folder: Path, limit: int) -> Table:
    found = real_pages(limit, folder)
    asked = client.embed_texts(found.queries, dtype="float32")
    own = ranks(scores(asked, _embed(client, found.pages)), found.right)
    texts = [page.text or "" for page in found.pages]
    by_text = ranks(bm25_scores(found.queries, texts), found.right)
    title = f"Real PDFs: {len(found.pages)} pages, three rarer words of a page"
    return quality_by(title, {"model": own, "BM25, text layer": by_text})


def _by_form(queries: Sequence[Query], forms: dict[str, Ranks]) -> Table:
    sizes = np.array([query.page.size for query in queries])
    groups = {
        "all": sizes > 0,
        "14 pt and above": sizes >= 14,
        "10 pt": sizes == 10,
        "unseen words": np.array([query.kind == "unseen" for query in queries]),
    }
    return quality_by("Held-out pages", forms, groups)


def _by_page(queries: Sequence[Query], exact: Ranks, by_text: Ranks) -> list[Table]:
    facts: dict[str, Callable[[Query], str]] = {
        "font size": lambda query: f"{query.page.size} pt",
        "language": lambda query: query.page.language,
        "layout": lambda query: query.page.layout,
        "query": lambda query: query.kind,
        "words asked": lambda query: str(len(query.text.split())),
    }
    tables = []
    for fact, value in facts.items():
        values = np.array([value(query) for query in queries])
        rows = {str(one): values == one for one in sorted(set(values.tolist()), key=_natural)}
        tables.append(Table.of_groups(f"By {fact}", rows, {"model": exact, "BM25": by_text}))
    return tables


def _natural(text: str) -> tuple[int, str]:
    digits = "".join(letter for letter in text if letter.isdigit())
    return int(digits or 0), text
