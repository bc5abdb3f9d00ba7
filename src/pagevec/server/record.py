"""What is known of one request, for its log line, its headers and the metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import Request

from pagevec.engine.api import Embedded


@dataclass
class Record:
    """Filled while the request is handled. Never holds an input or a key."""

    id: str
    key: str | None = None
    input_type: str | None = None
    inputs: int = 0
    embedded: Embedded | None = None
    code: str | None = None
    stages: dict[str, float] = field(default_factory=dict)  # seconds
    _started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self._started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = time.perf_counter() - started

    def add_embedded(self, embedded: Embedded) -> None:
        """Take in the engine's answer and its stages."""
        self.embedded = embedded
        self.stages["prepare"] = embedded.timings.prepare
        self.stages["queue"] = embedded.timings.queue
        self.stages["model"] = embedded.timings.forward

    def server_timing(self) -> str:
        """Return a Server-Timing header (W3C), in milliseconds."""
        stages = {**self.stages, "total": self.seconds}
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in stages.items())


def record_of(request: Request) -> Record:
    """Return the record that the middleware put beside `request`."""
    record: Record = request.scope["pagevec.record"]
    return record
