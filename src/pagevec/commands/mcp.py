"""`pagevec mcp`: the documents of a store as tools for agents."""

import logging
import os
import signal
import sys
import threading
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from click.core import ParameterSource

from pagevec.commands import (
    FromEnvironment,
    note,
    with_ca,
    with_key,
    with_output,
    with_store,
)
from pagevec.commands.interrupts import INTERRUPTED
from pagevec.terminal import echo

if TYPE_CHECKING:
    from pagevec.agents.documents import Documents
    from pagevec.engine.embedder import LocalEmbedder

log = logging.getLogger(__name__)

_PORT = 8766
_MODEL_SECONDS = 40.0  # that a query waits for a model that is being loaded
_PATIENCE = 40.0  # seconds, with a service
_OF_HTTP = ("host", "port", "hostnames")


@click.command("mcp")
@with_store
@click.option(
    "--url",
    cls=FromEnvironment,
    envvar="PAGEVEC_URL",
    show_envvar=True,
    help="A running service that embeds queries; without one the model runs in this process.",
)
@with_key
@with_ca
@click.option(
    "--model", help="Run this one in this process: a checkpoint, its folder, or `bundled`."
)
@click.option("--http", is_flag=True, help="Answer over streamable HTTP, at /mcp.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="With --http: address to listen on."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="With --http: port to listen on; 0 picks a free one.",
)
@click.option(
    "--hostname",
    "hostnames",
    multiple=True,
    metavar="NAME[:PORT]",
    help="With --http: what callers may call this server besides localhost and 127.0.0.1, as "
    "their Host header says it (repeatable).",
)
@with_output
@click.pass_context
def command(
    context: click.Context,
    store: str,
    url: str | None,
    key: str | None,
    ca: Path | None,
    model: str | None,
    http: bool,
    host: str,
    port: int,
    hostnames: tuple[str, ...],
) -> None:
    """Let agents search and read the documents of a store, over MCP.

    An agent starts this command and talks to it over standard input and output; it ends with the
    agent. With --http it is a server that needs a key in SERVICE_API_KEY or SERVICE_API_KEY_FILE.
    Documents are only read.
    """
    typed = {name for name in context.params if _is_typed(context, name)}
    if model is not None and "url" in typed:
        raise click.UsageError("--url and --model exclude each other")
    if not http and (extra := typed & set(_OF_HTTP)):
        raise click.UsageError(f"--{min(extra).removesuffix('s')} needs --http")
    # Whoever ends this before it serves ends it as it ends then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    service = None if model is not None else url
    if http:
        _serve_http(store, service, key, ca, model, host, port, hostnames)
    else:
        _serve_stdio(store, service, key, ca, model)


def _is_typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _serve_stdio(
    store: str, url: str | None, key: str | None, ca: Path | None, model: str | None
) -> NoReturn:
    from pagevec.agents.stdio import Wire, serve_stdio
    from pagevec.agents.tools import Tools

    if sys.stdin.isatty():
        note("an agent that starts this command talks to it here (docs/agents.md); Ctrl-C ends it")
    wire = Wire()
    documents = _open(store, url, key, ca, model)
    received = serve_stdio(Tools(documents).server(), wire)
    if received == signal.SIGINT:
        echo("interrupted", err=True)
    _end(documents, INTERRUPTED if received == signal.SIGINT else 0)


def _serve_http(
    store: str,
    url: str | None,
    key: str | None,
    ca: Path | None,
    model: str | None,
    host: str,
    port: int,
    hostnames: tuple[str, ...],
) -> NoReturn:
    from pagevec.agents.http import PATH, require_keys, serve_http
    from pagevec.agents.tools import Tools
    from pagevec.server.run import address_of, configure_logs, listen
    from pagevec.settings import Settings

    settings = Settings.from_environment(options={"host": host, "port": port})
    require_keys(settings)
    configure_logs(settings)
    listener = listen(settings)
    documents = _open(store, url, key, ca, model)
    echo(f"address  {address_of(listener)}{PATH}")
    serve_http(Tools(documents).server(), settings, listener, hostnames)
    _end(documents, 0)


def _open(
    store: str, url: str | None, key: str | None, ca: Path | None, model: str | None
) -> "Documents":
    """Open the documents. What takes long, or may be away, is waited for at the first call."""
    from pagevec.agents.documents import LocalDocuments, RemoteDocuments
    from pagevec.client import Client
    from pagevec.client.reach import require_answer
    from pagevec.stores import is_service

    if is_service(store):
        if model is not None:
            raise click.UsageError("--model: the service of --store has a model of its own")
        client = Client(store, key, ca=ca, resize=False, patience=_PATIENCE)
        return RemoteDocuments(client, cache(partial(require_answer, store, ca, "--store")))
    if url is not None:
        client = Client(url, key, ca=ca, resize=False, patience=_PATIENCE, dtype="float32")
        return LocalDocuments(store, client, cache(partial(require_answer, url, ca)))
    from pagevec.local import begin_to_load

    embedder, loaded = begin_to_load(model)
    threading.Thread(target=_report, args=(embedder,), daemon=True).start()
    return LocalDocuments(store, loaded, partial(embedder.wait_until_ready, _MODEL_SECONDS))


def _report(embedder: "LocalEmbedder") -> None:
    """Log whether the model could be loaded; each search says so, too."""
    try:
        embedder.wait_until_ready()
    except Exception as error:
        log.error("the model cannot be used: %s", error)
    else:
        log.info("the model is ready")


def _end(documents: "Documents", code: int) -> NoReturn:
    """End this process, whatever threads are in the middle of: loading a model, a search."""
    documents.close()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
