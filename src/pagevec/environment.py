"""Settings that are environment variables and options: how they are read, cited and described."""

import difflib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar, Self

from dotenv import dotenv_values
from pydantic import (
    AliasChoices,
    Field,
    PrivateAttr,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pagevec.errors import ConfigurationError

log = logging.getLogger(__name__)

PREFIX = "PAGEVEC_"
MIB = 1024 * 1024

# What Kubernetes sets in each container for a Service of its namespace, and Docker for a link. One
# that is named `pagevec` gets names that look like ours: PAGEVEC_PORT=tcp://10.0.0.1:8765.
_PROTOCOL = "(?:tcp|udp|sctp)"
_OF_A_SERVICE = re.compile(
    rf"""\w+_SERVICE_HOST=[\w.:-]+
    | \w+_SERVICE_PORT(?:_\w+)?=\d+
    | \w+_PORT(?:_\d+_{_PROTOCOL})?={_PROTOCOL}://.*
    | \w+_PORT_\d+_{_PROTOCOL}_(?:PROTO={_PROTOCOL} | PORT=\d+ | ADDR=[\w.:-]+)""",
    re.IGNORECASE | re.VERBOSE,
)


def bounded(default: Any, help_: str, *, expected: str | None = None, **bounds: Any) -> Any:
    """Return a field of settings.

    Args:
        default: its default.
        help_: what it is, for `--help` and the documents.
        expected: the values that it takes, in words, where its type and bounds do not say it.
        **bounds: arguments of `pydantic.Field`, such as `ge`.
    """
    extra: Any = {"expected": expected} if expected else None
    return Field(default, description=help_, json_schema_extra=extra, **bounds)


def named(help_: str, *names: str, expected: str | None = None) -> Any:
    """Return an optional field whose variables have names of their own, the preferred one first."""
    return bounded(None, help_, expected=expected, validation_alias=AliasChoices(*names))


class EnvironmentSettings(BaseSettings):
    """Settings whose variables share a prefix. A mistake raises an error that cites it.

    Attributes:
        other_prefixes: variables that begin with one of these belong to other settings.
        other_names: variables with these names do, too.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        populate_by_name=True,
        protected_namespaces=(),  # pydantic before 2.10 warns of each field called model_...
    )
    other_prefixes: ClassVar[tuple[str, ...]] = ()
    other_names: ClassVar[tuple[str, ...]] = ()
    _typed: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def from_environment(
        cls,
        env_file: Path | None = Path(".env"),
        *,
        options: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> Self:
        """Read the environment and `.env`.

        Args:
            env_file: a file of variables, below the environment; it need not exist.
            options: values by field name that were typed on a command line, above both.
            **arguments: values by field name, above both; None leaves a field alone.

        Raises:
            ConfigurationError: citing each value at fault as it was given, and what is expected.
        """
        arguments = {name: value for name, value in arguments.items() if value is not None}
        options = options or {}
        typed = {name: f"{name}={value!r}" for name, value in arguments.items()}
        typed |= {name: f"{option_name(name)} {quote(str(options[name]))}" for name in options}
        known_file = env_file if env_file is not None and env_file.is_file() else None
        _check_names(cls, {**dotenv_values(known_file or os.devnull), **os.environ})
        _refuse_unknown(typed, {name: name for name in cls.model_fields})
        try:
            settings = cls(_env_file=known_file, **arguments, **options)
        except ValidationError as error:
            faults = (_explain(cls, dict(fault), typed) for fault in error.errors())
            raise ConfigurationError("; ".join(faults)) from None
        settings._typed = typed
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keep what Kubernetes sets for a Service out of the environment and of `.env`."""
        for source in (env_settings, dotenv_settings):
            if isinstance(source, EnvSettingsSource):
                source.env_vars = {
                    name: value
                    for name, value in source.env_vars.items()
                    if not _is_of_a_service(name, value)
                }
        return init_settings, env_settings, dotenv_settings

    def cite(self, name: str) -> str:
        """Return the setting `name` as the user gave it, for the start of an error message.

        Such as `--device cuda:1`, `PAGEVEC_DEVICE='cuda:1'` or, in Python, `device='cuda:1'`.
        """
        return _cite(type(self), name, getattr(self, name), self._typed)

    def variables(self) -> dict[str, str]:
        """Return what was set, secrets excepted, as environment variables with the same effect."""
        properties = describe_fields(type(self))
        return {
            variable_names(name, type(self))[0]: _as_text(getattr(self, name))
            for name in sorted(self.model_fields_set)
            if not _is_secret(properties[name]) and getattr(self, name) is not None
        }


def describe_fields(of: type[EnvironmentSettings]) -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each field by its name; of an optional one, without the null."""
    properties = of.model_json_schema(by_alias=False)["properties"]
    return {name: _without_null(schema) for name, schema in properties.items()}


def describe_values(schema: Mapping[str, Any]) -> str:
    """Return in words which values a field with this JSON schema takes."""
    match schema:
        case {"expected": str(words)}:
            return words
        case {"enum": choices}:
            return f"{', '.join(choices[:-1])} or {choices[-1]}"
        case {"pattern": pattern}:
            return f"text that matches {pattern}"
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    text = "a path" if schema.get("format") == "path" else "text"
    kind = "non-empty text" if schema.get("minLength") else kinds.get(schema["type"], text)
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
    limits = [f"{word} {schema[key]:,.15g}" for key, word in bounds.items() if key in schema]
    return f"{kind}, {' and '.join(limits)}" if limits else kind


def settings_table(of: type[EnvironmentSettings]) -> list[tuple[str, str, str, str]]:
    """Return (variable, default, expected values, help) of every setting, for the documents."""
    return [
        (
            variable_names(name, of)[0],
            "" if schema["default"] is None else _as_text(schema["default"]),
            describe_values(schema),
            schema["description"],
        )
        for name, schema in describe_fields(of).items()
    ]


def variable_names(name: str, of: type[EnvironmentSettings]) -> tuple[str, ...]:
    """Return the environment variables that set the field `name`, the preferred one first."""
    alias = of.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (f"{of.model_config['env_prefix']}{name.upper()}",)


def option_name(name: str) -> str:
    """Return the command line's option for the field `name`."""
    return f"--{name.replace('_', '-')}"


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    [values] = [one for one in schema.get("anyOf", [{}]) if one.get("type") != "null"]
    return {**values, **schema}


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_secret(schema: Mapping[str, Any]) -> bool:
    return schema.get("format") == "password"


def _is_of_a_service(name: str, value: str | None) -> bool:
    return _OF_A_SERVICE.fullmatch(f"{name}={value}") is not None


def _check_names(of: type[EnvironmentSettings], variables: Mapping[str, str | None]) -> None:
    """Refuse a variable that is no setting, but for those that Kubernetes sets for a Service."""
    prefix = str(of.model_config["env_prefix"])
    known = [variable for name in of.model_fields for variable in variable_names(name, of)]
    ours = {
        name.upper(): value
        for name, value in variables.items()
        if name.upper().startswith(prefix)
        and not name.upper().startswith(of.other_prefixes)
        and name.upper() not in of.other_names
    }
    ignored = sorted(name for name, value in ours.items() if _is_of_a_service(name, value))
    if ignored:
        log.warning("ignored, as variables of a Kubernetes Service: %s", ", ".join(ignored))
    # Compared without the prefix, which would make all of them alike.
    _refuse_unknown(
        [name for name in ours if name not in ignored],
        {variable.removeprefix(prefix): variable for variable in known},
        prefix,
    )


def _refuse_unknown(names: Iterable[str], known: Mapping[str, str], prefix: str = "") -> None:
    for name in names:
        word = name.removeprefix(prefix)
        if word not in known:
            close = [known[one] for one in difflib.get_close_matches(word, known, n=1)]
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known.values())}"
            raise ConfigurationError(f"unknown setting {name}; {hint}")


def _explain(
    of: type[EnvironmentSettings], fault: Mapping[str, Any], typed: Mapping[str, str]
) -> str:
    location = str(fault["loc"][0]) if fault["loc"] else ""
    for name, schema in describe_fields(of).items():
        if location in (name, *variable_names(name, of)):
            return f"{_cite(of, name, fault['input'], typed)}: expected {describe_values(schema)}"
    return str(fault["msg"]).removeprefix("Value error, ")


def _cite(of: type[EnvironmentSettings], name: str, value: Any, typed: Mapping[str, str]) -> str:
    variable = variable_names(name, of)[0]
    if _is_secret(describe_fields(of)[name]):
        return variable
    return typed.get(name) or f"{variable}={_as_text(value)!r}"
