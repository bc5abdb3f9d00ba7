"""The deployed app in Modal's own container runtime, behind an HTTP gateway."""

import base64
import re
import shutil
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

pytestmark = pytest.mark.long

KEY = SECRETS["colpali-service-api-key"]["SERVICE_API_KEY"]
REQUEST_SECONDS = 30
DOCS = (ROOT / "docs" / "modal.md").read_text(encoding="utf-8")
STEPS = 2  # secrets, the service
ADDRESS = "https://<workspace>--embeddings.modal.run"
BLOCKS = re.findall(r"<!-- run -->\n```bash\n(.*?)```", DOCS, re.S)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An empty account, after the first steps of docs/modal.md."""
    folder = tmp_path_factory.mktemp("containers")
    shutil.copy(ROOT / "colpali_modal_app.py", folder)
    with serving(ControlPlane(folder, secrets={})) as started:
        for code in BLOCKS[:STEPS]:
            shell(code, started)
        yield started


@pytest.fixture(scope="module")
def client(plane: ControlPlane) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=plane.gateway, headers=headers, timeout=100, trust_env=False) as one:
        yield one


def bundled() -> dict[str, str]:
    """Return settings that deploy the bundled model to machines without a GPU."""
    return {
        "PAGEVEC_MODEL": "bundled",
        "PAGEVEC_DEVICE": "cpu",
        "PAGEVEC_REQUEST_SECONDS": str(REQUEST_SECONDS),
        "PAGEVEC_MODAL_CPU": "1",
    }


def shell(code: str, plane: ControlPlane) -> str:
    """Run commands of the docs against the stand-in; return what they print."""
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
    """The first request waits until a container has started, and is answered in time."""
    answer = client.post("/embeddings", json={"input_type": "text", "inputs": ["hello"]})
    assert answer.status_code == 200, plane.containers.printed()
    assert len(answer.json()["embeddings"]) == 1


def test_hooks_run_in_order(client: httpx.Client, plane: ControlPlane) -> None:
    """Weights are read before the snapshot; device, warm-up and application come after it."""
    assert client.get("/ready").status_code == 200
    (before,) = plane.checkpoints
    assert "prepared: import" in before
    assert "loaded" not in before
    assert "warm-up" not in before
    after = plane.containers.printed().removeprefix(before)
    assert after.index("loaded bundled") < after.index("warm-up") < after.index("ready: import")


def test_the_keys_of_the_secret_are_asked_for(client: httpx.Client) -> None:
    """A request without a key or with a wrong one is answered with 401."""
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
    """A body of 10 MB, which the gateway splits, arrives complete."""
    body = {"input_type": "image", "inputs": [noise(1700, 1550)]}
    assert len(body["inputs"][0]) > 10_000_000
    answer = client.post("/npz/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    assert len(decode_npz(answer.content)[0]) > 700


def test_fifty_at_once(client: httpx.Client, plane: ControlPlane) -> None:
    """All are answered; a container never gets more requests at once than configured."""
    texts = [f"question number {n}: " + "and then? " * 25 for n in range(50)]

    def ask(text: str) -> np.ndarray:
        body = {"input_type": "text", "inputs": [text]}
        answer = client.post("/npz/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        return decode_npz(answer.content)[0]

    plane.peak = 0
    for _ in range(20):  # until they overlap: a busy machine sends them one after the other
        with ThreadPoolExecutor(50) as threads:
            vectors = list(threads.map(ask, texts))
        assert len({one.tobytes() for one in vectors}) == 50
        if plane.peak > 16:
            break
    assert 16 < plane.peak <= plane.function("Embeddings.*").max_concurrent_inputs == 32


def test_more_than_the_gateway_waits_for(client: httpx.Client) -> None:
    """More work than the time budget allows is refused at once, with a 413; half of it is not."""
    pages = [page(1240, 1754)] * 250
    started = time.perf_counter()
    answer = client.post("/npz/embeddings", json={"input_type": "image", "inputs": pages})
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_much_work"
    assert f"a request may take {REQUEST_SECONDS} s" in answer.json()["error"]
    assert time.perf_counter() - started < REQUEST_SECONDS
    half = client.post("/embeddings", json={"input_type": "image", "inputs": pages[:1]})
    assert half.status_code == 200


def test_every_check_passes(client: httpx.Client, plane: ControlPlane) -> None:
    """`pagevec check` passes."""
    failed = [outcome for outcome in run_checks(plane.gateway, KEY) if not outcome[1]]
    assert failed == []


def test_metrics_of_the_start_and_of_the_money(client: httpx.Client) -> None:
    """/metrics has the seconds of each stage of the start, of the device, and of the container."""
    for stage in ("import", "read", "move", "warm_up"):
        assert metric(client, f'pagevec_start_seconds{{stage="{stage}"}}') > 0
    busy = metric(client, "pagevec_device_busy_seconds_total")
    assert 0 < busy < metric(client, "pagevec_up_seconds_total")


@pytest.mark.parametrize("number", range(STEPS, len(BLOCKS)))
def test_the_docs_commands(number: int, plane: ControlPlane) -> None:
    """The commands of docs/modal.md that are marked to run do what it says, in order."""
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
    """All marked commands are found."""
    assert len(BLOCKS) == 7


def test_scaling_down_runs_the_exit_hook(client: httpx.Client, plane: ControlPlane) -> None:
    """A container that is scaled down exits cleanly and logs how long its device was busy."""
    plane.stop_containers()
    assert set(plane.containers.wait()) == {0}
    said = plane.containers.printed()
    assert re.search(r"stopped: up [\d.]+ s, of these the device was busy", said)
    assert plane.task_results == []
    assert "Traceback" not in said
