"""Real proxies for tests, on loopback, each with all of its files in one folder."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{http}
}}
"""


def free_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running_nginx(folder: Path, port: int, http: str) -> Iterator[None]:
    """Run nginx until the end of the block; skip the test where there is none.

    Args:
        folder: for its files.
        port: on which the configuration listens.
        http: what stands in the `http` block, such as servers.
    """
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, http=http))
    with _running(["nginx", "-c", str(configuration), "-p", str(folder)], folder, port):
        yield


@contextmanager
def running_caddy(folder: Path, port: int, site: str) -> Iterator[None]:
    """Run Caddy until the end of the block; skip the test where there is none.

    Args:
        folder: for its files.
        port: on which the site listens.
        site: the site, as it stands in a Caddyfile.
    """
    configuration = folder / "Caddyfile"
    configuration.write_text(f"{{\nadmin off\nauto_https disable_redirects\n}}\n{site}")
    with _running(["caddy", "run", "--config", str(configuration)], folder, port):
        yield


@contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}: install Debian's package")
    home = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            command, env={**os.environ, **home}, stdout=said, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end, (folder / "said").read_text()
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)
