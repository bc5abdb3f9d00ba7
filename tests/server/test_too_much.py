"""Too much, too often, too early, and faults: 413, 429, 500, 503."""

import copy
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from conftest import KEY, make_settings, running
from pagevec.engine.backends import backend_of
from pagevec.engine.backends.base import Backend
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import LoadedModel
from server.calls import (
    GETS,
    HELLO,
    NOTHING,
    PATHS,
    arrays,
    error,
    image,
    images,
    texts,
    vectors,
    wait_for,
)


def test_too_many_inputs(embedder: LocalEmbedder) -> None:
    """One input too many is a 413; its halves are served, which is what callers do then."""
    with running(embedder, make_settings(max_inputs=4)) as small, small.client() as client:
        inputs = ["a", "b", "c", "d", "e"]
        error(client.post("/embeddings", json=texts(*inputs)), 413, "too_many_inputs")
        error(client.post("/embeddings", json=images(*inputs)), 413, "too_many_inputs")
        halves = [
            len(vectors(client.post("/embeddings", json=texts(*half))))
            for half in (inputs[:3], inputs[3:])
        ]
        assert halves == [3, 2]
        assert len(vectors(client.post("/embeddings", json=texts(*inputs[:4])))) == 4


@pytest.mark.parametrize("chunked", [False, True])
def test_body_over_the_limit(embedder: LocalEmbedder, chunked: bool) -> None:
    """One byte too many is a 413, announced by Content-Length or found while reading."""
    with running(embedder, make_settings(max_body_bytes=2000)) as small, small.client() as client:
        for size, status in ((2000, 200), (2001, 413), (300_000, 413), (2000, 200)):
            body = json.dumps(NOTHING).encode().ljust(size)
            parts = (body[start : start + 500] for start in range(0, size, 500))
            answer = client.post("/embeddings", content=parts if chunked else body)
            assert answer.status_code == status
            if status == 413:
                assert "2,000 bytes" in error(answer, 413, "body_too_large")


def test_more_work_than_time(model: LoadedModel) -> None:
    """What cannot be done in a request's time budget, at the measured speed, is a 413 at once."""
    settings = make_settings(request_seconds=1e-6)
    engine = LocalEmbedder.of(settings, lambda: backend_of(model))
    engine.wait_until_ready()
    with running(engine, settings) as hurried, hurried.client() as client:
        for path in PATHS:
            for body in (texts("a"), texts("a", "b", "c"), images(image())):
                sentence = error(client.post(path, json=body), 413, "too_much_work")
                assert "fewer inputs" in sentence
            assert client.post(path, json=NOTHING).status_code == 200
    engine.close()


def test_rate_limit(embedder: LocalEmbedder) -> None:
    """A key's fourth request in a minute is a 429 with Retry-After; other keys are served."""
    settings = make_settings(rate_limit="3/minute", service_api_key=f"{KEY},other")
    with running(embedder, settings) as limited, limited.client() as client:
        paths = ["/embeddings", "/npz/embeddings", "/"]
        assert [client.post(path, json=NOTHING).status_code for path in paths] == [200] * 3
        for path in PATHS:
            answer = client.post(path, json=NOTHING)
            error(answer, 429, "rate_limited")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        other = {"Authorization": "Bearer other"}
        assert client.post("/embeddings", json=NOTHING, headers=other).status_code == 200
        wrong = {"Authorization": "Bearer wrong"}
        error(client.post("/embeddings", json=NOTHING, headers=wrong), 401, "unauthorized")
        for path in GETS:
            assert client.get(path).status_code == 200


def test_internal_error(model: LoadedModel) -> None:
    """A model that gives no numbers is a 500: an id that is in the headers too, no inner detail."""
    settings = make_settings()
    spoilt = replace(model, model=copy.deepcopy(model.model))
    engine = LocalEmbedder.of(settings, lambda: backend_of(spoilt))
    engine.wait_until_ready()
    with torch.no_grad():
        for parameter in spoilt.model.parameters():
            parameter.fill_(float("nan"))
    with running(engine, settings) as service, service.client() as client:
        for path in PATHS:
            answer = client.post(path, json=HELLO)
            assert answer.status_code == 500
            content = answer.json()
            assert content["code"] == "internal_error"
            assert answer.headers["x-request-id"] in content["error"]
            assert "finite" not in answer.text
            assert "total;dur=" in answer.headers["server-timing"]
        assert client.post("/embeddings", json=NOTHING).status_code == 200
        assert client.get("/health").status_code == 200
    engine.close()


