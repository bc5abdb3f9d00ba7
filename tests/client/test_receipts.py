"""Each answer belongs to its request: receipts on both sides, and answers that come mixed up."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from client.faulty import DIM, Faulty, assert_answers, numbers, right
from conftest import Service
from pagevec.client import Client
from pagevec.client.faults import ForeignAnswer, WrongAnswer
from pagevec.wire.encode import encode
from pagevec.wire.receipt import ANSWER_HEADER, REQUEST_HEADER, make_token, receipt_headers
from server.calls import image, images, texts


@given(st.text(max_size=70))
def test_only_a_token_is_repeated(text: str) -> None:
    """What is no token, and could end a header or fill it, does not come back."""
    is_token = 0 < len(text) <= 64 and all(
        one.isascii() and (one.isalnum() or one in "._-") for one in text
    )
    headers = receipt_headers(text, "text", 1)
    assert bool(headers) == is_token
    assert not is_token or headers[ANSWER_HEADER].split(" ")[0] == text


def test_a_receipt_differs_with_all_that_it_is_for() -> None:
    """Token, kind and count: each of them changes the receipt."""
    token = make_token()
    cases = [(token, "text", 1), (token, "text", 2), (token, "image", 1), (make_token(), "text", 1)]
    assert len({receipt_headers(*case)[ANSWER_HEADER] for case in cases}) == len(cases)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/embeddings", "/", "/json/embeddings", "/npz/embeddings"])
@pytest.mark.parametrize("body", [texts("a", "b"), images(image()), texts()])
def test_the_service_gives_receipts(service: Service, path: str, body: dict[str, Any]) -> None:
    """Each path answers with the request's receipt; a request without a token gets none."""
    token = make_token()
    expected = receipt_headers(token, body["input_type"], len(body["inputs"]))[ANSWER_HEADER]
    with service.client() as client:
        answer = client.post(path, json=body, headers={REQUEST_HEADER: token})
        assert answer.headers[ANSWER_HEADER] == expected
        assert ANSWER_HEADER not in client.post(path, json=body).headers


@pytest.mark.parametrize("token", ["", "a b", "a" * 65, "ü".encode().decode("latin-1")])
def test_the_service_repeats_no_strangers_text(service: Service, token: str) -> None:
    """A header that is no token is not an error, and is not repeated."""
    with service.client() as client:
        headers = {REQUEST_HEADER: token.encode("latin-1")}
        answer = client.post("/embeddings", json=texts("a"), headers=headers)
        assert answer.status_code == 200
        assert ANSWER_HEADER not in answer.headers


def of_another(inputs: list[str]) -> Response:
    """The answer to another request for as many inputs of the same kind."""
    answer = right(["1"] * len(inputs))
    answer.headers.update(receipt_headers(make_token(), "text", len(inputs)))
    return answer


def test_a_foreign_answer_is_asked_for_again(either_client: Any, faulty: Faulty) -> None:
    """An answer with another request's receipt is not used; the next one may be right."""
    faulty.answers = [of_another]
    assert_answers(["7"], either_client(faulty.url).embed_texts(["7"]))
    assert len(faulty.posts) == 2


def test_foreign_answers_only(either_client: Any, faulty: Faulty) -> None:
    """Where all answers are foreign, the error says what is wrong, after `attempts` tries."""
    faulty.always = of_another
    with pytest.raises(ForeignAnswer, match=r"another request.*2 attempts") as raised:
        either_client(faulty.url, attempts=2).embed_texts(["7"])
    assert isinstance(raised.value, WrongAnswer)
    assert len(faulty.posts) == 2


def with_vectors(*vectors: Any) -> Any:
    arrays = [np.asarray(one, np.float32) for one in vectors]
    return lambda inputs: Response(encode(arrays, "text", "float32", "npz"))


UNIT = np.eye(DIM)


