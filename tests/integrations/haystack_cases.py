"""Pages in Haystack, in an environment that has it (test_frameworks.py)."""

import asyncio
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.core.errors import PipelineRuntimeError
from haystack.dataclasses import ByteStream
from haystack.utils import Secret

import pagevec
from conftest import EXAMPLES, KEY, Service
from integrations.examples import NOTES, QUESTIONS, REPORT, jpeg_size
from pagevec.client.faults import Unreachable
from pagevec.errors import ConfigurationError, InvalidRequest, NoStore
from pagevec.integrations.haystack import PagevecRanker, PagevecRetriever
from pagevec.local import LocalModel

TEMPLATE = """
{% message role="user" %}
{% for image in images %}
{{ image.meta.document }}, page {{ image.meta.page }}:
{{ image | templatize_part }}
{% endfor %}
{{ query }}
{% endmessage %}
"""


@pytest.mark.parametrize("question", QUESTIONS)
def test_retriever(index: pagevec.Index, there: Service, store: str, question: str) -> None:
    """The right page comes first, from an open index, a store by its name, and a service."""
    for retriever in (
        PagevecRetriever(index, top_k=2, width=600),
        PagevecRetriever(store, model="bundled", top_k=2, width=600),
        PagevecRetriever(there.url, api_key=Secret.from_token(KEY), top_k=2, width=600),
    ):
        found = retriever.run(query=question)
        first, second = found["documents"]
        assert (first.meta["document"], first.meta["page"]) == (REPORT, QUESTIONS[question])
        assert first.score > second.score
        assert question.casefold() in first.content.casefold()
        assert first.blob.mime_type == "image/jpeg" and jpeg_size(first.blob.data)[0] == 600
        assert [image.meta["page"] for image in found["images"]] == [
            document.meta["page"] for document in (first, second)
        ]
        again = asyncio.run(retriever.run_async(query=question, top_k=1))
        assert [one.id for one in again["documents"]] == [first.id]
        retriever.close()


def test_asynchronous_index(store: str, model: LocalModel) -> None:
    """An index that is awaited answers `run_async`, and says so to `run`."""

    async def use() -> None:
        async with pagevec.AsyncIndex(store, model) as index:
            retriever = PagevecRetriever(index, top_k=1)
            found = await retriever.run_async(query="parcels and punctuality")
            assert found["documents"][0].meta["page"] == 4
            with pytest.raises(ConfigurationError, match="await them"):
                retriever.run(query="parcels")

    asyncio.run(use())


