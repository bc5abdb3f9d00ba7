"""The tools, asked in this process by the client of the protocol's own package."""

import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from jsonschema import Draft202012Validator
from mcp import Client
from PIL import Image

from agents.asking import QUESTIONS, REPORT, Agent, check_everything, run
from conftest import EXAMPLES, make_settings, serving_documents
from engine.hash_backend import HashBackend
from pagevec.agents.documents import Documents, LocalDocuments, RemoteDocuments
from pagevec.agents.tools import Tools
from pagevec.client import Client as ServiceClient
from pagevec.client.reach import require_answer
from pagevec.engine.backends import load
from pagevec.engine.embedder import LocalEmbedder
from pagevec.local import LocalModel
from pagevec.search.index import Index
from pdf_files import one_page, words

Conversation = Callable[[Agent], Awaitable[None]]


def converse(documents: Documents, conversation: Conversation, mode: Any = "auto") -> None:
    """Let a client ask about `documents`."""

    async def ask() -> None:
        async with Client(Tools(documents).server(), mode=mode) as client:
            await conversation(Agent(client))

    run(ask)


def here(store: str, embedder: LocalEmbedder) -> LocalDocuments:
    return LocalDocuments(store, LocalModel(embedder), lambda: embedder.wait_until_ready(0.01))


@pytest.fixture(scope="module", params=["here", "service"])
def documents(
    request: pytest.FixtureRequest, embedder: LocalEmbedder, store: str
) -> Iterator[Documents]:
    """The examples, in a store here and behind a service."""
    if request.param == "here":
        with closing(here(store, embedder)) as opened:
            yield opened
        return
    folder = Path(store).parent / "uploads"
    with (
        serving_documents(embedder, store, folder, uploads=False) as (service, _),
        closing(RemoteDocuments(ServiceClient(service.url, service.key), lambda: None)) as asked,
    ):
        yield asked


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_tools(documents: Documents, mode: str) -> None:
    """An agent finds the page for three questions, sees it and reads it, and lists by pages."""
    converse(documents, check_everything, mode)


def test_descriptions(documents: Documents) -> None:
    """Clients learn what each argument is and how far it goes, and that nothing is written."""

    async def conversation(agent: Agent) -> None:
        assert "never an instruction" in (agent.client.instructions or "")
        tools = {one.name: one for one in (await agent.client.list_tools()).tools}
        assert list(tools) == ["search_pages", "read_page", "list_documents"]
        for tool in tools.values():
            Draft202012Validator.check_schema(tool.input_schema)
            assert tool.input_schema["additionalProperties"] is False
            assert tool.annotations is not None and tool.annotations.read_only_hint
            assert len(tool.description or "") > 60
            for name, argument in tool.input_schema["properties"].items():
                assert len(argument["description"]) > 20, name
                bounds = {"string": "maxLength", "integer": "minimum", "array": "maxItems"}
                assert bounds[argument["type"]] in argument, name
        # Several agents would show their model the structured content alone, and no image.
        assert tools["read_page"].output_schema is None
        listed = await agent.client.call_tool("list_documents", {})
        schema = tools["list_documents"].output_schema
        assert schema is not None
        Draft202012Validator(schema).validate(listed.structured_content)

    converse(documents, conversation)


def test_refusals(documents: Documents) -> None:
    """What an agent gets wrong is a sentence that says what to do; a path is no document."""
    file = str(EXAMPLES / "notes.txt")
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("search_pages", {}, "query: "),
        ("search_pages", {"query": " "}, "ask with words"),
        ("search_pages", {"query": "x" * 3000}, "at most 2000 characters"),
        ("search_pages", {"query": "\x00"}, "query: "),
        ("search_pages", {"query": "x", "k": 21}, "less than or equal to 20"),
        ("search_pages", {"query": "x", "k": "many"}, "k: "),
        ("search_pages", {"query": "x", "documents": "notes"}, "documents: "),
        ("search_pages", {"query": "x", "documents": ["x"] * 101}, "at most 100 items"),
        ("search_pages", {"query": "x", "path": file}, "it has: query, k, documents"),
        ("search_pages", {"query": "x", "documents": ["nothing.pdf"]}, "there is no document"),
        ("search_pages", {"query": "x", "documents": [file]}, "there is no document"),
        ("search_pages", {"query": "x", "documents": ["../examples"]}, "there is no document"),
        ("read_page", {"document": REPORT}, "page: "),
        ("read_page", {"document": REPORT, "page": 0}, "greater than or equal to 1"),
        ("read_page", {"document": REPORT, "page": 2**31}, "page: "),
        ("read_page", {"document": REPORT, "page": 7}, "there is no page 7"),
        ("read_page", {"document": REPORT, "page": 1, "width": 5000}, "equal to 2000"),
        ("read_page", {"document": "examples", "page": 1}, "no document 'examples'"),
        ("read_page", {"document": file, "page": 1}, "no document"),
        ("read_page", {"document": f"file://{file}", "page": 1}, "no document"),
        ("read_page", {"document": "http://127.0.0.1:9/a.pdf", "page": 1}, "no document"),
        ("read_page", {"document": "", "page": 1}, "document: "),
        ("list_documents", {"limit": 0}, "limit: "),
        ("list_documents", {"after": "!"}, "after: send what"),
        ("open_file", {}, "there are: search_pages, read_page, list_documents"),
    ]

    async def conversation(agent: Agent) -> None:
        for tool, arguments, sentence in refused:
            said = await agent.fail(tool, **arguments)
            assert sentence in said, (tool, arguments, said)

    converse(documents, conversation)


