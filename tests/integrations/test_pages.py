"""What all frameworks are given: pages as they are found, read and ranked."""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import pagevec
from conftest import EXAMPLES, Service, serving_documents
from integrations.examples import NOTES, QUESTIONS, REPORT, jpeg_size
from pagevec.client.faults import Unreachable
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import ConfigurationError, InvalidRequest, PagevecError
from pagevec.integrations.pages import PageSearch, PageToRank, rank_pages, require_model
from pagevec.local import LocalModel
from pagevec.search.results import Hit


@pytest.mark.parametrize("question", QUESTIONS)
def test_pages_are_found(index: pagevec.Index, there: Service, question: str) -> None:
    """Each comes with its text and its picture, from a store here and from a service alike."""
    [here] = PageSearch(index, 1, width=500).run(question)
    assert here.metadata["document"] == REPORT
    assert here.metadata["page"] == QUESTIONS[question]
    assert here.name == f"{REPORT}#page={QUESTIONS[question]}"
    assert question.casefold() in here.text.casefold()
    assert jpeg_size(here.image)[0] == 500
    assert "image_error" not in here.metadata
    with pagevec.Index(there.url, there.key) as remote:
        [same] = PageSearch(remote, 1, width=500).run(question)
    assert (same.name, same.text, same.metadata) == (here.name, here.text, here.metadata)
    assert jpeg_size(same.image) == jpeg_size(here.image)
    assert same.score == pytest.approx(here.score, abs=1e-3)


def test_asynchronously(index: pagevec.Index, store: str, model: LocalModel) -> None:
    """Both kinds of index are searched while the event loop goes on; one of them only so."""

    async def use() -> None:
        async with pagevec.AsyncIndex(store, model) as other:
            for each in (index, other):
                [page] = await PageSearch(each, 1).run_async("parcels and punctuality")
                assert page.metadata["page"] == 4 and page.image is not None
            with pytest.raises(ConfigurationError, match="await them, or give a pagevec"):
                PageSearch(other, 1).run("parcels")

    asyncio.run(use())


def test_filters_and_no_pictures(index: pagevec.Index) -> None:
    """Documents and metadata narrow a search; pictures are drawn only if they are wanted."""
    [notes] = PageSearch(index, 5, documents=[NOTES]).run("ticket machine")
    assert notes.metadata["document"] == NOTES and "Hedda" in notes.text
    images = PageSearch(index, 9, with_images=False, where={"type": "image"}).run("ticket machine")
    assert len(images) == 7
    assert [page for page in images if page.image or "image_error" in page.metadata] == []


def test_page_without_picture(index: pagevec.Index) -> None:
    """A text comes with its text, and says that there is no picture of it."""
    [notes] = PageSearch(index, 1, documents=[NOTES]).run("ticket machine")
    assert notes.image is None and notes.image_base64 is None
    assert notes.metadata["image_error"] == f"{NOTES}, page 1: there is no picture of it"


class Removing(pagevec.Index):
    """An index from which documents vanish as soon as they are found."""

    def search(self, *arguments: Any, **options: Any) -> list[Hit]:
        hits = super().search(*arguments, **options)
        for name in {hit.document for hit in hits}:
            self.remove(name)
        return hits


def test_page_that_is_gone(embedder: LocalEmbedder, tmp_path: Path) -> None:
    """A page that a service has removed since it was found is left out."""
    store, uploads = str(tmp_path / "store"), tmp_path / "uploads"
    with serving_documents(embedder, store, uploads) as (there, _):
        removing = Removing(there.url, there.key)
        removing.add(EXAMPLES / "notes.txt")
        assert PageSearch(removing, 1).run("ticket machine") == []
        removing.close()


