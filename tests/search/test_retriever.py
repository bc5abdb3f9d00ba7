"""From a query to the pages that answer it, through a store."""

import math
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

from checkpoints import build_checkpoint
from conftest import EXAMPLES, Service, make_settings, pagevec, running
from pagevec.client import Client
from pagevec.engine.backends import load
from pagevec.engine.embedder import LocalEmbedder
from pagevec.machine import usable_cores
from pagevec.search import retriever as retriever_module
from pagevec.search.index import Index
from pagevec.search.retriever import Retriever, _expect_better
from pagevec.stores import hamming, open_store
from pagevec.stores.base import Filter
from pagevec.stores.sqlite.store import SqliteStore
from pagevec.types import ModelInfo, MultiVector, Page, PageKey, Query, ScoredPage
from pagevec.wire.quantize import Dtype
from vectors import unit_vectors

QUERY = "how many passengers on the night route"


class NoModel:
    """A model that is never asked: these tests have their vectors."""

    def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        raise AssertionError

    embed_images = embed_query = embed_texts

    def info(self) -> ModelInfo:
        raise AssertionError

    def close(self) -> None:
        pass

    __enter__ = __exit__ = close


@pytest.fixture(scope="module")
def folder(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "store"
    with Client(service.url, service.key) as client, Index(path, client) as index:
        assert not index.add(EXAMPLES).failed
    return path


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(folder)
    yield opened
    opened.close()


@pytest.fixture
def retriever(service: Service, store: SqliteStore) -> Iterator[Retriever]:
    with Client(service.url, service.key) as client:
        yield Retriever(client, store)


@pytest.mark.parametrize("scan_from", [0, 1000])
def test_scores_are_colpali_engines(
    store_name: str, scan_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each store, with and without sign bits, the ten best are those of colpali-engine."""
    monkeypatch.setattr(hamming, "SCAN_FROM", scan_from)
    pages = [Page(PageKey("a", n), unit_vectors(40 + n, seed=n)) for n in range(1, 101)]
    query = unit_vectors(20, seed=0)
    store = open_store(store_name)
    store.add(pages)
    hits = Retriever(NoModel(), store).search_vectors(query, k=10)
    store.close()
    scores = BaseVisualRetrieverProcessor.score_multi_vector(
        [torch.from_numpy(query)], [torch.from_numpy(page.vectors) for page in pages], device="cpu"
    )[0].numpy()
    best = np.argsort(-scores)[:10]
    assert [hit.key for hit in hits] == [pages[place].key for place in best]
    np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-3)


@pytest.mark.parametrize("spread", [0.0, 4.0])
def test_pages_are_scored_until_the_best_are_found(
    spread: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few are scored where the best stand out, more where many are as near, all under a filter."""
    monkeypatch.setattr(hamming, "SCAN_FROM", 0)
    monkeypatch.setattr(retriever_module, "_FIRST", 18)
    monkeypatch.setattr(SqliteStore, "shortlist", 150)
    query, scored = unit_vectors(6, seed=0), list[PageKey]()

    def vectors(number: int) -> MultiVector:  # the nearer, the lower its number
        mixed = query + spread * number / 50 * unit_vectors(6, seed=number)
        near = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
        return near if spread else unit_vectors(6, seed=number)

    with SqliteStore(tmp_path) as store:
        store.add([Page(PageKey("a", number), vectors(number)) for number in range(1, 201)])
        fetch = store.fetch_vectors
        monkeypatch.setattr(
            store, "fetch_vectors", lambda keys: (scored.extend(keys), fetch(keys))[1]
        )
        retriever = Retriever(NoModel(), store)
        found = [hit.key for hit in retriever.search_vectors(query, 3)]
        order = store.candidates(query, 150)
        assert len(scored) == len(set(scored))
        assert set(scored) == set(order[: len(scored)])
        if spread:
            assert (found, len(scored)) == ([PageKey("a", number) for number in (1, 2, 3)], 18)
        else:
            assert len(scored) in (93, 140, 150)  # 18 and half as many again, each time
        scored.clear()
        retriever.search_vectors(query, 3, Filter(documents=frozenset({"a"})))
        assert len(scored) == 200


def test_one_page_tells_nothing_of_the_next() -> None:
    """Where all but one of the first pages are damaged or gone, a search goes on."""
    page = ScoredPage(PageKey("a", 1), 3.0, {})
    assert _expect_better([], 1) == _expect_better([page], 1) == 1
    assert _expect_better([page], 5) == 5


def test_filters(retriever: Retriever) -> None:
    """Only pages of the named documents, or with the wanted metadata, are hits."""
    report = "examples/annual-report.pdf"
    hits = retriever.search(QUERY, where=Filter(documents=frozenset({report})))
    assert {hit.key.document for hit in hits} == {report}
    assert len(hits) == 6
    [text] = retriever.search(QUERY, where=Filter(metadata={"type": "text"}))
    assert text.key == PageKey("examples/notes.txt", 1)


def test_deleted_pages_are_no_hits(retriever: Retriever, store: SqliteStore) -> None:
    """A page that is stored is found by the next query, and gone after it is deleted."""
    extra = Page(PageKey("extra", 1), retriever.embed(QUERY).vectors)
    store.add([extra])
    assert retriever.search(QUERY, k=1)[0].key == extra.key
    store.delete("extra")
    assert extra.key not in [hit.key for hit in retriever.search(QUERY, k=10)]


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


def test_another_models_service_is_refused(
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
    with closing(SqliteStore(store)) as opened:
        assert opened.count() == 8
    right = pagevec("search", QUERY, "--store", store, "--url", service.url, "--key", service.key)
    assert right.returncode == 0, right.stderr


@pytest.mark.parametrize(("dim", "most"), [(1, 16), (128, 16), (320, 6), (4096, 1)])
def test_long_vectors_are_read_few_at_a_time(dim: int, most: int, tmp_path: Path) -> None:
    """What a thread holds is bounded whatever the dimension; the order is that of all scores."""
    sizes = []

    class Watched(SqliteStore):
        def fetch_vectors(self, keys: Sequence[PageKey]) -> Iterator[Page]:
            sizes.append(len(keys))
            return super().fetch_vectors(keys)

    pages = [Page(PageKey("a", n), unit_vectors(3, n, dim)) for n in range(1, 131)]
    query = unit_vectors(4, 0, dim)
    with Watched(tmp_path) as store:
        store.add(pages)
        hits = Retriever(NoModel(), store).search_vectors(query, 5)
        assert Retriever(NoModel(), store).search_vectors(np.empty((0, dim), np.float32), 5)
    blocks = math.ceil(math.ceil(130 / most) / usable_cores()) * usable_cores()
    assert max(sizes) == math.ceil(130 / blocks) <= most
    plain = sorted(
        (float((query @ one.vectors.T).max(axis=1).sum()) for one in pages), reverse=True
    )
    np.testing.assert_allclose([hit.score for hit in hits], plain[:5], atol=5e-3)


def test_the_store_is_prepared_while_the_query_is_embedded(
    service: Service, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first query waits for the model once: the rest of what it needs comes beside it."""
    prepared, prepare = threading.Event(), store.prepare

    def tell() -> None:
        prepare()
        prepared.set()

    class Waiting(Client):
        def embed_query_with_tokens(self, text: str, *, dtype: Dtype | None = None) -> Query:
            assert prepared.wait(30)
            return super().embed_query_with_tokens(text, dtype=dtype)

    monkeypatch.setattr(store, "prepare", tell)
    with Waiting(service.url, service.key) as client:
        found = Retriever(client, store).search(QUERY, k=1)
    with Client(service.url, service.key) as client:
        assert found == Retriever(client, store).search(QUERY, k=1)
