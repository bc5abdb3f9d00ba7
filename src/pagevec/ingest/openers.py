"""Which opener reads a document: by its content where that tells, else by its suffix."""

import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from pagevec.errors import DocumentError
from pagevec.ingest.office import open_office
from pagevec.ingest.page import Pages, ReadOptions
from pagevec.ingest.pdf import open_pdf
from pagevec.ingest.pictures import open_picture
from pagevec.ingest.suffixes import OFFICE, PDF, TEXTS
from pagevec.ingest.texts import open_text

Opener = Callable[[Path, ReadOptions], AbstractContextManager[Pages]]

_HEAD = 1024
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PACKAGES = ("doc", "xls", "ppt", "pps", "odt", "ods", "odp", "odg", "epu", "ott")
_LOCKED = "the file needs a password: save it without one"
_ENCRYPTED_OOXML = "EncryptedPackage".encode("utf-16-le")
_ODF_MANIFEST, _MANIFEST_BYTES = "META-INF/manifest.xml", 1 << 20
_XML, _MOST_XML = (".xml", ".rels", ".vml"), 64 << 20
_PICTURE_MARKS = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51",
)  # fmt: skip


def open_in_this_process(document: Path, options: ReadOptions) -> AbstractContextManager[Pages]:
    """Open `document`; its pages are made one at a time, when they are asked for.

    Raises:
        DocumentError: the document cannot be opened, or what reads it is not installed.
    """
    return _choose(document)(document, options)


def _choose(document: Path) -> Opener:
    with document.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return open_text if document.suffix.lower() in TEXTS else _refuse("the file is empty")
    suffix = document.suffix.lower()
    if suffix in TEXTS:
        return open_text
    if suffix in OFFICE:
        return _office_or_refusal(document, head, suffix)
    if b"%PDF-" in head:
        return open_pdf
    if head.startswith(_PICTURE_MARKS) or head[8:12] == b"WEBP" or head[4:8] == b"ftyp":
        return open_picture
    return open_pdf if suffix in PDF else open_picture


def _office_or_refusal(document: Path, head: bytes, suffix: str) -> Opener:
    # LibreOffice takes whatever it cannot read for a text.
    is_package = suffix[1:4] in _PACKAGES
    text_inside = head.lstrip()[:5].lower() in (b"{\\rtf", b"<html", b"<?xml", b"<!doc")
    if is_package and not (head.startswith(_OLE) or zipfile.is_zipfile(document) or text_inside):
        return _refuse(f"the file is damaged: not a {suffix} document")
    reason = _reason_to_refuse(document, head)
    return _refuse(reason) if reason else open_office


def _reason_to_refuse(document: Path, head: bytes) -> str | None:
    """Return why LibreOffice would fail without a word, or leave pages out; None if neither."""
    if head.startswith(_OLE):
        return _LOCKED if _ENCRYPTED_OOXML in document.read_bytes() else None
    try:
        with zipfile.ZipFile(document) as archive:
            parts = archive.infolist()
            size = sum(part.file_size for part in parts if part.filename.endswith(_XML))
            if size > _MOST_XML:
                return f"the file has {size >> 20} MB of text and tables unpacked: split it"
            if _ODF_MANIFEST in archive.namelist():
                with archive.open(_ODF_MANIFEST) as manifest:
                    if b"encryption-data" in manifest.read(_MANIFEST_BYTES):
                        return _LOCKED
    except zipfile.BadZipFile:
        pass
    return None


def _refuse(reason: str) -> Opener:
    def refuse(document: Path, options: ReadOptions) -> AbstractContextManager[Pages]:
        raise DocumentError(reason)

    return refuse
