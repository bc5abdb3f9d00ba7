"""How much memory ingestion takes, whatever the documents are."""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from odd_documents import three_pages, write_odd_documents
from reportlab.pdfgen.canvas import Canvas
from workers import start

from conftest import EXAMPLES, Service, make_settings, running
from engine.hash_backend import HashBackend
from pagevec.engine.embedder import LocalEmbedder
from pagevec.types import ModelInfo

MIB = 1 << 20
MOST = 1024 * MIB  # of the ingestion, and of each reader
MOST_OF_A_READER = 512 * MIB  # above an idle one


@pytest.fixture(scope="module")
def quick_service(embedder: LocalEmbedder) -> Iterator[Service]:
    """A service that embeds nothing, but asks for pages of the size that the model sees."""

    class Backend(HashBackend):
        def info(self) -> ModelInfo:
            return replace(super().info(), resizing=embedder.info().resizing)

    quick = LocalEmbedder.of(make_settings(), Backend)
    quick.wait_until_ready()
    with running(quick, make_settings()) as started:
        yield started
    quick.close()


def test_small_files_with_huge_pages(quick_service: Service, tmp_path: Path) -> None:
    """PDFs of 1 kB with pages of 14,400 and a million points take no more memory than others."""
    for size in (14_400, 1_000_000):
        huge = f"/MediaBox [0 0 {size} {size}]"
        (tmp_path / f"{size}.pdf").write_bytes(three_pages(huge, first=huge))
    peaks = measure_peaks(quick_service, tmp_path / "store", *tmp_path.glob("*.pdf"))
    assert max(peaks.values()) < 512 * MIB


@pytest.mark.long
@pytest.mark.timeout(900)
def test_odd_documents(
    quick_service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Odd documents of all kinds beside good ones: each process stays within its limit."""
    (tmp_path / "in").mkdir()
    write_odd_documents(tmp_path / "in")
    check(quick_service, tmp_path, [tmp_path / "in", EXAMPLES], capsys)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_thousand_pages(
    quick_service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory does not grow with the number of pages."""
    canvas = Canvas(str(tmp_path / "long.pdf"))
    for number in range(1, 1001):
        for line in range(40):
            canvas.drawString(72, 760 - 17 * line, f"page {number}, line {line}: the night ferry")
        canvas.showPage()
    canvas.save()
    check(quick_service, tmp_path, [tmp_path / "long.pdf"], capsys)


def check(
    service: Service, scratch: Path, paths: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    idle = min(measure_peaks(service, scratch / "idle", EXAMPLES / "notes.txt").values())
    started = time.monotonic()
    ingestion, *readers = measure_peaks(service, scratch / "store", *paths).values()
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(
            f"\n{', '.join(path.name for path in paths)}: ingestion {ingestion / MIB:.0f} MiB, "
            f"readers {[round(one / MIB) for one in sorted(readers)]} MiB "
            f"(idle: {idle / MIB:.0f}), {seconds:.0f} s"
        )
    assert max(ingestion, *readers) < MOST
    assert max(readers) - idle < MOST_OF_A_READER


def measure_peaks(service: Service, store: Path, *paths: Path) -> dict[int, int]:
    """Ingest `paths`; return the peak of each process in bytes, that of the ingestion first."""
    worker = start(service, store, *paths)
    process, peaks = psutil.Process(worker.pid), defaultdict[int, int](int)
    while worker.poll() is None:
        try:
            for one in (process, *process.children(recursive=True)):
                peaks[one.pid] = max(peaks[one.pid], one.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.01)
    assert worker.returncode == 0
    return peaks
