"""A model that is the first one of its process to be loaded, on the emulated device."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LOAD = """
from benchmarks.emulated_cuda import emulated_cuda
from benchmarks.models import make_settings
from pagevec.engine.models.loader import load
from pagevec.engine.models.registry import bundled_checkpoint

with emulated_cuda():
    model = load(make_settings(bundled_checkpoint(), "cuda")).model
    print([float(one.cpu()[0]) for name, one in model.named_buffers() if name.endswith("inv_freq")])
"""


def test_its_rotary_angles_are_there() -> None:
    """The first frequency of each rotary embedding is 1, not what was in the memory before."""
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[1.0, 1.0, 1.0, 1.0]"
