"""What the real `modal deploy` sends, to a stand-in for Modal's servers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import SECRETS, ControlPlane, serving
from modal_cli import MODULE, ROOT, modal
from modal_proto import api_pb2 as api

from pagevec.deploy.modal.image import pin_packages, read_pins
from pagevec.errors import ConfigurationError

GUILTY = "PAGEVEC_MODAL_"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A deployment with all defaults."""
    with serving(ControlPlane(tmp_path_factory.mktemp("defaults"))) as plane:
        done = modal(plane, "deploy", *MODULE)
        assert done.returncode == 0, done.stdout + done.stderr
        plane.output = done.stdout + done.stderr  # type: ignore[attr-defined]
        yield plane


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with serving(ControlPlane(tmp_path)) as started:
        yield started


def environment_of(plane: ControlPlane) -> dict[str, str]:
    """Return the environment variables of the service's image."""
    layers = plane.image_layers(plane.function("Embeddings.*").image_id)
    lines = [line for layer in layers for line in layer.dockerfile_commands]
    pairs = [line.removeprefix("ENV ").split("=", 1) for line in lines if line.startswith("ENV ")]
    return {name: value.strip("'") for name, value in pairs}


def web(function: api.Function) -> api.WebhookConfig:
    return function.method_definitions["web"].webhook_config


def volume_of(plane: ControlPlane, function: api.Function) -> Any:
    (mount,) = function.volume_mounts
    return plane.others[mount.volume_id], mount


