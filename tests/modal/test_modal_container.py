"""The deployed definition in Modal's own container runtime, behind a gateway that speaks HTTP."""

import base64
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import numpy as np
import pytest
from control_plane import SECRETS, ControlPlane, serving
from modal_cli import ROOT, environment
from PIL import Image

from conftest import png
from pagevec.check import run_checks
from pagevec.wire.decode import decode_json, decode_npz

KEY = SECRETS["colpali-service-api-key"]["SERVICE_API_KEY"]
REQUEST_SECONDS = 30
DOCS = (ROOT / "docs" / "modal.md").read_text(encoding="utf-8")
STEPS = 3  # secrets, weights, the service
ADDRESS = "https://<workspace>--embeddings.modal.run"
BLOCKS = re.findall(r"<!-- run -->\n```bash\n(.*?)```", DOCS, re.S)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An account without anything, and the first steps of docs/modal.md in it."""
    with serving(ControlPlane(tmp_path_factory.mktemp("containers"), secrets={})) as started:
        for code in BLOCKS[:STEPS]:
            shell(code, started)
        yield started


@pytest.fixture(scope="module")
def client(plane: ControlPlane) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=plane.gateway, headers=headers, timeout=100, trust_env=False) as one:
        yield one


def bundled() -> dict[str, str]:
    """Return what deploys the model in the package, for a machine without a GPU."""
    return {
        "PAGEVEC_MODEL": "bundled",
        "PAGEVEC_DEVICE": "cpu",
        "PAGEVEC_REQUEST_SECONDS": str(REQUEST_SECONDS),
        "PAGEVEC_MODAL_CPU": "1",
    }


def shell(code: str, plane: ControlPlane) -> str:
    """Run commands of the docs as a user does, against the stand-in; return what they print."""
    variables = {"HUGGINGFACE_TOKEN": "hf", "SERVICE_API_KEY": KEY, "NEW_KEY": "new-key"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code.replace(ADDRESS, plane.gateway)],
        env=environment(plane, **bundled(), **variables),
        cwd=plane.containers.folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def page(width: int = 300, height: int = 400) -> str:
    return base64.b64encode(png(width, height)).decode()


def noise(width: int, height: int) -> str:
    """Return a page that does not compress."""
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return base64.b64encode(file.getvalue()).decode()


def metric(client: httpx.Client, name: str) -> float:
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.M)
    return float(value)


def test_the_first_request_starts_a_container(client: httpx.Client, plane: ControlPlane) -> None:
    """From zero: the request waits for the start, ends before the gateway gives up, is answered."""
    answer = client.post("/embeddings", json={"input_type": "text", "inputs": ["hello"]})
    assert answer.status_code == 200, plane.containers.printed()
    assert len(answer.json()["embeddings"]) == 1


def test_hooks_run_in_order(client: httpx.Client, plane: ControlPlane) -> None:
    """Weights are read before the snapshot; the device, the warm-up and the app come after it."""
    assert client.get("/ready").status_code == 200
    (before,) = plane.checkpoints
    assert "prepared: import" in before
    assert "loaded" not in before
    assert "warm-up" not in before
    after = plane.containers.printed().removeprefix(before)
    assert after.index("loaded bundled") < after.index("warm-up") < after.index("ready: import")


def test_the_keys_of_the_secret_are_asked_for(client: httpx.Client) -> None:
    """Without a key, or with a wrong one, 401."""
    body = {"input_type": "text", "inputs": ["hello"]}
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}):
        answer = client.post("/embeddings", json=body, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_both_formats(client: httpx.Client) -> None:
    """JSON and npz hold the same vectors."""
    body = {"input_type": "image", "inputs": [page()]}
    as_json = decode_json(client.post("/json/embeddings", json=body).content)
    as_npz = decode_npz(client.post("/npz/embeddings", json=body).content)
    assert as_npz[0].dtype == np.float32
    assert np.abs(as_json[0] - as_npz[0]).max() <= 1e-4


def test_a_large_request(client: httpx.Client) -> None:
    """10 MB come through the gateway in pieces and are put together."""
    body = {"input_type": "image", "inputs": [noise(1700, 1550)]}
    assert len(body["inputs"][0]) > 10_000_000
    answer = client.post("/npz/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    assert len(decode_npz(answer.content)[0]) > 700


def test_fifty_at_once(client: httpx.Client, plane: ControlPlane) -> None:
    """All are answered; a container never has more at once than was deployed."""
    texts = [f"question number {n}: " + "and then? " * 25 for n in range(50)]

    def ask(text: str) -> np.ndarray:
        body = {"input_type": "text", "inputs": [text]}
        answer = client.post("/npz/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        return decode_npz(answer.content)[0]

    plane.peak = 0
    for _ in range(5):  # until they do meet: a busy machine sends them one after the other
        with ThreadPoolExecutor(50) as threads:
            vectors = list(threads.map(ask, texts))
        assert len({one.tobytes() for one in vectors}) == 50
        if plane.peak > 16:
            break
    assert 16 < plane.peak <= plane.function("Embeddings.*").max_concurrent_inputs == 32


def test_more_than_the_gateway_waits_for(client: httpx.Client) -> None:
    """What would outlast the time budget gets, at once, the 413 that makes a caller split it."""
    pages = [page(1240, 1754)] * 250
    started = time.perf_counter()
    answer = client.post("/embeddings", json={"input_type": "image", "inputs": pages})
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_much_work"
    assert f"a request may take {REQUEST_SECONDS} s" in answer.json()["error"]
    assert time.perf_counter() - started < REQUEST_SECONDS
    half = client.post("/embeddings", json={"input_type": "image", "inputs": pages[:1]})
    assert half.status_code == 200


def test_every_check_passes(client: httpx.Client, plane: ControlPlane) -> None:
    """`pagevec check` finds nothing wrong with it."""
    failed = [outcome for outcome in run_checks(plane.gateway, KEY) if not outcome[1]]
    assert failed == []


def test_metrics_of_the_start_and_of_the_money(client: httpx.Client) -> None:
    """Each stage's seconds, and the seconds that are paid for beside those that did work."""
    for stage in ("import", "read", "move", "warm_up"):
        assert metric(client, f'pagevec_start_seconds{{stage="{stage}"}}') > 0
    busy = metric(client, "pagevec_device_busy_seconds_total")
    assert 0 < busy < metric(client, "pagevec_up_seconds_total")


@pytest.mark.parametrize("number", range(STEPS, len(BLOCKS)))
def test_the_docs_commands(number: int, plane: ControlPlane) -> None:
    """The commands of docs/modal.md that are marked to run do what it says, in their order."""
    code = BLOCKS[number]
    said = shell(code, plane)
    assert "deprecat" not in said.lower()
    if "curl" in code:
        assert '"embeddings"' in said
        assert "all passed" in said
    if "NEW_KEY" in code:
        assert plane.secrets["colpali-service-api-key"]["SERVICE_API_KEY"] == f"{KEY},new-key"
        assert plane.rollovers == 1
    if "rollback" in code:
        assert plane.rollbacks == [-1]


def test_the_docs_have_commands() -> None:
    """The marks are where this test looks for them."""
    assert len(BLOCKS) == 7


def test_scaling_down_runs_the_exit_hook(client: httpx.Client, plane: ControlPlane) -> None:
    """When no more requests come the container ends by itself and says what it used."""
    plane.stop_containers()
    assert set(plane.containers.wait()) == {0}
    said = plane.containers.printed()
    assert re.search(r"stopped: up [\d.]+ s, of these the device was busy", said)
    assert plane.task_results == []
    assert "Traceback" not in said
