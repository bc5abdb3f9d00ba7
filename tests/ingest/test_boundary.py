"""Whatever happens while a page is made costs exactly that page."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from planted import OPENING, Plan, plant
from workers import small_pdf, start

from conftest import EXAMPLES, KEY, Service
from pagevec.client import Client
from pagevec.errors import DocumentError
from pagevec.ingest.boundary import open_document, stop_readers
from pagevec.ingest.names import name_documents
from pagevec.ingest.page import ReadLimits, ReadOptions
from pagevec.ingest.sources import find_documents
from pagevec.ingest.worker import Outcome, Worker
from pagevec.search.index import Index
from pagevec.stores import open_store

LIMITS = ReadLimits(page_seconds=1.5, open_seconds=30, page_bytes=256 << 20)
NEEDS_OFFICE = pytest.mark.skipif(
    shutil.which("soffice") is None, reason="LibreOffice (soffice) is not installed here"
)

# What each planted fault is called in the outcome.
REASONS = {
    "exception": "ZeroDivisionError: planted",
    "odd exception": "did not answer",
    "exit": "did not answer",
    "recursion": "RecursionError",
    "segmentation fault": "SIGSEGV",
    "abort": "SIGABRT",
    "silent end": "did not answer",
    "hang": "took more than 1.5 s",
    "busy hang": "took more than 1.5 s",
    "hang in C": "took more than 1.5 s",
    "hang with a child": "took more than 1.5 s",
    "4 GB at once": "more memory",
    "4 GB in pieces": "more memory",
    "4 GB in C": "SIGSEGV",
    "garbage": "no sense|did not answer|SIGKILL",
    "a list": "no sense",
    "something else": "no sense",
    "gigabytes promised": "did not answer|SIGKILL",
    "half an answer": "took more than 1.5 s",
}


def write_pdf(folder: Path) -> Path:
    return small_pdf(folder / "long.pdf", 5)


def write_tiff(folder: Path) -> Path:
    frames = [Image.new("L", (60, 80), shade) for shade in (10, 70, 130, 190, 250)]
    frames[0].save(folder / "scan.tif", save_all=True, append_images=frames[1:])
    return folder / "scan.tif"


def write_text(folder: Path) -> Path:
    lines = (f"line {number} of a text that has five pieces\n" for number in range(200))
    (folder / "notes.txt").write_text("".join(lines))
    return folder / "notes.txt"


def write_picture(folder: Path) -> Path:
    Image.new("RGB", (60, 80), (200, 100, 50)).save(folder / "photo.png")
    return folder / "photo.png"


def write_office(folder: Path) -> Path:
    (folder / "letter.rtf").write_text(r"{\rtf1 one\page two\page three\page four\page five}")
    return folder / "letter.rtf"


DOCUMENTS = {write_pdf: 5, write_tiff: 5, write_text: 5, write_picture: 1}


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    yield plant(tmp_path / "planted", monkeypatch)
    stop_readers()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def ingest(service: Service, store: str | Path, *paths: Path) -> dict[str, Outcome]:
    """Ingest `paths` with short limits; return the outcomes by file name."""
    with open_store(str(store)) as opened, Client(service.url, service.key) as client:
        worker = Worker(opened, client, options=ReadOptions(limits=LIMITS))
        outcomes = worker.ingest(name_documents(find_documents(paths), opened))
    return {Path(outcome.document).name: outcome for outcome in outcomes}


def pages_in(store: str | Path, file: Path) -> frozenset[int]:
    with open_store(str(store)) as opened:
        return opened.has(f"{file.parent.name}/{file.name}")


QUICK = {"exception", "segmentation fault", "hang with a child", "4 GB at once", "something else"}


@pytest.mark.parametrize(
    "fault",
    [pytest.param(one, marks=[] if one in QUICK else [pytest.mark.long]) for one in REASONS],
)
def test_a_page_costs_itself(
    fault: str, service: Service, plan: Plan, folder: Path, tmp_path: Path
) -> None:
    """Planted at a page of each opener, any fault costs that page; a next run asks for it alone."""
    chance = random.Random(fault)  # noqa: S311 - repeatable, not secret
    files = {write(folder): pages for write, pages in DOCUMENTS.items()}
    faulty = {file: chance.randint(1, pages) for file, pages in files.items()}
    plan.set({(file.name, number): fault for file, number in faulty.items()})
    outcomes = ingest(service, tmp_path / "store", folder)
    for file, pages in files.items():
        outcome, number = outcomes[file.name], faulty[file]
        assert outcome.stored == pages - 1
        assert [one.number for one in outcome.faults] == [number]
        assert outcome.error is not None
        assert outcome.error.startswith(f"{pages - 1} of {pages} pages are stored; page {number} ")
        assert str(file) in outcome.error
        assert any(reason in outcome.error for reason in REASONS[fault].split("|"))
        assert pages_in(tmp_path / "store", file) == {*range(1, pages + 1)} - {number}
    plan.set({})
    again = ingest(service, tmp_path / "store", folder)
    assert all((one.stored, one.error) == (1, None) for one in again.values())
    assert sorted(plan.pages_asked_for()) == sorted((one.name, faulty[one]) for one in files)


PAGES = [("long.pdf", 5), ("scan.tif", 5), ("notes.txt", 5), ("photo.png", 1)]
PLANS = st.dictionaries(
    st.sampled_from([(name, number) for name, pages in PAGES for number in range(1, pages + 1)]),
    st.sampled_from(sorted(REASONS)),
    max_size=8,
)


@pytest.mark.long
@pytest.mark.timeout(900)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(faults=PLANS)
def test_any_pages_cost_themselves(
    faults: dict[tuple[str, int], str], service: Service, plan: Plan, tmp_path: Path
) -> None:
    """Any faults at any pages at once: exactly the other pages are stored, and then the rest."""
    with TemporaryDirectory(dir=tmp_path) as scratch:
        folder, store = Path(scratch) / "in", Path(scratch) / "store"
        folder.mkdir()
        files = {file.name: file for file in (write(folder) for write in DOCUMENTS)}
        for current in (faults, {}):
            plan.set(current)
            outcomes = ingest(service, store, folder)
            for name, pages in PAGES:
                bad = {number for number in range(1, pages + 1) if (name, number) in current}
                assert {fault.number for fault in outcomes[name].faults} == bad
                assert pages_in(store, files[name]) == {*range(1, pages + 1)} - bad
        assert sorted(plan.pages_asked_for()) == sorted(faults)


@NEEDS_OFFICE
@pytest.mark.long
@pytest.mark.parametrize("fault", ["exception", "segmentation fault", "hang"])
def test_a_page_of_an_office_file(
    fault: str, service: Service, plan: Plan, folder: Path, tmp_path: Path
) -> None:
    """A page of an Office file costs itself, too; the document is converted again for the rest."""
    file = write_office(folder)
    plan.set({(file.name, 2): fault})
    outcome = ingest(service, tmp_path / "store", folder)[file.name]
    assert (outcome.stored, [one.number for one in outcome.faults]) == (4, [2])
    plan.set({})
    assert ingest(service, tmp_path / "store", folder)[file.name].stored == 1
    assert plan.pages_asked_for() == [(file.name, 2)]


@pytest.mark.parametrize("fault", ["abort", "something else"])
def test_a_document_costs_itself(
    fault: str, service: Service, plan: Plan, folder: Path, store_name: str
) -> None:
    """A document whose opening fails is one failed outcome, which names it; the others go on."""
    bad, good = write_pdf(folder), write_tiff(folder)
    plan.set({(bad.name, OPENING): fault})
    outcomes = ingest(service, store_name, folder)
    assert str(bad) in (outcomes[bad.name].error or "")
    assert outcomes[good.name].stored == 5
    plan.set({})
    assert ingest(service, store_name, folder)[bad.name].stored == 5


def test_every_page_fails(service: Service, plan: Plan, folder: Path, tmp_path: Path) -> None:
    """A document without one good page says so; what a store had of others stays."""
    bad, good = write_pdf(folder), write_text(folder)
    plan.set({(bad.name, number): "segmentation fault" for number in range(1, 6)})
    outcomes = ingest(service, tmp_path / "store", folder)
    assert (outcomes[bad.name].error or "").startswith("0 of 5 pages are stored; page 1 of")
    assert "and 2 more" in (outcomes[bad.name].error or "")
    assert outcomes[good.name].error is None


def test_many_at_once(plan: Plan, folder: Path) -> None:
    """Documents read in many threads at once get their own pages, also where neighbours crash."""
    files = [small_pdf(folder / f"{number}.pdf", 3) for number in range(12)]
    plan.set({(file.name, 2): "abort" for file in files[::3]})

    def read(file: Path) -> list[str]:
        with open_document(file, ReadOptions(limits=LIMITS)) as pages:
            return [try_to_make(lambda n=n: pages.make(n).text or "") for n in (1, 2, 3)]

    with ThreadPoolExecutor(12) as pool:
        for number, texts in enumerate(pool.map(read, files)):
            assert [texts[0], texts[2]] == ["page 1", "page 3"]
            assert ("SIGABRT" in texts[1]) == (number % 3 == 0)


def try_to_make(make: Callable[[], str]) -> str:
    try:
        return make()
    except DocumentError as error:
        return error.message


def children() -> list[psutil.Process]:
    """Return the readers of this process."""
    found = psutil.Process().children()
    return [one for one in found if "pagevec.ingest.reader" in " ".join(one.cmdline())]


def test_an_idle_reader_that_died() -> None:
    """An idle reader is used again; one that was killed meanwhile is not."""
    stop_readers()
    for _ in range(2):
        with open_document(EXAMPLES / "notes.txt") as pages:
            assert pages.count == 1
    [reader] = children()
    reader.kill()
    reader.wait()
    with open_document(EXAMPLES / "notes.txt") as pages:
        assert pages.make(1).text


def test_a_reader_lets_go(folder: Path) -> None:
    """An idle reader holds no file open, so that a disk can be unmounted."""
    file = write_pdf(folder)
    with open_document(file) as pages:
        pages.make(1)
    assert all(str(file) != one.path for reader in children() for one in reader.open_files())


def _read_in_child(queue: "multiprocessing.Queue[list[int]]") -> None:
    with open_document(EXAMPLES / "notes.txt") as pages:
        pages.make(1)
    queue.put([reader.pid for reader in children()])


def test_a_fork_has_its_own_readers() -> None:
    """A forked process starts readers of its own, and leaves its parent's alone."""
    with open_document(EXAMPLES / "notes.txt") as pages:
        pages.make(1)
    before = {reader.pid for reader in children()}
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    forked = context.Process(target=_read_in_child, args=(queue,))
    forked.start()
    [theirs] = queue.get(timeout=30)
    forked.join(10)
    assert before and theirs not in before
    assert {reader.pid for reader in children()} == before
    with open_document(EXAMPLES / "notes.txt") as pages:
        assert pages.make(1).text
    assert {reader.pid for reader in children()} == before