DEFAULTS: dict[str, Any] = {
    # A function that reads the value that was sent, and the expected value.
    "app": (lambda plane, f: plane.app.description, "colpali-embedding-service-prod"),
    "label": (lambda plane, f: web(f).requested_suffix, "embeddings"),
    "proxy_auth": (lambda plane, f: web(f).requires_proxy_auth, False),
    "web": (lambda plane, f: web(f).type, api.WEBHOOK_TYPE_ASGI_APP),
    "gpu": (
        lambda plane, f: (f.resources.gpu_config.gpu_type, f.resources.gpu_config.count),
        ("A10G", 1),
    ),
    "cpu": (lambda plane, f: f.resources.milli_cpu, 2000),
    "memory": (lambda plane, f: f.resources.memory_mb, 16_384),
    "region": (lambda plane, f: list(f.scheduler_placement.regions), []),
    "min_containers": (lambda plane, f: f.autoscaler_settings.min_containers, 0),
    "max_containers": (lambda plane, f: f.autoscaler_settings.max_containers, 5),
    "scaledown_window": (lambda plane, f: f.autoscaler_settings.scaledown_window, 300),
    "timeout": (lambda plane, f: f.timeout_secs, 600),
    "startup_timeout": (lambda plane, f: f.startup_timeout_secs, 600),
    "max_inputs": (lambda plane, f: f.max_concurrent_inputs, 32),
    "target_inputs": (lambda plane, f: f.target_concurrent_inputs, 16),
    "memory_snapshot": (lambda plane, f: f.checkpointing_enabled, True),
    "gpu_snapshot": (lambda plane, f: dict(f.experimental_options), {}),
    "volume": (lambda plane, f: volume_of(plane, f)[0].deployment_name, "pagevec-weights"),
    "volume_path": (lambda plane, f: volume_of(plane, f)[1].mount_path, "/weights"),
    "volume_is_read_only": (lambda plane, f: volume_of(plane, f)[1].read_only, True),
    "secrets": (
        lambda plane, f: [
            (plane.others[id_].deployment_name, list(plane.others[id_].required_keys))
            for id_ in f.secret_ids
        ],
        [("colpali-service-api-key", ["SERVICE_API_KEY"])],
    ),
    "environment": (
        lambda plane, f: environment_of(plane),
        {
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            "OMP_NUM_THREADS": "4",
            "HF_HOME": "/weights",
            "CORPUS_FOLDER": "/corpus",
            "PAGEVEC_MODEL": "tsystems/colqwen2.5-3b-multilingual-v1.0",
            "PAGEVEC_DEVICE": "cuda",
            "PAGEVEC_DTYPE": "bfloat16",
            "PAGEVEC_OFFLINE": "true",
            "PAGEVEC_PREPROCESS_THREADS": "4",
            "PAGEVEC_REQUEST_SECONDS": "80.0",
            "PAGEVEC_LOG_FORMAT": "json",
        },
    ),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_default(name: str, deployed: ControlPlane) -> None:
    """Each default is sent to Modal as documented."""
    read, expected = DEFAULTS[name]
    assert read(deployed, deployed.function("Embeddings.*")) == expected


def test_it_is_published(deployed: ControlPlane) -> None:
    """The published app has the class and the function that fills the volume, nothing else."""
    published = deployed.published
    assert published is not None
    assert set(published.function_ids) == {"Embeddings.*", "download"}
    assert set(published.class_ids) == {"Embeddings"}


def test_download_may_write(deployed: ControlPlane) -> None:
    """The function that fills the volume can write to it, alone; it has the token and no GPU."""
    function = deployed.function("download")
    volume, mount = volume_of(deployed, function)
    assert (volume.deployment_name, mount.mount_path) == ("pagevec-weights", "/weights")
    assert not mount.read_only
    assert not function.resources.gpu_config.gpu_type
    assert function.autoscaler_settings.max_containers == 1
    assert not function.max_concurrent_inputs
    (secret,) = (deployed.others[id_] for id_ in function.secret_ids)
    assert secret.deployment_name == "my-huggingface-secret"
    assert list(secret.required_keys) == ["HUGGINGFACE_TOKEN"]


@pytest.mark.parametrize(
    ("model", "held", "said"),
    [
        ("team/pages", "", "does not hold them yet; the first start fetches them"),
        ("team/pages", "config.json", "holds them already"),
        ("team/adapter", "adapter_config.json", "holds them already"),
        ("bundled", "", "not needed, the model is part of the package"),
    ],
)
def test_the_plan(model: str, held: str, said: str, plane: ControlPlane) -> None:
    """Before anything is sent, the command says what it will do and what the volume holds."""
    if held:
        volume = plane.containers.volumes.committed("weights-of-mine")
        folder = volume / "hub" / f"models--{model.replace('/', '--')}" / "snapshots" / "0123"
        folder.mkdir(parents=True)
        (folder / held).touch()
    done = modal(
        plane, "deploy", *MODULE,
        PAGEVEC_MODEL=model, PAGEVEC_MODAL_GPU="L4", PAGEVEC_MODAL_VOLUME="weights-of-mine",
    )  # fmt: skip
    plan, _, _ = done.stdout.partition("Created objects")
    for line in (
        "pagevec deploys colpali-embedding-service-prod",
        f"model   {model}",
        "machine L4, 2 cores, 16,384 MiB; 0 to 5 containers",
        f"weights volume weights-of-mine: {said}",
        "secrets my-huggingface-secret (HUGGINGFACE_TOKEN), colpali-service-api-key",
        "address https://<workspace>--embeddings.modal.run",
    ):
        assert line in plan, done.stdout + done.stderr


def test_other_commands_print_no_plan(plane: ControlPlane) -> None:
    """`modal run` imports the same module and says nothing of a deployment."""
    done = modal(plane, "run", MODULE[0], f"{MODULE[1]}::download", "--help")
    assert "--only-if-missing" in done.stdout, done.stderr
    assert "pagevec deploys" not in done.stdout


def test_no_deprecation(deployed: ControlPlane) -> None:
    """Modal's client prints no deprecation warning."""
    assert "deprecat" not in deployed.output.lower()  # type: ignore[attr-defined]


def test_a_deprecation_would_show(plane: ControlPlane, tmp_path: Path) -> None:
    """Deprecation warnings go to these streams, so the test above can fail."""
    source = "import modal\napp = modal.App('old')\n@app.function(max_inputs=1)\ndef f(): pass\n"
    (tmp_path / "old.py").write_text(source)
    done = modal(plane, "deploy", str(tmp_path / "old.py"))
    assert done.returncode == 0, done.stderr
    assert "deprecat" in (done.stdout + done.stderr).lower()


class TestImage:
    def test_every_package_is_pinned(self, deployed: ControlPlane) -> None:
        """All packages of the service are installed in the versions of constraints.txt."""
        layers = deployed.image_layers(deployed.function("Embeddings.*").image_id)
        python, fonts, files, packages, _ = [list(layer.dockerfile_commands) for layer in layers]
        assert python[0].startswith("FROM python:3.11")
        assert "fonts-noto-cjk" in fonts[-1]
        assert files[1:] == ["COPY . /"]
        install = packages[-1]
        assert " --constraint /constraints.txt " in install
        pins = {*(ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()}
        named = re.findall(r"(\S+)==(\S+)", install)
        for name, version in named:
            plain = name.strip("'").partition("[")[0].lower()
            assert f"{plain}=={version.strip(chr(39))}" in pins, name
        names = {name.strip("'").partition("[")[0] for name, _ in named}
        assert {"torch", "torchvision", "colpali-engine", "pypdfium2", "uvicorn"} <= names
        assert not names & {"pytest", "modal", "ruff", "torchao", "pagevec"}

    def test_constraints_may_have_hashes_markers_and_comments(self) -> None:
        """Only names and versions are read, and only of lines for the containers' platform."""
        text = """# comment
            --index-url https://index.example.org
            colpali_engine==0.3.18 \\
                --hash=sha256:aa \\
                --hash=sha256:bb
            torch==2.13.0+cpu ; python_version >= "3.8"  # why
            torch==1.0 ; sys_platform == "win32"
            """
        pins = {name: str(version) for name, version in read_pins(text).items()}
        assert pins == {"colpali-engine": "==0.3.18", "torch": "==2.13.0+cpu"}

    def test_a_package_without_a_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A requirement that constraints.txt does not pin stops the deployment and is named."""
        monkeypatch.setattr("importlib.metadata.requires", lambda name: ["unheard-of>=1"])
        with pytest.raises(ConfigurationError, match="no version of unheard-of"):
            pin_packages()

    def test_reduced_precision_brings_its_package(self, plane: ControlPlane) -> None:
        """Setting a precision adds torchao to the image."""
        done = modal(plane, "deploy", *MODULE, PAGEVEC_PRECISION="fp8", PAGEVEC_MODAL_GPU="L4")
        assert done.returncode == 0, done.stdout + done.stderr
        layers = plane.image_layers(plane.function("Embeddings.*").image_id)
        assert " torchao==0.18.0 " in layers[3].dockerfile_commands[-1]
        assert environment_of(plane)["PAGEVEC_PRECISION"] == "fp8"

    def test_torch_is_the_build_with_cuda(self, deployed: ControlPlane) -> None:
        """Torch comes from PyPI, whose wheels for Linux include CUDA; no other index is used."""
        layers = deployed.image_layers(deployed.function("Embeddings.*").image_id)
        install = layers[3].dockerfile_commands[-1]
        assert re.search(r" torch==2\.13\.0 torchvision==0\.28\.0 ", install)
        assert "index" not in install
        assert "+cpu" not in install

    def test_constraints_travel(self, deployed: ControlPlane) -> None:
        """The installer in the image reads the project's constraints.txt."""
        layers = deployed.image_layers(deployed.function("Embeddings.*").image_id)
        (file,) = deployed.others[layers[2].context_mount_id].files
        assert file.filename == "/constraints.txt"

    def test_nothing_slows_the_gpu(self, deployed: ControlPlane) -> None:
        """No variable makes CUDA kernels synchronous."""
        assert "CUDA_LAUNCH_BLOCKING" not in environment_of(deployed)

    def test_the_source_is_mounted_last(self, deployed: ControlPlane) -> None:
        """Exactly this package's modules are mounted; they are not built into a layer."""
        function = deployed.function("Embeddings.*")
        mounts = [deployed.others[id_] for id_ in function.mount_ids]
        mounted = {file.filename for mount in mounts for file in mount.files}
        package = ROOT / "src" / "pagevec"
        modules = {f"/root/pagevec/{m.relative_to(package)}" for m in package.rglob("*.py")}
        assert mounted == modules


def test_the_copy_deploys_the_same(deployed: ControlPlane, plane: ControlPlane) -> None:
    """An unedited colpali_modal_app.py deploys the same as the module."""
    done = modal(plane, "deploy", str(ROOT / "colpali_modal_app.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    theirs, ours = (without_ids(p.function("Embeddings.*")) for p in (plane, deployed))
    assert theirs == ours
    assert plane.app == deployed.app
    changed = dict(set(environment_of(plane).items()) - set(environment_of(deployed).items()))
    assert all(name.startswith(GUILTY) for name in changed)


def without_ids(function: api.Function) -> str:
    return re.sub(r'"(mo|im|st|vo|fu)-\d+"', "", str(function))


def test_the_former_module_name_deploys(deployed: ControlPlane, plane: ControlPlane) -> None:
    """`modal deploy -m pagevec.deploy.modal_app` goes on working for one version."""
    done = modal(plane, "deploy", "-m", "pagevec.deploy.modal_app")
    assert done.returncode == 0, done.stdout + done.stderr
    former, current = (without_ids(p.function("Embeddings.*")) for p in (plane, deployed))
    assert former == current


def test_every_setting_arrives(plane: ControlPlane) -> None:
    """Each setting of the environment is sent to Modal and read by containers; no secret is."""
    given = {
        "APP": "mine", "LABEL": "my-pages", "GPU": "L40S", "CPU": "4.0", "MEMORY": "32768",
        "REGION": "eu", "MIN_CONTAINERS": "1", "MAX_CONTAINERS": "2", "SCALEDOWN_WINDOW": "60",
        "TIMEOUT": "900", "MAX_INPUTS": "8", "TARGET_INPUTS": "4", "GPU_SNAPSHOT": "true",
        "VOLUME": "my-weights", "HUGGINGFACE_SECRET": "hf", "API_KEY_SECRET": "keys",
        "PROXY_AUTH": "true",
    }  # fmt: skip
    plane.secrets = {"hf": {"HUGGINGFACE_TOKEN": "a"}, "keys": {"SERVICE_API_KEY": "b"}}
    service = {"PAGEVEC_MODEL": "vidore/colqwen2-v1.0", "PAGEVEC_REQUEST_SECONDS": "100.0"}
    variables = {f"PAGEVEC_MODAL_{name}": value for name, value in given.items()} | service
    done = modal(plane, "deploy", *MODULE, **variables, SERVICE_API_KEY="of-this-machine")
    assert done.returncode == 0, done.stdout + done.stderr

    function = plane.function("Embeddings.*")
    volume, _ = volume_of(plane, function)
    scaling = function.autoscaler_settings
    assert plane.app is not None
    assert plane.app.description == "mine"
    assert (web(function).requested_suffix, web(function).requires_proxy_auth) == ("my-pages", True)
    assert function.resources.gpu_config.gpu_type == "L40S"
    assert (function.resources.milli_cpu, function.resources.memory_mb) == (4000, 32768)
    assert list(function.scheduler_placement.regions) == ["eu"]
    assert (scaling.min_containers, scaling.max_containers) == (1, 2)
    assert (scaling.scaledown_window, function.timeout_secs) == (60, 900)
    assert (function.max_concurrent_inputs, function.target_concurrent_inputs) == (8, 4)
    assert dict(function.experimental_options) == {"enable_gpu_snapshot": "True"}
    assert volume.deployment_name == "my-weights"
    ids = [*plane.function("download").secret_ids, *function.secret_ids]
    assert [plane.others[id_].deployment_name for id_ in ids] == ["hf", "keys"]
    in_container = environment_of(plane)
    assert variables.items() <= in_container.items()
    assert "of-this-machine" not in str(plane.others.values()) + str(in_container)


class TestFailures:
    def test_a_wrong_gpu(self, plane: ControlPlane) -> None:
        """An unknown GPU ends the command with a message before anything is sent."""
        done = modal(plane, "deploy", *MODULE, PAGEVEC_MODAL_GPU="FOO")
        assert done.returncode == 1
        assert done.stderr.startswith("pagevec: PAGEVEC_MODAL_GPU='FOO': expected T4, L4")
        assert "Traceback" not in done.stderr
        assert plane.calls == []

    def test_a_gpu_that_cannot(self, plane: ControlPlane) -> None:
        """A precision that the GPU lacks ends the command in the same way."""
        done = modal(plane, "deploy", *MODULE, PAGEVEC_PRECISION="fp8")
        assert done.returncode == 1
        assert done.stderr.startswith("pagevec: PAGEVEC_PRECISION='fp8' is not supported on ")
        assert "Traceback" not in done.stderr
        assert plane.calls == []

    @pytest.mark.parametrize(
        "secrets",
        [
            {"my-huggingface-secret": SECRETS["my-huggingface-secret"]},
            {**SECRETS, "colpali-service-api-key": {"API_KEY": "under another name"}},
        ],
        ids=["no secret", "no key in it"],
    )
    def test_a_missing_secret(self, secrets: dict[str, dict[str, str]], tmp_path: Path) -> None:
        """Without a secret, or without its key, the deployment stops and names the secret."""
        with serving(ControlPlane(tmp_path, secrets)) as plane:
            done = modal(plane, "deploy", *MODULE)
            assert done.returncode == 1
            assert "colpali-service-api-key" in done.stdout + done.stderr
            assert plane.published is None
