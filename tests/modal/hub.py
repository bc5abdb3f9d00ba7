"""A model hub on loopback: the few answers that huggingface_hub needs to download snapshots."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Repositories = dict[str, dict[str, str]]
_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_with(repositories: Repositories, downloads: list[str]) -> Iterator[str]:
    """Serve `repositories` (files by name) until the end of the block; yield the address.

    The names of files that are downloaded are added to `downloads`.
    """
    served = {"repositories": repositories, "downloads": downloads}
    handler = type("Handler", (_Handler,), served)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    repositories: Repositories
    downloads: list[str]

    def do_GET(self) -> None:
        match self.path.partition("?")[0].strip("/").split("/"):
            case ["api", "models", owner, name, "tree", *_]:
                self._send(self._tree(f"{owner}/{name}"), "application/json")
            case ["api", "models", owner, name, *_]:
                self._send(self._info(f"{owner}/{name}"), "application/json")
            case [owner, name, "resolve", _, file]:
                content = self.repositories[f"{owner}/{name}"][file].encode()
                self.downloads += [file] if self.command == "GET" else []
                self._send(content, "application/octet-stream")
            case _:
                self.send_error(404)

    do_HEAD = do_GET

    def _info(self, name: str) -> bytes:
        files = [{"rfilename": file} for file in self.repositories[name]]
        return json.dumps({"id": name, "sha": _COMMIT, "siblings": files}).encode()

    def _tree(self, name: str) -> bytes:
        files = self.repositories[name].items()
        return json.dumps(
            [
                {"type": "file", "path": file, "size": len(content), "oid": _COMMIT}
                for file, content in files
            ]
        ).encode()

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", _COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass
