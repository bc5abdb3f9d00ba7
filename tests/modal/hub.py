"""A model hub on loopback: the few answers that huggingface_hub needs to download files."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Repositories = dict[str, dict[str, str]]
_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_with(repositories: Repositories) -> Iterator[str]:
    """Serve `repositories` (files by name) until the end of the block; yield the address."""
    handler = type("Handler", (_Handler,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    repositories: Repositories

    def do_GET(self) -> None:
        match self.path.partition("?")[0].strip("/").split("/"):
            case ["api", "models", owner, name, *_]:
                self._send(self._listing(f"{owner}/{name}"), "application/json")
            case [owner, name, "resolve", _, file]:
                content = self.repositories[f"{owner}/{name}"][file].encode()
                self._send(content, "application/octet-stream")
            case _:
                self.send_error(404)

    do_HEAD = do_GET

    def _listing(self, name: str) -> bytes:
        files = [{"rfilename": f, "size": len(c)} for f, c in self.repositories[name].items()]
        return json.dumps({"id": name, "sha": _COMMIT, "siblings": files}).encode()

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
