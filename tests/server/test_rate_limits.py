"""Rate limits that several hosts share."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from conftest import Service, make_settings, running
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import ConfigurationError
from pagevec.server.security import RateLimits

ASK = {"input_type": "text", "inputs": []}


@pytest.fixture
def redis_url() -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs Debian's redis-server: no PyPI package brings a real one")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([program, "--port", str(port), "--save", ""], stdout=-3)
    while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
        time.sleep(0.05)
    yield f"redis://127.0.0.1:{port}"
    process.terminate()
    process.wait()


def status(service: Service) -> int:
    with service.client() as http:
        response: httpx.Response = http.post("/embeddings", json=ASK)
    return response.status_code


def test_two_hosts_count_together(embedder: LocalEmbedder, redis_url: str) -> None:
    """Over a real Redis two services share one window for a key."""
    settings = make_settings(rate_limit="3/minute", rate_limit_storage=redis_url)
    with running(embedder, settings) as one, running(embedder, settings) as other:
        assert [status(one), status(other), status(one)] == [200, 200, 200]
        assert [status(other), status(one)] == [429, 429]


def test_storage_is_down(embedder: LocalEmbedder) -> None:
    """When Redis cannot be reached requests are served, uncounted: no page is lost for a limit."""
    settings = make_settings(rate_limit="1/minute", rate_limit_storage="redis://127.0.0.1:9")
    with running(embedder, settings) as service:
        assert [status(service), status(service)] == [200, 200]


def test_an_unknown_storage() -> None:
    """A storage that does not exist stops the start, naming the variable."""
    settings = make_settings(rate_limit="1/minute", rate_limit_storage="paper://")
    with pytest.raises(ConfigurationError, match="PAGEVEC_RATE_LIMIT_STORAGE='paper://'"):
        RateLimits(settings)
