"""A container whose GPU cannot serve: it says why to all who wait for it, and ends.

Modal starts the next container for the same request where a start fails.
"""

import json
from pathlib import Path

import httpx
import pytest
from containers import run_alone
from control_plane import SECRETS, ControlPlane, serving
from modal_cli import MODULE, modal

from pagevec.engine.embedder import EXIT_ENGINE_FAILED

pytestmark = pytest.mark.long

KEY = SECRETS["colpali-service-api-key"]["SERVICE_API_KEY"]
BODY = {"input_type": "text", "inputs": ["hello"]}

# What is replaced answers in the GPU's place: torch, or what moves the weights there.
START = """
import json, sys, time
import torch
from starlette.testclient import TestClient
from pagevec.deploy.modal import container
from pagevec.engine import embedder

container._REFUSAL_SECONDS, embedder.WIND_DOWN_SECONDS = 1.0, 0.5
torch.version.cuda = "13.0"
exec(sys.argv[1])
started = container.Container("pagevec-weights")
started.prepare(gpu_snapshot=sys.argv[2] == "gpu")
started.start(fetch=lambda: None, reload=lambda: None)
body = {"input_type": "text", "inputs": ["hello"]}
answer = TestClient(started.app).post(
    "/embeddings", json=body, headers={"Authorization": "Bearer key"}
)
print(json.dumps({"status": answer.status_code, **answer.json()}), flush=True)
time.sleep(30)
"""
WORKS = """
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 1
torch.cuda.get_device_capability = lambda _: {}
"""
OLD, AMPERE = WORKS.format((7, 5)), WORKS.format((8, 6))
FULL = f"""{AMPERE}
def to(*_): raise torch.OutOfMemoryError("CUDA out of memory")
torch.nn.Module.to = to
"""


@pytest.mark.parametrize(
    ("gpu", "snapshot", "settings", "said"),
    [
        ("", "cpu", {}, "PAGEVEC_DEVICE='cuda': "),
        (OLD, "cpu", {"DTYPE": "bfloat16"}, "PAGEVEC_DTYPE='bfloat16' is not supported on cuda"),
        (AMPERE, "cpu", {"PRECISION": "fp8"}, "PAGEVEC_PRECISION='fp8' is not supported on cuda"),
        (AMPERE, "gpu", {"PRECISION": "fp8"}, "PAGEVEC_PRECISION='fp8' is not supported on cuda"),
        (FULL, "cpu", {}, "bundled does not fit into the memory of cuda: its weights alone take "),
    ],
    ids=["no GPU", "no bfloat16", "no FP8", "no FP8 in a snapshot of the GPU", "no room"],
)
def test_a_gpu_that_cannot_serve(
    gpu: str, snapshot: str, settings: dict[str, str], said: str, tmp_path: Path
) -> None:
    """The start succeeds; callers get the sentence, the log has it, and the process ends."""
    done = run_alone(
        START,
        gpu,
        snapshot,
        folder=tmp_path,
        PAGEVEC_MODEL="bundled",
        PAGEVEC_DEVICE="cuda",
        **{f"PAGEVEC_{name}": value for name, value in settings.items()},
    )
    assert done.returncode == EXIT_ENGINE_FAILED, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["code"]) == (503, "engine_failed")
    assert answer["error"].startswith(f"the model cannot be served: {said}")
    assert f"this container ends, since it cannot serve: {said}" in done.stderr
    assert "Traceback" not in done.stderr


def test_in_modals_runtime(tmp_path: Path) -> None:
    """On a machine without a GPU the request that starts a container is answered, by one."""
    with serving(ControlPlane(tmp_path)) as plane:
        done = modal(plane, "deploy", *MODULE, PAGEVEC_MODEL="bundled", PAGEVEC_MODAL_CPU="1")
        assert done.returncode == 0, done.stdout + done.stderr
        answer = httpx.post(
            f"{plane.gateway}/embeddings",
            json=BODY,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=100,
            trust_env=False,
        )
        assert answer.status_code == 503, plane.containers.printed()
        assert answer.json()["error"].startswith("the model cannot be served: PAGEVEC_DEVICE=")
        assert plane.containers.wait() == [EXIT_ENGINE_FAILED]
        assert not plane.task_results
