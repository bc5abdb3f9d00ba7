"""Deployment files, validated with the schemas and linters of the programs that read them."""

import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pagevec.environment import variable_names
from pagevec.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def refuse_unknown_settings(names: list[str]) -> None:
    """Fail if a file sets a variable that pagevec does not read."""
    known = {
        variable for name in Settings.model_fields for variable in variable_names(name, Settings)
    }
    ours = {name for name in names if name.startswith(("PAGEVEC_", "SERVICE_", "HUGGINGFACE"))}
    assert ours
    assert ours <= known


def test_dockerfile() -> None:
    """Hadolint finds nothing, not even at its level info."""
    done = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_images() -> None:
    """Each image has a target and an unprivileged user; only the Ray image has no health check.

    Every file that the build copies is let through by .dockerignore.
    """
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    targets = [line.split(" AS ")[1] for line in lines if line.startswith("FROM")]
    assert {"cpu", "cuda", "ray"} <= set(targets)
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users[-1] == "10001"
    checks = [line for line in lines if line.startswith("HEALTHCHECK")]
    assert [line.split()[1] for line in checks][1:] == ["NONE"]
    sent = [
        f"!{name}"
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    ]
    assert set(sent) <= set((ROOT / ".dockerignore").read_text().split())


def test_what_has_cuda_asks_for_it() -> None:
    """The images with CUDA and Compose with a GPU name the device: without a GPU they do not start.

    The image for the CPU names none, and a line in `.env` may name another one.
    """
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1:]
    device = {
        stage.splitlines()[0].split(" AS ")[1]: re.findall(r"PAGEVEC_DEVICE=(\S+)", stage)
        for stage in stages
    }
    assert {name: found for name, found in device.items() if found} == {
        "cuda": ["cuda"],
        "ray": ["cuda"],
    }
    service = load(DEPLOY / "compose.gpu.yaml")["services"]["pagevec"]
    assert service["build"]["target"] == "cuda"
    assert service["environment"] == {"PAGEVEC_DEVICE": "${PAGEVEC_DEVICE:-cuda}"}


def test_the_first_process_of_the_image() -> None:
    """It is an init, which passes signals on; the health check asks the service's own address.

    Every module that the image starts is there.
    """
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    commands = [
        json.loads(line[line.index("[") :])
        for line in lines
        if line.strip().startswith(("ENTRYPOINT [", "CMD ["))
    ]
    assert commands[1:] == [["tini", "-s", "--"], ["pagevec", "serve"]]
    [python, flag, module] = commands[0]
    assert (python, flag) == ("python", "-m")
    assert find_spec(module) is not None
    assert "tini=" in "".join(lines)


def test_memory_is_limited() -> None:
    """Each container has a limit of memory and processes, the service without swap.

    Compose and systemd start a service again that was killed at its limit.
    """
    services = load(ROOT / "compose.yaml")["services"]
    assert all({"mem_limit", "pids_limit", "restart"} <= set(one) for one in services.values())
    for file in ("compose.yaml", "deploy/compose.gpu.yaml"):
        service = load(ROOT / file)["services"]["pagevec"]
        assert service["memswap_limit"] == service["mem_limit"]
        # In .env, which Compose and pagevec both read, pagevec would refuse a PAGEVEC_ name.
        assert not service["mem_limit"].startswith("${PAGEVEC_")
    assert services["pagevec"]["init"] is True
    unit = (DEPLOY / "systemd" / "pagevec.service").read_text().splitlines()
    assert {"MemoryMax=75%", "MemorySwapMax=0", "Restart=on-failure"} <= set(unit)


@pytest.mark.parametrize("file", ["compose.yaml", "deploy/compose.gpu.yaml"])
def test_compose(file: str) -> None:
    """Compose files are valid by the schema of the Compose specification; images have a tag."""
    vendored = resources.files("check_jsonschema").joinpath("builtin_schemas/vendor")
    schema = json.loads(vendored.joinpath("compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.validate(load(ROOT / file), schema, format_checker=jsonschema.FormatChecker())
    services = load(ROOT / file)["services"]
    assert all(":" in service.get("image", ":") for service in services.values())


def test_compose_settings_and_mounts() -> None:
    """Variables are pagevec's, mounts exist or are named volumes, ports are bound to loopback.

    The service gets more time to stop than it takes at most.
    """
    compose = load(ROOT / "compose.yaml")
    service = compose["services"]["pagevec"]
    refuse_unknown_settings(list(service["environment"]))
    stop = int(service["stop_grace_period"].removesuffix("s"))
    assert stop > int(service["environment"]["PAGEVEC_SHUTDOWN_SECONDS"])
    for one in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))
        for mount in one.get("volumes", []):
            source = mount.split(":")[0]
            made_by_operator = source.startswith("./secrets/")
            assert made_by_operator or source in compose["volumes"] or (ROOT / source).exists()


def test_systemd_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing; the service gets enough time to stop."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs Debian's package systemd")
    text = (DEPLOY / "systemd" / "pagevec.service").read_text()
    refuse_unknown_settings(
        [
            word.split("=")[0]
            for line in text.splitlines()
            if line.startswith("Environment=")
            for word in line[12:].split()
        ]
    )
    stop = next(line for line in text.splitlines() if line.startswith("TimeoutStopSec="))
    assert int(stop.partition("=")[2]) > Settings.model_fields["shutdown_seconds"].default
    unit = tmp_path / "pagevec.service"
    unit.write_text(text.replace("/opt/pagevec/bin/pagevec", str(BIN / "pagevec")))
    done = subprocess.run(
        [program, "verify", "--man=no", "--recursive-errors=no", unit],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
