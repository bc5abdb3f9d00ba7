"""Pages in LlamaIndex, in an environment that has it (test_frameworks.py)."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, TextBlock
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import (
    ImageNode,
    MediaResource,
    Node,
    NodeRelationship,
    NodeWithScore,
    TextNode,
)
from pydantic import Field

import pagevec
from conftest import EXAMPLES, Service
from integrations.examples import NOTES, QUESTIONS, REPORT, jpeg_size
from pagevec.client.faults import Unreachable
from pagevec.errors import ConfigurationError, InvalidRequest
from pagevec.integrations.llamaindex import PagevecReranker, PagevecRetriever
from pagevec.local import LocalModel


class Listener(MockLLM):
    """Keeps the messages that it is sent, in place of a model that would answer them."""

    heard: list[ChatMessage] = Field(default_factory=list)

    def chat(self, messages: Any, **options: Any) -> ChatResponse:
        self.heard.extend(messages)
        return ChatResponse(message=ChatMessage("an answer", role="assistant"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_retriever(index: pagevec.Index, there: Service, question: str) -> None:
    """The right page comes first, in both kinds of call, from a store here and from a service."""
    with pagevec.Index(there.url, there.key) as remote:
        for each in (index, remote):
            retriever = PagevecRetriever(each, similarity_top_k=2, width=600)
            first, second = retriever.retrieve(question)
            assert isinstance(first.node, ImageNode)
            assert first.metadata["document"] == REPORT
            assert first.metadata["page"] == QUESTIONS[question]
            assert first.get_score() > second.get_score()
            assert question.casefold() in first.text.casefold()
            assert first.node.relationships[NodeRelationship.SOURCE].node_id == REPORT
            assert jpeg_size(base64.b64decode(first.node.image or ""))[0] == 600
            again = asyncio.run(retriever.aretrieve(question))
            assert [one.node_id for one in again] == [first.node_id, second.node_id]


def test_asynchronous_index(store: str, model: LocalModel) -> None:
    """An index that is awaited answers `aretrieve`, and says so to `retrieve`."""

    async def use() -> None:
        async with pagevec.AsyncIndex(store, model) as index:
            retriever = PagevecRetriever(index, similarity_top_k=1)
            [page] = await retriever.aretrieve("parcels and punctuality")
            assert page.metadata["page"] == 4
            with pytest.raises(ConfigurationError, match="await them"):
                retriever.retrieve("parcels")

    asyncio.run(use())


def test_query_engine(index: pagevec.Index, model: LocalModel) -> None:
    """A multimodal engine sends names, pictures of pages, texts and the question to its model."""
    question, listener = "parcels and punctuality", Listener(is_chat_model=True)
    engine = RetrieverQueryEngine.from_args(
        PagevecRetriever(index, similarity_top_k=8, documents=[REPORT, NOTES]),
        llm=listener,
        multimodal=True,
        node_postprocessors=[PagevecReranker(model=model)],
    )
    response = engine.query(question)
    assert str(response) == "an answer"
    assert response.source_nodes[0].metadata["page"] == 4
    blocks = [block for message in listener.heard for block in message.blocks]
    pictures = [block for block in blocks if isinstance(block, ImageBlock)]
    assert len(pictures) == 6
    said = "\n".join(block.text for block in blocks if isinstance(block, TextBlock))
    assert f"document: {REPORT}\npage: 4" in said and question in said
    assert "The ticket machine on the Odde pier" in said
    assert "image_error" not in said and "type:" not in said


def test_page_without_picture(index: pagevec.Index) -> None:
    """A text is a `TextNode`, whose metadata says that there is no picture."""
    retriever = PagevecRetriever(index, similarity_top_k=1, documents=[NOTES])
    [notes] = retriever.retrieve("ticket machine")
    assert type(notes.node) is TextNode and notes.text.startswith("Notes from")
    assert "there is no picture of it" in notes.metadata["image_error"]


def test_reranker(index: pagevec.Index, model: LocalModel) -> None:
    """Pages, files and texts are ranked by MaxSim, a damaged picture costs its node."""
    everything = PagevecRetriever(index, documents=[REPORT]).retrieve("the year")
    found = [one for one in everything if one.metadata["page"] in QUESTIONS.values()]
    broken = NodeWithScore(node=ImageNode(image_url="http://127.0.0.1:9/a.png"), score=99)
    before = [one.model_copy(deep=True) for one in found]
    for question, number in QUESTIONS.items():
        reranker = PagevecReranker(model=model, top_n=2)
        best, _ = reranker.postprocess_nodes([broken, *found], query_str=question)
        assert (best.metadata["page"], best.metadata["document"]) == (number, REPORT)
    assert found == before
    picture = EXAMPLES / "receipt.png"
    resource = MediaResource(data=picture.read_bytes(), mimetype="image/png")
    nodes = [
        ImageNode(image_path=str(picture)),
        Node(image_resource=resource),
        Node(image_resource=MediaResource(path=Path(picture))),
        TextNode(text="something else"),
        broken.node,
    ]
    given = [NodeWithScore(node=node) for node in nodes]
    ranked = asyncio.run(
        PagevecReranker(model=model).apostprocess_nodes(given, query_str="receipt")
    )
    scores = {one.node_id: one.score for one in ranked}
    first, second, third = (scores[node.node_id] for node in nodes[:3])
    assert first == pytest.approx(second) == pytest.approx(third)
    assert ranked[-1].score is None
    assert ranked[-1].metadata["score_error"] == "the image is an address, which is not fetched"


def test_wrong_calls(index: pagevec.Index, away: pagevec.Index, model: LocalModel) -> None:
    """What cannot be done is an error in words, through LlamaIndex's own calls."""
    nodes = [NodeWithScore(node=TextNode(text="a"))]
    for query in ("", "  "):
        with pytest.raises(InvalidRequest, match="query: it is blank"):
            PagevecRetriever(index).retrieve(query)
        with pytest.raises(InvalidRequest, match="query: it is blank"):
            PagevecReranker(model=model).postprocess_nodes(nodes, query_str=query)
    with pytest.raises(InvalidRequest, match="query_str: it is missing"):
        PagevecReranker(model=model).postprocess_nodes(nodes)
    with pytest.raises(InvalidRequest, match="similarity_top_k=0: expected a number of pages"):
        PagevecRetriever(index, similarity_top_k=0)
    with pytest.raises(InvalidRequest, match="width=7: expected a number of pixels from 16"):
        PagevecRetriever(index, width=7)
    with pytest.raises(InvalidRequest, match="top_n=0"):
        PagevecReranker(model=model, top_n=0)
    with pytest.raises(ConfigurationError, match=r"pagevec\.load"):
        PagevecReranker(model="bundled")
    with pytest.raises(ConfigurationError, match=r"expected a pagevec\.Index"):
        PagevecRetriever("http://127.0.0.1:8765")
    retriever = PagevecRetriever(away)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        retriever.retrieve("owls")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        asyncio.run(retriever.aretrieve("owls"))


def test_it_is_shown_without_its_model(model: LocalModel) -> None:
    """What LlamaIndex writes of a reranker leaves the open model out."""
    assert PagevecReranker(model=model, top_n=3).to_dict() == {
        "top_n": 3,
        "class_name": "PagevecReranker",
    }
