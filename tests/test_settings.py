"""Settings: read once, every mistake named."""

from pathlib import Path

import pytest

from pagevec.errors import ConfigurationError
from pagevec.settings import Settings, settings_table


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
    ("name", "value", "allowed"),
    [
        ("PAGEVEC_PORT", "http", "whole number"),
        ("PAGEVEC_PORT", "70000", "at most 65,535"),
        ("PAGEVEC_MAX_INPUTS", "0", "at least 1"),
        ("PAGEVEC_DTYPE", "int4", "float32 or bfloat16"),
        ("PAGEVEC_DEVICE", "gpu", "cuda"),
        ("PAGEVEC_DEFAULT_FORMAT", "xml", "json or npz"),
        ("PAGEVEC_RATE_LIMIT", "often", "text"),
        ("PAGEVEC_REQUEST_SECONDS", "-1", "above 0"),
    ],
)
def test_a_wrong_value(
    name: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names the variable, its value and what is allowed."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as error:
        read(tmp_path)
    assert name in error.value.message
    assert value in error.value.message
    assert allowed in error.value.message


@pytest.mark.parametrize("in_file", [True, False])
def test_an_unknown_name(in_file: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A misspelt variable stops the start, and the right one is offered."""
    if in_file:
        (tmp_path / ".env").write_text("PAGEVEC_MODLE=x\n")
    else:
        monkeypatch.setenv("PAGEVEC_MODLE", "x")
    with pytest.raises(ConfigurationError, match=r"PAGEVEC_MODLE.*did you mean PAGEVEC_MODEL"):
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
    assert all(allowed and help_ for _, _, allowed, help_ in settings_table())
