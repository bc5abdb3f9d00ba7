"""A cold start: from the start of a process to its first vectors, by stages."""

import re
import time
from pathlib import Path

import httpx

from benchmarks import data
from benchmarks.machine import time_once
from benchmarks.models import DEVICE, MODEL, name_model
from benchmarks.report import Measurement, Table, make_command
from benchmarks.services import serve_pagevec

_STAGE = re.compile(r'^pagevec_start_seconds\{stage="(\w+)"\} (\S+)$', re.M)


def measure(checkpoint: Path, device: str) -> Measurement:
    """Start a service and time what its first caller waits for."""
    [text] = data.make_bodies("text", data.make_texts(1), 1)
    [page] = data.make_bodies("image", data.encode_base64(data.make_pages(1)), 1)
    started = time.perf_counter()
    with serve_pagevec(checkpoint, device) as service, service.client() as http:
        ready = time.perf_counter() - started

        def post(body: bytes) -> httpx.Response:
            return http.post("/npz/embeddings", content=body).raise_for_status()

        first_text, first_page = time_once(lambda: post(text)), time_once(lambda: post(page))
        stages = {name: float(value) for name, value in _STAGE.findall(http.get("/metrics").text)}
    seconds = {
        "process started to ready": ready,
        **{f"of these: {stage}": taken for stage, taken in stages.items()},
        "first text, over HTTP": first_text,
        "first page, over HTTP": first_page,
    }
    rows = [{"stage": stage, "seconds": taken} for stage, taken in seconds.items()]
    return Measurement(
        "cold",
        {"model": name_model(checkpoint)},
        {"rows": Table({"": "stage", "s": "seconds:.2f"}, rows)},
        {"ready": ready, "first_text": first_text, "first_page": first_page, "stages": stages},
    )


main = make_command(measure, MODEL, DEVICE)

if __name__ == "__main__":
    main()
