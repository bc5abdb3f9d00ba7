"""The deployment handed to Ray Serve: replicas, resources, metrics; no cluster is started."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError
from ray.serve import Application, Deployment

from conftest import make_settings
from pagevec.deploy.ray.app import Options, application, replicas_here
from pagevec.deploy.ray.replica import merge_metrics
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings


def deployment(built: Application) -> Deployment:
    return built._bound_deployment


def test_defaults_on_a_cpu() -> None:
    """On a CPU: 0 to 1 replicas by ongoing requests, one at the start, the shutdown time as set."""
    made = deployment(application(make_settings(device="cpu", shutdown_seconds=33), Options()))
    scaling = made._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas) == (0, 1, 1)
    assert scaling.target_ongoing_requests == 4
    assert scaling.downscale_delay_s == 300
    assert made._deployment_config.graceful_shutdown_timeout_s == 33
    assert made.max_ongoing_requests == 64
    assert made.ray_actor_options["num_gpus"] == 0


def test_one_replica_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One replica for each CUDA device, one device each, unless arguments say otherwise."""
    monkeypatch.setattr("pagevec.deploy.ray.app.cuda_devices", lambda: 3)
    made = deployment(application(make_settings(), Options()))
    assert made._deployment_config.autoscaling_config.max_replicas == 3
    assert made.ray_actor_options == {"num_gpus": 1, "num_cpus": 1}
    shared = deployment(application(make_settings(), Options(max_replicas=6, gpus=0.5)))
    assert shared._deployment_config.autoscaling_config.max_replicas == 6
    assert shared.ray_actor_options["num_gpus"] == 0.5
    assert replicas_here(make_settings()) == 3
    assert replicas_here(make_settings(device="cpu")) == 1


def test_what_is_refused() -> None:
    """No key, min above max replicas, one GPU for all, and an unknown argument are refused."""
    with pytest.raises(ConfigurationError, match="SERVICE_API_KEY"):
        application(make_settings(service_api_key=None), Options())
    with pytest.raises(ConfigurationError, match="min_replicas=3 is above max_replicas=2"):
        application(make_settings(), Options(min_replicas=3, max_replicas=2))
    with pytest.raises(ConfigurationError, match="PAGEVEC_DEVICE='cuda:1'"):
        application(make_settings(device="cuda:1"), Options())
    with pytest.raises(ValidationError, match="replicas"):
        Options.model_validate({"replicas": 2})


def test_a_gpu_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops the deployment: replicas that get no GPU from Ray would serve on the CPU."""
    asked: list[str] = []

    def refuse(settings: Settings) -> None:
        asked.append(settings.device)
        raise ConfigurationError("the driver is too old")

    monkeypatch.setattr("pagevec.deploy.ray.app.find_device", refuse)
    with pytest.raises(ConfigurationError, match="too old"):
        application(make_settings(), Options())
    application(make_settings(device="cuda"), Options(gpus=1))  # for machines with GPUs, from here
    application(make_settings(backend="mine:Backend"), Options())
    assert asked == ["auto"]


def page(pages: int) -> str:
    registry = CollectorRegistry()
    Counter("pages", "Pages", ["kind"], registry=registry).labels("a").inc(pages)
    Histogram("seconds", "Seconds", buckets=(1.0,), registry=registry).observe(pages)
    return generate_latest(registry).decode()


def test_metrics_of_two_replicas() -> None:
    """Each metric family appears once, with its type and the samples of both replicas."""
    text = merge_metrics([("one", page(1)), ("other", page(2))]).decode()
    assert text.count("# TYPE pages_total counter") == 1
    assert text.count("# TYPE seconds histogram") == 1
    samples = {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["pages_total", ("a", "one")] == 1
    assert samples["pages_total", ("a", "other")] == 2
    assert samples["seconds_bucket", ("1.0", "one")] == 1
    assert samples["seconds_bucket", ("1.0", "other")] == 0
    assert samples["seconds_sum", ("other",)] == 2
