"""The Helm chart: its values against their schema, and what the real Helm makes of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from helm import find_helm

import pagevec
from conftest import make_settings
from pagevec.engine.embedder import LocalEmbedder
from pagevec.environment import variable_names
from pagevec.server.app import create_app
from pagevec.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "pagevec"
KUBERNETES = "1.37"
sys.path.insert(0, str(ROOT / "docs"))
from update import CHART_SCHEMA, chart_schema  # type: ignore[import-not-found]  # noqa: E402

SCHEMA = json.loads(CHART_SCHEMA.read_text(encoding="utf-8"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
KEYS = {"keys": {"existingSecret": "pagevec-keys"}}
ON_CPUS = {
    **KEYS,
    "gpu": {"count": 0},
    "resources": {"requests": {}, "limits": {}},
    "settings": {
        "PAGEVEC_MODEL": "bundled",
        "PAGEVEC_STORE": "/data/store",
        "PAGEVEC_UPLOADS": True,
        "PAGEVEC_MAX_BODY_BYTES": 536_870_912,
        "PAGEVEC_REQUEST_SECONDS": 90.5,
    },
}
EVERYTHING = {
    "image": {"tag": "0.2", "pullSecrets": ["registry"]},
    "keys": {"values": ["a-key-of-sixteen-characters", "another-key-of-the-same"]},
    "settings": {"PAGEVEC_MODEL": "some/model"},
    "env": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
    "envFromSecrets": ["pagevec-store"],
    "huggingFace": {"existingSecret": "hugging-face"},
    "gpu": {"count": 2, "runtimeClassName": "nvidia"},
    "autoscaling": {"enabled": True, "minReplicas": 2, "cpuPercent": 80},
    "strategy": "RollingUpdate",
    "shutdownSeconds": 300,
    "persistence": {"accessModes": ["ReadWriteMany"], "storageClassName": "nfs"},
    "service": {"type": "LoadBalancer", "annotations": {"example.org/a": "b"}},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "pages.example.org",
        "tlsSecret": "certificate",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "600m"},
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "nodeSelector": {"gpu": "h200"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "podAnnotations": {"example.org/c": "d"},
    "podLabels": {"team": "search"},
}
# Written by hand: no package ships the definition of the Prometheus operator.
SERVICE_MONITOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "metadata": {"type": "object", "required": ["name", "labels"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "endpoints"],
            "properties": {
                "selector": {"type": "object", "required": ["matchLabels"]},
                "endpoints": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["port", "path"],
                        "properties": {
                            "port": {"const": "http"},
                            "path": {"const": "/metrics"},
                            "interval": {"type": "string"},
                        },
                    },
                },
            },
        },
    },
}


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return values as Helm merges them: maps by their names, everything else as a whole."""
    both = {
        name: merged(values[name], value)
        if isinstance(value, dict) and isinstance(values.get(name), dict)
        else value
        for name, value in over.items()
    }
    return {**values, **both}


def parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas in it."""
    yield schema
    for name in ("items", "additionalProperties", "propertyNames", "not"):
        if isinstance(schema.get(name), dict):
            yield from parts(schema[name])
    for one in schema.get("properties", {}).values():
        yield from parts(one)


def test_the_schema() -> None:
    """It is a strict one, in the words of the draft that all versions of Helm read.

    Each object has a closed list of properties, is a map of its own, or is Kubernetes' own. The
    settings are those of the service, as `make docs` writes them.
    """
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    own = {"as Kubernetes has it", "Helm's own, where this is part of another chart"}
    for one in parts(SCHEMA):
        if one.get("type") == "object" and one.get("description") not in own:
            assert "additionalProperties" in one, one
        assert "(?" not in one.get("pattern", "")  # Go has no lookaheads
    assert chart_schema(CHART_SCHEMA.read_text()) == CHART_SCHEMA.read_text()
    settings = set(SCHEMA["properties"]["settings"]["properties"])
    known = {variable_names(name, Settings)[0] for name in Settings.model_fields}
    assert known - settings == {
        "PAGEVEC_PORT", "PAGEVEC_SHUTDOWN_SECONDS", "SERVICE_API_KEY", "SERVICE_API_KEY_FILE",
        "HUGGINGFACE_TOKEN",
    }  # fmt: skip
    assert settings <= known


@pytest.mark.parametrize("values", [{}, KEYS, ON_CPUS, EVERYTHING])
def test_values_that_are_valid(values: dict[str, Any]) -> None:
    """The chart's own values, and those of users, pass their schema; every default is in it."""
    jsonschema.validate(merged(VALUES, values), SCHEMA)
    assert set(VALUES) == set(SCHEMA["properties"]) - {"global"}


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 2},
        {"image": {"repositry": "x"}},
        {"settings": {"PAGEVEC_MODLE": "x"}},
        {"settings": {"PAGEVEC_DTYPE": "int3"}},
        {"settings": {"PAGEVEC_MAX_INPUTS": 0}},
        {"settings": {"SERVICE_API_KEY": "a-key-in-the-open"}},
        {"env": {"PAGEVEC_MODEL": "x"}},
        {"keys": {"values": ["short"]}},
        {"keys": {"values": ["two keys with spaces in them"]}},
        {"gpu": {"count": -1}},
        {"gpu": {"resource": "gpu"}},
        {"strategy": "Rolling"},
        {"resources": {"limits": {"memory": "16 GB"}}},
        {"persistence": {"accessModes": []}},
        {"service": {"port": 70_000}},
        {"ingress": {"host": "https://pages.example.org"}},
        {"ingress": {"paths": ["documents"]}},
        {"serviceMonitor": {"interval": "15"}},
    ],
)
def test_values_that_are_refused(values: dict[str, Any]) -> None:
    """A name that is mistyped, and a value that cannot be meant."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(VALUES, values), SCHEMA)


def test_the_chart_is_of_this_version() -> None:
    """Chart and application have the version of the package."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == chart["version"] == pagevec.__version__


