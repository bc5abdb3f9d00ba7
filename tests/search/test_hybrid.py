"""Search by vectors and words together, from the index and from the command line."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pagevec
from conftest import Service
from conftest import pagevec as run
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import InvalidRequest
from pagevec.local import LocalModel
from pagevec.search.fusion import VECTORS_ALONE, Mix
from pagevec.search.index import Index
from pagevec.search.retriever import Retriever
from pagevec.stores import hamming, open_store
from pagevec.stores.base import Filter, Store
from pagevec.types import Page, PageKey, Query
from vectors import unit_vectors

TEXTS = {
    1: "The timetable of the ferry",
    2: "Invoice 4711 of Müller & Sons",
    3: "The harbour in winter",
    4: "An invoice of another year",
}
SCANS = 6


@pytest.fixture
def query() -> Query:
    return Query("the invoice of mueller: Müller, 4711", unit_vectors(5, seed=0))


def fill(store: Store, query: Query) -> None:
    """Store pages with texts, and scans; the first page and the first scan are the nearest."""
    pages = [Page(PageKey("texts", n), near(query, n), text=text) for n, text in TEXTS.items()]
    pages += [Page(PageKey("scans", n), near(query, n)) for n in range(1, SCANS + 1)]
    store.add(pages)


def near(query: Query, number: int) -> np.ndarray:
    """Return vectors that are the farther from those of the query, the higher the number."""
    mixed = query.vectors + number / 4 * unit_vectors(len(query.vectors), seed=number)
    found: np.ndarray = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return found.astype(np.float32)


@pytest.mark.parametrize("scan_from", [0, 1000])
def test_words_bring_a_page_to_the_front(
    store: Store, query: Query, scan_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each store a page with the words is before one with better vectors; scans keep theirs."""
    monkeypatch.setattr(hamming, "SCAN_FROM", scan_from)
    fill(store, query)
    retriever = Retriever(None, store)  # type: ignore[arg-type]
    alone = retriever.search_embedded(query, 10, mix=VECTORS_ALONE)
    fused = retriever.search_embedded(query, 10, mix=Mix())
    again = retriever.search_embedded(query, 10, mix=Mix())
    assert fused == again
    by_key = {page.key: page for page in alone}
    assert [page.relevance for page in alone] == sorted(
        (page.relevance for page in alone), reverse=True
    )
    assert (alone[0].relevance, alone[-1].relevance) == (1, 0)
    assert {page.found_by for page in alone} == {("vectors",)}
    place = {page.key: number for number, page in enumerate(fused)}
    assert place[PageKey("texts", 2)] < place[PageKey("texts", 1)]
    for page in fused:
        assert page.score == by_key[page.key].score
        if page.key.document == "scans":
            assert page.relevance == by_key[page.key].relevance
    [wanted] = [page for page in fused if page.key == PageKey("texts", 2)]
    assert wanted.found_by == ("vectors", "text")
    assert wanted.found_words == ("invoice", "Müller", "4711")


