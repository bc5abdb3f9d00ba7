"""A container whose GPU is lost: it ends, since Modal replaces containers that have ended."""

from pathlib import Path

import pytest
from containers import run_alone

from pagevec.engine.embedder import EXIT_ENGINE_FAILED

pytestmark = pytest.mark.long

CONTAINER = """
from hostile.lost_device import LOST, LostDevice
from pagevec.deploy.modal.container import Container
import pagevec.engine.backends, pagevec.engine.models.loader as loader
pagevec.engine.backends.choose_backend = lambda *_: LostDevice()
loader.on_device = lambda loaded, device: loaded
started = Container("pagevec-weights")
started.start(fetch=lambda: None, reload=lambda: None)
try:
    started.model.embed_texts([LOST.decode()])
except Exception as error:
    print(error.code, flush=True)
import time
time.sleep(30)
"""


def test_the_container_ends(tmp_path: Path) -> None:
    """Requests fail with `engine_failed`, and the process ends by itself, with its own code."""
    done = run_alone(CONTAINER, folder=tmp_path, PAGEVEC_DEVICE="cpu")
    assert done.stdout.strip() == "engine_failed", done.stderr
    assert done.returncode == EXIT_ENGINE_FAILED
