"""What `pagevec serve` does: it serves a model, on this machine or with Ray, and greets."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn

from pagevec.commands.shelf import Shelf
from pagevec.demo import next_steps
from pagevec.engine.backends import load
from pagevec.engine.embedder import (
    EXIT_ENGINE_FAILED,
    LocalEmbedder,
    supervise,
)
from pagevec.server.app import create_app
from pagevec.server.own_key import OwnKey, ensure_key
from pagevec.server.run import address_of, configure_logs, listen, run, server_for
from pagevec.server.sign_in import SignIn
from pagevec.settings import Settings
from pagevec.terminal import echo
from pagevec.types import ModelInfo

# That the model has for its last pass, once nobody waits for an answer.
_LAST_PASS_SECONDS = 2.0
# What slow readers have for the last answers of a failed engine.
_LAST_ANSWERS_SECONDS = 3
# Read when Ray is imported: send no usage statistics, hide no repeated line of the log.
_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


def serve(settings: Settings, demo: tuple[Path, ...], ray: bool, replicas: int | None) -> None:
    """Serve until a signal, or until the model fails; then end the process.

    Args:
        settings: of the service; a key is made where there is none.
        demo: documents to show and search; without a store of the settings, in one of their own.
        ray: whether replicas are run with Ray.
        replicas: how many; None for one on each GPU.
    """
    settings, own_key = ensure_key(settings)
    configure_logs(settings)
    if ray:
        _serve_on_ray(settings, own_key, replicas)
    else:
        _serve_here(settings, own_key, demo)


def _serve_on_ray(settings: Settings, own_key: OwnKey | None, replicas: int | None) -> None:
    for name, value in _RAY.items():
        os.environ.setdefault(name, value)
    from pagevec.deploy.ray.host import run_on_ray

    def greet(info: ModelInfo, address: str) -> None:
        echo(*_compose_greeting(settings, own_key, info, address))

    run_on_ray(settings, replicas, greet)


def _serve_here(settings: Settings, own_key: OwnKey | None, demo: tuple[Path, ...]) -> None:
    shelf = Shelf.of(settings, demo)
    listener = listen(settings)
    embedder = LocalEmbedder.of(settings, lambda: load(settings))
    sign_in = SignIn(own_key.key) if own_key and shelf else None
    library = shelf.library if shelf else None
    app = create_app(shelf.settings if shelf else settings, embedder, library, sign_in)
    server = server_for(app, settings)

    def greet() -> None:
        if shelf is not None:
            shelf.open(embedder)
        info, address = embedder.info(), address_of(listener)
        # In one piece: requests may write to the log meanwhile.
        echo(*_compose_greeting(settings, own_key, info, address, demo, sign_in, shelf))
        if shelf is not None:
            shelf.add_demo()

    greeter = threading.Thread(target=_when_ready, args=(embedder, server, greet), daemon=True)
    greeter.start()
    supervise(embedder, lambda: _send_last_answers(server))
    run(server, listener)
    if shelf is not None:
        shelf.close()
    if embedder.health().state == "loading":
        os._exit(0)  # stopped while loading: do not wait until gigabytes are read
    if embedder.failed.is_set():
        os._exit(EXIT_ENGINE_FAILED)  # threads may be stuck in calls to a lost device
    closing = threading.Thread(target=embedder.close, daemon=True)
    closing.start()
    closing.join(_LAST_PASS_SECONDS)
    code = 1 if embedder.health().state == "failed" or (shelf and shelf.is_broken) else 0
    if closing.is_alive():
        os._exit(code)  # a pass of a large model takes minutes on a CPU
    sys.exit(code)


def _send_last_answers(server: uvicorn.Server) -> None:
    """Stop the server once the answers in flight, errors by now, have gone out."""
    server.config.timeout_graceful_shutdown = _LAST_ANSWERS_SECONDS
    server.should_exit = True


def _when_ready(embedder: LocalEmbedder, server: uvicorn.Server, greet: Callable[[], None]) -> None:
    """Wait for the model and greet; if either fails, log why and stop the server."""
    try:
        embedder.wait_until_ready()
        if not server.should_exit:
            greet()
    except Exception as error:
        logging.getLogger("pagevec").error("startup failed: %s", error)
        server.should_exit = True


def _compose_greeting(
    settings: Settings,
    own_key: OwnKey | None,
    info: ModelInfo,
    address: str,
    demo: tuple[Path, ...] = (),
    sign_in: SignIn | None = None,
    shelf: "Shelf | None" = None,
) -> list[str]:
    """Return the lines that say what is served, and how to ask it.

    They show a key only if the service made it.
    """
    token = f"#token={sign_in.new_token()}" if sign_in else ""
    parts = [
        f"page     {address}/{token}" if shelf else "",
        f"{info.model} ({info.family}, {info.device}, {info.dtype}, {info.precision} precision)",
        info.notice,
        f"address  {address}\nkey      {_about_key(settings, own_key)}"
        + (f"\nstore    {shelf.name}" if shelf else ""),
        "in another terminal:",
        "\n".join(next_steps(address, own_key.key if own_key else None, demo)),
    ]
    return ["", *"\n\n".join(part for part in parts if part).split("\n"), ""]


def _about_key(settings: Settings, own_key: OwnKey | None) -> str:
    if own_key is None:
        is_file = settings.service_api_key_file is not None
        return f"what you set in {'SERVICE_API_KEY_FILE' if is_file else 'SERVICE_API_KEY'}"
    if own_key.fault is not None:
        return f"for this start only: {own_key.fault}"
    return f"kept in {own_key.file} for the next start"
