"""What a container on Modal finds in its environment: the service's settings, as deployed."""

import sys

from pagevec.deploy.modal.settings import ModalSettings
from pagevec.engine.models.registry import DEFAULT_CHECKPOINT
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings

WEIGHTS = "/weights"
"""Where the volume of weights is mounted."""

CORPUS = "/corpus"
"""Where a bucket of documents is mounted, when a corpus is embedded."""

GATEWAY_SECONDS = 150.0
"""After this long Modal's gateway answers 303 (https://modal.com/docs/guide/webhook-timeouts)."""

START_SECONDS = 60.0
"""Of these, kept for a start from zero."""

_TRANSFER_SECONDS = 10.0  # a body of a hundred megabytes on its way in, the answer on its way out
REQUEST_SECONDS = GATEWAY_SECONDS - START_SECONDS - _TRANSFER_SECONDS
"""What is left for a request's waiting and work; what cannot be done in it gets a 413."""

_OF_THIS_MACHINE = ("HF_HOME", "PAGEVEC_HOST", "PAGEVEC_PORT")


def read_deployment() -> tuple[ModalSettings, dict[str, str]]:
    """Return what is deployed, and the containers' variables.

    A setting that is wrong ends the process with a sentence, as the command line does: of any other
    exception in a module Modal's prints the traceback.
    """
    try:
        deployed = ModalSettings.from_environment()
        return deployed, container_environment(deployed)
    except ConfigurationError as error:
        sys.exit(f"pagevec: {error.message}")


def container_environment(deployed: ModalSettings) -> dict[str, str]:
    """Return the containers' variables: defaults for Modal, below what is set here.

    Everything that was set travels, secrets excepted, so that a container reads the same settings.

    Raises:
        ConfigurationError: a setting of the service is wrong, or outlasts Modal's gateway.
    """
    service = Settings.from_environment()
    _refuse_what_outlasts_the_gateway(service)
    threads = str(max(1, round(2 * deployed.cpu)))
    return {
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "OMP_NUM_THREADS": threads,  # by itself torch would count the host's cores
        "HF_HOME": WEIGHTS,
        "CORPUS_FOLDER": CORPUS,
        "PAGEVEC_MODEL": DEFAULT_CHECKPOINT,
        "PAGEVEC_DEVICE": "cuda",
        "PAGEVEC_OFFLINE": "true",  # the volume holds the weights
        "PAGEVEC_PREPROCESS_THREADS": threads,
        "PAGEVEC_REQUEST_SECONDS": str(REQUEST_SECONDS),
        "PAGEVEC_LOG_FORMAT": "json",
        **{k: v for k, v in service.variables().items() if k not in _OF_THIS_MACHINE},
        **deployed.variables(),
    }


def _refuse_what_outlasts_the_gateway(service: Settings) -> None:
    most = GATEWAY_SECONDS - _TRANSFER_SECONDS
    if "request_seconds" in service.model_fields_set and service.request_seconds > most:
        raise ConfigurationError(
            f"PAGEVEC_REQUEST_SECONDS is {service.request_seconds:g}; Modal's gateway gives up "
            f"after {GATEWAY_SECONDS:g} s, the start of a container included: at most {most:g}, "
            f"better {REQUEST_SECONDS:g}"
        )
