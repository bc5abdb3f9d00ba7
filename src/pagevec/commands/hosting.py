"""What `pagevec serve` does: it serves a model, on this machine or with Ray, and greets."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvicorn

from pagevec.client import Client
from pagevec.demo import demo_table, next_steps
from pagevec.engine.backends import load
from pagevec.engine.embedder import (
    EXIT_ENGINE_FAILED,
    LocalEmbedder,
    supervise,
)
from pagevec.server.app import create_app
from pagevec.server.own_key import OwnKey, ensure_key
from pagevec.server.run import address_of, configure_logs, listen, run, server_for
from pagevec.settings import Settings
from pagevec.terminal import echo
from pagevec.types import ModelInfo

_Compose = Callable[[ModelInfo, str], list[str]]

# What slow readers have for the last answers of a failed engine.
_LAST_ANSWERS_SECONDS = 3
# Read when Ray is imported: send no usage statistics, hide no repeated line of the log.
_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


def serve(settings: Settings, demo: tuple[Path, ...], ray: bool, replicas: int | None) -> None:
    """Serve until a signal, or until the model fails; then end the process.

    Args:
        settings: of the service; a key is made where there is none.
        demo: documents to embed once it is ready.
        ray: whether replicas are run with Ray.
        replicas: how many; None for one on each GPU.
    """
    settings, own_key = ensure_key(settings)
    configure_logs(settings)
    compose = partial(_compose_greeting, settings, own_key, demo)
    if ray:
        _serve_on_ray(settings, replicas, compose)
    else:
        _serve_here(settings, compose)


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
    supervise(embedder, lambda: _send_last_answers(server))
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
