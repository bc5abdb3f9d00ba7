"""Image files -> pages: one, or one for each frame of a TIFF."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pagevec.errors import InvalidRequest
from pagevec.ingest.page import Pages, SourcePage, make_thumbnail, page_from_image

TIFF = frozenset({".tif", ".tiff"})
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}) | TIFF


@contextmanager
def open_picture(document: Path) -> Iterator[Pages]:
    """Open an image file. A file of one frame is sent as it is.

    Without Pillow the file is taken as one page of unknown size, without a thumbnail.

    Raises:
        InvalidRequest: it is no image.
    """
    try:
        from PIL import Image
    except ImportError:
        yield Pages(1, lambda number: SourcePage(number, document.read_bytes()))
        return
    try:
        image = Image.open(BytesIO(document.read_bytes()))
        frames = getattr(image, "n_frames", 1) if document.suffix.lower() in TIFF else 1
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise InvalidRequest(f"{document} cannot be opened: {error}") from None

    def make(number: int) -> SourcePage:
        try:
            image.seek(number - 1)
            if frames > 1:
                return page_from_image(number, image)
            return SourcePage(
                number, document.read_bytes(), size=image.size, thumbnail=make_thumbnail(image)
            )
        except Exception as error:
            raise InvalidRequest(f"page {number} of {document}: {error}") from None

    with image:
        yield Pages(frames, make)
