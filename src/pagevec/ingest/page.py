"""A page of a document on its way to the model and the store."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pagevec.grid import PageResizing, cut_tiles, is_illegible, save_losslessly
from pagevec.types import InputType, MultiVector, Page, PageKey

if TYPE_CHECKING:
    from PIL import Image

_THUMBNAIL_SIDE = 320
_VISIBLE_PIXELS = 1 << 20  # of a model that does not tell
_MOST_SENT = 8 << 20  # pixels of a page for such a model


@dataclass(frozen=True, eq=False)
class SourcePage:
    """One page of a document, as the model gets it.

    Attributes:
        number: of the page in its document, from 1.
        content: an image file, or a text.
        size: (width, height) in pixels of the image, or of each tile; None for a text.
        text: the page's text layer, or the text itself.
        thumbnail: a small JPEG of an image.
        warnings: what a user should know about this page.
        tiles: image files of the tiles of a long page, which are embedded in its place.
    """

    number: int
    content: bytes | str
    size: tuple[int, int] | None = None
    text: str | None = None
    thumbnail: bytes | None = None
    warnings: tuple[str, ...] = ()
    tiles: tuple[bytes, ...] = ()

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
        warnings: what a user should know about the document as a whole.
    """

    count: int
    make: Callable[[int], SourcePage]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadLimits:
    """What reading may take; a page or a document that takes more fails.

    Attributes:
        page_seconds: for one page to be made.
        open_seconds: for a document to be opened; LibreOffice converts all of its pages in them.
        page_bytes: of memory, beyond what a reader takes when it is idle.
        pages: of one document; None for any number.
    """

    page_seconds: float = 60.0
    open_seconds: float = 300.0
    page_bytes: int = 512 << 20
    pages: int | None = None


@dataclass(frozen=True)
class ReadOptions:
    """How documents are read.

    Attributes:
        resizing: how the model resizes pages; they are made of this size, and long ones are cut
            into tiles. None: as they are.
        passwords: tried on encrypted documents, in this order.
        limits: what reading may take.
    """

    resizing: PageResizing | None = None
    passwords: tuple[str, ...] = field(default=(), repr=False)
    limits: ReadLimits = ReadLimits()

    @property
    def visible_pixels(self) -> int:
        """Pixels of a page that the model sees."""
        return self.resizing.max_pixels if self.resizing else _VISIBLE_PIXELS

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        resizing = asdict(self.resizing) if self.resizing else None
        limits = asdict(self.limits)
        return {"resizing": resizing, "passwords": list(self.passwords), "limits": limits}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ReadOptions":
        """Return the options that `to_json` has given."""
        resizing = content["resizing"]
        return cls(
            PageResizing(**resizing) if resizing else None,
            tuple(content["passwords"]),
            ReadLimits(**content["limits"]),
        )


def page_to_store(
    document: str, source: SourcePage, vectors: MultiVector, resizing: PageResizing | None
) -> Page:
    """Return what a store keeps of `source`.

    Args:
        document: name of the document.
        source: the page as the model got it.
        vectors: float32 (vectors, dim); of a page in tiles those of its tiles one after another.
        resizing: how the model resizes pages, from which follows the patch grid.
    """
    metadata = {"file": PurePosixPath(document).name, "type": source.input_type}
    tiles = {"tiles": len(source.tiles)} if source.tiles else {}
    return Page(
        key=PageKey(document, source.number),
        vectors=vectors,
        metadata={**metadata, **tiles},
        text=source.text,
        thumbnail=source.thumbnail,
        grid=resizing.grid(*source.size) if resizing and source.size else None,
    )


def page_under(document: str, page: Page) -> Page:
    """Return `page` as a page of another document with the same content."""
    return replace(
        page,
        key=replace(page.key, document=document),
        metadata={**page.metadata, "file": PurePosixPath(document).name},
    )


def page_from_image(
    number: int,
    image: "Image.Image",
    options: ReadOptions,
    text: str | None = None,
    warnings: tuple[str, ...] = (),
) -> SourcePage:
    """Return the page that shows `image` (mode RGB), of the size that the model sees."""
    resizing = options.resizing
    count = resizing.count_tiles(*image.size) if resizing else 1
    tiles = cut_tiles(image, count) if count > 1 else []
    size = tiles[0].size if tiles else image.size
    if is_illegible(*size, options.visible_pixels):
        warnings += (
            f"the page is {image.width} x {image.height} pixels, too long for its print to be "
            "legible to the model: split it",
        )
    return SourcePage(
        number,
        _save_as_seen(image, resizing),
        size,
        text,
        make_thumbnail(image),
        warnings,
        tuple(_save_as_seen(tile, resizing) for tile in tiles),
    )


def _save_as_seen(image: "Image.Image", resizing: PageResizing | None) -> bytes:
    if resizing is not None:
        return save_losslessly(resizing.resize(image) if resizing.shrinks(*image.size) else image)
    factor = math.ceil(math.sqrt(image.width * image.height / _MOST_SENT))
    return save_losslessly(image.reduce(factor) if factor > 1 else image)


def make_thumbnail(image: "Image.Image") -> bytes:
    """Return a JPEG of `image` (mode RGB) within 320 x 320 pixels."""
    side = max(image.size)
    small = image
    if side > _THUMBNAIL_SIDE:
        size = [max(1, round(one * _THUMBNAIL_SIDE / side)) for one in image.size]
        # Unlike `Image.thumbnail`, this needs no copy of a large image.
        small = image.resize((size[0], size[1]), reducing_gap=2)
    file = BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()
