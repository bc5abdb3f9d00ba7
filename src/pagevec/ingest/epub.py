"""EPUB -> one HTML document, which LibreOffice reads; EPUB itself it only writes."""

import base64
import html
import mimetypes
import posixpath
import re
import zipfile
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from pagevec.errors import DocumentError

_CONTAINER = "META-INF/container.xml"
_MOST_BYTES = 64 << 20  # of all chapters and pictures, unpacked
_BODY = re.compile(r"<body[^>]*>(.*)</body\s*>", re.DOTALL | re.IGNORECASE)
_PICTURE = re.compile(r"""(<img\b[^>]*?\bsrc\s*=\s*)(["'])(.*?)\2""", re.DOTALL | re.IGNORECASE)


def epub_to_html(book: Path) -> str:
    """Return the chapters of a book in their order, with its pictures inside.

    Raises:
        DocumentError: it is damaged, encrypted or too large.
    """
    try:
        with zipfile.ZipFile(book) as archive:
            reader = _Book(archive)
            bodies = [reader.read_chapter(name) for name in reader.list_chapters()]
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        RuntimeError,
        ElementTree.ParseError,
    ) as error:
        raise DocumentError(f"the EPUB is damaged or encrypted: {error}") from None
    chapters = '<p style="page-break-before: always"></p>'.join(bodies)
    return f'<html><head><meta charset="utf-8"></head><body>{chapters}</body></html>'


class _Book:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._left = _MOST_BYTES

    def list_chapters(self) -> list[str]:
        """Return the names of the chapters' files in reading order."""
        container = ElementTree.fromstring(self._read(_CONTAINER))  # noqa: S314 - expat >= 2.4.1
        root = next(one.get("full-path", "") for one in container.iter() if one.get("full-path"))
        package = ElementTree.fromstring(self._read(root))  # noqa: S314
        places = {one.get("id"): one.get("href", "") for one in package.iter() if one.get("href")}
        order = [one.get("idref") for one in package.iter() if one.tag.endswith("}itemref")]
        return [_join(root, places[item]) for item in order if item in places]

    def read_chapter(self, name: str) -> str:
        """Return what is in the body of a chapter."""
        text = self._read(name).decode("utf-8", "replace")
        body = _BODY.search(text)
        return _PICTURE.sub(lambda found: self._put_inside(name, found), body[1] if body else text)

    def _put_inside(self, chapter: str, found: re.Match[str]) -> str:
        name = _join(chapter, html.unescape(found[3]))
        kind = mimetypes.guess_type(name)[0] or ""
        try:
            content = self._read(name) if kind.startswith("image/") else b""
        except KeyError:
            content = b""
        return f'{found[1]}"data:{kind};base64,{base64.b64encode(content).decode()}"'

    def _read(self, name: str) -> bytes:
        self._left -= self._archive.getinfo(name).file_size
        if self._left < 0:
            raise DocumentError(f"the EPUB has more than {_MOST_BYTES >> 20} MiB: split it")
        return self._archive.read(name)


def _join(file: str, reference: str) -> str:
    """Return the name of the file that `file` refers to."""
    path = unquote(reference.partition("#")[0])
    return posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
