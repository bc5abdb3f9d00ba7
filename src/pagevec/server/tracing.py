"""Traces of OpenTelemetry: one span for each request, and below it one for each of its stages.

Nothing is traced, and nothing is sent anywhere, unless the standard OTEL_ variables name an
exporter, or the program around this one has set a provider.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from pagevec import __version__
from pagevec.errors import ConfigurationError
from pagevec.extras import how_to_install
from pagevec.server.telemetry import Record

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Tracing:
    """What traces requests.

    Args:
        tracer: makes the spans.
    """

    def __init__(self, tracer: "Tracer") -> None:
        self._tracer = tracer

    @contextmanager
    def request(self, scope: Scope, record: Record) -> Iterator["RequestTrace"]:
        """Trace a request; its span is the current one in the block.

        It continues the trace that the caller's `traceparent` names, if there is one.
        """
        from opentelemetry import propagate, trace

        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        began = time.time_ns() - round(record.seconds * 1e9)
        span = self._tracer.start_span(
            _method(scope),
            context=propagate.extract(headers),
            kind=trace.SpanKind.SERVER,
            start_time=began,
        )
        traced = RequestTrace(self._tracer, span, record, began)
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield traced


class RequestTrace:
    """The span of one request, until it is finished.

    Args:
        tracer: made it.
        span: of the request.
        record: of the request.
        began: when it arrived, in nanoseconds since 1970.

    Attributes:
        id: of the trace, 32 hex digits; None where it is not recorded.
    """

    def __init__(self, tracer: "Tracer", span: "Span", record: Record, began: int) -> None:
        self._tracer = tracer
        self._span = span
        self._record = record
        self._began = began
        known = span.get_span_context()
        self.id = format(known.trace_id, "032x") if span.is_recording() else None

    def finish(self, scope: Scope, route: str, status: int) -> None:
        """End the span, and add one for each stage; nothing of an input or a key is in them.

        Args:
            scope: of the request.
            route: its path as the application knows it.
            status: that was answered, or 499 where the client was gone.
        """
        from opentelemetry import trace

        record, span = self._record, self._span
        if span.is_recording():
            span.update_name(f"{_method(scope)} {route}")
            attributes: dict[str, str | int | None] = {
                "http.request.method": _method(scope),
                "http.route": route,
                "http.response.status_code": status,
                "error.type": (record.code or str(status)) if status >= 400 else None,
                "pagevec.request_id": record.id,
                "pagevec.input_type": record.input_type,
                "pagevec.inputs": record.inputs or None,
                "pagevec.tokens": record.embedded.token_count if record.embedded else None,
            }
            span.set_attributes({n: value for n, value in attributes.items() if value is not None})
            if status >= 500:
                span.set_status(trace.StatusCode.ERROR)
            above = trace.set_span_in_context(span)
            for name, seconds in record.stages.items():
                start = self._began + round(record.begun.get(name, 0.0) * 1e9)
                stage = self._tracer.start_span(name, context=above, start_time=start)
                stage.end(start + round(seconds * 1e9))
        span.end(self._began + round(record.seconds * 1e9))


def open_tracing() -> Tracing | None:
    """Return what traces requests; None where nobody wants that.

    Raises:
        ConfigurationError: the OTEL_ variables ask for traces, and a package is missing or the
            exporter is not known.
    """
    variables = os.environ
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    wanted = _wanted_exporter(variables)
    # Whoever has set a provider has imported this.
    if wanted is None and "opentelemetry.trace" not in sys.modules:
        return None
    try:
        from opentelemetry import trace
    except ImportError:
        raise ConfigurationError(_missing("OpenTelemetry")) from None
    if wanted is not None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(_make_provider(wanted))
    return Tracing(trace.get_tracer("pagevec", __version__))


def _wanted_exporter(variables: Mapping[str, str]) -> str | None:
    """Return the name of the exporter that the standard variables ask for, None for none."""
    has_endpoint = any(variables.get(name) for name in _ENDPOINTS)
    wanted = variables.get(_EXPORTER) or ("otlp" if has_endpoint else "none")
    return None if wanted == "none" else wanted


def _make_provider(exporter: str) -> Any:
    """Return a provider that sends spans in batches, as the OTEL_ variables say."""
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigurationError(_missing("OpenTelemetry's SDK")) from None
    named = OTELResourceDetector().detect().attributes
    own = {} if SERVICE_NAME in named else {SERVICE_NAME: "pagevec"}
    provider = TracerProvider(resource=Resource.create(own))
    provider.add_span_processor(BatchSpanProcessor(_make_exporter(exporter)))
    log.info("traces are sent by the exporter %r", exporter)
    return provider


def _make_exporter(name: str) -> Any:
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    names = {"otlp": f"otlp_proto_{protocol.partition('/')[0]}"}
    found = entry_points(group="opentelemetry_traces_exporter", name=names.get(name, name))
    try:
        return next(iter(found)).load()()
    except (StopIteration, ImportError):
        raise ConfigurationError(_missing(f"the exporter {name!r} of {_EXPORTER}")) from None


def _missing(what: str) -> str:
    return f"traces need {what}, which is not installed here: {how_to_install('otel')}"


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "_OTHER"
