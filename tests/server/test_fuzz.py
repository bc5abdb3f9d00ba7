"""Ten thousand malformed bodies against a real service: documented refusals, nothing else."""

import random
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import schemathesis
from hypothesis import given
from schemathesis.specs.openapi.checks import positive_data_acceptance

from conftest import KEY
from processes import Process, environment, serving
from server.malformed import as_request, generated, image_files, malformed, repeatable, valid_texts
from server.sending import DOCUMENTED, Request, send

pytestmark = pytest.mark.long

BODIES = 10_000
GETS = ("/health", "/ready", "/info", "/metrics")
PATHS = ("/embeddings", "/", "/json/embeddings", "/npz/embeddings")
HELLO = b'{"input_type": "text", "inputs": ["hello"]}'

# Small limits, so that bodies that break them are small too.
LIMITS = {
    "PAGEVEC_MAX_VISUAL_TOKENS": "16",
    "PAGEVEC_MAX_INPUTS": "8",
    "PAGEVEC_MAX_TEXT_CHARS": "64",
    "PAGEVEC_MAX_IMAGE_PIXELS": "4096",
    "PAGEVEC_MAX_IMAGE_BYTES": "8192",
    "PAGEVEC_MAX_BODY_BYTES": "16384",
    "PAGEVEC_LOG_LEVEL": "warning",
}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("fuzz")
    with serving(folder, environment(**LIMITS)) as started:
        yield started


# Sending


def to_everywhere(bodies: list[bytes]) -> list[Request]:
    """Send most bodies where they belong; some elsewhere, with another method or a wrong key."""
    dice = random.Random(1)  # noqa: S311
    requests = []
    for body in bodies:
        method, path, key = "POST", dice.choice(PATHS), KEY
        match dice.randrange(50):
            case 0:
                key = dice.choice(["wrong", "", f"{KEY} x", "\xff"])
            case 1:
                path = dice.choice(["/nothing", "/embeddings/", "/%ff", "/npz"])
            case 2:
                method = dice.choice(["PUT", "PATCH", "DELETE", "GET", "OPTIONS"])
        requests.append(Request(method, path, key, body))
    return requests


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's account of memory")
def test_malformed_bodies(process: Process) -> None:
    """10,000 different malformed bodies: only documented statuses, no fault, no growth.

    The service's memory after them is within 5 % of that after a warm-up of whole bodies and other
    malformed ones; it has logged no fault, and gives a good request the same answer as before.
    """
    shaped = generated(2500)
    bodies = malformed(BODIES, 1, shaped)
    assert len(set(bodies)) == BODIES

    with process.client() as client:
        before = client.post("/embeddings", content=HELLO).json()
        whole = [*valid_texts(), *map(as_request, image_files())]
        served = send(process.port, [Request("POST", "/embeddings", KEY, body) for body in whole])
        assert set(served) == {200}
        send(process.port, to_everywhere(malformed(2000, 2, shaped[:500])))
        warm = process.memory()
        statuses = send(process.port, to_everywhere(bodies))
        grown = process.memory() / warm - 1
        print(f"{statuses}, {warm >> 20} MiB, grown by {grown:.2%}")

        assert sum(statuses.values()) == BODIES
        assert set(statuses) <= DOCUMENTED
        assert {200, 400, 401, 404, 405, 413} <= set(statuses)
        assert statuses[400] > BODIES * 0.8
        assert statuses[200] < BODIES * 0.1
        assert grown < 0.05
        assert process.popen.poll() is None
        assert client.get("/health").json() == {"status": "alive"}
        assert client.get("/ready").json() == {"status": "ready"}
        after = client.post("/embeddings", content=HELLO).json()
        np.testing.assert_allclose(after["embeddings"], before["embeddings"], atol=1e-6)
    log = process.log.read_text()
    assert "Traceback" not in log
    assert "[error" not in log


# The service's own description


@pytest.mark.parametrize(
    ("method", "path"),
    [*(("POST", path) for path in PATHS), *(("GET", path) for path in GETS)],
)
def test_description_holds(process: Process, method: str, path: str) -> None:
    """Requests made from /openapi.json get the statuses, types and shapes that it promises."""
    described = schemathesis.openapi.from_url(f"{process.url}/openapi.json")

    @repeatable(60 if method == "POST" else 3)
    @given(described[path][method].as_strategy())
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(
            headers={"Authorization": f"Bearer {KEY}"},
            # No schema can say that a string is the base64 of an image.
            excluded_checks=[positive_data_acceptance],
        )

    check()
