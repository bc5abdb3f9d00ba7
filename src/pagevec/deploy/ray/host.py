"""`pagevec serve --ray`: replicas on this machine, behind the proxy of Ray Serve."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle

from pagevec.deploy.ray.app import NAME, Options, application, replicas_here
from pagevec.errors import CheckpointError
from pagevec.server.run import address_of, listen
from pagevec.settings import Settings
from pagevec.types import ModelInfo

log = logging.getLogger(__name__)

# Request bodies and answers pass through the object store in pieces.
_OBJECT_STORE_BYTES = 512 * 1024 * 1024
# Answers of the replicas are still on their way through the proxy.
_LAST_ANSWERS_SECONDS = 1.0


def run_on_ray(
    settings: Settings, replicas: int | None, greet: Callable[[ModelInfo, str], None]
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in flight.

    Args:
        settings: of the service.
        replicas: how many to run; None means one for each GPU, at least one.
        greet: called with the model and the address once the service is ready.

    Raises:
        ConfigurationError: the address is in use, or does not belong to this machine.
        CheckpointError: no replica could load the model.
    """
    settings, address = _with_free_port(settings)
    ray.init(include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        handle = _start(settings, replicas)
        greet(handle.info.remote().result(), address)
        stopped.wait()
        _drain(handle, settings.shutdown_seconds)
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _start(settings: Settings, replicas: int | None) -> DeploymentHandle[Any]:
    serve.start(
        proxy_location="HeadOnly",
        http_options=HTTPOptions(host=settings.host, port=settings.port, keep_alive_timeout_s=75),
    )
    count = replicas or replicas_here(settings)
    options = Options(min_replicas=count, max_replicas=count)
    try:
        return serve.run(application(settings, options), name=NAME)
    except RuntimeError as error:  # Serve gives up after a few attempts
        raise CheckpointError("no replica could start: see the log above for the reason") from error


def _drain(handle: DeploymentHandle[Any], seconds: float) -> None:
    try:
        handle.broadcast("drain").results(timeout_s=seconds)
    except TimeoutError:
        log.warning("some requests were not finished after %s s", seconds)
    time.sleep(_LAST_ANSWERS_SECONDS)


def _with_free_port(settings: Settings) -> tuple[Settings, str]:
    """Return settings with a port that is free now, and the address; the proxy binds it later."""
    with listen(settings) as listener:
        port = listener.getsockname()[1]
        return settings.model_copy(update={"port": port}), address_of(listener)
