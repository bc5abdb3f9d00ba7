"""The benchmarks of the engine, in their smallest size; times are not judged here."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.colpali import PLAIN, SDPA
from benchmarks.output import give
from benchmarks.sizes import SIZES

from benchmarks import cold, engine, growth, inputs, peers, pooling, precision, sizes
from checkpoints import build_checkpoint
from conftest import png
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.bundled import bundled_checkpoint


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return bundled_checkpoint()


def test_peers(checkpoint: Path) -> None:
    """All engines embed the same pages alike, and each has a rate for each round."""
    report = peers.compare(checkpoint, "cpu", [png(200, 300), png(300, 200)], rounds=2)
    assert report.agreement.difference <= 1e-4
    assert report.agreement.cosine == pytest.approx(1, abs=1e-5)
    assert list(report.rates) == [PLAIN.name, *(way.name for way in SDPA), "pagevec"]
    assert all(len(rates) == 2 and min(rates) > 0 for rates in report.rates.values())
    assert "| pagevec | " in report.markdown()


def test_agreement_is_of_the_worst_vector() -> None:
    """One vector that points elsewhere shows, however many are right."""
    right = np.eye(4, dtype=np.float32)[:3]
    wrong = right.copy()
    wrong[1] = [0, 0, 0, 1]
    told = peers.agreement_of([right], [wrong])
    assert (told.difference, told.cosine) == (1.0, 0.0)
    assert told.signs == pytest.approx(10 / 12)


def test_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both precisions embed the same pages and queries: near, not equal, with a rate each round."""
    monkeypatch.setenv("PAGEVEC_MAX_VISUAL_TOKENS", "64")  # a page of the warm-up is small, too
    checkpoint = build_checkpoint("colqwen2_5", tmp_path / "tiny")
    pages = [png(60, 90, seed) for seed in range(5)]
    report = precision.measure(checkpoint, "cpu", "int8", pages, inputs.headlines(5), rounds=2)
    assert 0.98 < report.agreement.cosine < report.agreement.mean_cosine < 1 - 1e-6
    assert list(report.rates) == ["full", "int8"]
    assert all(len(rates) == 2 and min(rates) > 0 for rates in report.rates.values())
    assert report.ranking.same_five == 1  # of five pages
    assert report.markdown().count("\n| ") == 3


def test_ranking_is_of_places() -> None:
    """Another first page shows, and so does one that leaves the first five; the rest does not."""
    exact = np.arange(8)[None].repeat(2, axis=0)
    other = np.array([[0, 1, 2, 3, 4, 7, 6, 5], [1, 0, 2, 3, 5, 4, 6, 7]])
    told = precision.ranking_of(exact, other)
    assert (told.same_first, told.same_five) == (0.5, 0.9)
    assert (told.found, told.found_reduced) == (0.5, 1.0)


def test_engine(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sizes, batches and growth have their figures, within the floor that the device allows."""
    monkeypatch.setattr(growth, "_SECONDS", 0.1)
    chosen = {name: SIZES[name] for name in ("A4", "A7", "dot")}
    monkeypatch.setattr(sizes, "SIZES", chosen)
    report = engine.measure(checkpoint, "cpu", pages=1, batch=2, grown=100)

    by_page = {one.page: one for one in report.sizes}
    assert list(by_page) == list(chosen)
    assert all(one.pages_per_second > 0 and one.forward_ms > 0 for one in report.sizes)
    # Each line has the work of one page of A4; a dot has the tokens of the prompt and a few cells.
    tokens = by_page["A4"].tokens
    assert all(tokens / 2 < one.pages * one.tokens <= tokens for one in report.sizes)
    assert by_page["dot"].tokens < 40 < by_page["A7"].tokens < tokens

    # 2,944 patches attend to each other in one of the four vision layers, 160 numbers wide.
    assert report.floor.page_attention > 4 * 2944**2 * 160
    assert report.floor.pages_per_second > by_page["A4"].pages_per_second
    assert [(one.pages, one.tokens) for one in report.batches] == [(1, tokens), (2, 2 * tokens)]
    assert [one.pages for one in report.growth] == [10, 100]
    assert all(one.pages_per_second > 0 and one.memory_mib > 100 for one in report.growth)

    give("engine", report, None)
    printed = capsys.readouterr().out
    assert "no more than" in printed
    for first in ("| A4 | ", "| 1 | ", "| 10 | "):
        assert any(line.startswith(first) for line in printed.splitlines())
    assert "model bundled" in printed.splitlines()[-1]


def test_growth_lets_go_of_the_answers(embedder: LocalEmbedder) -> None:
    """However many pages are sent, a few requests wait, and each answer comes once."""
    request = inputs.make_images(1, SIZES["dot"])
    answers = growth.answers(embedder, request, requests=30)
    next(answers)
    assert embedder.health().queued_inputs <= growth.IN_FLIGHT
    assert [len(one.vectors) for one in answers] == [1] * 29


def test_cold(checkpoint: Path) -> None:
    """A start is seen from outside, and by the service's own account of its stages."""
    report = cold.measure(checkpoint)
    assert {"read", "move", "warm_up"} <= report.stages.keys()
    assert 0 < sum(report.stages.values()) < report.ready
    assert min(report.first_text, report.first_page) > 0


def test_pooling() -> None:
    """Both poolers give the same vectors of the same pages, half as many as the page has."""
    report = pooling.measure(pages=1, factor=2)
    assert [size.page for size in report.sizes] == ["A4", "A5", "A6"]
    for size in report.sizes:
        assert size.difference < 1e-5
        assert size.pooled == size.vectors // 2
        assert min(size.colpali_ms, size.pagevec_ms) > 0
    assert report.markdown().count("\n| ") == 4
