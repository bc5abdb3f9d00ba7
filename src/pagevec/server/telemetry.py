"""Telemetry: what is recorded of each request, and Prometheus metrics of one application."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request

from pagevec.engine.api import Embedded, Embedder
from pagevec.search.library import Library

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass
class Record:
    """One request, for its log line, headers and metrics. Never holds an input or a key.

    Attributes:
        id: the caller's X-Request-ID, or one made here.
        key: name of the key that was sent.
        input_type: text or image.
        inputs: how many inputs it has.
        embedded: the engine's answer.
        code: of the error that was answered.
        stages: seconds of each stage.
        begun: when each stage began, in seconds since the request arrived.
        resources: what the request holds until its answer is sent.
    """

    id: str
    key: str | None = None
    input_type: str | None = None
    inputs: int = 0
    embedded: Embedded | None = None
    code: str | None = None
    stages: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    resources: ExitStack = field(default_factory=ExitStack)
    _started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self._started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        self.begun[name] = begun = self.seconds
        try:
            yield
        finally:
            self.stages[name] = self.seconds - begun

    def add_embedded(self, embedded: Embedded) -> None:
        """Add the engine's answer and the stages that it timed, which end one after the other now.

        They are sums over inputs that are worked on at the same time, and so may be longer than
        the request has taken.
        """
        self.embedded = replace(embedded, vectors=[])  # which are large, and not its business
        timings, end = embedded.timings, self.seconds
        stages = {"prepare": timings.prepare, "queue": timings.queue, "model": timings.forward}
        for name, seconds in reversed(stages.items()):
            end = self.begun[name] = max(0.0, end - seconds)
        self.stages |= stages

    def server_timing(self) -> str:
        """Return a Server-Timing header (W3C), in milliseconds."""
        stages = {**self.stages, "total": self.seconds}
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in stages.items())


def get_record(request: Request) -> Record:
    """Return the record that the middleware attached to `request`."""
    record: Record = request.scope["pagevec.record"]
    return record


def is_draining(request: Request) -> bool:
    """Return whether the server that took `request` is shutting down."""
    return bool(request.scope.get("pagevec.draining"))


class Metrics:
    """Counts requests, and reads the state of embedder and library whenever it is scraped."""

    def __init__(self, embedder: Embedder, library: "Future[Library] | None" = None) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(embedder))
        if library is not None:
            self.registry.register(_LibraryCollector(library))
        self._requests = Counter(
            "pagevec_requests",
            "Requests by path, method and status",
            ["path", "method", "status"],
            registry=self.registry,
        )
        self._seconds = self._histogram("request_seconds", "Seconds of a request", ["path"])
        self._stages = self._histogram("stage_seconds", "Seconds of a request's stage", ["stage"])
        self._inputs = self._counter("inputs", "Inputs embedded")
        self._tokens = self._counter("tokens", "Tokens embedded, visual and text")
        self._batches = Histogram(
            "pagevec_batch_size",
            "Inputs in the batch of each input",
            ["input_type"],
            buckets=_SIZES,
            registry=self.registry,
        )

    def count(self, record: Record, method: str, path: str, status: int) -> None:
        """Count a finished request."""
        self._requests.labels(path, method, str(status)).inc()
        self._seconds.labels(path).observe(record.seconds)
        for stage, seconds in record.stages.items():
            self._stages.labels(stage).observe(seconds)
        if record.embedded is not None and record.input_type is not None:
            self._inputs.labels(record.input_type).inc(record.inputs)
            self._tokens.labels(record.input_type).inc(record.embedded.token_count)
            for size in record.embedded.batch_sizes:
                self._batches.labels(record.input_type).observe(size)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_: str) -> Counter:
        return Counter(f"pagevec_{name}", help_, ["input_type"], registry=self.registry)

    def _histogram(self, name: str, help_: str, labels: list[str]) -> Histogram:
        return Histogram(f"pagevec_{name}", help_, labels, buckets=_SECONDS, registry=self.registry)


class _EngineCollector(Collector):
    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._since = time.monotonic()

    def collect(self) -> Iterable[Metric]:
        health = self._embedder.health()
        gauges = {
            "ready": ("1 when the model is ready", float(health.state == "ready")),
            "queue_inputs": ("Inputs accepted and not yet answered", health.queued_inputs),
            "queue_tokens": ("Tokens waiting for a batch", health.queued_tokens),
            "batch_tokens": ("Token budget of a batch", health.batch_tokens),
        }
        if health.state == "ready":
            falls_back = float(self._embedder.info().fallback is not None)
            gauges["fallback"] = ("1 when padded forward passes replace packed ones", falls_back)
        for name, (help_, value) in gauges.items():
            yield GaugeMetricFamily(f"pagevec_{name}", help_, value=value)
        memory = GaugeMetricFamily(
            "pagevec_memory_bytes", "Memory of the device that runs the model", labels=["kind"]
        )
        for kind in ("allocated", "reserved", "peak"):
            memory.add_metric([kind], getattr(health.memory, kind))
        yield memory
        start = GaugeMetricFamily(
            "pagevec_start_seconds", "Seconds of each stage of startup", labels=["stage"]
        )
        for stage, seconds in health.start_seconds.items():
            start.add_metric([stage], seconds)
        yield start
        yield CounterMetricFamily(
            "pagevec_device_busy_seconds",
            "Seconds that the device has been busy",
            value=health.busy_seconds,
        )
        # A rented device costs money from here on, busy or idle.
        yield CounterMetricFamily(
            "pagevec_up_seconds",
            "Seconds that this process has held its device",
            value=time.monotonic() - self._since,
        )


class _LibraryCollector(Collector):
    def __init__(self, library: "Future[Library]") -> None:
        self._library = library

    def collect(self) -> Iterable[Metric]:
        if not self._library.done() or self._library.exception() is not None:
            return
        library = self._library.result()
        yield GaugeMetricFamily(
            "pagevec_documents_waiting",
            "Documents that wait or are being ingested",
            value=library.count_waiting(),
        )
        yield CounterMetricFamily(
            "pagevec_upload_pages", "Pages of uploads that were done", value=library.pages_done()
        )
