"""The environment variables of a container on Modal: the settings of the service, as deployed."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pagevec.deploy.modal.gpus import choose_dtype, require_able
from pagevec.deploy.modal.settings import ModalSettings
from pagevec.engine.models.registry import DEFAULT_CHECKPOINT
from pagevec.errors import ConfigurationError, PagevecError
from pagevec.settings import Settings
from pagevec.terminal import show_on_one_line

WEIGHTS = "/weights"
"""Where the volume of weights is mounted."""

CORPUS = "/corpus"
"""Where a bucket is mounted while its documents are embedded."""

GATEWAY_SECONDS = 150.0
"""Modal's gateway answers 303 after this time (https://modal.com/docs/guide/webhook-timeouts)."""

START_SECONDS = 60.0
"""The part of it that is reserved for the start of a container."""

_TRANSFER_SECONDS = 10.0  # for a request body of a hundred megabytes, and for the answer
REQUEST_SECONDS = GATEWAY_SECONDS - START_SECONDS - _TRANSFER_SECONDS
"""The rest: the time budget of a request; one that cannot be answered within it gets a 413."""

_LOCAL = ("HF_HOME", "PAGEVEC_HOST", "PAGEVEC_PORT")
_MODEL = re.compile(r"bundled|\w[\w.-]*/[\w.-]+")  # in the package, or on the hub


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Let an error of pagevec end the process with its message, as the command line does.

    Modal would print the traceback.
    """
    try:
        yield
    except PagevecError as error:
        sys.exit(show_on_one_line(f"pagevec: {error.message}"))


def read_deployment() -> tuple[ModalSettings, dict[str, str]]:
    """Return the settings of the deployment, and the variables that containers get.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    deployed = ModalSettings.from_environment()
    return deployed, container_environment(deployed)


def container_environment(deployed: ModalSettings) -> dict[str, str]:
    """Return the variables that containers get: defaults for Modal, overridden by what is set here.

    All settings that are set here are passed on, except secrets, so that a container reads the
    same settings.

    Raises:
        ConfigurationError: a setting of the service is wrong, names a backend or a folder of the
            user's own, asks for what the GPU cannot do, or gives a request more time than Modal's
            gateway does.
    """
    service = _without_auto(Settings.from_environment(), deployed.gpu)
    _validate(service)
    _validate_device(service, deployed.gpu)
    threads = str(max(1, round(2 * deployed.cpu)))
    return {
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "OMP_NUM_THREADS": threads,  # torch would count the cores of the host
        "HF_HOME": WEIGHTS,
        "CORPUS_FOLDER": CORPUS,
        "PAGEVEC_OFFLINE": "true",  # the volume holds the weights
        "PAGEVEC_PREPROCESS_THREADS": threads,
        "PAGEVEC_REQUEST_SECONDS": str(REQUEST_SECONDS),
        "PAGEVEC_LOG_FORMAT": "json",
        **{k: v for k, v in service.variables().items() if k not in _LOCAL},
        **deployed.variables(),
    }


def _without_auto(service: Settings, gpu: str) -> Settings:
    """Say what `auto` means on this GPU: before a snapshot, containers cannot ask it.

    Where the GPU is missing or cannot be used, a container does not start on the CPU then.
    """
    device = "cuda" if service.device == "auto" else service.device
    means = {
        "model": DEFAULT_CHECKPOINT,
        "device": device,
        "dtype": "auto" if device == "cpu" else choose_dtype(gpu),
    }
    is_auto = {name: value for name, value in means.items() if getattr(service, name) == "auto"}
    return service.model_copy(update=is_auto)


def _validate_device(service: Settings, gpu: str) -> None:
    if service.device == "cuda":
        require_able(gpu, service)
    elif service.device != "cpu":
        raise ConfigurationError(
            f"PAGEVEC_DEVICE={service.device!r}: expected cuda; a container on Modal has one GPU"
        )
    elif service.precision == "fp8":
        raise ConfigurationError(
            "PAGEVEC_PRECISION='fp8' is not supported with PAGEVEC_DEVICE='cpu'; use cuda, or int8"
        )


def _validate(service: Settings) -> None:
    if service.backend is not None:
        raise ConfigurationError(
            f"PAGEVEC_BACKEND={service.backend!r}: on Modal only checkpoints can be served, since "
            "the image does not hold your module"
        )
    if not _MODEL.fullmatch(service.model):
        raise ConfigurationError(
            f"PAGEVEC_MODEL={service.model!r}: expected `bundled`, or OWNER/NAME on the hub; "
            "containers do not have your folders"
        )
    most = GATEWAY_SECONDS - _TRANSFER_SECONDS
    if "request_seconds" in service.model_fields_set and service.request_seconds > most:
        raise ConfigurationError(
            f"PAGEVEC_REQUEST_SECONDS={service.request_seconds:g}: expected at most {most:g}, "
            f"preferably {REQUEST_SECONDS:g}; Modal's gateway gives up {GATEWAY_SECONDS:g} s after "
            "a request arrives, and the start of a container counts"
        )