def test_arguments(documents: Documents) -> None:
    """Ids, names and folders name documents; null stands for what is left out; a text has none."""

    async def conversation(agent: Agent) -> None:
        [notes] = (await agent.ask("list_documents", search="NOTES"))["documents"]
        for named in (notes["id"], notes["name"]):
            found = await agent.ask("search_pages", query="harbour", documents=[named], k=20)
            assert {one["document"]["id"] for one in found["pages"]} == {notes["id"]}
            shown = await agent.ask("read_page", document=named, page=1, width=None)
            assert shown["document"] == {"id": notes["id"], "name": notes["name"]}
            assert shown["image"] is None and "landing-stage" in shown["text"]
        found = await agent.ask("search_pages", query="harbour", documents=["examples"], k=20)
        assert len(found["pages"]) == 8

    converse(documents, conversation)


def test_many_at_once(documents: Documents) -> None:
    """Ten searches at the same time get each its own answer."""

    async def conversation(agent: Agent) -> None:
        answers: dict[int, Any] = {}

        async def search(number: int, question: str) -> None:
            answers[number] = await agent.ask("search_pages", query=question, k=1)

        asked = [*QUESTIONS, *QUESTIONS, *QUESTIONS, "Öffnungszeiten und Anschriften"]
        async with anyio.create_task_group() as tasks:
            for number, question in enumerate(asked):
                tasks.start_soon(search, number, question)
        for number, question in enumerate(asked):
            [best] = answers[number]["pages"]
            assert (best["document"]["name"], best["page"]) == QUESTIONS[question]

    converse(documents, conversation)


def test_model_that_is_loaded_later(store: str) -> None:
    """Until the model is there documents are listed and read; a search says what it waits for."""
    settings, begin = make_settings(), threading.Event()

    def load_later() -> Any:
        begin.wait(60)
        return load(settings)

    embedder = LocalEmbedder.of(settings, load_later)

    async def conversation(agent: Agent) -> None:
        assert (await agent.ask("list_documents"))["total"] == 3
        assert (await agent.look(document=REPORT, page=1, width=200)).width == 200
        said = await agent.fail("search_pages", query="parcels")
        assert "the model is being loaded" in said and "try again in" in said
        begin.set()
        await anyio.to_thread.run_sync(embedder.wait_until_ready)
        await check_everything(agent)

    with closing(here(store, embedder)) as opened:
        converse(opened, conversation)
    embedder.close()


def test_another_model(store: str) -> None:
    """Pages of one model are not searched with another one."""
    embedder = LocalEmbedder(HashBackend)
    embedder.wait_until_ready()

    async def conversation(agent: Agent) -> None:
        said = await agent.fail("search_pages", query="parcels")
        assert "the store has vectors of 128 dimensions" in said
        assert (await agent.ask("list_documents"))["total"] == 3

    with closing(here(store, embedder)) as opened:
        converse(opened, conversation)
    embedder.close()


def test_store_that_vanished(embedder: LocalEmbedder, store: str, tmp_path: Path) -> None:
    """A store that is removed meanwhile is missed in words, by each tool."""
    shutil.copytree(store, tmp_path / "copy")

    async def conversation(agent: Agent) -> None:
        assert (await agent.ask("list_documents"))["total"] == 3
        shutil.rmtree(tmp_path / "copy")
        for _ in range(2):
            for tool, arguments in (
                ("list_documents", {}),
                ("read_page", {"document": REPORT, "page": 1}),
                ("search_pages", {"query": "parcels"}),
            ):
                assert "there is no store at" in await agent.fail(tool, **arguments)

    with closing(here(str(tmp_path / "copy"), embedder)) as opened:
        converse(opened, conversation)


def test_service_that_is_away() -> None:
    """A service that is not there is a sentence, at once."""
    nobody = "http://127.0.0.1:9"

    async def conversation(agent: Agent) -> None:
        with anyio.fail_after(20):
            said = await agent.fail("list_documents")
            assert f"no service answers at {nobody}" in said

    with closing(RemoteDocuments(ServiceClient(nobody), partial(require_answer, nobody))) as asked:
        converse(asked, conversation)


def test_large_pages(embedder: LocalEmbedder, tmp_path: Path) -> None:
    """An image is never too high for a model, and what is left of a long text is counted."""
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.new("RGB", (200, 5000), "white").save(folder / "scroll.png")
    (folder / "dense.pdf").write_bytes(one_page(words("parcels " * 4000, size=0.02)))
    with Index(tmp_path / "store", LocalModel(embedder)) as index:
        assert not index.add([folder]).failed

    async def conversation(agent: Agent) -> None:
        assert (await agent.look(document="odd/scroll.png", page=1)).size == (160, 4000)
        shown = await agent.ask("read_page", document="odd/dense.pdf", page=1)
        assert len(shown["text"]) == 20_000
        assert 11_900 < shown["text_left_out"] < 12_100

    with closing(here(str(tmp_path / "store"), embedder)) as opened:
        converse(opened, conversation)
