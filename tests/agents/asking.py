"""What the tests of agents ask, with the client of the protocol's own package."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from conftest import KEY

REPORT = "examples/annual-report.pdf"
QUESTIONS = {
    "parcels and punctuality": (REPORT, 4),
    "five years in figures": (REPORT, 3),
    "Öffnungszeiten und Anschriften": (REPORT, 6),
}
"""Questions, and the pages that answer them."""


@dataclass(frozen=True)
class Agent:
    """A connected client."""

    client: Client

    async def ask(self, tool: str, **arguments: Any) -> Any:
        """Return what a tool answers: the JSON object in its text."""
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        text = json.loads(result.content[-1].text)  # type: ignore[union-attr]
        assert result.structured_content in (text, None)
        return text

    async def fail(self, tool: str, **arguments: Any) -> str:
        """Return the sentence with which a tool refuses."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error and result.structured_content is None, result
        [said] = result.content
        text: str = said.text  # type: ignore[union-attr]
        assert "\n" not in text and "Traceback" not in text and "Error" not in text
        return text

    async def look(self, **arguments: Any) -> Image.Image:
        """Return the image of a page."""
        result = await self.client.call_tool("read_page", arguments)
        image, _ = result.content
        assert (image.type, image.mime_type) == ("image", "image/jpeg")  # type: ignore[union-attr]
        return Image.open(BytesIO(base64.b64decode(image.data)))  # type: ignore[union-attr]


@asynccontextmanager
async def over_http(url: str, mode: Any = "auto") -> AsyncIterator[Agent]:
    """Connect over streamable HTTP."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield Agent(client)


def run(ask: Callable[[], Awaitable[None]], seconds: float = 100) -> None:
    """Run a conversation, within a time."""

    async def within() -> None:
        with anyio.fail_after(seconds):
            await ask()

    anyio.run(within)


async def check_everything(agent: Agent) -> None:
    """Use each tool as an agent would."""
    for question, (document, page) in QUESTIONS.items():
        best, *_ = (await agent.ask("search_pages", query=question, k=3))["pages"]
        assert (best["document"]["name"], best["page"]) == (document, page), question
    shown = await agent.ask("read_page", document=best["document"]["id"], page=6, width=700)
    assert "Öffnungszeiten und Anschriften" in shown["text"]
    image = await agent.look(document=REPORT, page=6, width=700)
    image.load()
    assert image.size == (700, shown["image"]["height"])
    assert 1.3 < image.height / image.width < 1.5
    names, after = [], ""
    while True:
        listed = await agent.ask("list_documents", limit=2, after=after)
        names += [one["name"] for one in listed["documents"]]
        if listed["next"] is None:
            break
        after = listed["next"]
    assert names == [REPORT, "examples/notes.txt", "examples/receipt.png"]