def test_saved_pipeline(there: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline to a prompt is saved without the key, loaded, and finds the same pages."""
    monkeypatch.setenv("SERVICE_API_KEY", f"{KEY},another-key")
    pipeline = Pipeline()
    pipeline.add_component("retriever", PagevecRetriever(there.url, top_k=5))
    pipeline.add_component("ranker", PagevecRanker(there.url, top_k=2))
    pipeline.add_component("prompt", ChatPromptBuilder(template=TEMPLATE))
    pipeline.connect("retriever.documents", "ranker.documents")
    pipeline.connect("ranker.images", "prompt.images")
    saved = pipeline.dumps()
    assert KEY not in saved and "SERVICE_API_KEY" in saved
    loaded = Pipeline.loads(saved, allowed_modules=["pagevec.integrations.haystack"])
    assert loaded.to_dict()["components"] == pipeline.to_dict()["components"]
    for question, number in QUESTIONS.items():
        inputs: dict[str, Any] = {part: {"query": question} for part in loaded.graph.nodes}
        [message] = loaded.run(inputs)["prompt"]["prompt"]
        assert len(message.images) == 2
        assert message.images[0].meta["page"] == number
        assert f"{REPORT}, page {number}:" in message.texts[0]
        assert question in message.texts[-1]
    pipeline.close()
    loaded.close()


def test_what_is_not_saved(index: pagevec.Index, model: LocalModel) -> None:
    """Open parts, keys and passwords do not get into a saved pipeline; a `Secret` does."""
    for part in (PagevecRetriever(index), PagevecRanker(model)):
        with pytest.raises(ConfigurationError, match="saved with an open one; name it"):
            part.to_dict()
    with_password = "postgresql://me:b8d1-secret@127.0.0.1:9/pages"
    with pytest.raises(ConfigurationError, match="it has a password") as caught:
        PagevecRetriever(with_password, model=model).to_dict()
    assert "b8d1" not in str(caught.value)
    with pytest.raises(ValueError, match="token-based secret"):
        PagevecRanker("bundled", api_key=Secret.from_token(KEY)).to_dict()
    named = PagevecRetriever(Secret.from_env_var("PAGES"), model="bundled", where={"a": 1})
    saved = named.to_dict()
    assert PagevecRetriever.from_dict(saved).to_dict() == saved
    assert saved["init_parameters"]["store"]["env_vars"] == ["PAGES"]


def test_page_without_picture(index: pagevec.Index) -> None:
    """A text has no blob; its metadata says that there is no picture. Filters can be inputs."""
    found = PagevecRetriever(index).run(query="ticket machine", documents=[NOTES])
    [notes] = found["documents"]
    assert (notes.blob, found["images"]) == (None, [])
    assert notes.content.startswith("Notes from")
    assert "there is no picture of it" in notes.meta["image_error"]
    assert len(PagevecRetriever(index).run("owls", where={"type": "image"})["images"]) == 7


def test_ranker(index: pagevec.Index, model: LocalModel) -> None:
    """Pages and texts are ranked by MaxSim, a damaged picture costs its document; inputs stay."""
    everything = PagevecRetriever(index).run("the year", documents=[REPORT])["documents"]
    found = [one for one in everything if one.meta["page"] in QUESTIONS.values()]
    broken = Document(blob=ByteStream(b"no image", mime_type="image/png"))
    note = Document(content="a text", blob=ByteStream(b"%PDF", mime_type="application/pdf"))
    before = [one.to_dict() for one in found]
    for question, number in QUESTIONS.items():
        ranked = PagevecRanker(model).run(question, [broken, note, *found], top_k=2)
        best = ranked["documents"][0]
        assert (best.meta["page"], best.meta["document"]) == (number, REPORT)
        assert ranked["images"][0].meta["page"] == number
    assert [one.to_dict() for one in found] == before
    receipt = ByteStream((EXAMPLES / "receipt.png").read_bytes(), mime_type="image/png")
    given = [broken, note, Document(blob=receipt)]
    ranked = asyncio.run(PagevecRanker("bundled").run_async("receipt", given))
    *_, last = ranked["documents"]
    assert last.score is None and "image" in last.meta["score_error"]


def test_wrong_calls(index: pagevec.Index, model: LocalModel, tmp_path: Any) -> None:
    """What cannot be done is an error in words, through Haystack's own calls."""
    for query in ("", "  "):
        with pytest.raises(InvalidRequest, match="query: it is blank"):
            PagevecRetriever(index).run(query=query)
        with pytest.raises(InvalidRequest, match="query: it is blank"):
            PagevecRanker(model).run(query=query, documents=[Document(content="a")])
    for call in (
        lambda: PagevecRetriever(index, top_k=0),
        lambda: PagevecRetriever(index).run(query="owls", top_k=0),
        lambda: PagevecRanker(model, top_k=0),
        lambda: PagevecRanker(model).run(query="owls", documents=[], top_k=0),
    ):
        with pytest.raises(InvalidRequest, match="top_k=0: expected a number of pages"):
            call()
    with pytest.raises(InvalidRequest, match="width=7: expected a number of pixels from 16"):
        PagevecRetriever(index, width=7)
    with pytest.raises(ConfigurationError, match="expected Haystack's Secret") as caught:
        PagevecRetriever("http://127.0.0.1:9", api_key=KEY)
    assert KEY not in str(caught.value)
    with pytest.raises(ConfigurationError, match="model: the open index has one"):
        PagevecRetriever(index, model="bundled")
    with pytest.raises(ConfigurationError, match="model: the service has one"):
        PagevecRetriever("http://127.0.0.1:9", model="bundled").run(query="owls")
    with pytest.raises(ConfigurationError, match="the variable of its Secret is not set"):
        PagevecRetriever(Secret.from_env_var("NO_SUCH", strict=False)).run(query="owls")
    with pytest.raises(NoStore, match="nowhere"):
        PagevecRetriever(tmp_path / "nowhere", model=model).run(query="owls")
    with pytest.raises(ConfigurationError, match=r"pagevec\.load"):
        PagevecRanker(3).run(query="owls", documents=[Document(content="a")])
    away = PagevecRetriever("http://127.0.0.1:9", patience=0)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        away.run(query="owls")
    pipeline = Pipeline()
    pipeline.add_component("retriever", away)
    with pytest.raises(PipelineRuntimeError, match=r"127\.0\.0\.1:9"):
        pipeline.run({"retriever": {"query": "owls"}})
