"""Settings: read once, every mistake cited."""

import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pagevec.deploy.modal.settings import ModalSettings
from pagevec.environment import EnvironmentSettings, settings_table, variable_names
from pagevec.errors import ConfigurationError
from pagevec.settings import Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_API_KEY", "HUGGINGFACE_TOKEN", "HF_TOKEN", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)


def read(tmp_path: Path, **overrides: object) -> Settings:
    return Settings.from_environment(tmp_path / ".env", **overrides)


def test_environment_over_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable wins over .env, an option over both; what is in .env alone counts."""
    (tmp_path / ".env").write_text("PAGEVEC_PORT=1111\nPAGEVEC_HOST=::1\nSERVICE_API_KEY=a,b\n")
    monkeypatch.setenv("PAGEVEC_PORT", "2222")
    settings = read(tmp_path)
    assert (settings.port, settings.host, settings.keys) == (2222, "::1", ("a", "b"))
    assert read(tmp_path, port="3333").port == 3333


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("port", "http", "a whole number, at least 0 and at most 65,535"),
        ("port", "70000", "a whole number, at least 0 and at most 65,535"),
        ("max_inputs", "0", "a whole number, at least 1 and at most 100,000"),
        ("dtype", "int4", "auto, float32, bfloat16 or float16"),
        ("device", "gpu", "auto, cpu, mps, cuda or cuda:N"),
        ("default_format", "xml", "json or npz"),
        ("offline", "perhaps", "true or false"),
        ("rate_limit", "often", "a rate such as `600/minute`"),
        ("request_seconds", "-1", "a number, above 0 and at most 86,400"),
        ("backend", "mymodel", "package.module:name"),
    ],
)
@pytest.mark.parametrize("given_as", ["variable", "file", "option", "argument"])
def test_a_wrong_value(
    name: str,
    value: str,
    expected: str,
    given_as: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The error cites the value as the user gave it, and says what is expected."""
    monkeypatch.chdir(tmp_path)
    variable, option = f"PAGEVEC_{name.upper()}", f"--{name.replace('_', '-')}"
    cited = f"{variable}={value!r}"
    read_it: Callable[[], Settings] = Settings.from_environment
    if given_as == "variable":
        monkeypatch.setenv(variable, value)
    elif given_as == "file":
        (tmp_path / ".env").write_text(f"{variable}={value}\n")
    elif given_as == "option":
        read_it = partial(Settings.from_environment, options={name: value})
        cited = f"{option} {value}"
    else:
        read_it = partial(Settings.from_environment, **{name: value})
        cited = f"{name}={value!r}"
    with pytest.raises(ConfigurationError) as error:
        read_it()
    assert error.value.message == f"{cited}: expected {expected}"


def test_a_setting_is_cited_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Errors that are found later cite a setting in the same way; a copy remembers it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAGEVEC_HOST", "::1")
    typed = Settings.from_environment(options={"device": "cuda:7"})
    for settings in (
        typed,
        typed.model_copy(update={"port": 1}),
        pickle.loads(pickle.dumps(typed)),  # noqa: S301 (Ray sends settings so)
    ):
        assert settings.cite("device") == "--device cuda:7"
        assert settings.cite("host") == "PAGEVEC_HOST='::1'"
        assert settings.cite("precision") == "PAGEVEC_PRECISION='full'"
    in_python = Settings.from_environment(device="cuda:7", service_api_key="secret")
    assert in_python.cite("device") == "device='cuda:7'"
    assert in_python.cite("service_api_key") == "SERVICE_API_KEY"


def test_an_unknown_argument(tmp_path: Path) -> None:
    """A misspelt argument is refused, and the right one is offered."""
    with pytest.raises(ConfigurationError, match=r"unknown setting devcie; did you mean device\?"):
        read(tmp_path, devcie="cpu")


def test_values_with_an_environment_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What `variables` returns, secrets excepted, reads back to the same settings."""
    monkeypatch.setenv("SERVICE_API_KEY", "very-secret")
    settings = read(tmp_path, offline=True, device="cuda:1", max_inputs=3, backend="a.b:C")
    variables = settings.variables()
    assert "very-secret" not in str(variables)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert read(tmp_path).model_dump() == settings.model_dump()


@pytest.mark.parametrize("in_file", [True, False])
def test_an_unknown_name(in_file: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A misspelt variable stops the start, and the right one is offered."""
    if in_file:
        (tmp_path / ".env").write_text("PAGEVEC_MODLE=x\n")
    else:
        monkeypatch.setenv("PAGEVEC_MODLE", "x")
    with pytest.raises(ConfigurationError, match=r"PAGEVEC_MODLE.*did you mean PAGEVEC_MODEL"):
        read(tmp_path)