def test_only_their_words_find_them(
    store: Store, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is no candidate by its vectors is found by its words, and scored exactly."""
    monkeypatch.setattr(hamming, "SCAN_FROM", 0)
    candidates = store.candidates
    monkeypatch.setattr(store, "candidates", lambda query, _, where: candidates(query, 3, where))
    far = Page(PageKey("far", 1), -near(query, 1), text="Sonnenblumen 99")
    fill(store, query)
    store.add([far])
    asked = Query("sonnenblumen", query.vectors)
    retriever = Retriever(None, store)  # type: ignore[arg-type]
    assert far.key not in [page.key for page in retriever.search_embedded(asked, 3)]
    found = retriever.search_embedded(asked, 3, mix=Mix(alpha=0.3))
    [page] = [page for page in found if page.key == far.key]
    assert (page.found_by, page.found_words) == (("text",), ("sonnenblumen",))
    expected = (asked.vectors @ far.vectors.T).max(axis=1).sum()
    assert page.score == pytest.approx(expected, abs=1e-2)
    for where in (Filter(frozenset({"texts"})), Filter(metadata={"year": 1})):
        keys = [page.key for page in retriever.search_embedded(asked, 9, where, Mix())]
        assert far.key not in keys


def test_words_that_are_nowhere_leave_the_order(store: Store, query: Query) -> None:
    """A query without a word on any page is answered as by vectors, in both ways of fusion."""
    fill(store, query)
    retriever = Retriever(None, store)  # type: ignore[arg-type]
    asked = Query("quokka nowhere", query.vectors)
    for fusion in ("relative", "rrf"):
        assert retriever.search_embedded(asked, 9, mix=Mix(fusion=fusion)) == (
            retriever.search_embedded(asked, 9, mix=Mix(text=False, fusion=fusion))
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, embedder: LocalEmbedder) -> Iterator[Path]:
    """A store of texts, ingested with the bundled model."""
    documents = tmp_path_factory.mktemp("documents") / "notes"
    documents.mkdir()
    for name, text in TEXTS.items():
        (documents / f"{name}.txt").write_text(text)
    store = tmp_path_factory.mktemp("hybrid") / "store"
    with Index(store, LocalModel(embedder)) as index:
        assert index.add(documents).pages_stored == len(TEXTS)
    yield store


def test_the_index(folder: Path, embedder: LocalEmbedder) -> None:
    """Hits say why they were found, in the index and its asynchronous twin."""
    model = LocalModel(embedder)
    with Index(folder, model) as index:
        first, *others = index.search("muller 4711")
        assert (first.document, first.found_words) == ("notes/2.txt", ("muller", "4711"))
        assert "text" in first.found_by
        assert first.relevance > max(one.relevance for one in others)
        assert {one.found_words for one in others} == {()}
        plain = index.search("muller 4711", text=False)
        assert [one.score for one in plain] == sorted((one.score for one in plain), reverse=True)
        assert {one.found_words for one in plain} == {()}
        [ranked, *_] = index.search("muller 4711", fusion="rrf", alpha=0)
        assert ranked.relevance == pytest.approx(1 / 61)
        for options in ({"alpha": 1.5}, {"fusion": "sum"}):
            with pytest.raises(InvalidRequest, match=next(iter(options))):
                index.search("muller", **options)  # type: ignore[arg-type]

    async def use() -> list[Any]:
        async with pagevec.AsyncIndex(folder, model) as index:
            return await index.search("muller 4711", alpha=0, text=True, fusion="relative")

    assert asyncio.run(use())[0].found_words == ("muller", "4711")


def test_the_command(folder: Path, service: Service) -> None:
    """It shows the words that were found, and in JSON both numbers; --no-text turns them off."""
    asked = ("search", "muller 4711", "--store", folder, "--url", service.url, "--key", service.key)
    shown = run(*asked)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0].endswith("notes/2.txt, page 1  [muller, 4711]")
    first, *_ = json.loads(run(*asked, "--json", "--alpha", "0.2", "--fusion", "rrf").stdout)
    assert first["found_words"] == ["muller", "4711"]
    assert first["relevance"] == pytest.approx(0.8 / 61, abs=0.01)
    assert first["score"] > 1 and "text" in first["found_by"]
    plain = run(*asked, "--no-text")
    assert "[" not in plain.stdout
    assert run(*asked, "--alpha", "2").returncode == 2


def test_a_store_without_words(tmp_path: Path, query: Query) -> None:
    """Qdrant's stores keep no words: their pages are found as by vectors, texts and scans alike."""
    pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    with open_store(f"qdrant:{tmp_path / 'store'}") as store:
        fill(store, query)
        retriever = Retriever(None, store)  # type: ignore[arg-type]
        assert retriever.search_embedded(query, 9, mix=Mix()) == (
            retriever.search_embedded(query, 9, mix=VECTORS_ALONE)
        )
