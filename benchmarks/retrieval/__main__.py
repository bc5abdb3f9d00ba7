"""Retrieval quality on held-out pages and real ones, in every form that vectors are kept in."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import MODEL, name_model
from benchmarks.report import Measurement, Row, Table, make_command, number_option
from benchmarks.retrieval.pages import Query, make_queries, write_pages
from benchmarks.retrieval.ranking import Quality, rank_right_pages, score_bm25, score_maxsim
from benchmarks.retrieval.real import read_real_pages
from benchmarks.services import serve_pagevec
from pagevec.client import Client
from pagevec.engine.models.compat import import_torchvision
from pagevec.engine.models.registry import BUNDLED, BUNDLED_REVISION
from pagevec.engine.pooling import pool
from pagevec.ingest.page import ReadOptions, SourcePage
from pagevec.ingest.pdf import open_pdf
from pagevec.search.retriever import Retriever
from pagevec.stores.condense import MEASURED, condense
from pagevec.stores.sqlite.store import SqliteStore
from pagevec.types import MultiVector, Page, PageKey
from pagevec.wire.quantize import Dtype, dequantize, quantize

_BATCH = 16
_DTYPES: tuple[Dtype, ...] = ("float16", "int8", "binary")
Ranks = NDArray[np.int64]
Chosen = NDArray[np.bool_]


def measure(checkpoint: Path, pages: int, real: int) -> Measurement:
    """Measure whether a model finds the page that a query's words stand on.

    The pages are in fonts, words and layouts that training never prints, and in PDFs of Debian
    packages; beside the model stands BM25 over their text layers.
    """
    import_torchvision()  # before colpali-engine, whose pooler runs in this process
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_pagevec(checkpoint) as service,
        Client(service.url, service.key, in_flight=2, max_inputs=4) as client,
    ):
        tables = _measure_held_out(client, Path(folder), pages)
        if real:
            tables["real"] = _measure_real(client, Path(folder), real)
    setup = {"model": name_model(checkpoint), "pages": pages}
    legend = "each cell: recall@1 / nDCG@5 (queries)"
    return Measurement("retrieval", setup, tables, remark=legend)


def _measure_held_out(client: Client, folder: Path, count: int) -> dict[str, Table]:
    file = folder / "held-out.pdf"
    queries = make_queries(write_pages(file, count))
    with open_pdf(file, ReadOptions()) as document:
        sources = [document.make(number) for number in range(1, count + 1)]
    vectors = _embed(client, sources)
    asked = client.embed_texts([query.text for query in queries], dtype="float32")
    right = [query.page.number - 1 for query in queries]
    exact = rank_right_pages(score_maxsim(asked, vectors), right)
    condensed = [_condense(page) for page in vectors]
    forms = {"float32": exact, "float32, condensed": _rank(asked, condensed, right)}
    for name, change in _list_forms().items():
        forms[name] = _rank(asked, [change(page) for page in vectors], right)
        # Pages are pooled where they are embedded, before they are condensed and stored.
        is_pooled = name.startswith("pooled")
        stored = map(_condense, map(change, vectors)) if is_pooled else map(change, condensed)
        forms[f"{name}, condensed"] = _rank(asked, list(stored), right)
    forms["service and store, float16"] = _search_store(client, folder / "whole", queries, vectors)
    small = _search_store(client, folder / "condensed", queries, condensed)
    forms["service and store, float16, condensed"] = small
    texts = [source.text or "" for source in sources]
    bm25 = rank_right_pages(score_bm25([query.text for query in queries], texts), right)
    forms["BM25, text layer"] = bm25
    return {"forms": _tabulate_forms(queries, forms), **_tabulate_facts(queries, exact, bm25)}


def _list_forms() -> dict[str, Callable[[MultiVector], MultiVector]]:
    """Return the forms that vectors are kept in, by name: what becomes of a page's vectors."""

    def keep(vectors: MultiVector, dtype: Dtype) -> MultiVector:
        return dequantize(quantize(vectors, dtype), dtype)

    kept: dict[str, Callable[[MultiVector], MultiVector]] = {
        dtype: partial(keep, dtype=dtype) for dtype in _DTYPES
    }
    return kept | {f"pooled {factor}x": partial(pool, factor=factor) for factor in (2, 3)}