def test_a_reader_knows_no_secrets(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and addresses in this process's environment do not reach the reader."""
    secrets = ("SERVICE_API_KEY", "PAGEVEC_KEYS", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "HF_TOKEN")
    for name in secrets:
        monkeypatch.setenv(name, "secret-word")
    with open_document(EXAMPLES / "notes.txt") as pages:
        pages.make(1)
    seen = plan.environment()
    assert "secret-word" not in json.dumps(seen)
    assert seen["HOME"] != os.environ.get("HOME")


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("fault", ["hang with a child", "hang in C"])
def test_a_killed_parent_leaves_no_reader(
    fault: str, service: Service, plan: Plan, folder: Path, tmp_path: Path
) -> None:
    """Killed while a reader hangs, an ingestion leaves neither the reader nor its children."""
    file = write_pdf(folder)
    plan.set({(file.name, 2): fault})
    parent = start(service, tmp_path / "store", folder)
    wait_until(lambda: (file.name, 2) in plan.pages_asked_for())
    wait_until(lambda: plan.processes() or fault == "hang in C")
    family = [one.pid for one in psutil.Process(parent.pid).children(recursive=True)]
    assert len(family) >= (2 if fault == "hang with a child" else 1)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(is_running, family)), 5)


def test_ctrl_c_ends_at_once(service: Service, plan: Plan, folder: Path, tmp_path: Path) -> None:
    """Ctrl-C ends an ingestion within seconds, hanging readers with it; a next run finishes it."""
    file = write_pdf(folder)
    plan.set({(file.name, 2): "hang with a child"})
    parent = start(service, tmp_path / "store", folder)
    wait_until(plan.processes)
    time.sleep(0.2)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(5) != 0
    wait_until(lambda: not any(map(is_running, plan.processes())), 5)
    plan.set({})
    stop_readers()
    assert ingest(service, tmp_path / "store", folder)[file.name].error is None
    assert pages_in(tmp_path / "store", file) == {1, 2, 3, 4, 5}


