"""From a query in words to pages, through a store."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor
from PIL import Image

from checkpoints import build_checkpoint
from conftest import EXAMPLES, Service, make_settings, pagevec, running
from pagevec.client import Client
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import load
from pagevec.errors import InvalidRequest
from pagevec.grid import PageResizing
from pagevec.ingest.sources import documents
from pagevec.ingest.worker import Worker, name_of
from pagevec.search.retriever import Retriever
from pagevec.search.similarity_maps import draw, map_of_all, similarity_maps
from pagevec.stores.base import Filter
from pagevec.stores.open import open_store
from pagevec.stores.postgres import cache as postgres_cache
from pagevec.stores.sqlite import store as embedded
from pagevec.stores.sqlite.store import EmbeddedStore
from pagevec.types import MultiVector, Page, PageKey
from vectors import unit_vectors

QUERY = "how many passengers on the night route"


class Nothing:
    """Embeds no words: these tests have their vectors."""

    def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        raise AssertionError


@pytest.fixture(scope="module")
def folder(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "store"
    store = EmbeddedStore(path)
    with Client(service.url, service.key) as client:
        resizing = PageResizing(**client.info()["resizing"])
        assert not [
            outcome.error
            for outcome in Worker(store, client, resizing).ingest(documents([EXAMPLES]))
            if outcome.error
        ]
    store.close()
    return path


@pytest.fixture
def store(folder: Path) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore(folder)
    yield opened
    opened.close()


@pytest.fixture
def retriever(service: Service, store: EmbeddedStore) -> Iterator[Retriever]:
    with Client(service.url, service.key) as client:
        yield Retriever(client, store)


@pytest.mark.parametrize("scan_from", [0, 1000])
def test_scores_are_colpali_engines(
    store_name: str, scan_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each store, with and without sign bits, the ten best are those of colpali-engine."""
    for module in (embedded, postgres_cache):
        monkeypatch.setattr(module, "SCAN_FROM", scan_from)
    pages = [Page(PageKey("a", n), unit_vectors(40 + n, seed=n)) for n in range(1, 101)]
    query = unit_vectors(20, seed=0)
    store = open_store(store_name)
    store.add(pages)
    hits = Retriever(Nothing(), store).search_vectors(query, k=10)
    store.close()
    scores = BaseVisualRetrieverProcessor.score_multi_vector(
        [torch.from_numpy(query)], [torch.from_numpy(page.vectors) for page in pages], device="cpu"
    )[0].numpy()
    best = np.argsort(-scores)[:10]
    assert [hit.key for hit in hits] == [pages[place].key for place in best]
    np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-3)


def test_filters(retriever: Retriever) -> None:
    """Only pages of the named documents, or with the wanted metadata, are hits."""
    report = name_of(EXAMPLES / "annual-report.pdf")
    hits = retriever.search(QUERY, where=Filter(documents=frozenset({report})))
    assert {hit.key.document for hit in hits} == {report}
    assert len(hits) == 6
    [text] = retriever.search(QUERY, where=Filter(metadata={"type": "text"}))
    assert text.key == PageKey(name_of(EXAMPLES / "notes.txt"), 1)


def test_deleted_pages_are_no_hits(retriever: Retriever, store: EmbeddedStore) -> None:
    """A page that is stored is found by the next query, and gone after it is deleted."""
    extra = Page(PageKey("extra", 1), retriever.embed(QUERY))
    store.add([extra])
    assert retriever.search(QUERY, k=1)[0].key == extra.key
    store.delete("extra")
    assert extra.key not in [hit.key for hit in retriever.search(QUERY, k=10)]


def test_maps(retriever: Retriever, store: EmbeddedStore) -> None:
    """A map holds each query token's similarity to each cell; its highest cell is the MaxSim."""
    [page] = store.fetch([PageKey(name_of(EXAMPLES / "annual-report.pdf"), 3)])
    query = retriever.embed(QUERY)
    maps = similarity_maps(query, page)
    assert page.grid is not None
    assert maps.shape == (len(query), page.grid.rows, page.grid.columns)
    row, column = 2, 5
    cell = page.vectors[page.grid.first + row * page.grid.columns + column]
    assert np.allclose(maps[:, row, column], query @ cell, atol=1e-6)


