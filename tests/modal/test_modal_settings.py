"""Settings of a deployment: every mistake is named before anything is sent."""

from pathlib import Path
from typing import get_args

import pytest

from pagevec.deploy.modal.environment import GATEWAY_SECONDS, START_SECONDS, container_environment
from pagevec.deploy.modal.gpus import CARDS, Gpu, find_card
from pagevec.deploy.modal.prices import GPU_SECOND
from pagevec.deploy.modal.settings import ModalSettings
from pagevec.engine.models.capabilities import FP8_FROM, dtype_for, show
from pagevec.engine.models.registry import DEFAULT_CHECKPOINT
from pagevec.environment import settings_table
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings


def read(tmp_path: Path) -> ModalSettings:
    return ModalSettings.from_environment(tmp_path / ".env")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("GPU", "FOO", "A10G, L40S"),
        ("GPU", "A10G:0", "A10G, L40S"),
        ("GPU", "A10G:2", "A10G, L40S"),
        ("GPU", "L4,A10G", "A10G, L40S"),
        ("GPU", "T4!", "A10G, L40S"),
        ("MAX_CONTAINERS", "0", "at least 1"),
        ("MIN_CONTAINERS", "-1", "at least 0"),
        ("MIN_CONTAINERS", "6", "is above PAGEVEC_MODAL_MAX_CONTAINERS=5"),
        ("TIMEOUT", "0", "at least 30"),
        ("SCALEDOWN_WINDOW", "1", "at least 2"),
        ("SCALEDOWN_WINDOW", "4000", "at most 3,600"),
        ("MEMORY", "-1", "at least 1,024"),
        ("CPU", "0", "at least 0.125"),
        ("MAX_INPUTS", "8", "is above PAGEVEC_MODAL_MAX_INPUTS=8"),
        ("TARGET_INPUTS", "0", "at least 1"),
        ("LABEL", "My_Pages", "text"),
        ("APP", "with space", "text"),
        ("VOLUME", "a/b", "text"),
        ("API_KEY_SECRET", "", "colpali"),
        ("REGION", "EU WEST", "text"),
        ("MEMORY_SNAPSHOT", "perhaps", "true or false"),
    ],
)
def test_a_wrong_value(
    name: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names the variable, its value and what is allowed; an empty one is the default."""
    monkeypatch.setenv(f"PAGEVEC_MODAL_{name}", value)
    if value == "":
        assert allowed in read(tmp_path).api_key_secret
        return
    with pytest.raises(ConfigurationError) as error:
        read(tmp_path)
    assert allowed in error.value.message
    assert f"PAGEVEC_MODAL_{name}" in error.value.message
    assert value in error.value.message


def test_a_gpu_snapshot_needs_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A snapshot of the GPU's memory needs one of the main memory."""
    monkeypatch.setenv("PAGEVEC_MODAL_GPU_SNAPSHOT", "true")
    monkeypatch.setenv("PAGEVEC_MODAL_MEMORY_SNAPSHOT", "false")
    with pytest.raises(ConfigurationError, match="needs PAGEVEC_MODAL_MEMORY_SNAPSHOT"):
        read(tmp_path)


def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A misspelt variable stops the deployment and the right name is suggested."""
    monkeypatch.setenv("PAGEVEC_MODAL_GPUS", "L4")
    with pytest.raises(ConfigurationError, match="did you mean PAGEVEC_MODAL_GPU"):
        read(tmp_path)


def test_the_service_leaves_them_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Service and deployment ignore each other's variables instead of calling them unknown."""
    monkeypatch.setenv("PAGEVEC_MODAL_GPU", "L4")
    monkeypatch.setenv("PAGEVEC_PORT", "1234")
    assert Settings.from_environment(tmp_path / ".env").port == 1234
    assert read(tmp_path).gpu == "L4"


def test_a_request_ends_before_the_gateway_gives_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The start of a container and a request fit into the gateway's time; settings keep to it."""
    monkeypatch.chdir(tmp_path)
    seconds = float(container_environment(ModalSettings())["PAGEVEC_REQUEST_SECONDS"])
    assert GATEWAY_SECONDS == 150
    assert seconds + START_SECONDS < 150
    monkeypatch.setenv("PAGEVEC_REQUEST_SECONDS", "145")
    with pytest.raises(ConfigurationError, match="PAGEVEC_REQUEST_SECONDS=145: expected at most"):
        container_environment(ModalSettings())


def test_a_backend_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A backend of the user's own is refused: its module would be missing in the containers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAGEVEC_BACKEND", "my_model:Backend")
    with pytest.raises(ConfigurationError, match="PAGEVEC_BACKEND='my_model:Backend'"):
        container_environment(ModalSettings())


@pytest.mark.parametrize("model", ["/models/mine", "./mine", "mine", "~/models/mine"])
def test_a_folder_of_ones_own(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model in a folder is refused: containers do not have it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAGEVEC_MODEL", model)
    with pytest.raises(ConfigurationError, match=f"PAGEVEC_MODEL='{model}': expected `bundled`"):
        container_environment(ModalSettings())


def test_auto_is_a_model_that_can_be_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Containers are told which checkpoint `auto` is, so that its weights are fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAGEVEC_MODEL", "auto")
    assert container_environment(ModalSettings())["PAGEVEC_MODEL"] == DEFAULT_CHECKPOINT


def test_a_container_reads_what_was_deployed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A container derives the same variables from those that the deployment gave it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAGEVEC_MODAL_MAX_INPUTS", "20")
    monkeypatch.setenv("PAGEVEC_DEFAULT_FORMAT", "npz")
    monkeypatch.setenv("HF_HOME", "/of/this/machine")
    there = container_environment(read(tmp_path))
    assert there["HF_HOME"] == "/weights"
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    assert container_environment(read(tmp_path)) == {
        **there,
        **Settings.from_environment().variables(),
        "HF_HOME": "/weights",
    }


def test_every_setting_has_help() -> None:
    """Each variable has a description and its allowed values."""
    assert all(allowed and help_ for _, _, allowed, help_ in settings_table(ModalSettings))


def test_the_table_in_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table in docs/modal.md is the one that `make docs` generates."""
    docs = Path(__file__).parents[2] / "docs"
    monkeypatch.syspath_prepend(str(docs))
    from update import MADE, update  # type: ignore[import-not-found]

    text = (docs / "modal.md").read_text(encoding="utf-8")
    assert update(text, *MADE[docs / "modal.md"]) == text


def test_every_gpu_has_a_price() -> None:
    """Every GPU that can be set has a price, and a card that says what it can do."""
    assert set(GPU_SECOND) == set(get_args(Gpu)) == set(CARDS)
    assert find_card("H100!") == CARDS["H100"]
    assert find_card("B200+") == CARDS["B200"]


def test_the_table_of_gpus_in_the_docs() -> None:
    """The table in docs/modal.md says of each GPU what the code does."""
    text = (Path(__file__).parents[2] / "docs" / "modal.md").read_text(encoding="utf-8")
    for name, card in CARDS.items():
        has_fp8 = "yes" if card.capability >= FP8_FROM else "no"
        numbers = f"{card.gib} | {show(card.capability)} | {dtype_for(card.capability)} | {has_fp8}"
        assert f"  | `{name}` | {numbers} |\n" in text


class TestGpu:
    """What a GPU cannot do is refused before one is paid for."""

    @pytest.fixture(autouse=True)
    def folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)

    def there(self, monkeypatch: pytest.MonkeyPatch, gpu: str, **service: str) -> dict[str, str]:
        """Return the environment of the containers with this GPU and these settings."""
        monkeypatch.setenv("PAGEVEC_MODAL_GPU", gpu)
        for name, value in service.items():
            monkeypatch.setenv(f"PAGEVEC_{name.upper()}", value)
        return container_environment(ModalSettings.from_environment())

    @pytest.mark.parametrize(
        ("gpu", "service", "refused"),
        [
            ("A10G", {"precision": "fp8"}, "'fp8'.*GPU='A10G'.*8.6.*use int8.*L4, L40S"),
            ("A100-80GB", {"precision": "fp8"}, "'fp8'.*8.0, 8.9 is needed"),
            ("T4", {"precision": "fp8"}, "'fp8'.*7.5, 8.9 is needed"),
            ("L4", {"precision": "fp8", "dtype": "float16"}, "'fp8'.*'float16': use bfloat16"),
            ("T4", {"dtype": "bfloat16"}, "'bfloat16'.*GPU='T4'.*auto or float16.*L4, A10,"),
            ("T4", {"dtype": "float32"}, "'T4' is too small.*15.0 GB.*2.5 GB.*has 16.1 GB"),
            ("L4", {"device": "cuda:1"}, "PAGEVEC_DEVICE='cuda:1': expected cuda"),
            ("L4", {"device": "mps"}, "PAGEVEC_DEVICE='mps': expected cuda"),
            ("L4", {"device": "cpu", "precision": "fp8"}, "'fp8'.*'cpu'; use cuda, or int8"),
        ],
    )
    def test_what_it_cannot_do(
        self, gpu: str, service: dict[str, str], refused: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names the settings that do not go together, and what does."""
        with pytest.raises(ConfigurationError, match=refused):
            self.there(monkeypatch, gpu, **service)

    @pytest.mark.parametrize(
        ("gpu", "service", "dtype"),
        [
            ("T4", {}, "float16"),
            ("T4", {"precision": "int8"}, "float16"),
            ("T4", {"model": "somebody/small", "dtype": "float32"}, "float32"),
            ("A10G", {}, "bfloat16"),
            ("A10G", {"dtype": "float16"}, "float16"),
            ("H100!", {"precision": "fp8"}, "bfloat16"),
            ("L40S", {"dtype": "float32"}, "float32"),
            ("L4", {"device": "auto", "dtype": "auto"}, "bfloat16"),
        ],
    )
    def test_what_it_can_do(
        self, gpu: str, service: dict[str, str], dtype: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Containers are told the dtype, since nobody can ask the GPU before a snapshot.

        They are told the device, too: without a GPU none of them starts on the CPU.
        """
        found = self.there(monkeypatch, gpu, **service)
        assert (found["PAGEVEC_DEVICE"], found["PAGEVEC_DTYPE"]) == ("cuda", dtype)

    def test_on_a_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Containers that are to use the CPU choose its dtype themselves."""
        found = self.there(monkeypatch, "T4", device="cpu")
        assert found["PAGEVEC_DEVICE"] == "cpu"
        assert found["PAGEVEC_DTYPE"] == "auto"

    def test_one_that_is_new(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A GPU that is not in the table is refused with the way to have it all the same."""
        with pytest.raises(ConfigurationError, match=r"'B300': expected.*UNKNOWN_GPU=true"):
            self.there(monkeypatch, "B300")
        monkeypatch.setenv("PAGEVEC_MODAL_UNKNOWN_GPU", "true")
        assert self.there(monkeypatch, "B300", precision="fp8")["PAGEVEC_DTYPE"] == "auto"
