"""Near-duplicate vectors kept once: what remains of pages, what is found, and what it takes."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

import click
import numpy as np

from benchmarks.models import MODEL, name_model
from benchmarks.report import Measurement, Row, Table, make_command, number_option
from benchmarks.retrieval.pages import make_queries, write_pages
from benchmarks.retrieval.ranking import rank_right_pages, score_maxsim
from benchmarks.retrieval.real import DOCUMENTS, read_real_pages
from benchmarks.services import serve_pagevec
from pagevec.client import Client
from pagevec.ingest.page import ReadOptions, SourcePage
from pagevec.ingest.pdf import open_pdf
from pagevec.stores.condense import OFF, condense_page, error_bound, pack_rows
from pagevec.stores.sqlite.store import FILE, SqliteStore
from pagevec.types import MultiVector, Page, PageKey

THRESHOLDS = (OFF, 0.9995, 0.999, 0.998, 0.997, 0.995, 0.99)
_BATCH = 8
_COLUMNS = {
    "cosine": "name",
    "vectors": "vectors:.0f",
    "kept": "kept:.1%",
    "kB a page": "kilobytes:.0f",
    "of before": "share:.1%",
    "map, bytes": "map_bytes:.0f",
    "recall@1": "recall_1:.3f",
    "recall@5": "recall_5:.3f",
    "recall@20": "recall_20:.3f",
    "nDCG@5": "ndcg:.3f",
    "a product changes by": "change:.3f",
    "at most": "bound:.3f",
    "ms": "milliseconds:.1f",
}


@dataclass(frozen=True, eq=False)
class Corpus:
    """Pages, embedded, and the queries that they answer.

    Attributes:
        pages: as they are stored whole.
        queries: their multi-vectors.
        right: position of the page that answers each query.
    """

    pages: list[Page]
    queries: list[MultiVector]
    right: list[int]


def measure(checkpoint: Path, pages: int, real: int, documents: Path) -> Measurement:
    """Measure what condensing pages saves and loses.

    The pages are those of `benchmarks.retrieval`, and of PDFs in a folder. Bytes are those of the
    whole store in SQLite, with thumbnails, texts, signs and maps, divided by its pages.
    """
    tables = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_pagevec(checkpoint) as service,
        Client(service.url, service.key, in_flight=2, max_inputs=4) as client,
    ):
        if pages:
            corpus = _held_out(client, Path(folder), pages)
            tables["held-out"] = _tabulate("Held-out pages", corpus, Path(folder))
        if real:
            corpus = _real(client, Path(folder), real, documents)
            tables["real"] = _tabulate("Real PDFs", corpus, Path(folder))
    setup = {"model": name_model(checkpoint)}
    legend = "ms: processor time to condense a page, median; `at most` is the bound of a product"
    return Measurement("condensing", setup, tables, remark=legend)


def _held_out(client: Client, folder: Path, count: int) -> Corpus:
    file = folder / "held-out.pdf"
    queries = make_queries(write_pages(file, count))
    with open_pdf(file, ReadOptions()) as document:
        sources = [document.make(number) for number in range(1, count + 1)]
    right = [query.page.number - 1 for query in queries]
    return _embed(client, sources, [query.text for query in queries], right)


def _real(client: Client, folder: Path, limit: int, documents: Path) -> Corpus:
    found = read_real_pages(limit, folder, documents)
    return _embed(client, found.pages, found.queries, found.right)


def _embed(
    client: Client, sources: Sequence[SourcePage], queries: Sequence[str], right: Sequence[int]
) -> Corpus:
    images = [source.content for source in sources if isinstance(source.content, bytes)]
    vectors = client.embed_images(images, dtype="float32")
    metadata = {"file": "document.pdf", "type": "image"}
    pages = [
        Page(PageKey("document.pdf", number), one, metadata, source.text, source.thumbnail)
        for number, (source, one) in enumerate(zip(sources, vectors, strict=True), start=1)
    ]
    return Corpus(pages, client.embed_texts(queries, dtype="float32"), list(right))


def _tabulate(title: str, corpus: Corpus, folder: Path) -> Table:
    whole = _store(corpus.pages, folder / f"{title}-whole")
    rows = [_measure_at(one, corpus, whole, folder / f"{title}-{one}") for one in THRESHOLDS]
    heading = f"{title}: {len(corpus.pages)} pages, {len(corpus.right)} queries; cosine"
    return Table({heading: "name", **dict(list(_COLUMNS.items())[1:])}, rows)


def _measure_at(threshold: float, corpus: Corpus, whole: float, folder: Path) -> Row:
    condensed, taken = zip(*starmap(_time, ((one, threshold) for one in corpus.pages)), strict=True)
    scores = score_maxsim(corpus.queries, [page.vectors for page in condensed])
    ranks = rank_right_pages(scores, corpus.right)
    size = _store(condensed, folder)
    vectors = statistics.mean(len(page.vectors) for page in condensed)
    maps = [len(pack_rows(page.token_rows)) for page in condensed if page.token_rows is not None]
    return {
        "name": "all vectors" if threshold == OFF else f"{threshold:g}",
        "vectors": vectors,
        "kept": vectors / statistics.mean(len(page.vectors) for page in corpus.pages),
        "kilobytes": size / 1e3,
        "share": size / whole,
        "map_bytes": statistics.mean(maps) if maps else None,
        **{f"recall_{depth}": float(np.mean(ranks < depth)) for depth in (1, 5, 20)},
        "ndcg": float(np.mean(np.where(ranks < 5, 1 / np.log2(ranks + 2), 0.0))),
        "change": None if threshold == OFF else _largest_change(corpus, condensed),
        "bound": None if threshold == OFF else error_bound(threshold),
        "milliseconds": statistics.median(taken) * 1e3,
    }


def _time(page: Page, threshold: float) -> tuple[Page, float]:
    started = time.process_time()
    return condense_page(page, threshold), time.process_time() - started


def _largest_change(corpus: Corpus, condensed: Sequence[Page]) -> float:
    """Return by how much the product of a query's vector with one of its own page changes."""
    changes = [
        np.abs(query @ (corpus.pages[page].vectors - condensed[page].token_vectors).T).max()
        for query, page in zip(corpus.queries, corpus.right, strict=True)
    ]
    return float(max(changes))


def _store(pages: Sequence[Page], folder: Path) -> float:
    """Return the bytes that a store of `pages` takes for each."""
    with SqliteStore(folder) as store:
        for first in range(0, len(pages), _BATCH):
            store.add(pages[first : first + _BATCH])
    size = (folder / FILE).stat().st_size / len(pages)
    (folder / FILE).unlink()
    return size


main = make_command(
    measure,
    MODEL,
    number_option("--pages", 500, "Held-out pages.", least=0),
    number_option("--real", 300, "Pages of real PDFs, at most.", least=0),
    click.Option(
        ["--documents"],
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=DOCUMENTS,
        show_default=True,
        help="Folder of these PDFs.",
    ),
)

if __name__ == "__main__":
    main()