def test_while_loading(model: LoadedModel) -> None:
    """Until the model answers: 503 with Retry-After, but /health lives; then 200."""
    released = threading.Event()

    def load_later() -> Backend[Any]:
        released.wait()
        return backend_of(model)

    settings = make_settings()
    engine = LocalEmbedder.of(settings, load_later)
    with running(engine, settings) as service, service.client() as client:
        for path in PATHS:
            for body in (HELLO, NOTHING):
                answer = client.post(path, json=body)
                error(answer, 503, "not_ready")
                assert int(answer.headers["retry-after"]) > 0
        for path in ("/ready", "/info"):
            answer = client.get(path)
            error(answer, 503, "not_ready")
            assert int(answer.headers["retry-after"]) > 0
        assert client.get("/health").json() == {"status": "alive"}
        assert "pagevec_ready 0.0" in client.get("/metrics").text
        wrong = {"Authorization": "Bearer wrong"}
        error(client.post("/embeddings", json=HELLO, headers=wrong), 401, "unauthorized")

        released.set()
        engine.wait_until_ready()
        for path in PATHS:
            assert client.post(path, json=HELLO).status_code == 200
        assert client.get("/ready").json() == {"status": "ready"}
        assert client.get("/info").json()["model"] == "bundled"
        assert "pagevec_ready 1.0" in client.get("/metrics").text
    engine.close()


def test_when_loading_failed() -> None:
    """A model that does not load never becomes ready: 503 without a time to come back.

    /health fails too, so that whoever started the process starts another one.
    """

    def fail() -> Backend[Any]:
        raise OSError("no such file")

    settings = make_settings()
    engine = LocalEmbedder.of(settings, fail)
    with pytest.raises(OSError, match="no such file"):
        engine.wait_until_ready()
    with running(engine, settings) as service, service.client() as client:
        posted = client.post("/", json=HELLO)
        for answer in (posted, *(client.get(path) for path in ("/ready", "/info", "/health"))):
            error(answer, 503, "engine_failed")
            assert "retry-after" not in answer.headers
        assert client.get("/metrics").status_code == 200
    engine.close()


def test_while_draining(model: LoadedModel) -> None:
    """A service that is shutting down takes nothing new: 503 with Retry-After."""
    settings = make_settings()
    engine = LocalEmbedder.of(settings, lambda: backend_of(model))
    engine.wait_until_ready()
    engine.close()
    with running(engine, settings) as service, service.client() as client:
        for answer in (client.post("/embeddings", json=HELLO), client.get("/ready")):
            error(answer, 503, "draining")
            assert int(answer.headers["retry-after"]) > 0
        assert client.get("/health").status_code == 200


def test_full_queue(model: LoadedModel) -> None:
    """When no more inputs may wait: 503 with Retry-After; what was taken is answered."""
    settings = make_settings(max_queued_inputs=2)
    engine = LocalEmbedder.of(settings, lambda: backend_of(model))
    engine.wait_until_ready()
    with (
        running(engine, settings) as service,
        service.client() as client,
        ThreadPoolExecutor() as threads,
    ):
        long = "many words " * 600
        first = threads.submit(client.post, "/npz/embeddings", json=texts(long, long))
        wait_for(lambda: "pagevec_queue_inputs 2.0" in client.get("/metrics").text)
        for body in (HELLO, images(image())):
            answer = client.post("/embeddings", json=body)
            error(answer, 503, "queue_full")
            assert int(answer.headers["retry-after"]) > 0
        assert not first.done()
        assert int(arrays(first.result())["count"]) == 2
        assert len(vectors(client.post("/embeddings", json=HELLO))) == 1
    engine.close()
