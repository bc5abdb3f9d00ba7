"""The first start: two secrets, `modal deploy`, a request, and nothing in the volume."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from control_plane import SECRETS, ControlPlane, serving
from modal_cli import ROOT, modal

from model_hub import Hub, files_of, serving_hub
from pagevec.engine.models.registry import bundled_checkpoint

pytestmark = pytest.mark.long

NAME = "team/pages"
VOLUME = "pagevec-weights"
KEY = SECRETS["colpali-service-api-key"]["SERVICE_API_KEY"]
TOKEN = "hf_right"
WEIGHTS = "model.safetensors"
QUESTION = {"input_type": "text", "inputs": ["which route carried the most passengers?"]}
PATIENCE = 240.0  # seconds; two containers import torch at the same time


class Deployment:
    """An app that was deployed, with the hub that it fetches from."""

    def __init__(self, plane: ControlPlane, hub: Hub, deployed: str) -> None:
        self.plane = plane
        self.hub = hub
        self.deployed = deployed
        self.containers = plane.containers
        self.service = plane.function_id("Embeddings.*")

    def ask(self, key: str = KEY) -> httpx.Response:
        """Send one question."""
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{self.plane.gateway}/embeddings"
        return httpx.post(url, json=QUESTION, headers=headers, timeout=150, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.plane.gateway}{path}", timeout=150, trust_env=False)

    def until(self, seen: Callable[[], bool]) -> None:
        """Wait until `seen`."""
        end = time.monotonic() + PATIENCE
        while not seen():
            assert time.monotonic() < end, self.containers.printed()
            time.sleep(0.2)

    def is_answered(self) -> bool:
        return self.ask().status_code == 200

    def bytes_committed(self) -> int:
        """Return how much of the weights the volume holds, if not all of them."""
        parts = self.containers.volumes.committed(VOLUME).rglob("*.part")
        return sum(part.stat().st_size for part in parts)

    def starts_of_weights(self) -> list[int]:
        """Return from which byte on the hub was asked for the weights, each time."""
        return [start for name, start in self.hub.downloads if name == WEIGHTS]


@pytest.fixture
def hub() -> Hub:
    """A hub that has the bundled model under another name, for those with a token."""
    return Hub({NAME: files_of(bundled_checkpoint())}, token=TOKEN)


@contextmanager
def deployed(folder: Path, hub: Hub, token: str = TOKEN) -> Iterator[Deployment]:
    """Deploy the app of the repository's root, as it is."""
    of_hub = {"HUGGINGFACE_TOKEN": token, "HF_ENDPOINT": hub.url}
    with serving(ControlPlane(folder, {**SECRETS, "my-huggingface-secret": of_hub})) as plane:
        variables = {"PAGEVEC_MODEL": NAME, "PAGEVEC_DEVICE": "cpu", "PAGEVEC_MODAL_CPU": "1"}
        done = modal(plane, "deploy", str(ROOT / "colpali_modal_app.py"), **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Deployment(plane, hub, done.stdout)


def test_two_containers_start_at_once(hub: Hub, tmp_path: Path) -> None:
    """One download, both answer; meanwhile callers are told when to come back.

    Later starts read the volume and need no hub, also from a snapshot from before the download.
    """
    hub.bytes_per_second = 300_000  # so that there is a meanwhile
    with serving_hub(hub), deployed(tmp_path, hub) as app:
        assert f"volume {VOLUME}: does not hold them yet" in app.deployed
        both = {app.containers.start(app.service) for _ in range(2)}
        snapshot = app.containers.start(app.service, frozen=True)

        app.until(lambda: bool(hub.downloads))
        refused, stranger = app.ask(), app.ask(key="wrong")
        assert refused.status_code == 503, refused.text
        assert refused.headers["Retry-After"] == "30"
        assert refused.json()["code"] == "not_ready"
        assert f"the weights of {NAME} into the volume '{VOLUME}'" in refused.json()["error"]
        assert stranger.status_code == 401
        assert app.get("/health").status_code == 200
        assert app.get("/ready").json() == refused.json()
        waiting = app.plane.answered.copy()

        app.until(app.is_answered)
        with ThreadPoolExecutor(16) as threads:
            app.until(
                lambda: (
                    all(
                        one.status_code == 200
                        for one in threads.map(lambda _: app.ask(), range(16))
                    )
                    and all(app.plane.answered[task] > waiting[task] for task in both)
                )
            )
        starts = app.starts_of_weights()
        assert starts[0] == 0
        assert starts == sorted(set(starts)), "one download: nobody asked for the same again"
        printed = app.containers.printed()
        assert f"{NAME}: complete" in printed
        assert re.search(r"team/pages: [\d.]+ MB of 4\.4 MB, 0\.3 MB/s", printed)
        asked = len(hub.downloads)

        hub.repositories = {}
        app.containers.kill(*both, *app.containers.running("download"))
        app.containers.restore(snapshot)
        assert app.ask().status_code == 200
        app.containers.kill()
        assert app.ask().status_code == 200
        assert len(hub.downloads) == asked
        assert app.containers.running("download") == []


def test_killed_in_the_middle(hub: Hub, tmp_path: Path) -> None:
    """What was committed is not fetched again, whether Modal goes on or the next start does."""
    hub.bytes_per_second = 130_000
    with serving_hub(hub), deployed(tmp_path, hub) as app:
        assert app.ask().status_code == 503
        app.until(lambda: app.bytes_committed() > 0)
        first = app.bytes_committed()
        [fetching] = app.containers.running("download")
        app.plane.crash(fetching)  # Modal hands its call to another container

        app.until(lambda: app.bytes_committed() > first)
        assert first in app.starts_of_weights()
        second = app.bytes_committed()
        app.containers.kill()  # nobody goes on
        time.sleep(1)
        hub.bytes_per_second = 0

        app.until(app.is_answered)
        assert second in app.starts_of_weights()
        assert app.starts_of_weights().count(0) == 1


@pytest.mark.parametrize(
    ("token", "url", "said"),
    [
        ("hf_wrong", None, "refuses us (401); set HUGGINGFACE_TOKEN"),
        (TOKEN, "http://127.0.0.1:9", "cannot be reached"),
    ],
    ids=["a wrong token", "a hub that is down"],
)
def test_what_cannot_be_fetched(
    token: str, url: str | None, said: str, hub: Hub, tmp_path: Path
) -> None:
    """The reason stands in the log and in each answer, until the next try succeeds."""
    with serving_hub(hub):
        reachable = hub.url
        hub.url = url or hub.url
        with deployed(tmp_path, hub, token) as app:
            app.until(lambda: said in app.ask().text)
            refused = app.ask()
            assert refused.status_code == 503
            assert refused.json()["code"] == "not_ready"
            assert refused.headers["Retry-After"] == "60"
            assert app.get("/ready").json() == refused.json()
            printed = app.containers.printed()
            assert refused.json()["error"] in printed
            assert token not in printed + refused.text

            for values in app.plane.secret_values.values():  # the operator corrects the secret
                if "HF_ENDPOINT" in values:
                    values |= {"HF_ENDPOINT": reachable, "HUGGINGFACE_TOKEN": TOKEN}
            app.containers.kill(*app.containers.running("download"))  # idle for two seconds
            app.until(app.is_answered)
