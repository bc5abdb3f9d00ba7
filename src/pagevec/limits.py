"""What one image may be at most. The settings read it, and so it imports nothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageLimits:
    """What one image may be at most, in this process and over HTTP alike.

    Attributes:
        max_bytes: of the file.
        max_pixels: width times height; never more than 2**28, where Pillow stops.
        max_side: pixels of the longer side.
    """

    max_bytes: int = 192 * 1024 * 1024
    max_pixels: int = 64_000_000
    max_side: int = 65_500
