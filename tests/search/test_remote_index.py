"""`Index` over a service that has a store: the same calls, answers and errors as over one here."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pagevec
from conftest import EXAMPLES, Service
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import (
    ConfigurationError,
    InvalidRequest,
)
from pagevec.local import LocalModel

QUERY = "a ferry learns to be quiet"
REPORT = "uploads/examples/annual-report.pdf"


def test_from_a_folder_to_an_answer(there: Service, tmp_path: Path) -> None:
    """Documents are sent, ingested, found, shown, listed and removed, as in a store here."""
    seen: list[tuple[int, int]] = []
    with pagevec.Index(there.url, there.key) as index:
        report = index.add(
            [EXAMPLES / "annual-report.pdf", str(EXAMPLES / "notes.txt")],
            on_progress=lambda done, total: seen.append((done, total)),
        )
        assert (report.pages_stored, report.failed, report.skipped) == (7, (), ())
        assert seen[-1] == (7, 7)
        again = index.add(EXAMPLES, on_outcome=lambda outcome: seen.append((0, 0)))
        assert (again.pages_stored, len(again.skipped), seen[-3:]) == (1, 2, [(0, 0)] * 3)
        assert any("of other types" in line for line in again.passed_over)

        hits = index.search(QUERY, k=5)
        assert (hits[0].document, hits[0].page, hits[0].error) == (REPORT, 2, None)
        assert hits[0].score > hits[4].score
        assert hits[0].path == Path(REPORT)
        assert hits[0].thumbnail is not None and hits[0].thumbnail.startswith(b"\xff\xd8")
        assert hits[0].text is not None and "Kittiwake" in hits[0].text
        assert [one.word for one in hits[0].maps().words] == QUERY.split()
        hits[0].maps().save(hits[0].picture(), tmp_path / "maps" / "first.jpg")
        assert len(list((tmp_path / "maps" / "first").iterdir())) == len(QUERY.split())
        assert hits[0].picture().width > 1000

        [text] = index.search(QUERY, metadata={"type": "text"})
        assert (text.document, text.thumbnail) == ("uploads/examples/notes.txt", None)
        for call in (text.maps, text.picture):
            with pytest.raises(InvalidRequest, match=r"notes\.txt, page 1"):
                call()
        [same] = index.search(QUERY, documents=["uploads/examples/notes.txt"])
        assert same.document == text.document

        assert index.remove("uploads/examples/notes.txt") == 1
        names = [one.name for one in index.documents()]
        assert names == [REPORT, "uploads/examples/receipt.png"]
        report_there = index.documents()[0]
        assert (report_there.stored, report_there.pages, report_there.complete) == (6, 6, True)
        assert {one.path for one in index.documents()} == {None}


def test_it_answers_as_a_local_index(
    filled: Service, embedder: LocalEmbedder, tmp_path: Path
) -> None:
    """Pages, scores, metadata, texts and what the maps draw are those of a store here."""
    local = pagevec.Index(str(tmp_path / "here"), LocalModel(embedder))
    with local, pagevec.Index(filled.url, filled.key) as remote:
        local.add(EXAMPLES)
        for one, other in zip(local.search(QUERY), remote.search(QUERY), strict=True):
            assert (f"uploads/{one.document}", one.page) == (other.document, other.page)
            assert one.score == pytest.approx(other.score, abs=1e-3)
            assert (one.metadata, one.text) == (other.metadata, other.text)
        mixes: list[dict[str, Any]] = [
            {},
            {"text": False},
            {"alpha": 0.1},
            {"alpha": 1, "fusion": "rrf"},
            {"fusion": "rrf"},
        ]
        for mix in mixes:
            for one, other in zip(
                local.search("Kittiwake", **mix), remote.search("Kittiwake", **mix), strict=True
            ):
                assert (f"uploads/{one.document}", one.page) == (other.document, other.page)
                assert one.relevance == pytest.approx(other.relevance, abs=1e-3)
                assert (one.found_by, one.found_words) == (other.found_by, other.found_words)
        best = remote.search("Kittiwake", k=1)[0]
        assert (best.found_by[-1], best.found_words) == ("text", ("Kittiwake",))
        first, same = local.search(QUERY, k=1)[0], remote.search(QUERY, k=1)[0]
        picture = first.picture()
        pairs = zip(first.maps().words, same.maps().words, strict=True)
        for one_map, other_map in [(first.maps().overall, same.maps().overall), *pairs]:
            drawn = [np.asarray(each.draw(picture)).astype(int) for each in (one_map, other_map)]
            assert abs(drawn[0] - drawn[1]).max() <= 4
        assert np.asarray(same.picture()).shape == np.asarray(picture).shape


def test_asynchronously(there: Service) -> None:
    """`AsyncIndex` has the same calls, awaited."""

    async def use() -> None:
        async with pagevec.AsyncIndex(there.url, there.key) as index:
            assert (await index.add(EXAMPLES)).pages_stored == 8
            hits, documents = await asyncio.gather(index.search(QUERY, k=1), index.documents())
            assert (hits[0].document, hits[0].page, len(documents)) == (REPORT, 2, 3)
            await index.remove(REPORT)

    asyncio.run(use())


def test_a_client_stays_open(filled: Service) -> None:
    """An index over a client asks with that one, and leaves it to its owner."""
    with pagevec.Client(filled.url, filled.key) as client:
        with pagevec.Index(client) as index:
            assert len(index.documents()) == 3
        assert client.info().documents == "write"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.search("owls", documents=["x"]), "no document 'x'"),
        (lambda index: index.search("owls", metadata={"colour": 1}), "no page has metadata"),
        (lambda index: index.search("owls", alpha=2), "alpha"),
        (lambda index: index.search("owls", alpha=True), "alpha"),
        (lambda index: index.search("owls", fusion="sum"), "fusion"),
        (lambda index: index.search("owls", text="no"), "text"),
        (lambda index: index.remove("x"), "no document 'x'"),
        (lambda index: index.prune(EXAMPLES), "keeps the files itself"),
        (lambda index: index.add("/nowhere.pdf"), "no such file"),
        (lambda index: index.add(EXAMPLES, label="a/b"), "cannot be a label"),
    ],
)
def test_wrong_calls(filled: Service, call: Callable[[pagevec.Index], Any], message: str) -> None:
    """They are errors of the kind that a local index raises, in the caller's words."""
    with pagevec.Index(filled.url, filled.key) as index, pytest.raises(InvalidRequest) as caught:
        call(index)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["http://127.0.0.1:9", object()], {}, "give its key in place of a model"),
        (["http://127.0.0.1:9", "key"], {"passwords": ["x"]}, "sent no passwords"),
        (["http://127.0.0.1:9", "key"], {"create": False}, "create: only for a store"),
        (["./store", "some-key"], {}, "needs a model"),
        (["./store"], {}, "needs a model"),
        (["http://127.0.0.1:9", "two keys"], {}, "the key cannot be sent"),
    ],
)
def test_arguments_that_do_not_belong_together(
    arguments: list[Any], options: dict[str, Any], message: str
) -> None:
    """A model with an address, or a key with a folder, is refused without showing the key."""
    for kind in (pagevec.Index, pagevec.AsyncIndex):
        with pytest.raises(ConfigurationError, match=message) as caught:
            kind(*arguments, **options)
        assert "some-key" not in str(caught.value)
