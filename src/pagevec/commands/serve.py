"""`pagevec serve`: the HTTP service on this machine."""

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import click
import uvicorn

from pagevec.demo import table_of
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.loader import load
from pagevec.server.app import create_app
from pagevec.server.logs import configure_logs
from pagevec.server.run import address_of, listen, run, server_for, with_key
from pagevec.settings import Settings, settings_table, variable_names
from pagevec.types import ModelInfo

_NOT_ON_A_COMMAND_LINE = {"service_api_key", "huggingface_token", "hf_home"}
# Read when Ray is imported: it reports to nobody, and hides no line of the log that repeats.
_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


def _serve(demo: tuple[Path, ...], ray: bool, replicas: int | None, **options: Any) -> None:
    """Serve a model over HTTP.

    Every option is an environment variable too (also in .env); an option wins over it.
    """
    settings, key_is_new = with_key(Settings.from_environment(**options))
    configure_logs(settings)
    if replicas and not ray:
        raise click.UsageError("--replicas needs --ray")
    if ray:
        _serve_on_ray(settings, replicas, key_is_new, list(demo))
    else:
        _serve_here(settings, key_is_new, list(demo))


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
        table = table_of(address, key, demo) if demo else ""
        click.echo(_greeting(info, address, key if key_is_new else None, table))

    run_on_ray(settings, replicas, greet)


def _serve_here(settings: Settings, key_is_new: bool, demo: list[Path]) -> None:
    listener = listen(settings)
    embedder = LocalEmbedder.of(settings, lambda: load(settings))
    server = server_for(create_app(settings, embedder), settings)
    greeter = threading.Thread(
        target=_greet,
        args=(embedder, server, address_of(listener), settings.keys[0], key_is_new, demo),
        daemon=True,
    )
    greeter.start()
    run(server, listener)
    if embedder.health().state == "loading":
        os._exit(0)  # stopped before it began: nobody waits for gigabytes to be read
    embedder.close()
    sys.exit(1 if embedder.health().state == "failed" else 0)


def _greet(
    embedder: LocalEmbedder,
    server: uvicorn.Server,
    address: str,
    key: str,
    key_is_new: bool,
    demo: list[Path],
) -> None:
    """Wait for the model; say where and how to ask, or why it failed, which ends the service."""
    try:
        embedder.wait_until_ready()
        if server.should_exit:
            return
        table = table_of(address, key, demo) if demo else ""
    except Exception as error:
        logging.getLogger("pagevec").error("the start failed: %s", error)
        server.should_exit = True
        return
    # Printed in one piece: the requests of the demo write to the log meanwhile.
    click.echo(_greeting(embedder.info, address, key if key_is_new else None, table))


def _greeting(info: ModelInfo, address: str, new_key: str | None, table: str) -> str:
    key = new_key or "$SERVICE_API_KEY"
    model = f"{info.model} ({info.family}, {info.device}, {info.dtype}, {info.precision} precision)"
    ask = '{"input_type": "text", "inputs": ["hello"]}'
    curl = f"curl -s {address}/embeddings -H \"Authorization: Bearer {key}\" -d '{ask}'"
    parts = [model, info.notice, table, f"address  {address}\nkey      {key}", curl]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def _option(name: str, default: str, allowed: str, help_: str) -> click.Option:
    variable = variable_names(name)[0]
    shown = f"{help_} [{allowed}; {f'default {default}; ' if default else ''}{variable}]"
    return click.Option([f"--{name.replace('_', '-')}", name], help=shown, metavar="VALUE")


def _options() -> list[click.Parameter]:
    rows = zip(Settings.model_fields, settings_table(), strict=True)
    return [
        _option(name, default, allowed, help_)
        for name, (_, default, allowed, help_) in rows
        if name not in _NOT_ON_A_COMMAND_LINE
    ]


def _epilog() -> str:
    rows = zip(Settings.model_fields, settings_table(), strict=True)
    named: list[Any] = [row for name, row in rows if name in _NOT_ON_A_COMMAND_LINE]
    return "Environment only: " + "; ".join(f"{row[0]}: {row[3]}" for row in named)


command = click.Command(
    "serve",
    callback=_serve,
    help=_serve.__doc__,
    epilog=_epilog(),
    params=[
        *_options(),
        click.Option(
            ["--demo"],
            multiple=True,
            type=click.Path(exists=True, path_type=Path),
            help="Document or folder to embed through the service when it is ready.",
        ),
        click.Option(["--ray"], is_flag=True, help="Replicas on this machine, by Ray Serve."),
        click.Option(
            ["--replicas"],
            type=click.IntRange(1),
            help="With --ray, how many; default: one for each GPU.",
        ),
    ],
)
