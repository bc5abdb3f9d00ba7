"""Ray Serve: one replica for each GPU, between none and as many as there are.

`serve run pagevec.deploy.ray.app:app` on a cluster, or `serveConfigV2` in a RayService: `app` is a
builder that takes :class:`Options` as its arguments. All other settings are pagevec's environment
variables, read where `app` is called and handed to every replica.
"""

import os

from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from pagevec.deploy.ray.replica import Replica
from pagevec.engine.models.loader import cuda_devices
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings

NAME = "pagevec"
# Three batches of single pages at 16,384 tokens: one runs, one is ready, one is being prepared.
# What is above waits in the proxy, its body unread, for the first replica that has room.
MAX_ONGOING_REQUESTS = 64


class Options(BaseModel):
    """Arguments of `app`: how many replicas there may be, and what each of them takes.

    Attributes:
        min_replicas: stay when nobody asks; none is the cheapest, and the first caller waits.
        max_replicas: default: one for each GPU of the machine where `app` is called, at least one.
        gpus: of each replica; default: 1 where that machine has one. Below 1, replicas share.
        cpus: of each replica, as Ray counts them; default: 1 beside a GPU, else its share.
        ongoing_requests: for each replica; more of them start another one.
        idle_seconds: after which a replica that is not needed goes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(0, ge=0)
    max_replicas: int | None = Field(None, ge=1)
    gpus: float | None = Field(None, ge=0)
    cpus: float | None = Field(None, gt=0)
    ongoing_requests: float = Field(4, gt=0)
    idle_seconds: float = Field(300, ge=0)


def app(options: Options) -> serve.Application:
    """Build the application from the environment, for `serve run` and `serve deploy`.

    Raises:
        ConfigurationError: a setting is wrong, or there is no key.
    """
    return application(Settings.from_environment(), options)


def application(settings: Settings, options: Options) -> serve.Application:
    """Return the service as an application of Ray Serve.

    Raises:
        ConfigurationError: there is no key, fewer replicas may be than must be, or all of them
            would take the same GPU.
    """
    _refuse_what_cannot_be(settings)
    as_deployment = serve.deployment(
        name=NAME,
        ray_actor_options=_resources(settings, options),
        autoscaling_config=_autoscaling(settings, options),
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        graceful_shutdown_timeout_s=settings.shutdown_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config={"enable_access_log": False},  # a request has its line already
    )
    return as_deployment(Replica).bind(settings)


def replicas_here(settings: Settings) -> int:
    """Return how many replicas suit this machine: one for each GPU, at least one."""
    return max(1, _gpus_here(settings))


def _refuse_what_cannot_be(settings: Settings) -> None:
    if not settings.keys:
        raise ConfigurationError(
            "there is no key: set SERVICE_API_KEY (several with commas) or SERVICE_API_KEY_FILE"
        )
    if settings.device.startswith("cuda:"):
        raise ConfigurationError(
            f"PAGEVEC_DEVICE is {settings.device!r}: Ray gives each replica a GPU; take cuda"
        )


def _resources(settings: Settings, options: Options) -> dict[str, float]:
    gpus = min(1, _gpus_here(settings)) if options.gpus is None else options.gpus
    share = max(1, (os.cpu_count() or 1) // _most(settings, options))
    return {"num_gpus": gpus, "num_cpus": options.cpus or (1 if gpus else share)}


def _autoscaling(settings: Settings, options: Options) -> dict[str, float]:
    least, most = options.min_replicas, _most(settings, options)
    if least > most:
        raise ConfigurationError(f"min_replicas is {least}, max_replicas {most}")
    return {
        "min_replicas": least,
        # One at the start, whatever may stay: weights that do not load fail the deployment.
        "initial_replicas": max(least, 1),
        "max_replicas": most,
        "target_ongoing_requests": options.ongoing_requests,
        "upscale_delay_s": 10,
        "downscale_delay_s": options.idle_seconds,
    }


def _most(settings: Settings, options: Options) -> int:
    return options.max_replicas or max(replicas_here(settings), options.min_replicas)


def _gpus_here(settings: Settings) -> int:
    return cuda_devices() if settings.device in ("auto", "cuda") else 0