def test_what_is_reached_from_outside(embedder: LocalEmbedder) -> None:
    """The paths of the Ingress are those of the service, all but `/metrics`."""
    from concurrent.futures import Future

    from pagevec.search.library import Library

    library: Future[Library] = Future()
    app = create_app(make_settings(store="x", uploads=True), embedder, library)
    paths = {getattr(route, "path", "") for route in app.router.routes} - {"", "/"}

    def is_reached(path: str) -> bool:
        allowed = VALUES["ingress"]["paths"]
        return any(path == one or path.startswith(f"{one}/") for one in allowed)

    assert {path for path in paths if not is_reached(path)} == {"/metrics"}
    for one in VALUES["ingress"]["paths"]:
        assert any(path == one or path.startswith(f"{one}/") for path in paths), one


@pytest.fixture(scope="module")
def helm() -> Path:
    return find_helm()


def run_helm(
    helm: Path, tmp_path: Path, values: dict[str, Any], *command: str
) -> "subprocess.CompletedProcess[str]":
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return subprocess.run(
        [helm, *command, str(CHART), "--values", str(file)],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def render(helm: Path, tmp_path: Path, values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the manifests that Helm makes, by kind, each valid by Kubernetes' strict schema."""
    lint = run_helm(helm, tmp_path, values, "lint", "--strict")
    assert lint.returncode == 0, lint.stdout + lint.stderr
    options = ("--namespace", "search", "--kube-version", KUBERNETES)
    done = run_helm(helm, tmp_path, values, "template", *options, "pages")
    assert done.returncode == 0, done.stderr
    manifests = [one for one in yaml.safe_load_all(done.stdout) if one is not None]
    for one in manifests:
        if one["kind"] == "ServiceMonitor":
            jsonschema.validate(one, SERVICE_MONITOR)
        else:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
    by_kind = {one["kind"]: one for one in manifests}
    assert len(by_kind) == len(manifests)
    return by_kind


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in container["env"]}


@pytest.mark.long
def test_rendered_with_a_gpu(helm: Path, tmp_path: Path) -> None:
    """The least values: one pod with a GPU, keys in a folder, weights in a volume.

    Probes ask the service's own paths, and it gets more time to stop than it takes at most.
    """
    made = render(helm, tmp_path, KEYS)
    assert set(made) == {"Deployment", "Service", "PersistentVolumeClaim"}
    deployment = made["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "registry.example.org/pagevec:cuda"
    assert container["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "1"}
    given = variables(container)
    known = {one for name in Settings.model_fields for one in variable_names(name, Settings)}
    assert set(given) <= known
    assert given["PAGEVEC_DEVICE"] == "cuda"
    stop = int(given["PAGEVEC_SHUTDOWN_SECONDS"])
    assert stop == Settings.model_fields["shutdown_seconds"].default
    assert pod["terminationGracePeriodSeconds"] > stop + 5
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    assert Path(given["SERVICE_API_KEY_FILE"]).parent == Path("/etc/pagevec")
    assert "subPath" not in mounts["/etc/pagevec"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert set(volumes) == {one["name"] for one in container["volumeMounts"]}
    assert volumes["keys"]["secret"]["secretName"] == "pagevec-keys"
    claim = made["PersistentVolumeClaim"]["metadata"]["name"]
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (deployment["selector"]["matchLabels"], made["Service"]["spec"]["selector"]):
        assert selector.items() <= labels.items()
    probes = [container[f"{one}Probe"]["httpGet"]["path"] for one in ("liveness", "readiness")]
    assert probes == ["/health", "/ready"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.long
def test_rendered_without_a_gpu(helm: Path, tmp_path: Path) -> None:
    """The image for CPUs, no device; numbers and flags arrive as the service reads them."""
    made = render(helm, tmp_path, ON_CPUS)
    [container] = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith(":cpu")
    assert "nvidia.com/gpu" not in container["resources"].get("limits", {})
    given = variables(container)
    assert "PAGEVEC_DEVICE" not in given
    assert given["PAGEVEC_MAX_BODY_BYTES"] == "536870912"
    assert given["PAGEVEC_REQUEST_SECONDS"] == "90.5"
    read = {
        name: given[variable_names(name, Settings)[0]]
        for name in ("model", "store", "uploads", "max_body_bytes", "request_seconds")
    }
    settings = make_settings(**read)
    assert (settings.uploads, settings.max_body_bytes) == (True, 536_870_912)


@pytest.mark.long
def test_rendered_with_everything(helm: Path, tmp_path: Path) -> None:
    """All that is optional, at once; each part refers to the others by their right names."""
    made = render(helm, tmp_path, EVERYTHING)
    assert set(made) == {
        "Deployment", "Service", "PersistentVolumeClaim", "Secret", "Ingress",
        "HorizontalPodAutoscaler", "ServiceMonitor",
    }  # fmt: skip
    name = made["Deployment"]["metadata"]["name"]
    assert "replicas" not in made["Deployment"]["spec"]  # the autoscaler's own
    pod = made["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert container["envFrom"] == [{"secretRef": {"name": "pagevec-store"}}]
    assert variables(container)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    keys = {one["name"]: one for one in pod["volumes"]}["keys"]["secret"]["secretName"]
    assert made["Secret"]["metadata"]["name"] == keys
    assert made["Secret"]["stringData"]["keys"].splitlines() == EVERYTHING["keys"]["values"]
    scaled = made["HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == name
    assert [one["type"] for one in scaled["metrics"]] == ["Pods", "Resource"]
    [rule] = made["Ingress"]["spec"]["rules"]
    for path in rule["http"]["paths"]:
        assert path["backend"]["service"] == {
            "name": made["Service"]["metadata"]["name"],
            "port": {"name": "http"},
        }
    assert "/metrics" not in {path["path"] for path in rule["http"]["paths"]}
    selected = made["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert selected.items() <= made["Service"]["metadata"]["labels"].items()


@pytest.mark.long
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "there is no key"),
        ({"keys": {"existingSecret": "a", "values": ["b" * 16]}}, "not with both"),
        ({**KEYS, "replicaCount": 2}, "ReadWriteMany"),
        ({**KEYS, "strategy": "RollingUpdate"}, "ReadWriteMany"),
        (
            {
                **KEYS,
                "persistence": {"enabled": False},
                "autoscaling": {"enabled": True, "queuedInputs": 0},
            },
            "autoscaling.queuedInputs",
        ),
        ({**KEYS, "ingress": {"enabled": True}}, "ingress.host is missing"),
        ({**KEYS, "settings": {"PAGEVEC_MODLE": "x"}}, "'PAGEVEC_MODLE' not allowed"),
    ],
)
def test_refused_by_helm(helm: Path, tmp_path: Path, values: dict[str, Any], said: str) -> None:
    """What cannot work ends with a sentence before anything is installed."""
    done = run_helm(helm, tmp_path, values, "template", "pages")
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.long
def test_packaged(helm: Path, tmp_path: Path) -> None:
    """`helm package` makes an archive of it, which renders, too."""
    packed = subprocess.run(
        [helm, "package", CHART, "--destination", tmp_path],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert packed.returncode == 0, packed.stderr
    [archive] = tmp_path.glob("pagevec-*.tgz")
    shown = subprocess.run(
        [helm, "template", "pages", archive, "--set", "keys.existingSecret=x"],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    assert "kind: Deployment" in shown.stdout
