"""The application for Ray Serve: one replica for each GPU, scaled with the load.

`serve run pagevec.deploy.ray.app:app` on a cluster and `serveConfigV2` in a RayService call the
builder `app` with the fields of :class:`Options` as arguments. All other settings are pagevec's
environment variables, read where `app` is called and handed to every replica.
"""

from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from pagevec.deploy.ray.replica import Replica
from pagevec.engine.models.devices import cuda_devices, find_device
from pagevec.errors import ConfigurationError
from pagevec.machine import usable_cores
from pagevec.settings import Settings

NAME = "pagevec"
# Three batches of single pages at 16,384 tokens: one runs, one is ready, one is being prepared.
# Further requests wait in the proxy, bodies unread, for the first replica that has room.
MAX_ONGOING_REQUESTS = 64


class Options(BaseModel):
    """Arguments of `app`: how many replicas to run, and the resources of each.

    Attributes:
        min_replicas: replicas to keep without any load. 0 costs least, but the next caller waits
            until a model has loaded.
        max_replicas: replicas at most. Default: one for each GPU of the machine where `app` is
            called, at least one.
        gpus: GPUs of each replica; replicas share a GPU below 1. Default: 1 if the machine where
            `app` is called has one, else 0.
        cpus: CPUs of each replica, as Ray counts them. Default: 1 with a GPU, else an equal share
            of the cores.
        ongoing_requests: requests in each replica above which another replica is started.
        idle_seconds: seconds after which a replica that is no longer needed is stopped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(0, ge=0)
    max_replicas: int | None = Field(None, ge=1)
    gpus: float | None = Field(None, ge=0)
    cpus: float | None = Field(None, gt=0)
    ongoing_requests: float = Field(4, gt=0)
    idle_seconds: float = Field(300, ge=0)


def app(options: Options) -> serve.Application:
    """Build the application from environment variables, for `serve run` and `serve deploy`.

    Args:
        options: the arguments that were given on the command line or in the manifest.

    Raises:
        ConfigurationError: a setting is wrong, or no API key is set.
    """
    return application(Settings.from_environment(), options)


def application(settings: Settings, options: Options) -> serve.Application:
    """Return the service as an application of Ray Serve.

    Args:
        settings: of the service; every replica gets them.
        options: how many replicas to run, and the resources of each.

    Raises:
        ConfigurationError: no API key is set, `min_replicas` is above `max_replicas`, the device is
            a single GPU for all replicas, or this machine has a GPU that cannot be used.
    """
    _validate(settings)
    if settings.device == "auto" and settings.backend is None:
        find_device(settings)  # a replica that gets no GPU from Ray could not see a fault of one
    as_deployment = serve.deployment(
        name=NAME,
        ray_actor_options=_resources(settings, options),
        autoscaling_config=_autoscaling(settings, options),
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        graceful_shutdown_timeout_s=settings.shutdown_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config={"enable_access_log": False},  # the service logs each request itself
    )
    return as_deployment(Replica).bind(settings)


def replicas_here(settings: Settings) -> int:
    """Return how many replicas this machine has room for: one for each GPU, at least one."""
    return max(1, _gpus_here(settings))


def _validate(settings: Settings) -> None:
    if not settings.keys:
        raise ConfigurationError(
            "no API key is set: set SERVICE_API_KEY (several separated by commas) or "
            "SERVICE_API_KEY_FILE"
        )
    if settings.device.startswith("cuda:"):
        raise ConfigurationError(
            f"PAGEVEC_DEVICE={settings.device!r}: Ray assigns a GPU to each replica; use cuda"
        )


def _resources(settings: Settings, options: Options) -> dict[str, float]:
    gpus = min(1, _gpus_here(settings)) if options.gpus is None else options.gpus
    share = max(1, usable_cores() // _max_replicas(settings, options))
    return {"num_gpus": gpus, "num_cpus": options.cpus or (1 if gpus else share)}


def _autoscaling(settings: Settings, options: Options) -> dict[str, float]:
    least, most = options.min_replicas, _max_replicas(settings, options)
    if least > most:
        raise ConfigurationError(f"min_replicas={least} is above max_replicas={most}")
    return {
        "min_replicas": least,
        # Start one even if none must stay, so that weights that cannot be loaded fail the
        # deployment and not the first caller.
        "initial_replicas": max(least, 1),
        "max_replicas": most,
        "target_ongoing_requests": options.ongoing_requests,
        "upscale_delay_s": 10,
        "downscale_delay_s": options.idle_seconds,
    }


def _max_replicas(settings: Settings, options: Options) -> int:
    return options.max_replicas or max(replicas_here(settings), options.min_replicas)


def _gpus_here(settings: Settings) -> int:
    return cuda_devices() if settings.device in ("auto", "cuda") else 0
