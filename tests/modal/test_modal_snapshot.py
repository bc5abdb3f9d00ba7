"""Before a snapshot: nothing asks CUDA for its devices, whatever is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoints import build_adapter, build_checkpoint

pytestmark = pytest.mark.long

TESTS = Path(__file__).parents[1]

# Torch here may be built without CUDA: it is made to look like a build with it, so that whoever
# asks comes to what counts. NVML counts devices, too.
ASKED = """
import json, sys, traceback
import torch

asked = []

def count(answer):
    def counted(*_):
        asked.append("".join(traceback.format_stack(limit=8)))
        return answer
    return counted

torch._C._cuda_getDeviceCount = count(0)
torch._C._cuda_init = count(None)
torch._C._cuda_getCurrentRawStream = lambda _: 0
torch._C._accelerator_getAccelerator = lambda: torch.device("cuda")
torch.cuda._device_count_nvml = count(-1)
torch.backends.cuda.is_built = lambda: True
torch.version.cuda = "13.0"
"""
PREPARED = """
from pagevec.deploy.modal.container import Container

container = Container("pagevec-weights")
container.prepare(gpu_snapshot=False)
before, asked[:] = list(asked), []
torchao_before = "torchao" in sys.modules

from pagevec.engine.backends import backend_of, load
from pagevec.engine.models.loader import on_device
from pagevec.settings import Settings

restored = backend_of(on_device(container._loaded, torch.device("cpu")))
other = load(Settings.from_environment(device="cpu", dtype="bfloat16"))
[one], [expected] = [each.forward(list(each.prepare_texts(["page"]))) for each in (restored, other)]
print(json.dumps({
    "asked": before,
    "torchao": [torchao_before, "torchao" in sys.modules],
    "precision": restored.info().precision,
    "cosine": float(min((one.astype(float) * expected).sum(axis=1))),
}))
"""


def run(code: str, folder: Path, **settings: str) -> str:
    """Run `code` in a process of its own that has imported nothing yet."""
    variables = {f"PAGEVEC_{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{TESTS.parent / 'src'}",
            "CORPUS_FOLDER": str(folder),
            **variables,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def model(kind: str, folder: Path) -> str:
    if kind == "bundled":
        return kind
    base = build_checkpoint("colqwen2_5", folder / "base")
    return str(build_adapter("colqwen2_5", base, folder / "adapter"))


@pytest.mark.parametrize("kind", ["bundled", "adapter"])
def test_nothing_asks_for_devices(kind: str, tmp_path: Path) -> None:
    """With torchao installed and int8 wanted, `prepare` asks CUDA nothing and reads the weights.

    After the snapshot the precision is reduced, and the vectors are those of a model that was
    loaded in one step, but for rounding.
    """
    settings = {"model": model(kind, tmp_path), "device": "cuda", "precision": "int8"}
    found = json.loads(run(ASKED + PREPARED, tmp_path, **settings))
    assert found["asked"] == [], "\n".join(found["asked"])
    assert found["torchao"] == [False, True]
    assert found["precision"] == "int8"
    # Not equal: sums differ by where the memory of a model lies. Full precision is at 0.9996.
    assert found["cosine"] > 0.9999


def test_who_asks_is_counted(tmp_path: Path) -> None:
    """Importing torchao asks: the test above can fail."""
    assert int(run(ASKED + "import torchao\nprint(len(asked))", tmp_path)) > 0