@pytest.mark.parametrize("in_file", [True, False])
def test_the_address_of_a_service(
    in_file: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PAGEVEC_URL is for the commands that ask a service: the start ignores it, and only it."""
    for name in ("PAGEVEC_URL", "pagevec_url"):
        if in_file:
            (tmp_path / ".env").write_text(f"{name}=http://127.0.0.1:9000\n")
        else:
            monkeypatch.setenv(name, "http://127.0.0.1:9000")
        assert read(tmp_path).model_fields_set == set()
    (tmp_path / ".env").write_text("PAGEVEC_URLS=http://127.0.0.1:9000\n")
    with pytest.raises(ConfigurationError, match="unknown setting PAGEVEC_URLS"):
        read(tmp_path)


OF_SERVICES = {
    # a Service named pagevec, with a named port
    "PAGEVEC_SERVICE_HOST": "10.0.0.1",
    "PAGEVEC_SERVICE_PORT": "8765",
    "PAGEVEC_SERVICE_PORT_HTTP": "8765",
    "PAGEVEC_PORT": "tcp://10.0.0.1:8765",
    "PAGEVEC_PORT_8765_TCP": "tcp://10.0.0.1:8765",
    "PAGEVEC_PORT_8765_TCP_PROTO": "tcp",
    "PAGEVEC_PORT_8765_TCP_PORT": "8765",
    "PAGEVEC_PORT_8765_TCP_ADDR": "10.0.0.1",
    # others, whose names begin with ours or with those of settings
    "PAGEVEC_MODEL_SERVICE_HOST": "fd00::1",
    "PAGEVEC_MODEL_PORT": "udp://[fd00::1]:53",
    "PAGEVEC_MODEL_PORT_53_UDP_ADDR": "fd00::1",
    "PAGEVEC_MODAL_PORT": "tcp://10.0.0.2:80",
    "PAGEVEC_MODAL_PORT_80_SCTP": "sctp://10.0.0.2:80",
    "PAGEVEC_MODAL_SERVICE_PORT": "80",
}


@pytest.mark.parametrize("kind", [Settings, ModalSettings])
@pytest.mark.parametrize("in_file", [True, False])
def test_what_kubernetes_sets_for_a_service(
    kind: type[EnvironmentSettings],
    in_file: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The names that Kubernetes makes for Services are as if not set, with one line in the log."""
    file = tmp_path / ".env"
    file.write_text("PAGEVEC_PORT=9000\n")
    if in_file:
        file.write_text("".join(f"{name}={value}\n" for name, value in OF_SERVICES.items()))
    else:
        for name, value in OF_SERVICES.items():
            monkeypatch.setenv(name, value)
    settings = kind.from_environment(file)
    assert settings.model_fields_set == ({"port"} if kind is Settings and not in_file else set())
    [line] = [record.getMessage() for record in caplog.records]
    assert "Kubernetes" in line
    assert ("PAGEVEC_PORT" if kind is Settings else "PAGEVEC_MODAL_PORT") in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAGEVEC_PORT", "tcp"),
        ("PAGEVEC_PORT", "http://10.0.0.1:8765"),
        ("PAGEVEC_PROT", "tcp://10.0.0.1:8765"),
        ("PAGEVEC_SERVICE_HOSTS", "10.0.0.1"),
        ("PAGEVEC_SERVICE_PORT", "http"),
        ("PAGEVEC_PORT_8765_TCP_PROTO", "yes"),
        ("PAGEVEC_MODEL_PORT", "8765"),
    ],
)
def test_what_only_resembles_a_service(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A mistake in a name or a value still stops the start, and is named."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        read(tmp_path)


@pytest.mark.parametrize("value", [" , ", "with space", "umlaut-ü"])
def test_a_key_that_cannot_be_sent(
    value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key that no header can carry stops the start, and is not shown."""
    monkeypatch.setenv("SERVICE_API_KEY", value)
    with pytest.raises(ConfigurationError) as error:
        read(tmp_path)
    assert "SERVICE_API_KEY" in error.value.message
    assert value not in error.value.message


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither repr nor str of the settings gives a key or a token away."""
    monkeypatch.setenv("SERVICE_API_KEY", "very-secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    settings = read(tmp_path)
    assert settings.huggingface_token is not None
    assert "secret" not in f"{settings!r} {settings}".replace("SecretStr", "")


def test_settings_are_frozen(tmp_path: Path) -> None:
    """No part of the program changes them."""
    with pytest.raises(ValueError, match="frozen"):
        read(tmp_path).port = 1  # type: ignore[misc]


def test_every_setting_has_help() -> None:
    """Each variable says what it is for, and what it takes."""
    assert all(expected and help_ for _, _, expected, help_ in settings_table(Settings))


def test_the_table_has_real_values() -> None:
    """Where a type says too little, the table has the values themselves."""
    expected = {row[0]: row[2] for row in settings_table(Settings)}
    assert expected["PAGEVEC_DEVICE"] == "auto, cpu, mps, cuda or cuda:N"
    assert expected["PAGEVEC_LOG_LEVEL"] == "debug, info, warning or error"
    assert expected["PAGEVEC_OFFLINE"] == "true or false"


def test_a_former_environment_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A .env of pagevec 0.1, with every variable that it documented, is read as it was."""
    for name in list(os.environ):
        if name.startswith(("PAGEVEC_", "SERVICE_", "HUGGINGFACE_", "HF_")):
            monkeypatch.delenv(name)
    file = Path(__file__).parent / "former" / "environment"
    written = {
        name: value
        for name, _, value in (line.partition("=") for line in file.read_text().splitlines())
        if value and not name.startswith(("#", "PAGEVEC_MODAL_"))
    }
    settings = Settings.from_environment(file)
    assert len(written) == len(settings.model_fields_set) == 30
    for name in settings.model_fields_set - {"service_api_key", "huggingface_token"}:
        value = getattr(settings, name)
        shown = str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
        assert written[variable_names(name, Settings)[0]] == shown
    assert settings.keys == ("first-key", "second-key")