def test_pictures_that_cannot_be_drawn(model: LocalModel, tmp_path: Path) -> None:
    """Their pages come with text, and with the small picture or none, and say why."""
    report = tmp_path / "desk" / "annual-report.pdf"
    report.parent.mkdir()
    report.write_bytes((EXAMPLES / report.name).read_bytes())
    with Removing(tmp_path / "store", model) as removing:
        removing.add(report)
        report.unlink()
        with pagevec.Index(tmp_path / "store", model) as index:
            [page] = PageSearch(index, 1).run("parcels and punctuality")
        assert max(jpeg_size(page.image)) == 320
        assert page.metadata["image_error"] == "the file of the document is gone"

        [page] = PageSearch(removing, 1).run("parcels and punctuality")
        assert "Parcels and punctuality" in page.text
        assert page.image is None
        assert page.metadata["image_error"] == "there is no page 4 of 'desk/annual-report.pdf'"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": ""}, "query: it is blank"),
        ({"query": " \n"}, "query: it is blank"),
        ({"query": None}, "query: expected a text, not a value of type NoneType"),
        ({"k": 0}, "k=0: expected a number of pages, at least 1"),
        ({"width": 5000}, "width=5000: expected a number of pixels from 16 to 2000"),
        ({"documents": ["x"]}, "no document 'x'"),
        ({"documents": "x"}, "documents='x': expected a list of names"),
        ({"index": "http://127.0.0.1:8765"}, "index: expected a pagevec.Index"),
    ],
)
def test_wrong_searches(index: pagevec.Index, options: dict[str, Any], message: str) -> None:
    """What cannot be searched for is an error that names it."""
    chosen = {"index": index, "k": 1, "query": "owls", **options}
    query = chosen.pop("query")
    with pytest.raises(PagevecError, match=message):
        PageSearch(**chosen).run(query)


def test_service_that_is_away(away: pagevec.Index) -> None:
    """It is an error that names its address."""
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9"):
        PageSearch(away, 1).run("owls")


def test_ranks(index: pagevec.Index, model: LocalModel) -> None:
    """Pictures rank pages as their stored vectors do, and texts stand beside them."""
    found = PageSearch(index, 3, documents=[REPORT]).run("parcels and punctuality")
    found += PageSearch(index, 1, documents=[NOTES]).run("parcels and punctuality")
    pages = [PageToRank(page.text, page.image) for page in reversed(found)]
    ranks = rank_pages(model, "parcels and punctuality", pages)
    assert [rank.place for rank in ranks] == [3, 2, 1, 0]
    for rank, page in zip(ranks, found, strict=True):
        assert rank.fault is None and rank.score == pytest.approx(page.score, rel=0.02)


def test_ranks_of_faulty_pages(model: LocalModel, tmp_path: Path) -> None:
    """A page that cannot be read costs that page: it is ranked by its text, or comes last."""
    receipt = EXAMPLES / "receipt.png"
    pages = [
        PageToRank("", b"no image"),
        PageToRank("parcels and punctuality", b"no image"),
        PageToRank("", tmp_path / "nowhere.png"),
        PageToRank(" "),
        PageToRank.from_base64("", "%%%"),
        PageToRank("", receipt),
        PageToRank("", receipt.read_bytes()),
    ]
    first, *others = rank_pages(model, "parcels and punctuality", pages)
    assert first.place == 1 and first.score is not None and first.fault is not None
    assert [rank.place for rank in others] == [5, 6, 0, 2, 3, 4]
    assert others[0].score == pytest.approx(others[1].score) and others[0].fault is None
    faults = [rank.fault or "" for rank in others[2:]]
    assert [rank.score for rank in others[2:]] == [None] * 4
    for fault, part in zip(faults, ["image", "nowhere.png", "neither", "base64"], strict=True):
        assert part in fault
    assert rank_pages(model, "parcels", []) == []
    with pytest.raises(InvalidRequest, match="query: it is blank"):
        rank_pages(model, "", pages)


def test_ranks_without_a_model() -> None:
    """A model that is away is an error, not a list of faulty pages; none at all is refused."""
    client = pagevec.Client("http://127.0.0.1:9", "key", patience=0)
    with client, pytest.raises(Unreachable):
        rank_pages(client, "owls", [PageToRank("owls")])
    for wrong in ("bundled", None, pagevec.AsyncClient("http://127.0.0.1:9")):
        with pytest.raises(ConfigurationError, match=r"expected pagevec\.load\(\.\.\.\)"):
            require_model(wrong)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llamaindex", "llama_index", "llamaindex"),
        ("haystack", "haystack", "haystack"),
    ],
)
def test_missing_package(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    """Without its framework, an integration says which extra brings it."""
    for known in [*sys.modules, package]:
        if known.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, known, None)
    monkeypatch.delitem(sys.modules, f"pagevec.integrations.{name}", raising=False)
    with pytest.raises(ImportError) as caught:
        importlib.import_module(f"pagevec.integrations.{name}")
    assert f"pip install 'pagevec[{extra}]'" in str(caught.value)
    assert os.linesep not in str(caught.value)
