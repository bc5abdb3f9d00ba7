"""A model hub on loopback: the few answers that huggingface_hub needs to download snapshots."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from answering import Answering, answering

Repositories = dict[str, dict[str, str]]
_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_with(repositories: Repositories, downloads: list[str]) -> Iterator[str]:
    """Serve `repositories` (files by name) until the end of the block; yield the address.

    The names of files that are downloaded are added to `downloads`.
    """
    served = {"repositories": repositories, "downloads": downloads}
    handler = type("Handler", (_Handler,), served)
    with answering(handler) as url:
        yield url


class _Handler(Answering):
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
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.answer(200, content, Content_Type=kind, X_Repo_Commit=_COMMIT, ETag=tag)