@pytest.mark.parametrize(
    "answer",
    [
        with_vectors(UNIT),
        with_vectors(UNIT, UNIT, UNIT),
        with_vectors(UNIT, np.eye(DIM + 8)),
        with_vectors(UNIT, UNIT * np.nan),
        with_vectors(UNIT, UNIT * 1.1),
        with_vectors(UNIT, UNIT * 0),
    ],
    ids=["too few", "too many", "of two models", "not finite", "too long", "zero"],
)
def test_without_a_receipt_the_shape_decides(
    either_client: Any, faulty: Faulty, answer: Any
) -> None:
    """An answer without a receipt is refused unless it is one multi-vector for each input."""
    faulty.answers = [answer]
    with pytest.raises(WrongAnswer):
        either_client(faulty.url).embed_texts(["1", "2"])


def test_vectors_of_another_model(either_client: Any, faulty: Faulty) -> None:
    """Vectors do not have more or fewer components than /info says."""
    faulty.info = {"model": "another", "dim": DIM + 1}
    with pytest.raises(WrongAnswer, match=f"{DIM} and {DIM + 1} components"):
        either_client(faulty.url).embed_texts(["1", "2"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "binary"])
@pytest.mark.parametrize("pool_factor", [1, 3])
def test_right_answers_pass(
    either_client: Any, service: Service, dtype: Any, pool_factor: int
) -> None:
    """The real service's answers pass the checks, however they travel."""
    client = either_client(service.url, key=service.key)
    vectors = client.embed_texts(["a", "fares in 2024"], dtype=dtype, pool_factor=pool_factor)
    assert [one.shape[1] for one in vectors] == [128, 128]


class Swaps:
    """Exchanges the answers of two requests that wait at the same time, the first few times."""

    def __init__(self, most: int) -> None:
        self.left = most
        self._waiting: list[tuple[bytes, Future[bytes]]] = []
        self._lock = threading.Lock()

    def exchange(self, answer: bytes) -> bytes:
        mine = Future[bytes]()
        with self._lock:
            if self.left <= 0:
                return answer
            if self._waiting:
                others, other = self._waiting.pop()
                other.set_result(answer)
                self.left -= 1
                return others
            self._waiting.append((answer, mine))
        try:
            return mine.result(0.5)
        except TimeoutError:
            self._waiting.clear()
            return answer


@contextmanager
def mixing_up(url: str, swaps: Swaps) -> Iterator[str]:
    """Serve a proxy for `url` that gives two connections each other's answers; its address."""
    target = httpx.URL(url)

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while request := read_message(self.request):
                    with socket.create_connection((target.host, target.port or 80)) as upstream:
                        upstream.sendall(request)
                        answer = read_message(upstream)
                    is_post = request.startswith(b"POST")
                    self.request.sendall(swaps.exchange(answer) if is_post else answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def read_message(connection: socket.socket) -> bytes:
    """Read one HTTP message with a Content-Length, or none."""
    message = b""
    while b"\r\n\r\n" not in message:
        part = connection.recv(65_536)
        if not part:
            return b""
        message += part
    head, _, body = message.partition(b"\r\n\r\n")
    lengths = [
        line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    ]
    missing = int(lengths[0]) - len(body) if lengths else 0
    while missing > 0:
        part = connection.recv(65_536)
        message, missing = message + part, missing - len(part)
    return message


def test_a_proxy_that_mixes_answers_up(service: Service) -> None:
    """Behind it no text gets another one's vectors, and all have their own in the end."""
    words, swaps = numbers(24), Swaps(4)
    with service.client() as direct:
        answer = direct.post("/embeddings", json=texts(*words)).json()
    options = {"max_inputs": 2, "in_flight": 2, "attempts": 10, "dtype": "float32"}
    with (
        mixing_up(service.url, swaps) as url,
        Client(url, service.key, **options) as client,  # type: ignore[arg-type]
    ):
        found = client.embed_texts(words)
    assert swaps.left == 0
    for one, rows in zip(found, answer["embeddings"], strict=True):
        np.testing.assert_allclose(one, np.array(rows), atol=1e-4)
