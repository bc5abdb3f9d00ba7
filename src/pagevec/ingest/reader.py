"""The program that reads documents: a process of its own, without network, with limited memory.

PDFium, Pillow and LibreOffice are foreign code that gets strangers' files. They run here, one
document at a time, so that a crash, a hang or an allocation of gigabytes costs one page and not the
ingestion. `pagevec.ingest.boundary` starts this program and talks to it over its standard input and
output: a header in JSON, then the bytes that it announces. Nothing is pickled: what comes back is
data, whatever has happened to this process.
"""

import json
import os
import signal
import struct
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from pagevec.errors import PagevecError
from pagevec.ingest.confinement import leave_network
from pagevec.ingest.page import Pages, ReadOptions, SourcePage

_LENGTH = struct.Struct(">I")
_LONGEST = 512 << 20  # what a reader may hold


def send(pipe: BinaryIO, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Write one message."""
    content = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    pipe.write(_LENGTH.pack(len(content)) + content)
    for blob in blobs:
        pipe.write(blob)
    pipe.flush()


def receive(pipe: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """Read one message; None at the end of the pipe.

    Raises:
        ValueError: it is cut short, or not a message.
    """
    start = pipe.read(_LENGTH.size)
    if not start:
        return None
    header = json.loads(_read(pipe, _LENGTH.unpack(start)[0]))
    return header, [_read(pipe, length) for length in header.pop("blobs")]


def _read(pipe: BinaryIO, length: int) -> bytes:
    if length > _LONGEST:
        raise ValueError("the message is too long")
    content = pipe.read(length)
    if len(content) < length:
        raise ValueError("the message is cut short")
    return content


def main() -> None:
    """Answer requests until standard input is closed."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the messages
    leave_network()  # before the first thread, which would keep a user from it
    _end_with_parent(int(sys.argv[1]))
    reader = _Reader()
    while (message := receive(requests)) is not None:
        request, _ = message
        try:
            answer, blobs = reader.answer(request)
        except PagevecError as error:
            answer, blobs = {"error": error.message}, []
        except MemoryError:
            answer, blobs = {"error": "it needs more memory than a page may take"}, []
        except Exception as error:
            answer, blobs = {"error": f"{type(error).__name__}: {error}"}, []
        send(answers, answer, blobs)


class _Reader:
    def __init__(self) -> None:
        self._open = ExitStack()
        self._pages: Pages | None = None
        self._idle_bytes = _count_bytes()

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        if "close" in request:
            self._close()
            return {}, []
        if "open" in request:
            return self._open_document(Path(os.fsdecode(bytes.fromhex(request["open"]))), request)
        if self._pages is None:
            raise ValueError("no document is open")
        return _encode_page(self._pages.make(request["page"]))

    def _open_document(
        self, path: Path, request: dict[str, Any]
    ) -> tuple[dict[str, Any], list[bytes]]:
        from pagevec.ingest.openers import open_in_this_process

        self._close()
        options = ReadOptions.from_json(request["options"])
        _limit_memory(self._idle_bytes + options.limits.page_bytes)
        self._pages = self._open.enter_context(open_in_this_process(path, options))
        return {"count": self._pages.count, "warnings": list(self._pages.warnings)}, []

    def _close(self) -> None:
        self._pages = None
        self._open.close()
        self._open = ExitStack()


def _encode_page(page: SourcePage) -> tuple[dict[str, Any], list[bytes]]:
    is_text = isinstance(page.content, str)
    content = page.content.encode() if isinstance(page.content, str) else page.content
    header = {
        "number": page.number,
        "is_text": is_text,
        "size": page.size,
        "text": page.text,
        "warnings": list(page.warnings),
        "has_thumbnail": page.thumbnail is not None,
    }
    return header, [content, page.thumbnail or b"", *page.tiles]


def decode_page(header: dict[str, Any], blobs: Sequence[bytes]) -> SourcePage:
    """Return the page of an answer.

    Raises:
        Exception: of any kind, if the answer is not a page.
    """
    content, thumbnail, *tiles = blobs
    width, height = header["size"] or (0, 0)
    return SourcePage(
        number=int(header["number"]),
        content=content.decode() if header["is_text"] else content,
        size=(int(width), int(height)) if header["size"] else None,
        text=None if header["text"] is None else str(header["text"]),
        thumbnail=thumbnail if header["has_thumbnail"] else None,
        warnings=tuple(map(str, header["warnings"])),
        tiles=tuple(tiles),
    )


def _end_with_parent(lifeline: int) -> None:
    """End this process, and its children, when the process that started it is gone.

    Args:
        lifeline: a pipe whose other end only that process has.
    """
    if sys.platform == "linux":
        import fcntl

        # By the kernel: a library that hangs may keep all threads of Python from running.
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        return

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    if os.name == "posix":
        threading.Thread(target=wait, daemon=True).start()


def _count_bytes() -> int:
    """Return the memory of this process that `_limit_memory` limits, where the system tells."""
    if sys.platform != "linux":
        return 0
    status = Path("/proc/self/status").read_text(encoding="ascii")
    data = next(line.split()[1] for line in status.splitlines() if line.startswith("VmData"))
    return int(data) * 1024


def _limit_memory(limit: int) -> None:
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


if __name__ == "__main__":
    main()
