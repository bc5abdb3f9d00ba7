"""The benchmarks of stores that grow, on a few pages that resemble a few others."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from benchmarks.spread import RealMultiVectors, Spread

from benchmarks import million
from pagevec.stores.sqlite.store import SqliteStore
from vectors import unit_vectors


@pytest.fixture
def real() -> RealMultiVectors:
    rows = np.array([0, 0, 1, 2, 3, 3, 4, 5, 6, 7], np.int32)
    pages = [unit_vectors(8, seed) for seed in range(6)]
    queries = [unit_vectors(5, 50 + seed) for seed in range(4)]
    texts, words = [f"page {place}" for place in range(6)], ["one", "two", "three", "four"]
    return RealMultiVectors(pages, [rows] * 6, queries, texts, words)


def test_pages_resemble_real_ones(real: RealMultiVectors, tmp_path: Path) -> None:
    """Each page is near a real one and none is equal to another; they are the same each time."""
    real.save(tmp_path / "real.npz")
    made = [next(pages) for pages in [iter(Spread(real))] for _ in range(20)]
    again = iter(Spread(RealMultiVectors.load(tmp_path / "real.npz")))
    for vectors, rows in made:
        np.testing.assert_array_equal(vectors, next(again)[0])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
        assert rows.max() < len(vectors)
        nearest = max(float((vectors * page).sum(axis=1).mean()) for page in real.pages)
        assert 0.8 < nearest < 0.999
    assert len({vectors.tobytes() for vectors, _ in made}) == len(made)


@pytest.mark.parametrize("form", ["float16", "binary"])
def test_a_small_run(form: str, real: RealMultiVectors, tmp_path: Path) -> None:
    """A process fills a store, searches it at each size, and tells time, memory and recall."""
    real.save(tmp_path / "real.npz")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.growth", "--child", "this commit"),
            *(str(tmp_path), str(tmp_path / "real.npz"), "[40, 90]", "3", form),
        ],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
    )
    rows = json.loads(done.stdout)
    assert [row["pages"] for row in rows] == [40, 90]
    for row in rows:
        assert row["recall"] >= 0.9  # few pages are scored exactly; float16 changes close scores
        assert min(row["query_ms"], row["add_ms"], row["memory_mib"], row["disk_mib"]) > 0


@pytest.mark.parametrize("form", ["float16", "binary"])
def test_a_small_million(
    form: Literal["float16", "binary"],
    real: RealMultiVectors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pages written past the store are in its lists and words, and found by exact scores."""
    monkeypatch.setattr(million, "_BATCH", 16)
    rows = [*million._measure_sizes(real, 4, form, [40, 90], tmp_path)]
    assert [row["pages"] for row in rows] == [40, 90]
    for row in rows:
        assert row["recall"] == 1
        assert min(row[f"{name}_ms"] for name in ("written", "first", "query", "write")) > 0
        assert min(row["memory_mib"], row["disk_mib"]) > 0
    with SqliteStore(tmp_path / "store") as store, store._database.reading() as connection:
        [(listed,)] = connection.execute("SELECT count(*) FROM lists")
        [(last,)] = connection.execute("SELECT max(revision) FROM pages")
        assert store.count() == 90
        assert listed > 0
        assert len(store.find_words(["page", "3"], 100, [])) > 0
        assert store._lists._state(connection).revision == last
