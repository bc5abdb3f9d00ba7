"""The benchmarks of the engine, in their smallest size; times are not judged here."""

from pathlib import Path

import numpy as np
import pytest

from conftest import png
from pagevec.bench import cold, engine, peers
from pagevec.bench.colpali import PLAIN, SDPA
from pagevec.engine.bundled import bundled_checkpoint


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


def test_engine(checkpoint: Path) -> None:
    """Every size has its figures, and no page is faster than the device's floor allows."""
    report = engine.measure(checkpoint, "cpu", pages=2, growth=False)
    assert [one.page for one in report.speeds] == ["A4", "half of A4", "receipt", "dot"]
    assert all(one.pages_per_second > 0 and one.forward_ms > 0 for one in report.speeds)
    # 2,944 patches attend to each other in one of the four vision layers, 160 numbers wide.
    assert report.floor.page_attention > 4 * 2944**2 * 160
    assert report.floor.pages_per_second > report.speeds[0].pages_per_second
    assert "no more than" in report.markdown()


def test_cold(checkpoint: Path) -> None:
    """A start is seen from outside, and by the service's own account of its stages."""
    report = cold.measure(checkpoint)
    assert {"read", "move", "warm_up"} <= report.stages.keys()
    assert 0 < sum(report.stages.values()) < report.ready
    assert min(report.first_text, report.first_page) > 0
