"""The benchmark of a store that grows, on a few pages that resemble a few others."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.spread import RealMultiVectors, Spread

from vectors import unit_vectors


@pytest.fixture
def real() -> RealMultiVectors:
    rows = np.array([0, 0, 1, 2, 3, 3, 4, 5, 6, 7], np.int32)
    pages = [unit_vectors(8, seed) for seed in range(6)]
    return RealMultiVectors(pages, [rows] * 6, [unit_vectors(5, 50 + seed) for seed in range(4)])


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
