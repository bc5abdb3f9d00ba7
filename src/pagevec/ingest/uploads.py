"""Files that were sent to a service, each kept until its document is removed.

The folder has the files, named by the SHA-256 of their content, `waiting/` with one small file for
each document that is still to be ingested, and `incoming/` with what is being received. What waits
is on the disk before the sender is answered, so a service that is killed goes on with it.
"""

import hashlib
import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from pagevec.errors import ConfigurationError
from pagevec.ingest.incoming import Incoming, Room, in_words
from pagevec.ingest.names import SourceDocument, label_of_uploads, upload_file
from pagevec.stores.base import Store

log = logging.getLogger(__name__)

_FILE = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]+)?")


@dataclass(frozen=True)
class Upload:
    """A file that was received for a document.

    Attributes:
        name: of the document.
        content_hash: SHA-256 of the file, in hex.
        accepted: when, in nanoseconds since 1970; a later upload of this name replaces it.
    """

    name: str
    content_hash: str
    accepted: int

    @property
    def file(self) -> str:
        """The name of its file in the folder."""
        return upload_file(self.name, self.content_hash)


class Uploads:
    """The folder of uploaded files of one store. One service at a time uses it.

    Args:
        store: has their documents.
        folder: made if it is not there.
        most_bytes: of all files together.

    Attributes:
        folder: absolute.
        label: first part of the names of its documents.
        worker: name of whoever ingests them: a service goes on with the leases of one that was
            killed before it.

    Raises:
        ConfigurationError: the folder cannot be used, or another service uses it.
    """

    def __init__(self, store: Store, folder: Path, most_bytes: int) -> None:
        self.folder = folder.absolute()
        self._store = store
        self._room = Room(self.folder, most_bytes)
        self._changing = threading.RLock()
        try:
            for one in (self.folder, self.folder / "waiting", self.folder / "incoming"):
                one.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder / ".lock")
            self.worker = f"uploads-{_read_or_write_id(self._lock)}"
        except OSError as error:
            raise ConfigurationError(
                f"the folder for uploads cannot be used: {self.folder} ({error.strerror})"
            ) from None
        self.label = label_of_uploads(store, self.folder)
        for left in (self.folder / "incoming").iterdir():  # of a service that was killed
            left.unlink()
        self._drop_drafts()
        self._room.count(sum(file.stat().st_size for file in self._files()))
        marks = map(_read_mark, (self.folder / "waiting").glob("*.json"))
        self._waiting = {one.name: one for one in marks if one}
        self._resume()
        self.sweep()

    def receive(self, filename: str) -> Incoming:
        """Begin to receive a file.

        Raises:
            InvalidRequest: its name is none, or of a type that is not read here.
        """
        return Incoming(self.folder / "incoming", self._room, filename)

    def accept(self, incoming: Sequence[Incoming]) -> list[Upload]:
        """Keep files that were received completely; their documents wait from now on.

        All of them or none. A document that is complete in the store with the same content does
        not wait.

        Raises:
            StorageFull: there is no room for them.
            StoreError: the folder cannot be written, or the store does not answer.
        """
        with in_words():
            # What needs room comes first. Renaming needs none.
            hashes = [one.finish() for one in incoming]
            with self._changing:
                now = time.time_ns()
                accepted = [
                    Upload(f"{self.label}/{one.below}", hashes[place], now + place)
                    for place, one in enumerate(incoming)
                ]
                waiting = [one for one in accepted if not self._is_complete(one)]
                try:
                    for upload in waiting:
                        self._draft_mark(upload)
                    for one, upload in zip(incoming, accepted, strict=True):
                        self._keep(one, self.folder / upload.file)
                    for upload in waiting:
                        self._mark(upload)
                except BaseException:
                    self._drop_drafts()
                    self.sweep()
                    raise
            _sync(self.folder / "waiting")
            _sync(self.folder)
        return accepted

    def waiting(self) -> list[Upload]:
        """Return what is still to be ingested, in the order in which it was accepted."""
        with self._changing:
            return sorted(self._waiting.values(), key=lambda one: one.accepted)

    def waiting_for(self, name: str) -> Upload | None:
        """Return the upload that the document `name` waits for, if it does."""
        return self._waiting.get(name)

    def source(self, upload: Upload) -> SourceDocument:
        """Return the document to ingest."""
        return SourceDocument(upload.name, self.folder / upload.file, is_upload=True)

    def finish(self, upload: Upload) -> None:
        """Note that a document was ingested, or never will be. A later upload of it waits on."""
        with self._changing:
            if self._waiting.get(upload.name) == upload:
                self._unmark(upload.name)
            self.sweep()

    def forget(self, name: str) -> None:
        """Drop a document that is removed: it waits no more."""
        with self._changing, in_words():
            self._unmark(name)

    def sweep(self) -> None:
        """Remove the files that no document needs."""
        with self._changing, in_words():
            needed = {upload.file for upload in self.waiting()}
            needed |= {
                upload_file(one.name, one.content_hash)
                for one in self._store.ledger.records()
                if self.holds(one.name)
            }
            for file in self._files():
                if file.name not in needed:
                    size = file.stat().st_size
                    file.unlink()
                    self._room.take(-size)

    def holds(self, name: str) -> bool:
        """Whether the document `name` was uploaded."""
        return name.startswith(f"{self.label}/")

    def close(self) -> None:
        """Let another service use the folder."""
        self._lock.close()

    def _is_complete(self, upload: Upload) -> bool:
        record = self._store.ledger.record(upload.name)
        return (
            record is not None
            and record.complete
            and record.error is None
            and record.content_hash == upload.content_hash
            and upload.name not in self._waiting
        )

    def _resume(self) -> None:
        """Let documents wait that were begun and not ended, as by a removal that was killed."""
        for record in self._store.ledger.records():
            is_begun = not record.complete and record.error is None
            upload = Upload(record.name, record.content_hash, time.time_ns())
            is_there = self.holds(record.name) and (self.folder / upload.file).exists()
            if is_begun and is_there and record.name not in self._waiting:
                self._draft_mark(upload)
                self._mark(upload)

    def _keep(self, incoming: Incoming, target: Path) -> None:
        if target.exists():
            incoming.discard()
        else:
            incoming.file.replace(target)

    def _draft_mark(self, upload: Upload) -> None:
        with self._place_of_draft(upload).open("w") as file:
            json.dump(asdict(upload), file)
            file.flush()
            os.fsync(file.fileno())

    def _mark(self, upload: Upload) -> None:
        self._place_of_draft(upload).replace(self._place_of_mark(upload.name))
        self._waiting[upload.name] = upload

    def _drop_drafts(self) -> None:
        for draft in (self.folder / "waiting").glob("*.draft"):
            draft.unlink()

    def _place_of_draft(self, upload: Upload) -> Path:
        return self._place_of_mark(upload.name).with_suffix(f".{upload.accepted}.draft")

    def _unmark(self, name: str) -> None:
        self._waiting.pop(name, None)
        self._place_of_mark(name).unlink(missing_ok=True)

    def _place_of_mark(self, name: str) -> Path:
        return self.folder / "waiting" / f"{hashlib.sha256(name.encode()).hexdigest()}.json"

    def _files(self) -> Iterator[Path]:
        return (one for one in self.folder.iterdir() if _FILE.fullmatch(one.name))


def _read_mark(place: Path) -> Upload | None:
    try:
        content = json.loads(place.read_text())
        return Upload(**content)
    except Exception as error:  # it costs this upload, which has to be sent again
        log.error("%s cannot be read, so its upload is not ingested: %s", place, error)
        return None


def _lock(place: Path) -> BinaryIO:
    """Return a locked file; the lock ends with this process, however that ends."""
    opened = place.open("a+b")
    try:
        import fcntl
    except ImportError:  # not on Windows
        return opened
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.close()
        raise ConfigurationError(
            f"another service takes uploads for this store: {place.parent}"
        ) from None
    return opened


def _read_or_write_id(file: BinaryIO) -> str:
    """Return what stands in `file`: something that no other folder has."""
    file.seek(0)
    if not (known := file.read(64).decode("ascii", "replace")):
        known = uuid.uuid4().hex
        file.write(known.encode())
        file.flush()
    return known


def _sync(folder: Path) -> None:
    """Make the names in `folder` durable."""
    if os.name != "posix":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
