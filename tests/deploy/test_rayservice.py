"""The manifest for KubeRay, validated without KubeRay's CRD, which no package ships.

Pods and volumes are validated with Kubernetes' schema, `serveConfigV2` with Ray's, its arguments
with ours, and KubeRay's own fields with a schema below, written by hand.
"""

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from pagevec.deploy.ray.app import Options
from pagevec.environment import variable_names
from pagevec.settings import Settings

MANIFEST = Path(__file__).parents[2] / "deploy" / "ray" / "rayservice.yaml"
KUBERNETES = "1.37"


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


COUNT = {"type": "integer", "minimum": 0}
POD = {"type": "object", "required": ["spec"]}  # validated with Kubernetes' schema
START = {"type": "object", "additionalProperties": {"type": "string"}}
GROUP = {"rayStartParams": START, "template": POD}
RAY_SERVICE = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata=closed(["name"], name={"type": "string"}),
    spec=closed(
        ["serveConfigV2", "rayClusterConfig"],
        serveConfigV2={"type": "string"},
        rayClusterConfig=closed(
            ["headGroupSpec"],
            rayVersion={"type": "string"},
            authOptions=closed(["mode"], mode={"enum": ["disabled", "token"]}),
            enableInTreeAutoscaling={"type": "boolean"},
            autoscalerOptions=closed([], idleTimeoutSeconds=COUNT),
            headGroupSpec=closed(["rayStartParams", "template"], **GROUP),
            workerGroupSpecs={
                "type": "array",
                "items": closed(
                    ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
                    groupName={"type": "string"},
                    replicas=COUNT,
                    minReplicas=COUNT,
                    maxReplicas=COUNT,
                    **GROUP,
                ),
            },
        ),
    ),
)


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def cluster(documents: list[dict[str, Any]]) -> dict[str, Any]:
    config: dict[str, Any] = documents[1]["spec"]["rayClusterConfig"]
    return config


@pytest.fixture(scope="module")
def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def test_structure(documents: list[dict[str, Any]]) -> None:
    """The manifest has KubeRay's own fields, with the right types, and a valid volume claim."""
    claim, service = documents
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    jsonschema.validate(service, RAY_SERVICE)


def test_pods(pods: list[dict[str, Any]]) -> None:
    """Pod templates pass Kubernetes' strict schema, as they would in a Deployment."""
    for pod in pods:
        labelled = {"metadata": {"labels": {"app": "pagevec"}}, **pod}
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "pagevec"},
            "spec": {"selector": {"matchLabels": {"app": "pagevec"}}, "template": labelled},
        }
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


def test_serve_config(documents: list[dict[str, Any]], cluster: dict[str, Any]) -> None:
    """Ray accepts serveConfigV2, `app` accepts its arguments, and the versions of Ray agree."""
    config = ServeDeploySchema.model_validate(yaml.safe_load(documents[1]["spec"]["serveConfigV2"]))
    (application,) = config.applications
    options = Options.model_validate(application.args)
    assert application.import_path == "pagevec.deploy.ray.app:app"
    assert options.max_replicas == cluster["workerGroupSpecs"][0]["maxReplicas"]
    assert cluster["rayVersion"] == ray.__version__


def test_pods_agree(pods: list[dict[str, Any]]) -> None:
    """All pods have the same image and valid settings, and time to drain when they stop.

    They ask for CUDA, so that a pod whose GPU cannot be used does not start. The keys are mounted
    as a folder: a subPath would never be updated.
    """
    containers = [container for pod in pods for container in pod["spec"]["containers"]]
    for name in ("image", "env", "volumeMounts"):
        assert containers[0][name] == containers[1][name]
    known = {
        variable for name in Settings.model_fields for variable in variable_names(name, Settings)
    }
    given = {variable["name"]: variable.get("value") for variable in containers[0]["env"]}
    assert set(given) <= known
    assert given["PAGEVEC_DEVICE"] == "cuda"
    (keys,) = (mount for mount in containers[0]["volumeMounts"] if mount["name"] == "keys")
    assert str(given["SERVICE_API_KEY_FILE"]).startswith(keys["mountPath"])
    assert "subPath" not in keys
    seconds = Settings.model_fields["shutdown_seconds"].default
    assert all(pod["spec"]["terminationGracePeriodSeconds"] > seconds for pod in pods)
