"""Connections, models and stores belong to the process that opened them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.faulty import Faulty, assert_answers, make_client
from client.forking import WAYS
from conftest import Service
from pagevec.client import AsyncClient, Client
from processes import environment, serving

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service in a process of its own that gives each word a vector of its own."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "words.py").write_text((TESTS / "engine" / "hash_backend.py").read_text())
    with serving(folder, environment(), "--backend", "words:HashBackend") as service:
        yield service


def embed_words(way: str, service: Service, count: int) -> None:
    """Run `client.forking`, which checks each vector, in a clean process."""
    command = [sys.executable, "-m", "client.forking", way, service.url, service.key, str(count)]
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


@pytest.mark.parametrize("way", WAYS)
def test_each_text_has_its_own_vectors(way: str, words: Service) -> None:
    """A warm client in forked processes or threads: no text gets another one's vectors."""
    embed_words(way, words, 600)


FIRST_REQUESTS = """
import asyncio, io, sys
from pagevec.client import AsyncClient, Client

url, key = sys.argv[1:]
client, twin = Client(url, key), AsyncClient(url, key)
from PIL import Image  # as an application does that has images

page, file = Image.new("RGB", (3000, 2000), "white"), io.BytesIO()
page.save(file, "PNG")
imported = []
sys.addaudithook(lambda event, details: event == "import" and imported.append(details[0]))
client.embed_texts(["a"])
client.embed_images([page, file.getvalue()])

async def embed():
    await twin.embed_texts(["a"])
    await twin.embed_images([page, file.getvalue()])

asyncio.run(embed())
sys.exit(f"imported by requests: {imported}" if imported else 0)
"""


def test_requests_import_nothing(words: Service) -> None:
    """A fork while another thread imports would hang the child: all is imported before requests."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_REQUESTS, words.url, words.key],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_loop_after_another(faulty: Faulty) -> None:
    """One AsyncClient serves one event loop after the other, and forgets the closed ones."""
    client = make_client(AsyncClient, faulty.url)
    for text in ("1", "2", "3"):
        assert_answers([text], asyncio.run(client.embed_texts([text])))
    assert len(client._connections._opened) == 1


def test_a_child_leaves_its_parents_connections(faulty: Faulty) -> None:
    """A child that ends the client's `with` block does not close what its parent goes on using."""
    with make_client(Client, faulty.url) as client:
        client.embed_query("1")
        [opened] = client._connections._opened.values()
        child = os.fork()
        if not child:
            client.close()
            os._exit(opened.is_closed)
        assert os.waitpid(child, 0)[1] == 0
        np.testing.assert_array_equal(client.embed_query("4"), client.embed_texts(["4"])[0])
        assert list(client._connections._opened.values()) == [opened]


LOCAL_MODEL = """
import multiprocessing, sys
import pagevec
from pagevec.errors import LoadedElsewhere

model = pagevec.load("bundled")
model.embed_query("fares")

def use():
    for call in (model.info, lambda: model.embed_query("fares"), lambda: model.embed_texts(["a"])):
        try:
            call()
        except LoadedElsewhere as error:
            assert "pagevec.load" in str(error)
        else:
            sys.exit(3)
    model.close()

child = multiprocessing.get_context("fork").Process(target=use)
child.start()
child.join(60)
model.embed_query("fares")
sys.exit(child.exitcode)
"""


def test_a_model_is_not_inherited() -> None:
    """A loaded model says after a fork that it is another process's, and never hangs."""
    done = subprocess.run(
        [sys.executable, "-c", LOCAL_MODEL], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
