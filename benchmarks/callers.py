"""The service under load, by the number of callers at the same time."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from benchmarks import data
from benchmarks.machine import summarize_latency
from benchmarks.models import DEVICE, MODEL, name_model
from benchmarks.report import LATENCY, Measurement, Row, Table, make_command, number_option
from benchmarks.services import Load, Service, put_under_load, serve_pagevec
from pagevec.types import InputType

_FORMATS = ("npz", "json")
_COLUMNS = {
    "load": "load",
    "format": "format",
    "callers": "callers",
    "requests": "requests",
    "inputs/s": "inputs_per_second:.1f",
    **LATENCY,
    "kB each": "kb_each:.0f",
}
_PAGES, _TEXTS = 8, 64  # different ones, sent in turn
_EACH = 3  # requests of every caller, at least


def measure(checkpoint: Path, device: str, most: int, requests: int, inputs: int) -> Measurement:
    """Measure throughput and latency over HTTP: pages and texts, npz and JSON.

    Each caller asks again as soon as it has its answer. The callers are threads of this process
    and use the same cores as the service.
    """
    bodies = {
        "pages": _make_bodies("image", data.encode_base64(data.make_pages(_PAGES)), inputs),
        "texts": _make_bodies("text", data.make_texts(_TEXTS), inputs),
    }
    loads = [
        Load(name, sent, inputs, callers, max(requests, _EACH * callers))
        for name, sent in bodies.items()
        for callers in (2**power for power in range(most.bit_length()))
    ]
    with serve_pagevec(checkpoint, device) as service:
        used = _warm_up(service, list(bodies.values()))
        rows = list(_measure_loads(service, loads))
    setup = {"model": name_model(checkpoint), "device": used, "inputs in a request": inputs}
    return Measurement("callers", setup, {"lines": Table(_COLUMNS, rows, words=2)})


def _make_bodies(kind: InputType, different: list[str], batch: int) -> list[bytes]:
    return data.make_bodies(kind, different * -(-batch // len(different)), batch)


def _warm_up(service: Service, loads: list[list[bytes]]) -> str:
    """Send one request of each load in each format; return the service's device."""
    with service.client() as http:
        for form, (body, *_) in itertools.product(_FORMATS, loads):
            http.post(f"/{form}/embeddings", content=body).raise_for_status()
        return str(http.get("/info").raise_for_status().json()["device"])


def _measure_loads(service: Service, loads: list[Load]) -> Iterator[Row]:
    for form, load in itertools.product(_FORMATS, loads):
        answers = put_under_load(service, f"/{form}/embeddings", load)
        yield {
            "load": load.name,
            "format": form,
            "callers": load.clients,
            "inputs_per_second": answers.inputs_per_second,
            "kb_each": answers.bytes / answers.inputs / 1000,
            **summarize_latency(answers.latencies),
        }


main = make_command(
    measure,
    MODEL,
    DEVICE,
    number_option("--most", 32, "Callers at the same time: 1, 2, 4, 8, ... up to this number."),
    number_option("--requests", 24, "Requests of a line; at least 3 of each caller, and 1 s."),
    number_option("--inputs", 1, "Pages or texts in a request."),
)

if __name__ == "__main__":
    main()
