"""The files of the page: served as they are, under a strict policy, and nothing beside them."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import pagevec.server
from conftest import serving_documents
from pagevec.engine.embedder import LocalEmbedder

FOLDER = Path(pagevec.server.__file__).parent / "static"
ASSETS = sorted(one.name for one in FOLDER.iterdir() if one.is_file())
MOST_BYTES = 150_000
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
}


@pytest.fixture(scope="module")
def client(
    embedder: LocalEmbedder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client without a key: browsers load the page before they have one."""
    folder = tmp_path_factory.mktemp("static")
    with (
        serving_documents(embedder, str(folder / "store"), folder / "uploads") as (service, _),
        httpx.Client(base_url=service.url, trust_env=False) as opened,
    ):
        yield opened


def check_headers(answer: httpx.Response) -> None:
    assert set(answer.headers["content-security-policy"].split("; ")) == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("name", ASSETS)
def test_assets(client: httpx.Client, name: str) -> None:
    """Each is served byte by byte, of its type, under the policy; again only if it changed."""
    answer = client.get(f"/static/{name}")
    assert (answer.status_code, answer.content) == (200, (FOLDER / name).read_bytes())
    assert answer.headers["content-type"] == TYPES[Path(name).suffix]
    check_headers(answer)
    head = client.head(f"/static/{name}")
    assert (head.status_code, head.content) == (200, b"")
    same = client.get(f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    check_headers(same)
    assert client.post(f"/static/{name}").status_code == 405


def test_the_page(client: httpx.Client) -> None:
    """`/` is the page for a browser, under the same policy; no other page can show it."""
    answer = client.get("/", headers={"Accept": "text/html"})
    assert answer.content == (FOLDER / "index.html").read_bytes()
    check_headers(answer)
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["vary"] == "Accept"
    assert client.get("/", headers={"Accept": "*/*"}).headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        "../page.py",
        "%2e%2e/page.py",
        "%2e%2e%2fpage.py",
        "..%5cpage.py",
        "%252e%252e%252fpage.py",
        "app.js/",
        "app.js%00",
        "app.js%00.css",
        "APP.JS",
        "//app.js",
        "",
        "%2fetc%2fpasswd",
        "__init__.py",
        "nothing.js",
        "x" * 5000,
    ],
)
def test_nothing_else_is_served(client: httpx.Client, path: str) -> None:
    """Whatever leads elsewhere is not found, and said in JSON of bounded length."""
    request = client.build_request("GET", "/")
    request.url = httpx.URL(str(client.base_url).rstrip("/"), raw_path=f"/static/{path}".encode())
    answer = client.send(request)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "import" not in answer.text


def test_weight() -> None:
    """All files together are no heavier than a photograph."""
    weight = sum((FOLDER / name).stat().st_size for name in ASSETS)
    print(f"{weight:,} bytes in {len(ASSETS)} files")
    assert 0 < weight < MOST_BYTES


@pytest.mark.parametrize("name", ASSETS)
def test_no_other_host(name: str) -> None:
    """No file names another host, but for the namespaces of SVG and links that are only text."""
    text = (FOLDER / name).read_text()
    without_comments = re.sub(r"/\*.*?\*/|<!--.*?-->|^\s*//.*$", "", text, flags=re.S | re.M)
    found = set(re.findall(r"(?:https?:|wss?:)?//[\w.-]+\.\w+[^\s\"'<>`)]*", without_comments))
    assert {one for one in found if "www.w3.org/" not in one} == set()


def test_no_inline_code() -> None:
    """What the policy forbids is not in the page: scripts, styles and handlers inside HTML."""
    text = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"<script[^>]*>\s*[^<\s]", text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:|<iframe|<object|<embed", text) == []
    for link in re.findall(r"\s(?:src|href)=\"([^\"]*)\"", text):
        assert not re.match(r"[a-z]+:|/", link), link
    scripts = "".join((FOLDER / one).read_text() for one in ASSETS if one.endswith(".js"))
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert sink not in scripts, sink
