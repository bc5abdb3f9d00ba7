"""Traces of requests, with OpenTelemetry's own SDK: what is in them, and what is not."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import Receive, Scope, Send

from conftest import KEY, Service, make_settings, running, serving_documents
from pagevec.client import AsyncClient, Client
from pagevec.engine.embedder import LocalEmbedder
from pagevec.errors import ConfigurationError
from pagevec.server.middleware import Observe
from pagevec.server.telemetry import Metrics
from pagevec.server.tracing import Tracing, open_tracing
from processes import environment, serving

TEXTS = ["a secret that nobody shall read", "fares in 2024"]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> trace.Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("tests")


@pytest.fixture
def traced(
    tracer: trace.Tracer, embedder: LocalEmbedder, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """A service whose spans are kept in memory; the process has no provider for all."""
    monkeypatch.setattr("pagevec.server.app.open_tracing", lambda: Tracing(tracer))
    with running(embedder, make_settings()) as service:
        yield service


def wait_for_spans(exporter: InMemorySpanExporter, roots: int = 1) -> list[ReadableSpan]:
    """Return the spans once those of `roots` requests are there: they end after their answer."""
    end = time.monotonic() + 10
    while True:
        found = list(exporter.get_finished_spans())
        if sum(one.kind is trace.SpanKind.SERVER for one in found) >= roots:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.01)


def milliseconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e6


def read_timings(header: str) -> dict[str, float]:
    """Return milliseconds by stage, of a Server-Timing header."""
    parts = (part.split(";dur=") for part in header.split(", "))
    return {name: float(duration) for name, duration in parts}


def test_one_trace_with_the_stages(traced: Service, exporter: InMemorySpanExporter) -> None:
    """The spans of a request are one trace: a root, and below it the stages of Server-Timing.

    Names and durations are those of the header. Neither the inputs nor the key are in them.
    """
    with traced.client() as client:
        answer = client.post("/embeddings", json={"inputs": TEXTS, "input_type": "text"})
    spans = wait_for_spans(exporter)
    timings = read_timings(answer.headers["Server-Timing"])
    [root] = (span for span in spans if span.parent is None)
    stages = {span.name: span for span in spans if span is not root}
    assert (root.name, root.kind) == ("POST /embeddings", trace.SpanKind.SERVER)
    assert set(stages) == set(timings) - {"total"} >= {"receive", "prepare", "model", "encode"}
    assert len(spans) == 1 + len(stages)
    for name, span in stages.items():
        assert span.parent is not None
        assert (span.parent.span_id, span.context.trace_id) == (
            root.context.span_id,
            root.context.trace_id,
        )
        assert milliseconds(span) == pytest.approx(timings[name], abs=0.06)
        assert span.start_time >= root.start_time
    assert milliseconds(root) >= timings["total"] - 0.06
    assert milliseconds(root) == pytest.approx(timings["total"], abs=50)
    assert stages["encode"].start_time >= stages["receive"].end_time
    assert dict(root.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/embeddings",
        "http.response.status_code": 200,
        "pagevec.request_id": answer.headers["X-Request-ID"],
        "pagevec.input_type": "text",
        "pagevec.inputs": 2,
        "pagevec.tokens": root.attributes["pagevec.tokens"] if root.attributes else 0,
    }
    shown = " ".join(span.to_json() for span in spans)
    assert KEY not in shown
    assert not any(text in shown for text in TEXTS)


def test_what_the_caller_sent(traced: Service, exporter: InMemorySpanExporter) -> None:
    """A `traceparent` is continued; one that is malformed, or not sampled, does no harm."""
    parent, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with traced.client() as client:
        for given in (f"00-{parent}-{span}-01", f"00-{parent}-{span}-00", "nonsense", "00-x-y-01"):
            answer = client.get("/info", headers={"traceparent": given})
            assert answer.status_code == 200
    found = wait_for_spans(exporter, roots=3)
    assert [format(one.context.trace_id, "032x") == parent for one in found] == [True, False, False]
    assert found[0].parent is not None
    assert format(found[0].parent.span_id, "016x") == span


def test_errors_and_quiet_paths(traced: Service, exporter: InMemorySpanExporter) -> None:
    """An error has its code; what strangers make up is no name of a span; probes leave none."""
    with traced.client() as client:
        client.get("/health")
        client.get("/metrics")
        client.post("/embeddings", json={"inputs": "x"})
        client.get("/made-up/by-a-stranger")
        client.request("BREW", "/embeddings")
    with Service(traced.url, "wrong").client() as client:
        client.post("/embeddings", json={"inputs": TEXTS, "input_type": "text"})
    found = wait_for_spans(exporter, roots=4)
    named = [(one.name, (one.attributes or {}).get("error.type")) for one in found]
    assert [one for one in named if " " in one[0]] == [
        ("POST /embeddings", "invalid_request"),
        ("GET other", "not_found"),
        ("_OTHER /embeddings", "method_not_allowed"),
        ("POST /embeddings", "unauthorized"),
    ]
    assert all(one.status.status_code is trace.StatusCode.UNSET for one in found)
    assert "stranger" not in " ".join(one.to_json() for one in found)


def test_searches(
    tracer: trace.Tracer,
    exporter: InMemorySpanExporter,
    embedder: LocalEmbedder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A search has spans of the engine and of its own stages; the query is in none of them."""
    monkeypatch.setattr("pagevec.server.app.open_tracing", lambda: Tracing(tracer))
    store = str(tmp_path / "store")
    with serving_documents(embedder, store, tmp_path / "uploads") as (service, library):
        library.add([Path(__file__).parents[2] / "examples" / "notes.txt"])
        with service.client() as client:
            answer = client.post("/search", json={"query": "fares of a day ticket", "k": 1})
    assert answer.json()["hits"]
    found = wait_for_spans(exporter)
    assert {"receive", "prepare", "model", "search", "encode", "POST /search"} == (
        {one.name for one in found} - {"queue"}
    )
    assert "fares" not in " ".join(one.to_json() for one in found)


