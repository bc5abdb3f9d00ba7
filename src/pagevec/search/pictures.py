"""Pictures of stored pages: drawn from the file again, or else the small one in the store."""

import os
import threading
import time
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pagevec.errors import NotFound, PagevecError
from pagevec.ingest.boundary import open_document
from pagevec.ingest.names import Names, hash_file
from pagevec.ingest.page import Pages, SourcePage
from pagevec.search.results import Picture
from pagevec.stores.base import Store
from pagevec.types import Page, PageKey

_KEPT_BYTES = 64 << 20  # of pictures that were drawn
_KEPT_HASHES = 4096
_KEPT_OPEN = 3  # documents, each with a process that has read it
_OPEN_SECONDS = 60.0  # without a page to be drawn
_CHANGED = "the file has changed since it was ingested"
_FAR = "the file of the document is not on this machine"


class PageDrawer:
    """Draws pages of the documents of a store. Its methods may be called from several threads.

    Args:
        store: knows the documents, and has small pictures of their pages.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pictures = _Pictures()
        self._hashes = _Hashes()
        self._open = _OpenDocuments()

    def draw(self, name: str, number: int, width: int | None) -> Picture:
        """Return a picture of a page: from its document's file if that is unchanged.

        Args:
            name: of the document.
            number: of the page.
            width: pixels at most; None for as large as it is drawn.

        Raises:
            NotFound: the page is not in the store, or has no picture.
        """
        file = Names.read(self._store).path(name)
        record = self._store.ledger.record(name)
        content_hash = record.content_hash if record else ""
        key = (name, number, content_hash, width)
        reason = self._reason_not_to_draw(file, content_hash)
        drawn = self._pictures.get(key)
        if drawn is not None and reason is None:
            return drawn
        small = self._thumbnail(name, number)
        if file is None or reason is not None:
            return Picture(small, reason)
        try:
            made = self._open.make(file, content_hash, number).content
            if isinstance(made, str):
                return Picture(small, _CHANGED)
            picture = Picture(_as_jpeg(made, width))
        except (PagevecError, OSError) as error:
            return Picture(small, f"the page cannot be drawn again: {error}")
        self._pictures.put(key, picture)
        return picture

    def close(self) -> None:
        """End the processes that have documents open."""
        self._open.close()

    def _thumbnail(self, name: str, number: int) -> bytes:
        page = fetch_page(self._store, name, number)
        if page.thumbnail is None:
            raise NotFound(f"{name}, page {number}: there is no picture of it, it is a text")
        return page.thumbnail

    def _reason_not_to_draw(self, file: Path | None, content_hash: str) -> str | None:
        """Return why pages cannot be drawn from `file`; None if they can."""
        if file is None:  # a look at a page shall cost nobody a download
            return _FAR
        try:
            is_same = self._hashes.of(file) == content_hash
        except OSError:
            return "the file of the document is gone"
        return None if is_same else _CHANGED


def fetch_page(store: Store, name: str, number: int) -> Page:
    """Return a page with everything that is stored of it.

    Raises:
        NotFound: it is not in the store.
    """
    found = store.fetch([PageKey(name, number)])
    if not found:
        raise NotFound(f"there is no page {number} of {name!r}")
    return found[0]


def _as_jpeg(content: bytes, width: int | None) -> bytes:
    from pagevec.images import read_image  # loads Pillow, which a remote index does without

    image = read_image(content).decode()
    if width is not None and image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), reducing_gap=3)
    file = BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=85)
    return file.getvalue()


class _Pictures:
    """Pictures that were drawn lately, up to some bytes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Picture] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> Picture | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[object, ...], picture: Picture) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = picture
                self._bytes += len(picture.content)
            while self._bytes > _KEPT_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest.content)


class _Hashes:
    """Content hashes of files, computed again only after a file has changed."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, int, int], str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, file: Path) -> str:
        """Return the SHA-256 of the file's content.

        Raises:
            OSError: there is none.
        """
        found = file.stat()
        version = (os.fspath(file), found.st_ino, found.st_mtime_ns, found.st_size)
        with self._lock:
            known = self._kept.get(version)
        if known is None:
            known = hash_file(file)
            with self._lock:
                self._kept[version] = known
                if len(self._kept) > _KEPT_HASHES:
                    self._kept.popitem(last=False)
        return known


_Version = tuple[Path, str]


@dataclass
class _Opened:
    pages: Pages
    stack: ExitStack
    used: float = 0.0


class _OpenDocuments:
    """Documents that stay open for a while: LibreOffice would convert all pages for each of them.

    One thread at a time has a document; it is closed when no page of it was asked for lately.
    """

    def __init__(self) -> None:
        self._idle: OrderedDict[_Version, _Opened] = OrderedDict()
        self._busy: set[_Version] = set()
        self._changed = threading.Condition()
        self._timer: threading.Timer | None = None

    def make(self, file: Path, content_hash: str, number: int) -> SourcePage:
        """Return a page of the document in `file`.

        Raises:
            DocumentError: it cannot be opened, or the page cannot be made.
        """
        version = (file, content_hash)
        with self._changed:
            while version in self._busy:
                self._changed.wait()
            self._busy.add(version)
            opened = self._idle.pop(version, None)
        try:
            opened = opened or _open(file)
            try:
                made = opened.pages.make(number)
            except BaseException:
                opened.stack.close()
                raise
            self._keep(version, opened)
            return made
        finally:
            with self._changed:
                self._busy.discard(version)
                self._changed.notify_all()

    def close(self) -> None:
        """Close all documents that are open."""
        self._close_unused(0.0, keep=0)

    def _keep(self, version: _Version, opened: _Opened) -> None:
        opened.used = time.monotonic()
        with self._changed:
            self._idle[version] = opened
            if self._timer is None:
                self._timer = threading.Timer(_OPEN_SECONDS, self._sweep)
                self._timer.daemon = True
                self._timer.start()
        self._close_unused(_OPEN_SECONDS, keep=_KEPT_OPEN)

    def _sweep(self) -> None:
        self._close_unused(_OPEN_SECONDS, keep=_KEPT_OPEN)
        with self._changed:
            self._timer = None
            if self._idle:
                self._timer = threading.Timer(_OPEN_SECONDS / 4, self._sweep)
                self._timer.daemon = True
                self._timer.start()

    def _close_unused(self, seconds: float, keep: int) -> None:
        old = []
        with self._changed:
            since = time.monotonic() - seconds
            while self._idle:
                version, eldest = next(iter(self._idle.items()))
                if len(self._idle) <= keep and eldest.used > since:
                    break
                old.append(self._idle.pop(version))
        for opened in old:
            opened.stack.close()


def _open(file: Path) -> _Opened:
    stack = ExitStack()
    return _Opened(stack.enter_context(open_document(file)), stack)
