"""`/` in a browser and for programs: a page, or a few words of JSON; POST stays the contract's."""

import base64
import hashlib
import re
import threading
from typing import Any

import httpx
import pytest

from conftest import KEY, Service, make_settings, running
from pagevec import __version__
from pagevec.engine.backends import Backend, load
from pagevec.engine.embedder import LocalEmbedder
from server.calls import HELLO, vectors

# What browsers send when an address is typed.
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def test_a_browser_gets_a_page(service: Service) -> None:
    """Without a key: the model, what it is not for, the next steps, links that lead somewhere."""
    answer = httpx.get(service.url, headers={"Accept": BROWSER})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for words in (__version__, "bundled", "words that stand on the page", "PAGEVEC_URL"):
        assert words in answer.text
    assert KEY not in answer.text
    links = re.findall(r'<a href="([^"]+)"', answer.text)
    assert links == ["docs", "info", "ready"]
    for link in links:
        assert httpx.get(f"{service.url}/{link}").status_code == 200


def test_the_page_loads_nothing(service: Service) -> None:
    """The policy allows the page's own style and nothing else, and the page asks for no more."""
    answer = httpx.get(service.url, headers={"Accept": BROWSER})
    policy = answer.headers["content-security-policy"]
    [style] = re.findall(r"<style>(.*?)</style>", answer.text, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "://" not in answer.text and "<script" not in answer.text


@pytest.mark.parametrize("accept", ["*/*", "", "application/json", "text/html;q=0", "text/plain"])
def test_a_program_gets_json(service: Service, accept: str) -> None:
    """Who does not ask for a page, such as curl, learns what this is and where to read on."""
    answer = httpx.get(f"{service.url}/", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["vary"] == "Accept"
    assert answer.json() == {
        "service": "pagevec",
        "version": __version__,
        "docs": "/docs",
        "info": "/info",
    }


@pytest.mark.parametrize("accept", [BROWSER, "*/*"])
def test_head(client: httpx.Client, accept: str) -> None:
    """HEAD has the headers of GET and no body; the connection goes on, and POST still embeds."""
    there = client.get("/", headers={"Accept": accept})
    answer = client.head("/", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.content == b""
    for name in ("content-type", "content-length", "content-security-policy"):
        assert answer.headers[name] == there.headers[name]
    assert len(vectors(client.post("/", json=HELLO, headers={"Accept": "text/html, */*"}))) == 1


def test_while_the_model_loads() -> None:
    """The page is there before the model is, and says so."""
    settings = make_settings()
    may_load = threading.Event()

    def load_later() -> Backend[Any]:
        may_load.wait(60)
        return load(settings)

    embedder = LocalEmbedder.of(settings, load_later)
    with running(embedder, settings) as service:
        answer = httpx.get(service.url, headers={"Accept": BROWSER})
        may_load.set()
    embedder.close()
    assert answer.status_code == 200
    assert "the model is being loaded" in answer.text
