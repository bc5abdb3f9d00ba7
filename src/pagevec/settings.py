"""Every environment variable, read once, frozen, each with its help and its bounds."""

import difflib
import os
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from pagevec.errors import ConfigurationError

PREFIX = "PAGEVEC_"
MIB = 1024 * 1024


def bounded(default: Any, help_: str, **bounds: Any) -> Any:
    """Return a field with its help and its bounds."""
    return Field(default, description=help_, **bounds)


def _named(help_: str, *names: str) -> Any:
    return Field(None, description=help_, validation_alias=AliasChoices(*names))


class EnvironmentSettings(BaseSettings):
    """Settings whose variables share a prefix. A mistake stops the start, with a sentence.

    Attributes:
        other_prefixes: of variables that begin with this prefix and belong to other settings.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )
    other_prefixes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_environment(cls, env_file: Path | None = Path(".env"), **overrides: Any) -> Self:
        """Read the environment and `.env`, with `overrides` (field names) above both.

        Raises:
            ConfigurationError: naming each variable at fault, its value and what is allowed.
        """
        known_file = env_file if env_file is not None and env_file.is_file() else None
        named = [*os.environ, *(dotenv_values(known_file) if known_file else ())]
        _refuse_unknown_names(cls, named)
        given = {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls(_env_file=known_file, **given)
        except ValidationError as error:
            raise ConfigurationError(_explain(cls, error)) from None

    def variables(self) -> dict[str, str]:
        """Return what was set, and is no secret, as environment variables that say the same."""
        return {
            variable_names(name, type(self))[0]: _shown(getattr(self, name))
            for name in sorted(self.model_fields_set)
            if not _is_secret(type(self).model_fields[name]) and getattr(self, name) is not None
        }


class Settings(EnvironmentSettings):
    """The service's configuration. Read it with :meth:`from_environment`."""

    other_prefixes = ("PAGEVEC_MODAL_",)

    # The model
    model: str = bounded(
        "auto",
        "checkpoint name on the hub, local directory, `bundled` (the small model in the package), "
        "or `auto`: the default checkpoint where CUDA is found, else `bundled`",
        min_length=1,
    )
    revision: str | None = bounded(None, "commit, tag or branch of the checkpoint")
    family: str = bounded("auto", "model family (see `pagevec models`), read from the checkpoint")
    device: str = bounded(
        "auto", "auto, cpu, cuda, cuda:N or mps", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = bounded(
        "auto", "of the weights; auto is bfloat16 on CUDA, else float32"
    )
    precision: Literal["full", "int8", "fp8"] = bounded(
        "full",
        "of the large matrix products: full is that of the weights; int8 and fp8 are less exact "
        "(see docs/benchmarks.md) and need `pagevec[precision]`",
    )
    max_visual_tokens: int | None = bounded(
        None, "visual tokens of one page; default: as the checkpoint says", ge=4, le=16384
    )
    offline: bool = bounded(False, "never ask the hub; use local files only")

    # The engine
    batch_tokens: int | None = bounded(
        None,
        "tokens of one forward pass; default: 1024 on a CPU, 16384 on an accelerator",
        ge=64,
        le=1_000_000,
    )
    model_threads: int | None = bounded(
        None,
        "batches that go through the model at once; default: up to 4 on a CPU, else 1",
        ge=1,
        le=64,
    )
    preprocess_threads: int | None = bounded(
        None, "threads that decode and resize pages; default: one for each core", ge=1, le=256
    )
    max_queued_inputs: int = bounded(
        10_000, "inputs that may wait; more get a 503", ge=1, le=10_000_000
    )
    request_seconds: float = bounded(
        120.0,
        "time budget of a request; one that cannot be done in it gets a 413",
        gt=0,
        le=86400,
    )

    # The HTTP service
    host: str = bounded("127.0.0.1", "address to listen on", min_length=1)
    port: int = bounded(8765, "port to listen on (0: any free one)", ge=0, le=65535)
    default_format: Literal["json", "npz"] = bounded(
        "json", "answer of POST /embeddings where Accept does not decide"
    )
    max_body_bytes: int = bounded(256 * MIB, "size of a request body", ge=1024)
    max_inputs: int = bounded(256, "inputs in one request", ge=1, le=100_000)
    max_text_chars: int = bounded(32_000, "characters of one text", ge=1)
    max_image_bytes: int = bounded(192 * MIB, "bytes of one image file", ge=64)
    max_image_pixels: int = bounded(64_000_000, "pixels of one image", ge=1, le=2**28)
    max_image_side: int = bounded(65_500, "pixels of one side of an image", ge=1)
    rate_limit: str | None = bounded(
        None, "requests of one key, such as `600/minute`; default: no limit"
    )
    rate_limit_storage: str = bounded(
        "memory://", "where rates are counted: memory:// or redis://host:port", min_length=1
    )
    shutdown_seconds: int = bounded(
        150, "how long a stopping service lets requests finish", ge=0, le=86400
    )
    log_level: Literal["debug", "info", "warning", "error"] = bounded("info", "of the log")
    log_format: Literal["json", "console"] = bounded("console", "of the log's lines")

    # Names that others gave
    service_api_key: SecretStr | None = _named(
        "bearer keys, separated by commas (several: for rotation)", "SERVICE_API_KEY"
    )
    service_api_key_file: Path | None = _named(
        "file of bearer keys, in place of SERVICE_API_KEY: one a line or with commas; "
        "read again when it changes",
        "SERVICE_API_KEY_FILE",
    )
    huggingface_token: SecretStr | None = _named(
        "token for private checkpoints", "HUGGINGFACE_TOKEN", "HF_TOKEN"
    )
    hf_home: Path | None = _named("where downloaded checkpoints are kept", "HF_HOME")

    @classmethod
    def from_environment(cls, env_file: Path | None = Path(".env"), **overrides: Any) -> Self:
        """See `EnvironmentSettings.from_environment`; keys are in a variable or in a file."""
        settings = super().from_environment(env_file, **overrides)
        if settings.service_api_key is not None and settings.service_api_key_file is not None:
            raise ConfigurationError("set SERVICE_API_KEY or SERVICE_API_KEY_FILE, not both")
        return settings

    @field_validator("rate_limit")
    @classmethod
    def _rate_is_readable(cls, value: str | None) -> str | None:
        if value is not None:
            from limits import parse_many

            parse_many(value)
        return value

    @field_validator("service_api_key")
    @classmethod
    def _keys_are_sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            split_keys(value.get_secret_value())
        return value

    @property
    def keys(self) -> tuple[str, ...]:
        """The bearer keys as they are now; empty when none is set.

        Raises:
            ConfigurationError: the file of keys cannot be read, or holds none that can be sent.
        """
        if self.service_api_key_file is not None:
            return _keys_in(self.service_api_key_file)
        secret = self.service_api_key
        return () if secret is None else split_keys(secret.get_secret_value())


def split_keys(text: str) -> tuple[str, ...]:
    """Split a text at its commas and line ends into keys.

    Raises:
        ValueError: there is none, or one that no header can carry.
    """
    keys = tuple(key.strip() for key in text.replace("\n", ",").split(",") if key.strip())
    if not keys:
        raise ValueError("holds no key")
    if any(not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise ValueError("a key has characters that an HTTP header cannot carry")
    return keys


def _keys_in(file: Path) -> tuple[str, ...]:
    try:
        return split_keys(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        reason = "is not text"  # the error itself would show what is in it
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValueError as error:
        reason = str(error)
    raise ConfigurationError(f"SERVICE_API_KEY_FILE is {str(file)!r}: {reason}")


def variable_names(name: str, of: type[EnvironmentSettings] = Settings) -> tuple[str, ...]:
    """Return the environment variables that set the field `name`, the preferred one first."""
    alias = of.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (f"{of.model_config['env_prefix']}{name.upper()}",)


def allowed(field: FieldInfo) -> str:
    """Say in words which values `field` takes."""
    choices = getattr(field.annotation, "__args__", ())
    if getattr(field.annotation, "__origin__", None) is Literal:
        return " or ".join(str(choice) for choice in choices)
    kind: Any = next((t for t in choices if t is not type(None)), field.annotation)
    words = {int: "whole number", float: "number", bool: "true or false", Path: "path"}.get(
        kind, "text"
    )
    signs = {"ge": "at least", "gt": "above", "le": "at most"}
    bounds = [
        f"{words_} {getattr(rule, sign):,}"
        for rule in field.metadata
        for sign, words_ in signs.items()
        if hasattr(rule, sign)
    ]
    return ", ".join([words, *bounds])


def settings_table(of: type[EnvironmentSettings] = Settings) -> list[tuple[str, str, str, str]]:
    """Return (variable, default, allowed values, help) of every setting, for docs and `--help`."""
    return [
        (
            variable_names(name, of)[0],
            "" if field.default is None else _shown(field.default),
            allowed(field),
            field.description or "",
        )
        for name, field in of.model_fields.items()
    ]


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation)


def _refuse_unknown_names(of: type[EnvironmentSettings], names: list[str]) -> None:
    prefix = str(of.model_config["env_prefix"])
    known = [variable for name in of.model_fields for variable in variable_names(name, of)]
    for name in names:
        ours = name.upper().startswith(prefix) and not name.upper().startswith(of.other_prefixes)
        if ours and name.upper() not in known:
            # Compared without the prefix, which makes all of them alike.
            words = {variable.removeprefix(prefix): variable for variable in known}
            close = difflib.get_close_matches(name.upper().removeprefix(prefix), words, n=1)
            hint = f"did you mean {words[close[0]]}?" if close else f"known are {', '.join(known)}"
            raise ConfigurationError(f"unknown setting {name}; {hint}")


def _explain(of: type[EnvironmentSettings], error: ValidationError) -> str:
    return "; ".join(_explain_one(of, dict(fault)) for fault in error.errors())


def _explain_one(of: type[EnvironmentSettings], fault: dict[str, Any]) -> str:
    location = str(fault["loc"][0]) if fault["loc"] else ""
    name = next(
        (n for n in of.model_fields if location == n or location in variable_names(n, of)),
        location,
    )
    if name not in of.model_fields:
        message = str(fault["msg"]).removeprefix("Value error, ")
        return f"{location}: {message}" if location else message
    field = of.model_fields[name]
    value = "(not shown)" if _is_secret(field) else repr(fault["input"])
    return f"{variable_names(name, of)[0]} is {value}, allowed is {allowed(field)} ({fault['msg']})"
