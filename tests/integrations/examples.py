"""Questions whose words stand on pages of the examples, where, and what a picture is checked by."""

from io import BytesIO

from PIL import Image

REPORT = "examples/annual-report.pdf"
NOTES = "examples/notes.txt"

QUESTIONS = {
    "parcels and punctuality": 4,
    "five years in figures": 3,
    "Öffnungszeiten und Anschriften": 6,
}
"""Each with the page of the report on which it is answered."""


def jpeg_size(file: bytes | None) -> tuple[int, int]:
    """Return width and height of a JPEG file; fail if it is none."""
    assert file is not None
    with Image.open(BytesIO(file)) as image:
        assert image.format == "JPEG"
        return image.size
