"""`pagevec serve`: the HTTP service on this machine."""

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import click
import uvicorn
from click.core import ParameterSource

from pagevec.client import Client
from pagevec.demo import demo_table
from pagevec.engine.backends import load
from pagevec.engine.embedder import (
    EXIT_ENGINE_FAILED,
    LocalEmbedder,
    end_process_on_failure,
)
from pagevec.environment import describe_fields, option_name, variable_names
from pagevec.server.app import create_app
from pagevec.server.run import address_of, configure_logs, ensure_key, listen, run, server_for
from pagevec.settings import Settings
from pagevec.terminal import echo
from pagevec.types import ModelInfo

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

    Every setting is an environment variable too, also in .env; the option wins.
    """
    settings, key_is_new = ensure_key(Settings.from_environment(options=_typed_settings(context)))
    configure_logs(settings)
    if replicas and not ray:
        raise click.UsageError("--replicas needs --ray")
    if ray:
        _serve_on_ray(settings, replicas, key_is_new, list(demo))
    else:
        _serve_here(settings, key_is_new, list(demo))


def _typed_settings(context: click.Context) -> dict[str, Any]:
    return {
        name: value
        for name, value in context.params.items()
        if name in Settings.model_fields
        and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def _serve_on_ray(
    settings: Settings, replicas: int | None, key_is_new: bool, demo: list[Path]
) -> None:
    for name, value in _RAY.items():
        os.environ.setdefault(name, value)
    try:
        from pagevec.deploy.ray.host import run_on_ray
    except ImportError as error:
        raise click.ClickException(f"{error}; try `pip install 'pagevec[serve,ray]'`") from None
    key = settings.keys[0]

    def greet(info: ModelInfo, address: str) -> None:
        echo(*_greeting(info, address, key, key_is_new, _demo_table(address, key, demo)))

    run_on_ray(settings, replicas, greet)


def _serve_here(settings: Settings, key_is_new: bool, demo: list[Path]) -> None:
    listener = listen(settings)
    embedder = LocalEmbedder.of(settings, lambda: load(settings))
    server = server_for(create_app(settings, embedder), settings)
    greeter = threading.Thread(
        target=_greet_when_ready,
        args=(embedder, server, address_of(listener), settings.keys[0], key_is_new, demo),
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
    embedder: LocalEmbedder,
    server: uvicorn.Server,
    address: str,
    key: str,
    key_is_new: bool,
    demo: list[Path],
) -> None:
    """Wait for the model and print how to use it; if it fails, log why and stop the server."""
    try:
        embedder.wait_until_ready()
        if server.should_exit:
            return
        table = _demo_table(address, key, demo)
    except Exception as error:
        logging.getLogger("pagevec").error("startup failed: %s", error)
        server.should_exit = True
        return
    # Printed in one piece: the demo's requests write to the log meanwhile.
    echo(*_greeting(embedder.info(), address, key, key_is_new, table))


def _demo_table(address: str, key: str, demo: list[Path]) -> str:
    if not demo:
        return ""
    with Client(address, key) as model:
        return demo_table(model, demo)


def _greeting(info: ModelInfo, address: str, key: str, key_is_new: bool, table: str) -> list[str]:
    key = key if key_is_new else "$SERVICE_API_KEY"
    model = f"{info.model} ({info.family}, {info.device}, {info.dtype}, {info.precision} precision)"
    body = '{"input_type": "text", "inputs": ["hello"]}'
    curl = f"curl -s {address}/embeddings -H \"Authorization: Bearer {key}\" -d '{body}'"
    parts = [model, info.notice, table, f"address  {address}\nkey      {key}", curl]
    return ["", *"\n\n".join(part for part in parts if part).split("\n"), ""]


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
