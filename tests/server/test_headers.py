"""Headers of every answer, /info and /metrics."""

import json
from collections.abc import Iterator

import httpx
import pytest

from conftest import KEY, Service
from server.calls import GETS, HELLO, NOTHING, texts


def every_kind_of_answer(client: httpx.Client) -> Iterator[tuple[int, httpx.Response]]:
    """Answers of this service, with the status that each should have."""
    yield 200, client.post("/embeddings", json=HELLO)
    yield 200, client.post("/npz/embeddings", json=NOTHING)
    yield 400, client.post("/embeddings", content=b"{")
    yield 401, client.post("/embeddings", headers={"Authorization": "no"})
    yield 404, client.get("/nothing")
    yield 405, client.options("/embeddings")
    yield 405, client.head("/embeddings")
    yield 413, client.post("/embeddings", json=texts(*["a"] * 257))
    for path in (*GETS, "/docs", "/openapi.json"):
        yield 200, client.get(path)


def test_request_id_is_made(client: httpx.Client) -> None:
    """Every answer, errors included, has an id of its own."""
    ids = set()
    for status, answer in every_kind_of_answer(client):
        assert answer.status_code == status
        ids.add(answer.headers["x-request-id"])
    assert len(ids) == 14
    assert all(len(one) == 32 for one in ids)


def test_request_id_is_echoed(service: Service) -> None:
    """The caller's id comes back on every answer, errors included, and only once."""
    with service.client() as client:
        client.headers["X-Request-ID"] = "Batch_7.page-3"
        for status, answer in every_kind_of_answer(client):
            assert answer.status_code == status
            assert answer.headers.get_list("x-request-id") == ["Batch_7.page-3"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "a;b", '"quoted"', "\xfc", "a\tb", "{}"])
def test_unusable_request_id_is_replaced(client: httpx.Client, given: str) -> None:
    """An id that could spoil a log or a header is replaced by one of ours."""
    answer = client.post(
        "/embeddings", json=NOTHING, headers={"X-Request-ID": given.encode("latin-1")}
    )
    assert answer.status_code == 200
    assert len(answer.headers["x-request-id"]) == 32


def test_server_timing_on_every_answer(client: httpx.Client) -> None:
    """Server-Timing is on every answer; a served request's names all of its stages."""
    for _, answer in every_kind_of_answer(client):
        assert "total;dur=" in answer.headers["server-timing"]
    served = client.post("/embeddings", json=HELLO).headers["server-timing"]
    stages = dict(stage.split(";dur=") for stage in served.split(", "))
    assert list(stages) == [
        "receive",
        "decode",
        "prepare",
        "queue",
        "model",
        "encode",
        "total",
    ]
    assert all(float(milliseconds) >= 0 for milliseconds in stages.values())
    assert float(stages["total"]) >= float(stages["model"]) > 0


def test_info(client: httpx.Client) -> None:
    """/info describes the model, what the bundled weights are good for, and the limits."""
    content = client.get("/info").json()
    assert content["dim"] == 128
    assert "does not understand" in content["notice"]
    assert content["limits"]["max_inputs"] == 256
    assert content["limits"]["max_body_bytes"] == 256 * 1024 * 1024
    assert set(content) >= {"version", "model", "revision", "family", "device", "dtype"}
    assert set(content) >= {"parameters", "resizing", "precision", "default_format", "tells_tokens"}
    assert KEY not in json.dumps(content)


def test_metrics(client: httpx.Client) -> None:
    """Requests are counted by route and status; paths of strangers do not become labels."""
    client.post("/npz/embeddings", json=HELLO)
    client.get("/a-path-that-a-stranger-made-up")
    text = client.get("/metrics").text
    assert 'pagevec_requests_total{method="POST",path="/npz/embeddings",status="200"}' in text
    assert 'pagevec_requests_total{method="GET",path="other",status="404"}' in text
    assert "stranger" not in text
