"""A model hub on loopback: the few answers that huggingface_hub needs to download snapshots."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from answering import Answering, answering

Repositories = dict[str, dict[str, bytes]]
_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PIECE_BYTES = 64 * 1024


@dataclass
class Hub:
    """What the hub has, how it answers, and what it was asked.

    Attributes:
        repositories: files by name, by the name of the repository.
        token: which callers have to send; empty for none.
        bytes_per_second: of each file, at most; 0 for no limit.
        knows_ranges: whether it sends a part of a file, where that is asked for.
        breaks_after: bytes of weights after which connections break, one for each number.
        damages: name of a file that is not sent as it is.
        downloads: name of each file that was asked for, and the byte from which on.
        url: its address, while it is served.
    """

    repositories: Repositories
    token: str = ""
    bytes_per_second: int = 0
    knows_ranges: bool = True
    breaks_after: list[int] = field(default_factory=list)
    damages: str = ""
    downloads: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving_hub(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` until the end of the block."""
    handler = type("Handler", (_Handler,), {"hub": hub, "lock": threading.Lock()})
    with answering(handler) as hub.url:
        yield hub


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files in `folder` and its subfolders, as a repository has them."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


class _Handler(Answering):
    hub: Hub
    lock: threading.Lock

    def do_GET(self) -> None:
        wanted = f"Bearer {self.hub.token}"
        if self.hub.token and self.headers["Authorization"] != wanted:
            self.answer(401, b"", X_Error_Message="Invalid credentials in Authorization header")
            return
        repositories = self.hub.repositories
        match self.path.partition("?")[0].strip("/").split("/"):
            case ["api", "models", owner, name, "tree", *_]:
                self._send(self._tree(repositories[f"{owner}/{name}"]), "application/json")
            case ["api", "models", owner, name, *_]:
                self._send(self._info(f"{owner}/{name}"), "application/json")
            case [owner, name, "resolve", _, *parts]:
                self._send_file("/".join(parts), repositories[f"{owner}/{name}"])
            case _:
                self._say_that_it_is_not_there()

    do_HEAD = do_GET

    def _info(self, name: str) -> bytes:
        known = self.hub.repositories[name]
        files = [{"rfilename": file, "size": len(content)} for file, content in known.items()]
        return json.dumps({"id": name, "sha": _COMMIT, "siblings": files}).encode()

    def _tree(self, files: dict[str, bytes]) -> bytes:
        return json.dumps(
            [
                {"type": "file", "path": file, "size": len(content), "oid": _COMMIT}
                for file, content in files.items()
            ]
        ).encode()

    def _send(self, content: bytes, kind: str) -> None:
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.answer(200, content, Content_Type=kind, X_Repo_Commit=_COMMIT, ETag=tag)

    def _say_that_it_is_not_there(self) -> None:
        self.answer(404, b"", X_Error_Code="EntryNotFound")

    def _send_file(self, name: str, files: dict[str, bytes]) -> None:
        if name not in files:
            self._say_that_it_is_not_there()
            return
        content = files[name]
        if self.command == "HEAD":
            self._send(content, "application/octet-stream")
            return
        asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
        start = int(asked) if self.hub.knows_ranges else 0
        with self.lock:
            self.hub.downloads.append((name, start))
            breaks = self.hub.breaks_after if name.endswith(".safetensors") else []
            end = breaks.pop(0) if breaks else len(content)
        self.send_response(206 if self.hub.knows_ranges else 200)
        if self.hub.knows_ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        sent = content if name != self.hub.damages else bytes(len(content))
        for at in range(start, min(len(content), end), _PIECE_BYTES):
            piece = sent[at : min(at + _PIECE_BYTES, end)]
            try:
                self.wfile.write(piece)
            except OSError:  # who asked has enough, or was killed
                break
            if self.hub.bytes_per_second:
                time.sleep(len(piece) / self.hub.bytes_per_second)
        self.close_connection = True
