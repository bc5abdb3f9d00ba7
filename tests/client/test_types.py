"""The clients are models: for the type checker and at run time."""

import subprocess
import sys
from inspect import iscoroutinefunction
from pathlib import Path

import pytest

from pagevec.client import AsyncClient, Client
from pagevec.types import AsyncModel, Model

ROOT = Path(__file__).parents[2]

SCRIPT = """
import asyncio
from typing import assert_type
from pagevec.client import AsyncClient, Client
from pagevec.types import AsyncModel, Model, ModelInfo, MultiVector, Query

model: Model = Client("http://127.0.0.1:8765", "key", dtype="float32", timeout=5.0)
with Client(["http://a", "http://b"]) as client:
    assert_type(client, Client)
    assert_type(client.embed_images(["page.png", b"a file"]), list[MultiVector])
    assert_type(client.embed_query("fares"), MultiVector)
    assert_type(client.embed_query_with_tokens("fares"), Query)
    assert_type(client.info(), ModelInfo)


async def main() -> None:
    twin: AsyncModel = AsyncClient("http://127.0.0.1:8765")
    async with AsyncClient("http://127.0.0.1:8765") as client:
        assert_type(await client.embed_texts(["fares"], dtype=None), list[MultiVector])
        assert_type(await client.embed_query_with_tokens("fares"), Query)
        assert_type(await client.info(), ModelInfo)
    await twin.aclose()


asyncio.run(main())
"""


def test_a_users_script_passes_mypy(tmp_path: Path) -> None:
    """A script that takes the clients as models passes `mypy --strict`."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("client", "model"), [(Client, Model), (AsyncClient, AsyncModel)])
def test_the_clients_have_the_calls_of_a_model(client: type, model: type) -> None:
    """Each call of the protocol is a method of the client, awaited on both or on neither."""
    calls = [name for name in vars(model) if not name.startswith("_")]
    assert {"embed_images", "embed_texts", "embed_query", "info"} < set(calls)
    for name in calls:
        twin = getattr(client, name)
        assert iscoroutinefunction(twin) == iscoroutinefunction(getattr(model, name)), name
