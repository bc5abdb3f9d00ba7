"""Pages in LangChain, in an environment that has it (test_frameworks.py)."""

import asyncio
import base64

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, convert_to_openai_messages
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnablePassthrough
from pydantic import ValidationError

import pagevec
from conftest import Service
from integrations.examples import NOTES, QUESTIONS, REPORT, jpeg_size
from pagevec.client.faults import Unreachable
from pagevec.errors import ConfigurationError, InvalidRequest
from pagevec.integrations.langchain import PagevecReranker, PagevecRetriever, page_blocks
from pagevec.local import LocalModel


@pytest.mark.parametrize("question", QUESTIONS)
def test_retriever(index: pagevec.Index, there: Service, question: str) -> None:
    """The right page comes first, called in all four ways, from a store here and from a service."""
    with pagevec.Index(there.url, there.key) as remote:
        for each in (index, remote):
            retriever = PagevecRetriever(index=each, k=2, width=600)
            first, second = retriever.invoke(question)
            assert first.metadata["document"] == REPORT
            assert first.metadata["page"] == QUESTIONS[question]
            assert first.metadata["score"] > second.metadata["score"]
            assert question.casefold() in first.page_content.casefold()
            image = first.metadata["image"]
            assert (image["type"], image["mime_type"]) == ("image", "image/jpeg")
            assert jpeg_size(base64.b64decode(image["base64"]))[0] == 600
            [batch] = retriever.batch([question])
            assert [one.id for one in batch] == [first.id, second.id]
            assert [one.id for one in asyncio.run(retriever.ainvoke(question))] == [
                first.id,
                second.id,
            ]


def test_asynchronous_index(store: str, model: LocalModel) -> None:
    """An index that is awaited answers `ainvoke`, and says so to `invoke`."""

    async def use() -> None:
        async with pagevec.AsyncIndex(store, model) as index:
            retriever = PagevecRetriever(index=index, k=1)
            [page] = await retriever.ainvoke("parcels and punctuality")
            assert page.metadata["page"] == 4
            with pytest.raises(ConfigurationError, match="await them"):
                retriever.invoke("parcels")

    asyncio.run(use())


def test_chain_to_a_prompt(index: pagevec.Index) -> None:
    """A chain ends in a prompt with the pictures of pages, also in the form of OpenAI's API."""
    retriever = PagevecRetriever(index=index, k=2, documents=[REPORT, NOTES])
    prompt = ChatPromptTemplate(
        [
            ("system", "Answer from the pages."),
            MessagesPlaceholder("pages"),
            ("human", "{question}"),
        ]
    )
    pages = retriever | (lambda found: [HumanMessage(content_blocks=page_blocks(found))])
    chain = {"pages": pages, "question": RunnablePassthrough()} | prompt
    messages = chain.invoke("parcels and punctuality").to_messages()
    assert [message.type for message in messages] == ["system", "human", "human"]
    name, image, *_ = messages[1].content_blocks
    assert name["type"] == "text" and name["text"] == f"{REPORT}, page 4:"
    assert image["type"] == "image"
    sent = convert_to_openai_messages(messages)[1]["content"]
    assert [part["type"] for part in sent] == ["text", "image_url"] * 2
    assert sent[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")


def test_page_without_picture(index: pagevec.Index) -> None:
    """A text goes into the prompt as its text; its metadata says that there is no picture."""
    [notes] = PagevecRetriever(index=index, k=1, documents=[NOTES]).invoke("ticket machine")
    assert "image" not in notes.metadata
    assert "there is no picture of it" in notes.metadata["image_error"]
    [block] = page_blocks([notes])
    assert block["type"] == "text" and block["text"].startswith(f"{NOTES}, page 1:\nNotes from")


def test_reranker(index: pagevec.Index, model: LocalModel) -> None:
    """Pages and texts are ranked by MaxSim, a damaged picture costs its page; inputs stay."""
    everything = PagevecRetriever(index=index, documents=[REPORT]).invoke("the year")
    found = [one for one in everything if one.metadata["page"] in QUESTIONS.values()]
    broken = Document("", metadata={"image": {"type": "image", "url": "http://127.0.0.1:9/a.png"}})
    before = [one.model_copy(deep=True) for one in found]
    for question, number in QUESTIONS.items():
        reranker = PagevecReranker(model=model, top_n=2)
        best, _ = reranker.compress_documents([broken, Document("a text"), *found], question)
        assert (best.metadata["page"], best.metadata["document"]) == (number, REPORT)
    assert found == before
    ranked = asyncio.run(
        PagevecReranker(model=model).acompress_documents([broken, *found[:1]], "years")
    )
    assert [one.metadata["relevance_score"] is None for one in ranked] == [False, True]
    assert "no content block with base64" in ranked[1].metadata["relevance_error"]


def test_wrong_calls(index: pagevec.Index, away: pagevec.Index, model: LocalModel) -> None:
    """What cannot be done is an error in words, through LangChain's own calls."""
    for query in ("", "  "):
        with pytest.raises(InvalidRequest, match="query: it is blank"):
            PagevecRetriever(index=index).invoke(query)
        with pytest.raises(InvalidRequest, match="query: it is blank"):
            PagevecReranker(model=model).compress_documents([Document("a")], query)
    with pytest.raises(InvalidRequest, match="k=0: expected a number of pages"):
        PagevecRetriever(index=index, k=0)
    with pytest.raises(InvalidRequest, match="width=7: expected a number of pixels from 16"):
        PagevecRetriever(index=index, width=7)
    with pytest.raises(InvalidRequest, match="top_n=0"):
        PagevecReranker(model=model, top_n=0)
    with pytest.raises(ConfigurationError, match=r"pagevec\.load"):
        PagevecReranker(model="bundled")
    with pytest.raises(ValidationError, match="instance of Index"):
        PagevecRetriever(index="http://127.0.0.1:8765")
    retriever = PagevecRetriever(index=away)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        retriever.invoke("owls")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        asyncio.run(retriever.ainvoke("owls"))