def test_an_interrupted_caller_gets_the_right_pages(
    plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ctrl-C in the middle of a page nobody gets the answer that was still to come."""
    file = write_pdf(folder)
    plan.set({(file.name, 2): "hang"})
    with pytest.raises(KeyboardInterrupt), open_document(file) as pages:
        alarm = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            pages.make(2)
        finally:
            signal.signal(signal.SIGALRM, alarm)
    plan.set({})
    with open_document(file) as pages:
        assert [pages.make(number).text for number in (3, 1)] == ["page 3", "page 1"]


def test_search_marks_what_is_missing(
    service: Service, plan: Plan, folder: Path, store_name: str
) -> None:
    """A hit in a document of which pages are missing says so, until they are stored."""
    file = write_pdf(folder)
    plan.set({(file.name, 4): "exception"})
    ingest(service, store_name, folder)
    with Client(service.url, service.key) as client, Index(store_name, client) as index:
        assert "page 4 of" in (index.search("page 1", k=1)[0].error or "")
        [document] = index.documents()
        assert (document.stored, document.pages, document.complete) == (4, 5, False)
        plan.set({})
        index.add(folder)
        assert index.search("page 1", k=1)[0].error is None
        [document] = index.documents()
        assert (document.stored, document.complete, document.error) == (5, True, None)


def names_in(file: Path) -> list[str]:
    with np.load(file) as arrays:
        names = list(map(str, arrays["names"]))
        assert sorted(arrays.files) == sorted(["names", *(f"emb_{n}" for n in range(len(names)))])
    return names


def test_embed_keeps_the_other_pages(
    service: Service, plan: Plan, folder: Path, tmp_path: Path
) -> None:
    """`embed` and `ingest` name pages alike, and a page that fails costs both that page."""
    bad, good = write_pdf(folder), write_picture(folder)
    (folder / "zzz.pdf").write_bytes(b"%PDF-1.4 broken, and the last of all")
    plan.set({(bad.name, 3): "segmentation fault"})
    out = tmp_path / "all.npz"
    command = [sys.executable, "-c", "from pagevec.cli import main; main()", "embed", str(folder)]
    options = ["--out", str(out), "--url", service.url]
    for strict, code in ([], 0), (["--strict"], 1):
        done = subprocess.run(
            [*command, *options, *strict],
            env={**os.environ, "SERVICE_API_KEY": KEY},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        assert f"page 3 of {bad}: the reader crashed (SIGSEGV)" in done.stderr
        assert f"{folder / 'zzz.pdf'}: not a PDF" in done.stderr
        assert "Traceback" not in done.stderr
    expected = [f"in/long.pdf#{number}" for number in (1, 2, 4, 5)] + [f"in/{good.name}#1"]
    assert names_in(out) == expected
    with open_store(str(tmp_path / "store")) as store:
        named = [one.name for one in name_documents(find_documents([folder]), store)]
    assert named == ["in/long.pdf", f"in/{good.name}", "in/zzz.pdf"]
    outcomes = ingest(service, tmp_path / "store", folder)
    assert [outcomes[name].stored for name in (bad.name, good.name, "zzz.pdf")] == [4, 1, 0]


def test_an_interrupted_embed_keeps_what_came(
    service: Service, plan: Plan, folder: Path, tmp_path: Path
) -> None:
    """Interrupted, `embed` ends at once, and FILE.part holds the pages that came, by name."""
    good, bad, out = write_picture(folder), write_text(folder), tmp_path / "all.npz"
    good = good.rename(folder / "first.png")
    plan.set({(bad.name, 2): "hang"})
    options = ["--out", str(out), "--url", service.url]
    embedding = subprocess.Popen(
        [sys.executable, "-c", "from pagevec.cli import main; main()", "embed", folder, *options],
        env={**os.environ, "SERVICE_API_KEY": KEY},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (bad.name, 2) in plan.pages_asked_for())
    time.sleep(0.2)
    embedding.send_signal(signal.SIGINT)
    said = embedding.communicate(timeout=5)[1]
    assert embedding.returncode != 0 and "Traceback" not in said
    assert not out.exists()
    assert names_in(tmp_path / "all.npz.part") == ["in/first.png#1"]