def test_clients_send_traceparent(
    traced: Service, tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    """The requests of both clients belong to the caller's span, also those of other threads."""
    with Client(traced.url, KEY, max_inputs=1) as client:
        with tracer.start_as_current_span("caller") as span:
            client.embed_texts(TEXTS)
        client.embed_texts(TEXTS[:1])

    async def ask() -> None:
        async with AsyncClient(traced.url, KEY) as client:
            with tracer.start_as_current_span("asynchronous", context=above):
                await client.embed_texts(TEXTS[:1])

    above = trace.set_span_in_context(span)
    asyncio.run(ask())
    found = wait_for_spans(exporter, roots=5)
    caller = span.get_span_context()
    requests = [one for one in found if one.kind is trace.SpanKind.SERVER]
    own = [one for one in requests if one.context.trace_id == caller.trace_id]
    assert [one.name for one in own].count("POST /npz/embeddings") == 3
    assert sum(one.parent is not None and one.parent.span_id == caller.span_id for one in own) == 3
    assert sum(one.parent is None for one in requests) == 1


def test_log_lines_name_the_trace(
    traced: Service,
    exporter: InMemorySpanExporter,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A line of the log has the id of the trace that was recorded."""
    caplog.set_level(logging.INFO, "pagevec.request")
    with traced.client() as client:
        client.get("/info")
    [root] = wait_for_spans(exporter)
    time.sleep(0.1)
    # Where the line goes depends on what was configured before, in this process.
    log = "".join([*capsys.readouterr(), caplog.text])
    assert format(root.context.trace_id, "032x") in log


def test_nothing_by_default() -> None:
    """Without a variable the service sets no provider, and works without OpenTelemetry.

    A client does not import it.
    """
    code = """
import sys
from unittest.mock import Mock
from pagevec.client import Client
Client("http://127.0.0.1:9")
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
from pagevec.server.app import create_app
from pagevec.server.tracing import open_tracing
from pagevec.settings import Settings
create_app(Settings(_env_file=None, service_api_key="x" * 20), Mock())
assert "opentelemetry.sdk" not in sys.modules
from opentelemetry import trace
assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
    del sys.modules[name]
sys.modules["opentelemetry"] = None
assert open_tracing() is None
"""
    clean = {name: value for name, value in environment().items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], check=True, env=clean, timeout=120)


@pytest.mark.parametrize(
    ("variables", "missing", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "opentelemetry.sdk.resources", "OpenTelemetry's SDK"),
        ({"OTEL_TRACES_EXPORTER": "carrier-pigeon"}, "", "'carrier-pigeon'"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "",
            "'otlp'",
        ),
    ],
)
def test_what_is_missing(
    variables: dict[str, str], missing: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the variables ask for traces that cannot be had, the start ends with a sentence."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError) as refused:
        open_tracing()
    assert said in refused.value.message
    assert "pagevec[otel]" in refused.value.message


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_SDK_DISABLED` wins over an endpoint."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_tracing() is None


def seconds_per_request(embedder: LocalEmbedder, tracing: Tracing | None) -> float:
    """Return what the middleware takes for a request with six stages, at best."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for name in ("receive", "decode", "prepare", "queue", "model", "encode"):
            with scope["pagevec.record"].stage(name):
                pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def ignore(message: Any) -> None:
        pass

    async def run(requests: int) -> float:
        observed = Observe(app, Metrics(embedder), tracing)
        started = time.perf_counter()
        for _ in range(requests):
            scope = {"type": "http", "method": "POST", "path": "/x", "headers": [], "client": None}
            await observed(scope, ignore, ignore)  # type: ignore[arg-type]
        return (time.perf_counter() - started) / requests

    return min(asyncio.run(run(100)) for _ in range(5))


def test_overhead(embedder: LocalEmbedder, tracer: trace.Tracer) -> None:
    """A trace of seven spans takes well below a millisecond, one that is not recorded hardly any.

    Documented as measured alone: docs/operations.md.
    """
    without = seconds_per_request(embedder, None)
    idle = seconds_per_request(embedder, Tracing(trace.NoOpTracer())) - without
    recorded = seconds_per_request(embedder, Tracing(tracer)) - without
    print(f"without {without * 1e6:.0f} us, idle +{idle * 1e6:.0f}, recorded +{recorded * 1e6:.0f}")
    assert idle < 0.5e-3
    assert recorded < 5e-3


class Collector(BaseHTTPRequestHandler):
    """Keeps what is posted to it."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.long
def test_sent_to_a_collector(tmp_path: Path) -> None:
    """`pagevec serve` sends its spans where the standard variables say, under the name they give.

    They are flushed when it stops; it also stops, with 0, where no collector is.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.received = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    text = {"inputs": TEXTS, "input_type": "text"}
    for port, expected in ((server.server_port, 1), (9, 0)):
        folder = tmp_path / str(port)
        folder.mkdir()
        variables = environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_RESOURCE_ATTRIBUTES="service.name=pages",
        )
        with serving(folder, variables) as process:
            with process.client() as client:
                assert client.post("/embeddings", json=text).status_code == 200
            started = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - started < 15
        received = list(server.received)  # type: ignore[attr-defined]
        assert len(received) >= expected
    server.shutdown()
    parts = [ExportTraceServiceRequest.FromString(body) for path, body in received]
    assert {path for path, _ in received} == {"/v1/traces"}
    [resource, *_] = [one for part in parts for one in part.resource_spans]
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert named["service.name"] == "pages"
    names = [
        span.name
        for part in parts
        for one in part.resource_spans
        for scope in one.scope_spans
        for span in scope.spans
    ]
    # None of FastAPI's own, which tell paths and queries.
    stages = ["receive", "decode", "prepare", "queue", "model", "encode"]
    assert sorted(names) == sorted(["POST /embeddings", *stages])
    assert KEY not in json.dumps([str(part) for part in parts])
