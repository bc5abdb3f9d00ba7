"""The exchange of a printed token for the key: once, in time, and for this service's page only."""

import http.client
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from conftest import Service, make_settings, running, serving_documents
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import Forbidden
from pagevec.local import LocalModel
from pagevec.search.library import Library
from pagevec.server.sign_in import SignIn
from pagevec.stores import open_store
from processes import environment, serving

OWN_KEY = "made-by-the-service-00000000000a"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class SigningIn:
    """A service that made its key, and what its page sends."""

    url: str
    sign_in: SignIn
    clock: Clock
    http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False))

    def send(self, token: str, **headers: str) -> httpx.Response:
        return self.http.post(f"{self.url}/sign-in", json={"token": token}, headers=headers)


@pytest.fixture(scope="module")
def signing_in(
    embedder: LocalEmbedder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SigningIn]:
    clock = Clock()
    sign_in = SignIn(OWN_KEY, clock)
    settings = make_settings(service_api_key=OWN_KEY)
    store = open_store(str(tmp_path_factory.mktemp("sign-in") / "store"))
    library = Library(store, LocalModel(embedder))
    with running(embedder, settings, library=library, sign_in=sign_in) as service:
        made = SigningIn(service.url, sign_in, clock)
        with made.http:
            yield made
    library.close()


def refused(answer: httpx.Response, status: int = 403) -> str:
    assert answer.status_code == status, answer.text
    assert OWN_KEY not in answer.text
    sentence: str = answer.json()["error"]
    return sentence


def test_once(signing_in: SigningIn) -> None:
    """A token gives the key, which opens the service; a second time it gives nothing."""
    token = signing_in.sign_in.new_token()
    answer = signing_in.send(token)
    assert (answer.status_code, answer.json()) == (200, {"key": OWN_KEY})
    assert answer.headers["cache-control"] == "no-store"
    key = {"Authorization": f"Bearer {answer.json()['key']}"}
    assert signing_in.http.get(f"{signing_in.url}/documents", headers=key).status_code == 200
    assert "has been used" in refused(signing_in.send(token))


def test_for_ten_minutes(signing_in: SigningIn) -> None:
    """A token works until its ten minutes are over; a new one takes the place of an old one."""
    token = signing_in.sign_in.new_token()
    signing_in.clock.now += 599
    assert signing_in.send(token).status_code == 200
    token = signing_in.sign_in.new_token()
    signing_in.clock.now += 600
    assert "ten minutes" in refused(signing_in.send(token))
    old, new = signing_in.sign_in.new_token(), signing_in.sign_in.new_token()
    refused(signing_in.send(old))
    assert signing_in.send(new).status_code == 200


def test_before_there_is_a_token() -> None:
    """A service that has printed no token yet gives its key to nobody."""
    for token in ("", "None", "x"):
        with pytest.raises(Forbidden):
            SignIn(OWN_KEY).exchange(token)


@pytest.mark.parametrize("token", ["", "x", "é", "\0", "x" * 900, OWN_KEY])
def test_wrong_tokens(signing_in: SigningIn, token: str) -> None:
    """A wrong token is refused, and leaves the right one as good as it was."""
    right = signing_in.sign_in.new_token()
    refused(signing_in.send(token))
    refused(signing_in.send(right[:-1]))
    assert signing_in.send(right).status_code == 200


HOSTS = (
    "evil.example", "127.0.0.1.evil.example", "evil.example:80", "localhost.evil.example",
    "127.0.0.1@evil.example", "0.0.0.0", "192.168.1.2", "[::1", "[", "", "[::ffff:8.8.8.8]",
)  # fmt: skip
FOREIGN: tuple[dict[str, str], ...] = (
    *({"Host": host} for host in HOSTS),
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "file://"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_foreign_pages(signing_in: SigningIn, headers: dict[str, str]) -> None:
    """A request of another origin, or under another name, is refused, token or not."""
    token = signing_in.sign_in.new_token()
    refused(signing_in.send(token, **headers))
    own = {"Origin": signing_in.url, "Sec-Fetch-Site": "same-origin"}
    assert signing_in.send(token, **own).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", ""])
def test_forms_of_other_pages(signing_in: SigningIn, kind: str) -> None:
    """A form of another page, which needs no preflight, gets nothing, and may read nothing."""
    token = signing_in.sign_in.new_token()
    body = f'{{"token": "{token}"}}'
    headers = {"Content-Type": kind, "Origin": "https://evil.example"}
    answer = signing_in.http.post(f"{signing_in.url}/sign-in", content=body, headers=headers)
    refused(answer)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert signing_in.send(token).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"1", b'"x"', b"{}", b'{"token": 1}', b'{"token": null}',
        b'{"token": ["x"]}', b'{"token": "x", "more": 1}', b'{"token": "\\ud800"}', b"\xff",
        b"[" * 1000, b"x" * 1025, b'{"token": "' + b"x" * 5_000_000 + b'"}',
    ],
    ids=range(16),
)  # fmt: skip
def test_wrong_bodies(signing_in: SigningIn, body: bytes) -> None:
    """What is no token in JSON is a 400, however long; the token stays good."""
    token = signing_in.sign_in.new_token()
    answer = signing_in.http.post(f"{signing_in.url}/sign-in", content=body)
    assert refused(answer, 400)
    assert signing_in.send(token).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_wrong_methods(signing_in: SigningIn, method: str) -> None:
    """Only POST signs in."""
    answer = signing_in.http.request(method, f"{signing_in.url}/sign-in")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


