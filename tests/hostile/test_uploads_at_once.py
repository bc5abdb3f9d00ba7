"""Uploads, removals and searches at the same time, from many callers."""

import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hostile.target import INNOCENT_KEY
from hostile.uploading import Shelf, shelf_under_attack
from pdf_files import pages_pdf
from stores_of_uploads import kept, left_over

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with shelf_under_attack(tmp_path_factory.mktemp("at-once")) as shelf:
        yield shelf


@pytest.fixture
def shelf(served: Shelf) -> Iterator[Shelf]:
    """The service, which is checked and emptied after each attack."""
    yield served
    served.check()
    served.clear()
    served.check()


def test_two_hundred_uploads_at_once(shelf: Shelf) -> None:
    """One key sends 200 at once, another searches: 503 for the first only, both are served."""
    with shelf.documents() as documents:
        documents.upload(("known.txt", b"what is known"))
    start, over = threading.Barrier(21), threading.Event()
    seconds, answers = list[float](), list[int]()

    def send(share: int) -> list[tuple[int, str]]:
        seen = []
        with shelf.documents() as documents:
            start.wait()
            for number in range(10):
                file = (f"{share}-{number}.txt", b"%d %d" % (share, number))
                answer = documents.http.post("/documents", files=[("files", file)])
                seen.append((answer.status_code, file[0]))
        return seen

    def search() -> None:
        with shelf.documents(INNOCENT_KEY) as documents:
            start.wait()
            while not over.is_set():
                asked = time.monotonic()
                answer = documents.http.post("/search", json={"query": "what is known"})
                seconds.append(time.monotonic() - asked)
                answers.append(answer.status_code)

    searching = threading.Thread(target=search)
    searching.start()
    with ThreadPoolExecutor(20) as threads:
        seen = [one for share in threads.map(send, range(20)) for one in share]
    over.set()
    searching.join()
    statuses = Counter(status for status, _ in seen)
    print(f"uploads {dict(statuses)}, {len(answers)} searches, the longest {max(seconds):.2f} s")
    assert set(statuses) <= {200, 202, 503} and statuses[202] + statuses[200] >= 8
    assert answers and set(answers) == {200}
    assert max(seconds) < 10
    shelf.settle()
    with shelf.documents() as documents:
        states = {one["name"]: one["state"] for one in documents.list(limit=1000)["documents"]}
    accepted = {f"uploads/{name}" for status, name in seen if status != 503}
    assert states == dict.fromkeys({*accepted, "uploads/known.txt"}, "complete")


def test_removed_while_it_is_ingested(shelf: Shelf) -> None:
    """At whatever moment a document is removed, nothing of it is left or comes back."""
    dice = random.Random(1)  # noqa: S311
    with shelf.documents() as documents:
        for number in range(5):
            content = pages_pdf([f"page {number} {page}" for page in range(20)], bad={})
            [made] = documents.upload((f"{number}.pdf", content), wait=False)
            time.sleep(dice.random() * 1.5 if number else 0)
            documents.remove(made["id"])
            assert documents.http.get(f"/documents/{made['id']}").status_code == 404
            assert documents.http.delete(f"/documents/{made['id']}").status_code == 404
        time.sleep(0.5)
        assert documents.list()["total"] == 0
        assert documents.search("page")["hits"] == []
        status = documents.http.get("/status").json()
        assert (status["documents"], status["pages"], status["ingesting"]) == (0, 0, 0)
    assert kept(shelf.uploads) == set()


def test_one_name_uploaded_and_removed_at_once(shelf: Shelf) -> None:
    """Many threads upload and remove one name: in the end it is one whole version, or nothing."""
    versions = [[f"version {number} page {page}" for page in range(3)] for number in range(6)]
    contents = [pages_pdf(pages, bad={}) for pages in versions]
    end = time.monotonic() + 8
    statuses = Counter[tuple[str, int]]()

    def change(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311
        with shelf.documents() as documents:
            identity = "dXBsb2Fkcy9vbmUucGRm"
            while time.monotonic() < end:
                if dice.random() < 0.4:
                    answer = documents.http.delete(f"/documents/{identity}")
                else:
                    file = ("one.pdf", dice.choice(contents))
                    answer = documents.http.post("/documents", files=[("files", file)])
                statuses[answer.request.method, answer.status_code] += 1
                time.sleep(dice.random() * 0.2)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(change, range(6)))
    print(dict(statuses))
    for method, status in statuses:
        assert status in ((200, 404) if method == "DELETE" else (200, 202)), statuses
    with shelf.documents() as documents:
        [last] = documents.upload(("one.pdf", contents[0]))
        assert (last["state"], last["stored"]) == ("complete", 3)
        for page in range(3):
            found = documents.http.get(f"/documents/{last['id']}/pages/{page + 1}").json()
            assert found["text"].strip() == versions[0][page]
        assert documents.list()["total"] == 1
    assert len(kept(shelf.uploads)) == 1


def test_disk_that_takes_no_more(shelf: Shelf) -> None:
    """A file that cannot be written is an error in words; what the store refuses is tried again."""
    # As a full disk: no file of the process can become larger.
    pid = shelf.target.process.popen.pid
    no_limit = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, no_limit[1]))
    with shelf.documents() as documents:
        answer = documents.http.post("/documents", files=[("f", ("a.txt", b"a" * 300_000))])
        assert (answer.status_code, answer.json()["code"]) == (503, "store_error")
        assert "File too large" in answer.json()["error"]
        assert kept(shelf.uploads) == set() and left_over(shelf.uploads) == []
        small = documents.upload(*((f"{n}.txt", b"%d" % n) for n in range(3)), wait=False)
        time.sleep(1)  # the store, too, is full
        resource.prlimit(pid, resource.RLIMIT_FSIZE, no_limit)
        assert {documents.wait(one["id"])["state"] for one in small} == {"complete"}
