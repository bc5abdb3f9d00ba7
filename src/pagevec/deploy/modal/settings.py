"""Settings of a deployment to Modal: environment variables, read once.

Modal's client passes on values that its server, or nobody, refuses (an unknown GPU, no containers,
a timeout of zero); here they stop the deployment before anything is sent.
"""

from typing import Self

from pydantic import model_validator
from pydantic_settings import SettingsConfigDict

from pagevec.deploy.modal.gpus import NAMES, find_card
from pagevec.environment import EnvironmentSettings, bounded

PREFIX = "PAGEVEC_MODAL_"

_NAME = r"^[a-zA-Z0-9._-]{1,64}$"
_LABEL = r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$"  # a part of a host name


class ModalSettings(EnvironmentSettings):
    """The settings of a deployment. Read them with :meth:`from_environment`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    app: str = bounded("colpali-embedding-service-prod", "name of the app", pattern=_NAME)
    label: str = bounded(
        "embeddings", "part of the address: https://<workspace>--<label>.modal.run", pattern=_LABEL
    )

    # The machine
    gpu: str = bounded(
        "A10G", "GPU of each container", pattern=r"^[A-Z0-9][A-Z0-9-]*[!+]?$", expected=NAMES
    )
    unknown_gpu: bool = bounded(
        False, "take a GPU that is not in that list, unchecked: for one that Modal has got since"
    )
    cpu: float = bounded(2.0, "physical cores of each container", ge=0.125, le=64)
    memory: int = bounded(
        16_384, "MiB of each container; the weights must fit in twice", ge=1024, le=344_064
    )
    region: str | None = bounded(
        None, "where containers run, such as `eu`; costs more", pattern=r"^[a-z0-9-]+$"
    )

    # How many, how long
    min_containers: int = bounded(
        0, "containers that keep running without requests; always billed", ge=0, le=1000
    )
    max_containers: int = bounded(5, "containers that may run at the same time", ge=1, le=1000)
    scaledown_window: int = bounded(
        300, "seconds until an idle container stops; billed too", ge=2, le=3600
    )
    timeout: int = bounded(600, "seconds for a request, and for a start", ge=30, le=86_400)
    max_inputs: int = bounded(32, "requests in one container at the same time", ge=1, le=1000)
    target_inputs: int = bounded(
        16, "requests in each container above which Modal starts another one", ge=1, le=1000
    )

    # The start
    memory_snapshot: bool = bounded(True, "start containers from a snapshot of their memory")
    gpu_snapshot: bool = bounded(
        False, "keep the GPU's memory in the snapshot too (alpha at Modal, may change)"
    )

    # What exists at Modal
    volume: str = bounded("pagevec-weights", "volume that holds the weights", pattern=_NAME)
    huggingface_secret: str = bounded(
        "my-huggingface-secret", "secret with HUGGINGFACE_TOKEN", pattern=_NAME
    )
    api_key_secret: str = bounded(
        "colpali-service-api-key", "secret with SERVICE_API_KEY", pattern=_NAME
    )
    proxy_auth: bool = bounded(
        False, "let Modal refuse requests without a proxy token before a container starts"
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if find_card(self.gpu) is None and not self.unknown_gpu:
            raise ValueError(
                f"{PREFIX}GPU={self.gpu!r}: expected {NAMES}; {PREFIX}UNKNOWN_GPU=true takes one "
                "that Modal has got since"
            )
        self._check_order("min_containers", "max_containers")
        self._check_order("target_inputs", "max_inputs")
        if self.gpu_snapshot and not self.memory_snapshot:
            raise ValueError(f"{PREFIX}GPU_SNAPSHOT needs {PREFIX}MEMORY_SNAPSHOT=true")
        return self

    def _check_order(self, low: str, high: str) -> None:
        if getattr(self, low) > getattr(self, high):
            raise ValueError(
                f"{PREFIX}{low.upper()}={getattr(self, low)} is above "
                f"{PREFIX}{high.upper()}={getattr(self, high)}"
            )
