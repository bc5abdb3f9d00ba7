"""The benchmarks of the engine, at their smallest size; times are not judged here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.encoder_peer import embed_with, load_encoder
from benchmarks.models import compare_vectors
from benchmarks.peers import PLAIN, SDPA
from benchmarks.roofline import Roofline

from benchmarks import cold, data, engine, peers, pooling, precision
from checkpoints import build_checkpoint
from conftest import png
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.registry import bundled_checkpoint

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return bundled_checkpoint()


def test_peers(checkpoint: Path) -> None:
    """All engines embed the same pages alike, and each has a rate for each round."""
    report = peers.compare(checkpoint, "cpu", [png(200, 300), png(300, 200)], rounds=2)
    figures = report.as_json()
    assert figures["agreement"]["difference"] <= 1e-4
    assert figures["agreement"]["cosine"] == pytest.approx(1, abs=1e-5)
    engines = [row["engine"] for row in figures["rates"]]
    others = [f"sentence-transformers, batch {n}" for n in (1, 4, 8)]
    assert engines[:-1] == [PLAIN.name, *(way.name for way in SDPA), *others, "pagevec"]
    assert engines[-1].startswith("pagevec, fastest: ")
    assert all(len(row["rounds"]) == 2 and min(row["rounds"]) > 0 for row in figures["rates"])
    assert "| pagevec | " in report.markdown()


def test_sentence_transformers_gives_the_same_vectors(checkpoint: Path) -> None:
    """Its encoder has the weights, the prompt and the resizing of the checkpoint."""
    theirs = peers.ColpaliEngine(checkpoint, torch.device("cpu"), torch.float32)
    encoder = load_encoder(theirs.model, theirs.processor, torch.device("cpu"))
    files = [png(200, 300), png(300, 200), png(120, 400)]
    agreement = compare_vectors(embed_with(encoder, 2)(files), theirs.embed(SDPA[0], files))
    assert agreement.difference <= 1e-4


def test_agreement_is_of_the_worst_vector() -> None:
    """One vector that points elsewhere shows, however many are right."""
    right = np.eye(4, dtype=np.float32)[:3]
    wrong = right.copy()
    wrong[1] = [0, 0, 0, 1]
    agreement = compare_vectors([right], [wrong])
    assert (agreement.difference, agreement.cosine) == (1.0, 0.0)
    assert agreement.signs == pytest.approx(10 / 12)


def test_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both precisions embed the same pages and queries: near, not equal, with a rate each round."""
    monkeypatch.setenv("PAGEVEC_MAX_VISUAL_TOKENS", "64")  # a page of the warm-up is small, too
    checkpoint = build_checkpoint("colqwen2_5", tmp_path / "tiny")
    pages = [png(60, 90, seed) for seed in range(5)]
    report = precision.compare(checkpoint, "cpu", "int8", pages, data.make_headlines(5), rounds=2)
    full, reduced = report.as_json()["rows"]
    assert 0.98 < reduced["cosine"] < reduced["mean_cosine"] < 1 - 1e-6
    assert [full["precision"], reduced["precision"]] == ["full", "int8"]
    assert all(len(row["rounds"]) == 2 and min(row["rounds"]) > 0 for row in (full, reduced))
    assert reduced["same_five"] == 1  # of five pages
    assert report.markdown().count("\n| ") == 3


def test_ranking_is_of_places() -> None:
    """Another first page shows, and so does one that leaves the first five; the rest does not."""
    exact = np.arange(8)[None].repeat(2, axis=0)
    other = np.array([[0, 1, 2, 3, 4, 7, 6, 5], [1, 0, 2, 3, 5, 4, 6, 7]])
    ranking = precision.compare_orders(exact, other)
    assert (ranking.same_first, ranking.same_five) == (0.5, 0.9)
    assert (ranking.found, ranking.found_reduced) == (0.5, 1.0)


def test_engine(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes, batches and growth have their figures, below the roofline of the device."""
    monkeypatch.setattr(engine, "_SECONDS", 0.1)
    chosen = {name: data.SIZES[name] for name in ("A4", "A7", "dot")}
    monkeypatch.setattr(data, "SIZES", chosen)
    report = engine.measure(checkpoint, "cpu", pages=1, batch=2, growth=100)

    figures = report.as_json()
    by_page = {row["page"]: row for row in figures["sizes"]}
    assert list(by_page) == list(chosen)
    assert all(row["pages_per_second"] > 0 and row["forward_ms"] > 0 for row in figures["sizes"])
    # Each line has the work of one page of A4; a dot has the tokens of the prompt and a few cells.
    tokens = by_page["A4"]["tokens"]
    assert all(tokens / 2 < row["pages"] * row["tokens"] <= tokens for row in figures["sizes"])
    assert by_page["dot"]["tokens"] < 40 < by_page["A7"]["tokens"] < tokens

    # 2,944 patches attend to each other in one of the four vision layers, 160 numbers wide.
    roofline = Roofline(**figures["roofline"])
    assert roofline.page_attention > 4 * 2944**2 * 160
    assert roofline.pages_per_second > by_page["A4"]["pages_per_second"]
    by_batch = [(row["pages"], row["tokens"]) for row in figures["batches"]]
    assert by_batch == [(1, tokens), (2, 2 * tokens)]
    assert [row["pages"] for row in figures["growth"]] == [10, 100]
    assert all(row["pages_per_second"] > 0 for row in figures["growth"])
    assert all(row["memory_mib"] > 100 for row in figures["growth"])

    printed = report.markdown()
    assert "at most" in printed
    for first in ("| A4 | ", "| 1 | ", "| 10 | "):
        assert any(line.startswith(first) for line in printed.splitlines())
    assert "model bundled" in printed.splitlines()[-1]


def test_growth_lets_go_of_the_answers(embedder: LocalEmbedder) -> None:
    """However many pages are sent, a few requests wait, and each answer comes once."""
    request = data.make_images(1, data.SIZES["dot"])
    answers = engine.embed_repeatedly(embedder, request, requests=30)
    next(answers)
    assert embedder.health().queued_inputs <= engine.IN_FLIGHT
    assert [len(one.vectors) for one in answers] == [1] * 29


def test_cold(checkpoint: Path) -> None:
    """A start is seen from outside, and by the service's own account of its stages."""
    figures = cold.measure(checkpoint, "cpu").as_json()
    assert {"read", "move", "warm_up"} <= figures["stages"].keys()
    assert 0 < sum(figures["stages"].values()) < figures["ready"]
    assert min(figures["first_text"], figures["first_page"]) > 0


def test_pooling() -> None:
    """Both poolers give the same vectors of the same pages, half as many as the page has."""
    report = pooling.measure(pages=1, factor=2)
    rows = report.as_json()["sizes"]
    assert [row["page"] for row in rows] == ["A4", "A5", "A6"]
    for row in rows:
        assert row["difference"] < 1e-5
        assert row["pooled"] == row["vectors"] // 2
        assert min(row["colpali_ms"], row["pagevec_ms"]) > 0
    assert report.markdown().count("\n| ") == 4
