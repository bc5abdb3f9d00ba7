"""A page of a document on its way to the service."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from pagevec.grid import PageResizing
from pagevec.types import InputType, MultiVector, Page, PageKey

if TYPE_CHECKING:
    from PIL import Image

_THUMBNAIL_PIXELS = (320, 320)


@dataclass(frozen=True, eq=False)
class SourcePage:
    """One input that a document gives.

    Attributes:
        number: of the page in its document, from 1.
        content: an image file, or a text.
        size: (width, height) of the image in pixels; None for a text.
        text: the page's text layer, or the text itself.
        thumbnail: a small JPEG of an image.
    """

    number: int
    content: bytes | str
    size: tuple[int, int] | None = None
    text: str | None = None
    thumbnail: bytes | None = None

    @property
    def input_type(self) -> InputType:
        """What the service shall take it for."""
        return "text" if isinstance(self.content, str) else "image"


@dataclass(frozen=True)
class Pages:
    """The pages of an open document.

    Attributes:
        count: how many there are; make: gives the one with a number, from 1.
    """

    count: int
    make: Callable[[int], SourcePage]


def stored_page(
    document: str, source: SourcePage, vectors: MultiVector, resizing: PageResizing | None
) -> Page:
    """Return what a store keeps of `source`: its vectors, and its patch grid where it has one."""
    return Page(
        key=PageKey(document, source.number),
        vectors=vectors,
        metadata={"file": Path(document).name, "type": source.input_type},
        text=source.text,
        thumbnail=source.thumbnail,
        grid=resizing.grid(*source.size) if resizing and source.size else None,
    )


def picture(number: int, image: "Image.Image", text: str | None = None) -> SourcePage:
    """Return the page that shows `image`."""
    rgb = image.convert("RGB")
    file = BytesIO()
    rgb.save(file, "PNG", compress_level=1)
    return SourcePage(number, file.getvalue(), size=rgb.size, text=text, thumbnail=thumbnail(rgb))


def thumbnail(image: "Image.Image") -> bytes:
    """Return a JPEG of `image` within 320 x 320 pixels."""
    small = image.convert("RGB")
    small.thumbnail(_THUMBNAIL_PIXELS)
    file = BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()
