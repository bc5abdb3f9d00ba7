"""`pagevec serve`: the HTTP service on this machine."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import uvicorn
from click.core import ParameterSource

from pagevec.client import Client
from pagevec.demo import demo_table, next_steps
from pagevec.engine.backends import load
from pagevec.engine.embedder import (
    EXIT_ENGINE_FAILED,
    LocalEmbedder,
    end_process_on_failure,
)
from pagevec.environment import describe_fields, option_name, variable_names
from pagevec.server.app import create_app
from pagevec.server.own_key import OwnKey, ensure_key
from pagevec.server.run import address_of, configure_logs, listen, run, server_for
from pagevec.settings import Settings
from pagevec.terminal import echo
from pagevec.types import ModelInfo

_Compose = Callable[[ModelInfo, str], list[str]]

# What slow readers have for the last answers of a failed engine.
_LAST_ANSWERS_SECONDS = 3
_ENVIRONMENT_ONLY = ("service_api_key", "huggingface_token", "hf_home")
# Read when Ray is imported: send no usage statistics, hide no repeated line of the log.
_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


@click.pass_context
def _serve(
    context: click.Context, /, demo: tuple[Path, ...], ray: bool, replicas: int | None, **_: Any
) -> None:
    """Serve a model over HTTP.

    Every setting is an environment variable too, also in .env; the option wins. Without a key in
    SERVICE_API_KEY or SERVICE_API_KEY_FILE it makes one, on loopback only, prints it, and keeps it
    for the next start where no other user can read it.
    """
    settings, own_key = ensure_key(Settings.from_environment(options=_typed_settings(context)))
    configure_logs(settings)
    if replicas and not ray:
        raise click.UsageError("--replicas needs --ray")
    compose = partial(_compose_greeting, settings, own_key, demo)
    if ray:
        _serve_on_ray(settings, replicas, compose)
    else:
        _serve_here(settings, compose)


def _typed_settings(context: click.Context) -> dict[str, Any]:
    return {
        name: value
        for name, value in context.params.items()
        if name in Settings.model_fields
        and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def _serve_on_ray(settings: Settings, replicas: int | None, compose: _Compose) -> None:
    for name, value in _RAY.items():
        os.environ.setdefault(name, value)
    from pagevec.deploy.ray.host import run_on_ray

    run_on_ray(settings, replicas, lambda info, address: echo(*compose(info, address)))


def _serve_here(settings: Settings, compose: _Compose) -> None:
    listener = listen(settings)
    embedder = LocalEmbedder.of(settings, lambda: load(settings))
    server = server_for(create_app(settings, embedder), settings)
    greeter = threading.Thread(
        target=_greet_when_ready,
        args=(embedder, server, address_of(listener), compose),
        daemon=True,
    )
    greeter.start()
    end_process_on_failure(embedder, lambda: _send_last_answers(server))
    run(server, listener)
    if embedder.health().state == "loading":
        os._exit(0)  # stopped while loading: do not wait until gigabytes are read
    if embedder.failed.is_set():
        os._exit(EXIT_ENGINE_FAILED)  # threads may be stuck in calls to a lost device
    embedder.close()
    sys.exit(1 if embedder.health().state == "failed" else 0)


def _send_last_answers(server: uvicorn.Server) -> None:
    """Stop the server once the answers in flight, errors by now, have gone out."""
    server.config.timeout_graceful_shutdown = _LAST_ANSWERS_SECONDS
    server.should_exit = True


def _greet_when_ready(
    embedder: LocalEmbedder, server: uvicorn.Server, address: str, compose: _Compose
) -> None:
    """Wait for the model and print how to use it; if it fails, log why and stop the server."""
    try:
        embedder.wait_until_ready()
        if server.should_exit:
            return
        greeting = compose(embedder.info(), address)
    except Exception as error:
        logging.getLogger("pagevec").error("startup failed: %s", error)
        server.should_exit = True
        return
    # Printed in one piece: the demo's requests write to the log meanwhile.
    echo(*greeting)


def _compose_greeting(
    settings: Settings,
    own_key: OwnKey | None,
    demo: tuple[Path, ...],
    info: ModelInfo,
    address: str,
) -> list[str]:
    """Embed the documents of `demo`; return the lines that say what is served, and how to ask it.

    They show a key only if the service made it.
    """
    parts = [
        f"{info.model} ({info.family}, {info.device}, {info.dtype}, {info.precision} precision)",
        info.notice,
        _demo_table(address, settings, demo),
        f"address  {address}\nkey      {_about_key(settings, own_key)}",
        "in another terminal:",
        "\n".join(next_steps(address, own_key.key if own_key else None, demo)),
    ]
    return ["", *"\n\n".join(part for part in parts if part).split("\n"), ""]


def _demo_table(address: str, settings: Settings, demo: tuple[Path, ...]) -> str:
    if not demo:
        return ""
    with Client(address, settings.keys[0]) as model:
        return demo_table(model, demo)


def _about_key(settings: Settings, own_key: OwnKey | None) -> str:
    if own_key is None:
        is_file = settings.service_api_key_file is not None
        return f"what you set in {'SERVICE_API_KEY_FILE' if is_file else 'SERVICE_API_KEY'}"
    if own_key.fault is not None:
        return f"for this start only: {own_key.fault}"
    return f"kept in {own_key.file} for the next start"


class _Setting(click.Option):
    """An option whose help shows the variable; `Settings` reads it, with `.env` below it."""

    def resolve_envvar_value(self, ctx: click.Context) -> None:
        return None


def _make_option(name: str, schema: dict[str, Any]) -> click.Option:
    option, type_, help_ = option_name(name), _click_type(schema), schema["description"]
    expects = f" Expects {schema['expected']}." if "expected" in schema else ""
    return _Setting(
        [f"{option}/--no-{option[2:]}" if type_ is click.BOOL else option],
        type=type_,
        default=schema["default"],
        show_default=True,
        envvar=variable_names(name, Settings)[0],
        show_envvar=True,
        help=f"{help_[0].upper()}{help_[1:]}.{expects}",
    )


def _click_type(schema: dict[str, Any]) -> "click.ParamType[Any]":
    match schema:
        case {"enum": choices}:
            return click.Choice(choices)
        case {"type": "integer" | "number" as kind}:
            low = schema.get("minimum", schema.get("exclusiveMinimum"))
            number = click.IntRange if kind == "integer" else click.FloatRange
            return number(low, schema.get("maximum"), min_open="exclusiveMinimum" in schema)
        case {"format": "path"}:
            return click.Path(path_type=Path)
    return click.BOOL if schema["type"] == "boolean" else click.STRING


def _epilog() -> str:
    fields = describe_fields(Settings)
    named = [
        f"{variable_names(n, Settings)[0]}: {fields[n]['description']}" for n in _ENVIRONMENT_ONLY
    ]
    return "Environment only: " + "; ".join(named) + "."


class _ServeCommand(click.Command):
    """Accepts `--offline true`, which version 0.1 wanted, with a warning."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for index, argument in enumerate(args):
            flag, _, value = argument.partition("=")
            words = [argument] if value else args[index : index + 2]
            new = {"true": "--offline", "false": "--no-offline"}.get(value or words[-1])
            if flag == "--offline" and new:
                echo(f"warning: `{' '.join(words)}` is deprecated: write `{new}`", err=True)
                args = [*args[:index], new, *args[index + len(words) :]]
                break
        return super().parse_args(ctx, args)


command = _ServeCommand(
    "serve",
    callback=_serve,
    help=_serve.__doc__,
    epilog=_epilog(),
    params=[
        *(
            _make_option(name, schema)
            for name, schema in describe_fields(Settings).items()
            if name not in _ENVIRONMENT_ONLY
        ),
        click.Option(
            ["--demo"],
            multiple=True,
            type=click.Path(exists=True, path_type=Path),
            help="Document or folder to embed through the service once it is ready.",
        ),
        click.Option(["--ray"], is_flag=True, help="Run replicas on this machine with Ray Serve."),
        click.Option(
            ["--replicas"],
            type=click.IntRange(1),
            help="Number of replicas with --ray; default: one for each GPU.",
        ),
    ],
)