PATHS = (
    "/", "/embeddings", "/documents", "/documents/AA", "/documents/AA/pages/1", "/search",
    "/documents/AA/pages/1/image", "/status", "/info", "/health", "/ready", "/metrics",
    "/sign-in", "/static/app.js", "/docs", "/openapi.json",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_other_origin_is_let_in(signing_in: SigningIn, path: str) -> None:
    """No answer lets another origin read it, and no preflight succeeds."""
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    key = {"Authorization": f"Bearer {OWN_KEY}"}
    preflight = signing_in.http.options(f"{signing_in.url}{path}", headers=asked)
    assert preflight.status_code == 405
    for method in ("GET", "POST", "DELETE"):
        answer = signing_in.http.request(method, f"{signing_in.url}{path}", headers=asked | key)
        for one in (preflight, answer):
            assert not [name for name in one.headers if name.startswith("access-control")]
        assert OWN_KEY not in answer.text + str(answer.headers)


def test_two_hosts(signing_in: SigningIn) -> None:
    """Two Host fields are no way around the check."""
    token = signing_in.sign_in.new_token()
    connection = http.client.HTTPConnection(signing_in.url.removeprefix("http://"))
    connection.putrequest("POST", "/sign-in", skip_host=True)
    body = f'{{"token": "{token}"}}'.encode()
    for name, value in (
        ("Host", "evil.example"),
        ("Host", "127.0.0.1"),
        ("Content-Length", len(body)),
    ):
        connection.putheader(name, str(value))
    connection.endheaders(body)
    assert connection.getresponse().status in (400, 403)
    connection.close()


def test_where_there_is_none(embedder: LocalEmbedder, tmp_path: Path, service: Service) -> None:
    """Without a key of its own the service, with a store or without one, has no such path."""
    store = str(tmp_path / "store")
    with serving_documents(embedder, store, tmp_path / "uploads") as (with_store, _):
        for one in (with_store, service):
            answer = httpx.post(f"{one.url}/sign-in", json={"token": "x"})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.long
def test_what_serve_prints(tmp_path: Path) -> None:
    """`serve` prints a token where it made the key, and none where the key is the user's own.

    The token in its address gives the key; no line of its log or output has it, nor the token a
    second time.
    """

    def folder(name: str) -> Path:
        (made := tmp_path / name).mkdir()
        return made

    own = {**environment(XDG_STATE_HOME=str(tmp_path / "state"))}
    del own["SERVICE_API_KEY"]
    with serving(folder("own"), own, "--store", "S", "--uploads", key="none") as process:
        printed = process.output.read_text()
        [token] = re.findall(rf"^page +{process.url}/#token=(\S+)$", printed, re.M)
        answer = httpx.post(f"{process.url}/sign-in", json={"token": token})
        key = answer.json()["key"]
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{process.url}/status", headers=headers).status_code == 200
        assert httpx.post(f"{process.url}/sign-in", json={"token": token}).status_code == 403
        assert key not in process.log.read_text() and token not in process.log.read_text()
        assert process.output.read_text().count(token) == 1
    given = environment(PAGEVEC_HOST="0.0.0.0")
    with serving(folder("given"), given, "--store", "S", "--uploads") as process:
        assert "token" not in process.output.read_text()
        assert httpx.post(f"{process.url}/sign-in", json={"token": token}).status_code == 404