def _condense(vectors: MultiVector) -> MultiVector:
    """Keep near-duplicates once, as new stores do with the bundled model."""
    positions, _ = condense(vectors, MEASURED[BUNDLED, BUNDLED_REVISION])
    return vectors[positions]


def _rank(
    asked: Sequence[MultiVector], pages: Sequence[MultiVector], right: Sequence[int]
) -> Ranks:
    return rank_right_pages(score_maxsim(asked, pages), right)


def _embed(client: Client, sources: Sequence[SourcePage]) -> list[MultiVector]:
    images = [source.content for source in sources if isinstance(source.content, bytes)]
    return client.embed_images(images, dtype="float32")


def _search_store(
    client: Client, folder: Path, queries: Sequence[Query], vectors: Sequence[MultiVector]
) -> Ranks:
    """Rank as a user's search does: the client embeds, the store keeps, the retriever finds."""
    store = SqliteStore(folder)
    kept = [Page(PageKey("held-out", n), page) for n, page in enumerate(vectors, start=1)]
    for first in range(0, len(kept), _BATCH):
        store.add(kept[first : first + _BATCH])
    retriever = Retriever(client, store)
    found = []
    for query in queries:
        numbers = [hit.key.number for hit in retriever.search(query.text, k=5)]
        right = query.page.number
        found.append(numbers.index(right) if right in numbers else len(kept))
    store.close()
    return np.array(found)


def _measure_real(client: Client, folder: Path, limit: int) -> Table:
    found = read_real_pages(limit, folder)
    asked = client.embed_texts(found.queries, dtype="float32")
    vectors = _embed(client, found.pages)
    model = _rank(asked, vectors, found.right)
    condensed = _rank(asked, [_condense(page) for page in vectors], found.right)
    texts = [page.text or "" for page in found.pages]
    bm25 = rank_right_pages(score_bm25(found.queries, texts), found.right)
    title = f"Real PDFs: {len(found.pages)} pages, three rarer words of a page"
    ranks = {"model": model, "model, condensed": condensed, "BM25, text layer": bm25}
    return _tabulate(title, {name: {"all": one} for name, one in ranks.items()})


def _tabulate_forms(queries: Sequence[Query], forms: Mapping[str, Ranks]) -> Table:
    sizes = np.array([query.page.size for query in queries])
    groups: dict[str, Chosen] = {
        "all": sizes > 0,
        "14 pt and above": sizes >= 14,
        "10 pt": sizes == 10,
        "unseen words": np.array([query.kind == "unseen" for query in queries]),
    }
    return _tabulate(
        "Held-out pages",
        {
            form: {group: ranks[chosen] for group, chosen in groups.items()}
            for form, ranks in forms.items()
        },
    )


def _tabulate_facts(queries: Sequence[Query], model: Ranks, bm25: Ranks) -> dict[str, Table]:
    """Return a table for each fact about a query, with a row for each of its values."""
    facts: dict[str, Callable[[Query], str]] = {
        "font size": lambda query: f"{query.page.size} pt",
        "language": lambda query: query.page.language,
        "layout": lambda query: query.page.layout,
        "query": lambda query: query.kind,
        "words asked": lambda query: str(len(query.text.split())),
    }
    tables = {}
    for fact, value in facts.items():
        values = np.array([value(query) for query in queries])
        cells = {
            one: {"model": model[values == one], "BM25": bm25[values == one]}
            for one in sorted(set(values.tolist()), key=_natural_order)
        }
        tables[fact] = _tabulate(f"By {fact}", cells)
    return tables


def _tabulate(title: str, cells: Mapping[str, Mapping[str, Ranks]]) -> Table:
    """Return a table of qualities from the ranks in each row and column."""
    columns = list(next(iter(cells.values())))
    rows: list[Row] = [
        {"name": name, **{column: Quality.of(ranks) for column, ranks in row.items()}}
        for name, row in cells.items()
    ]
    return Table({title: "name", **{column: column for column in columns}}, rows)


def _natural_order(text: str) -> tuple[int, str]:
    digits = "".join(letter for letter in text if letter.isdigit())
    return int(digits or 0), text


main = make_command(
    measure,
    MODEL,
    number_option("--pages", 500, "Held-out pages.", least=10),
    number_option("--real", 200, "Pages of real PDFs, at most.", least=0),
)

if __name__ == "__main__":
    main()
