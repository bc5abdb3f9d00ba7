"""Real PDFs searched by their vectors, by the words of their text layers, and by both together."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from PIL import Image

import pagevec
from benchmarks.models import MODEL, name_model
from benchmarks.report import Measurement, Row, Table, make_command, number_option
from benchmarks.retrieval.real import DOCUMENTS, RealPages, read_real_pages
from pagevec.ingest.page import ReadOptions, SourcePage
from pagevec.ingest.pdf import open_pdf
from pagevec.search.fusion import Mix
from pagevec.search.retriever import Retriever
from pagevec.stores.sqlite.store import SqliteStore
from pagevec.types import Model, MultiVector, Page, PageKey, Query

_BATCH = 8
_DEPTH = 5
_DPI = 150
_WAYS: Mapping[str, Mix] = {
    "vectors alone": Mix(text=False),
    "words alone": Mix(alpha=0),
    "both, relative score (the default)": Mix(),
    "both, alpha 0.3": Mix(alpha=0.3),
    "both, alpha 0.7": Mix(alpha=0.7),
    "both, RRF": Mix(fusion="rrf"),
}
_COLUMNS = {
    "search": "way",
    "recall@1": "first:.3f",
    "recall@5": "in_five:.3f",
    "scans: recall@1": "first_scanned:.3f",
    "scans: recall@5": "in_five_scanned:.3f",
}


def measure(checkpoint: Path, pages: int, documents: Path) -> Measurement:
    """Measure how often the page that a query's words stand on comes first, and in the first five.

    The pages are those of PDFs that Debian packages install, with queries of three rarer words of a
    page. Then a third of the pages, chosen at random, give way to scans of themselves: PDFs that
    hold a picture and no text; asked is for these pages alone.
    """
    with tempfile.TemporaryDirectory() as folder, pagevec.load(str(checkpoint)) as model:
        scratch = Path(folder)
        real = read_real_pages(pages, scratch, documents)
        embedded = _embed(model, real.pages)
        chance = np.random.default_rng(0)
        third = chance.permutation(len(real.pages))[: len(real.pages) // 3].tolist()
        scans = [_scan(real.pages[place], scratch) for place in third]
        mixed, texts = list(embedded), [page.text for page in real.pages]
        for place, scan, vectors in zip(third, scans, _embed(model, scans), strict=True):
            mixed[place], texts[place] = vectors, scan.text
        asked = [model.embed_query(query) for query in real.queries]
        own = [page.text for page in real.pages]
        whole = _search(scratch / "whole", embedded, own, real, asked)
        partly = _search(scratch / "partly", mixed, texts, real, asked)
    is_scanned = np.isin(real.right, third)
    rows: list[Row] = [
        {
            "way": way,
            "first": float(np.mean(whole[way] < 1)),
            "in_five": float(np.mean(whole[way] < _DEPTH)),
            "first_scanned": float(np.mean(partly[way][is_scanned] < 1)),
            "in_five_scanned": float(np.mean(partly[way][is_scanned] < _DEPTH)),
        }
        for way in _WAYS
    ]
    note = (
        f"{len(real.pages)} pages, {len(real.queries)} queries; scans: {len(third)} of the pages, "
        f"which {is_scanned.sum()} queries ask for"
    )
    setup = {"model": name_model(checkpoint), "pages": pages}
    return Measurement("hybrid", setup, {"recall": Table(_COLUMNS, rows, note=note)})


def _embed(model: Model, pages: Sequence[SourcePage]) -> list[MultiVector]:
    images = [page.content for page in pages if isinstance(page.content, bytes)]
    parts = [images[first : first + _BATCH] for first in range(0, len(images), _BATCH)]
    return [vectors for part in parts for vectors in model.embed_images(part)]


def _scan(page: SourcePage, scratch: Path) -> SourcePage:
    """Return what is read of a PDF that holds a picture of the page, and no text."""
    file = scratch / "scan.pdf"
    picture = io.BytesIO(page.content) if isinstance(page.content, bytes) else page.content
    Image.open(picture).convert("RGB").save(file, resolution=_DPI, quality=85)
    with open_pdf(file, ReadOptions()) as document:
        return document.make(1)


def _search(
    folder: Path,
    vectors: Sequence[MultiVector],
    texts: Sequence[str | None],
    real: RealPages,
    asked: Sequence[MultiVector],
) -> dict[str, np.ndarray]:
    """Return for each way the place of the right page of each query, from 0, in a store."""
    found = {}
    with SqliteStore(folder) as store:
        store.add(
            [
                Page(PageKey("real", number), page, text=text)
                for number, (page, text) in enumerate(zip(vectors, texts, strict=True))
            ]
        )
        retriever = Retriever(cast(Any, None), store)  # its model embeds queries, as was done
        for way, mix in _WAYS.items():
            orders = [
                [hit.key.number for hit in retriever.search_embedded(one, _DEPTH, mix=mix)]
                for one in map(Query, real.queries, asked)
            ]
            found[way] = np.array(
                [
                    order.index(right) if right in order else _DEPTH
                    for order, right in zip(orders, real.right, strict=True)
                ]
            )
    return found


main = make_command(
    measure,
    MODEL,
    number_option("--pages", 300, least=20),
    click.Option(
        ["--documents"],
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=DOCUMENTS,
        show_default=True,
        help="Folder that is searched for PDFs.",
    ),
)

if __name__ == "__main__":
    main()
