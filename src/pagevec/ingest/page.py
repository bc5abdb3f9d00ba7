"""A page of a document on its way to the model and the store."""

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
    """One page of a document, as the model gets it.

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
        """How the model is to read it."""
        return "text" if isinstance(self.content, str) else "image"


@dataclass(frozen=True)
class Pages:
    """The pages of an open document.

    Attributes:
        count: number of pages.
        make: makes the page with a number, from 1.
    """

    count: int
    make: Callable[[int], SourcePage]


def page_to_store(
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


def page_from_image(number: int, image: "Image.Image", text: str | None = None) -> SourcePage:
    """Return the page that shows `image`."""
    rgb = image.convert("RGB")
    file = BytesIO()
    rgb.save(file, "PNG", compress_level=1)
    return SourcePage(
        number, file.getvalue(), size=rgb.size, text=text, thumbnail=make_thumbnail(rgb)
    )


def make_thumbnail(image: "Image.Image") -> bytes:
    """Return a JPEG of `image` within 320 x 320 pixels."""
    small = image.convert("RGB")
    small.thumbnail(_THUMBNAIL_PIXELS)
    file = BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()