def test_a_map_of_all_is_where_tokens_are_particular() -> None:
    """A token that is like every cell colours none, however much; one with an answer colours it."""
    everywhere = np.full((3, 10, 8), 0.9, np.float32)
    somewhere = np.full((1, 10, 8), 0.1, np.float32)
    somewhere[0, 7, 2] = 0.6
    together = map_of_all(np.concatenate([everywhere, somewhere]))
    assert together.sum() == pytest.approx(4)
    assert together[7, 2] > 10 * together[0, 0]
    assert np.unravel_index(together.argmax(), together.shape) == (7, 2)


def test_a_drawn_map_is_reddest_where_it_is_highest() -> None:
    """The picture keeps its size, is coloured at the highest cell and unchanged at the lowest."""
    values = np.zeros((10, 8), np.float32)
    values[2, 6] = 1.0
    drawn = draw(values, Image.new("RGB", (80, 100), "white"))
    assert drawn.size == (80, 100)
    red, green, _ = drawn.getpixel((65, 25))  # type: ignore[misc]
    assert red > 200 > green
    assert drawn.getpixel((5, 95)) == (255, 255, 255)


def test_a_text_has_no_map(retriever: Retriever, store: EmbeddedStore) -> None:
    """A page without a patch grid is refused by name."""
    [page] = store.fetch([PageKey(name_of(EXAMPLES / "notes.txt"), 1)])
    with pytest.raises(InvalidRequest, match=r"notes\.txt"):
        similarity_maps(retriever.embed(QUERY), page)


@pytest.fixture(scope="module")
def other_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with another model, of the same family and dimension."""
    checkpoint = build_checkpoint("colqwen2_5", tmp_path_factory.mktemp("other") / "model")
    settings = make_settings(model=str(checkpoint))
    engine = LocalEmbedder.of(settings, lambda: load(settings))
    engine.wait_until_ready()
    with running(engine, settings) as started:
        yield started
    engine.close()


def test_another_models_service_is_told(
    service: Service, other_service: Service, folder: Path, tmp_path: Path
) -> None:
    """Its queries would rank these pages at random, its pages spoil the store: both are refused."""
    store = shutil.copytree(folder, tmp_path / "store")
    (tmp_path / "new.txt").write_text("a text that is not in the store yet")
    for command in (["search", QUERY], ["ingest", tmp_path / "new.txt"]):
        other = pagevec(
            *command, "--store", store, "--url", other_service.url, "--key", other_service.key
        )
        assert other.returncode == 2
        assert "embedded by another model" in other.stderr
        assert "Traceback" not in other.stderr
    with closing(EmbeddedStore(store)) as opened:
        assert opened.count() == 8
    right = pagevec("search", QUERY, "--store", store, "--url", service.url, "--key", service.key)
    assert right.returncode == 0, right.stderr


def test_command(service: Service, folder: Path, tmp_path: Path) -> None:
    """`pagevec search` prints hits, as JSON on request, and draws maps over the pages."""
    options = ["--store", folder, "--url", service.url, "--key", service.key]
    lines = pagevec("search", QUERY, *options, "-k", "3")
    assert lines.returncode == 0, lines.stderr
    assert len(lines.stdout.strip().splitlines()) == 3
    hits = json.loads(pagevec("search", QUERY, *options, "--json").stdout)
    assert len(hits) == 8
    assert hits[0].keys() == {"document", "page", "score", "metadata"}
    report, maps = EXAMPLES / "annual-report.pdf", tmp_path / "maps"
    drawn = pagevec("search", "fares", *options, "-k", 1, "--document", report, "--maps", maps)
    assert drawn.returncode == 0, drawn.stderr
    pictures = sorted(maps.glob("*.jpg"))
    assert len(pictures) > 5
    with Image.open(pictures[0]) as picture:
        assert picture.size[0] in (1240, 1241)
