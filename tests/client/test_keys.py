"""A key, and passwords in addresses, are sent to the service and shown to nobody else."""

import io
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from answering import Answering, answering
from client.faulty import Faulty, make_client
from conftest import Service
from pagevec import check
from pagevec.client import AsyncClient, Client
from pagevec.client.faults import causes
from pagevec.errors import ConfigurationError, PagevecError
from pagevec.secrets import first_key

MARK = "mark3d-K3Y"
TESTS = Path(__file__).parents[1]
BAD_KEYS = {
    f"{MARK}\n": "line end",
    f" {MARK}": "space",
    f"{MARK},another": "several keys",
    f"another\n{MARK}": "several keys",
    f"{MARK}é": "not ASCII",
    f"{MARK} {MARK}": "spaces",
    f"{MARK}\x7f": "control characters",
    MARK.encode(): "bytes",
}


class Echo(Answering):
    """Repeats the Authorization header in whatever it answers; the path says in which form."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        sent = self.headers["Authorization"]
        match self.path.split("/")[1]:
            case "error":
                self.answer(400, b'{"error": "not valid: %b", "code": "x"}' % sent.encode())
            case "reason":
                self.send_response(400, f"Not Valid: {sent}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case "dtype":
                file = io.BytesIO()
                np.savez(file, count=1, input_type="text", emb_0=[[1.0]], dtype=sent)
                self.answer(200, file.getvalue())
            case "busy":
                self.answer(503, b'{"error": "busy: %b", "code": "busy"}' % sent.encode())
            case "garbled":
                self.wfile.write(f"HTTP/1.1 {sent}\r\n\r\n".encode())
                self.close_connection = True

    def do_GET(self) -> None:
        sent = self.headers["Authorization"].encode()
        self.answer(400, b'{"error": "not valid: %b", "code": "x"}' % sent)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_a_key_that_cannot_be_sent(kind: type, key: Any) -> None:
    """It is refused before anything is sent; the error says what is wrong, without the key."""
    with pytest.raises(ConfigurationError, match=BAD_KEYS[key]) as raised:
        kind("http://127.0.0.1:9", key)
    assert "the key cannot be sent" in raised.value.message
    assert MARK not in "".join(map(repr, causes(raised.value)))


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_check_refuses_such_a_key(key: Any) -> None:
    """`pagevec check` does so too, before its first check."""
    with pytest.raises(ConfigurationError, match=BAD_KEYS[key]) as raised:
        next(check.run_checks("http://127.0.0.1:9", key))
    assert MARK not in str(raised.value)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "url", [MARK, f"/{MARK}", f"user:{MARK}@host", f"http://user:{MARK}@", f"http://u:{MARK}/@host"]
)
def test_a_secret_in_a_wrong_address(kind: type, url: str) -> None:
    """The key in the address's place, and a password in a broken one, are not shown."""
    with pytest.raises(ConfigurationError, match="URL") as raised:
        kind(url, "http://127.0.0.1:8765")
    assert MARK not in "".join(map(repr, causes(raised.value)))


def locals_of(error: BaseException | None) -> Iterator[str]:
    """The variables of each frame of a traceback, which some programs log, but not a test's own."""
    for one in causes(error):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if TESTS not in Path(frame.f_code.co_filename).parents:
                yield repr(frame.f_locals)


@pytest.mark.parametrize("form", ["error", "busy", "refused"])
def test_no_frame_shows_the_key(either_client: Any, form: str) -> None:
    """A traceback printed with all variables (rich, Sentry) has the key in none of them."""
    with answering(Echo) as served, pytest.raises(PagevecError) as raised:
        url = "http://127.0.0.1:9" if form == "refused" else f"{served}/{form}"
        either_client(url, key=MARK, patience=0.1).embed_texts(["a"])
    frames = list(locals_of(raised.value))
    assert len(frames) > 3
    assert MARK not in "".join(frames)


@pytest.mark.parametrize("form", ["error", "busy", "dtype", "refused"])
def test_nothing_shows_the_key(
    either_client: Any, form: str, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    """Whatever an answer repeats of it, no error, cause, traceback or log has the key in it."""
    caplog.set_level(logging.DEBUG)
    with answering(Echo) as served, pytest.raises(PagevecError) as raised:
        url = "http://127.0.0.1:9" if form == "refused" else f"{served}/{form}"
        either_client(url, key=MARK, patience=0.1).embed_texts(["a"])
    shown = "".join(traceback.format_exception(raised.value))
    shown += "".join(repr(one) + repr(vars(one)) for one in causes(raised.value.__cause__))
    assert MARK not in shown + str(raised.value) + repr(vars(raised.value))
    assert "***" in str(raised.value) or form == "refused"
    assert any(record.name.startswith("httpcore") for record in caplog.records)
    assert MARK not in caplog.text + "".join(capsys.readouterr())


@pytest.mark.parametrize("form", ["reason", "garbled"])
def test_no_error_shows_the_key(
    either_client: Any, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does the client say it where the status line repeats it, which httpx itself logs."""
    with answering(Echo) as url, pytest.raises(PagevecError) as raised:
        either_client(f"{url}/{form}", key=MARK, patience=0.1).embed_texts(["a"])
    assert MARK not in str(raised.value) + caplog.text


def test_no_error_shows_the_key_in_info(either_client: Any) -> None:
    """The same for an answer of /info that is none."""
    with answering(Echo) as url, pytest.raises(PagevecError, match=r"\*\*\*") as raised:
        either_client(f"{url}/error", key=MARK).info()
    assert MARK not in str(raised.value)


def test_check_shows_no_key(service: Service) -> None:
    """Neither against a real service, with a right or a wrong key, nor against one that echoes."""
    for key in (service.key, MARK):
        seen = list(check.run_checks(service.url, key))
        assert any(not passed for _, passed, _ in seen) == (key == MARK)
        assert key not in repr(seen)
    with answering(Echo) as url:
        assert MARK not in repr(list(check.run_checks(f"{url}/error", MARK)))


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_repr(kind: type) -> None:
    """A client's repr names its addresses, with passwords masked, and never the key."""
    assert repr(kind("http://host:8765/", MARK)) == f"{kind.__name__}('http://host:8765')"
    several = kind(["http://a", f"https://user:{MARK}@b/npz"], MARK)
    assert repr(several) == f"{kind.__name__}(['http://a', 'https://user:***@b/npz'])"
    assert MARK not in repr(vars(several))


def test_a_password_in_the_address(
    either_client: Any, faulty: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    """It is sent (in the key's place, RFC 7617) and does not stand in the log of any library."""
    caplog.set_level(logging.DEBUG)
    url = faulty.url.replace("://", f"://user:{MARK}@")
    either_client(url).embed_texts(["1"])
    assert faulty.posts[0].key.startswith("Basic ")
    assert "POST" in caplog.text
    assert MARK not in caplog.text


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (None, None),
        ("", None),
        (" \n,", None),
        ("one", "one"),
        (" one , two", "one"),
        ("\n one\r\ntwo\n", "one"),
    ],
)
def test_first_key(text: str | None, key: str | None, faulty: Faulty) -> None:
    """Of a setting with several keys the first one is sent; the client takes it, or None."""
    assert first_key(text) == key
    with make_client(Client, faulty.url, key=first_key(text)) as client:
        client.embed_query("1")
    assert faulty.posts[0].key == (f"Bearer {key}" if key else None)
