"""Pages to resize, and a measurement of what resizing gains and loses.

Run it in `tests`: `python -m client.pages`.
"""

import os
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pypdfium2
from PIL import Image, ImageDraw

from conftest import EXAMPLES
from pagevec.client import Client
from pagevec.client.images import image_file
from pagevec.grid import PageResizing
from pagevec.types import MultiVector

A4 = (1240, 1754)  # at 150 dpi


@cache
def report_pages() -> list[bytes]:
    """The pages of examples/annual-report.pdf at 150 dpi, as PNG."""
    with pypdfium2.PdfDocument(EXAMPLES / "annual-report.pdf") as pdf:
        return [png_of(page.render(scale=150 / 72).to_pil().convert("RGB")) for page in pdf]


def drawn_pages(count: int) -> list[bytes]:
    """Seeded random pages: lines of numbers and a bar chart."""
    return [png_of(_drawn(seed)) for seed in range(count)]


def png_of(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def _drawn(seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", A4, "white")
    draw = ImageDraw.Draw(image)
    for y in range(100, 1000, 34):
        words = " ".join(str(number) for number in generator.integers(0, 10**6, 12))
        draw.text((120, y), words, fill="black", font_size=22)
    for x, height in zip(range(140, 1100, 80), generator.integers(20, 500, 12), strict=True):
        colour = tuple(int(part) for part in generator.integers(0, 220, 3))
        draw.rectangle((x, 1600 - height, x + 60, 1600), fill=colour)
    return image


def factor(page: bytes, resizing: PageResizing) -> float:
    """Return how many times fewer bytes a page has once it is resized."""
    return len(page) / len(image_file(page, resizing))


def cosines(whole: MultiVector, resized: MultiVector) -> np.ndarray:
    """Return the cosine of each vector with the resized page's, (vectors,)."""
    assert whole.shape == resized.shape
    lengths = np.linalg.norm(whole, axis=1) * np.linalg.norm(resized, axis=1)
    return (whole * resized).sum(axis=1) / lengths


def ranking(query: MultiVector, pages: Sequence[MultiVector]) -> list[int]:
    """Return the indices of pages by MaxSim, best first."""
    scores = [(query @ page.T).max(axis=1).sum() for page in pages]
    return [int(index) for index in np.argsort(scores)[::-1]]


def _embed(client: Client, pages: list[bytes], resize: bool) -> list[MultiVector]:
    # float32, so that only the resizing is measured
    return client.embed_images(pages, resize=resize, dtype="float32")


def main() -> None:
    """Measure a running service: `PAGEVEC_URL`, `SERVICE_API_KEY`."""
    url = os.environ.get("PAGEVEC_URL", "http://127.0.0.1:8765")
    report, drawn = report_pages(), drawn_pages(46)
    pages = report + drawn
    with Client(url, os.environ.get("SERVICE_API_KEY")) as client:
        resizing = client.info().resizing
        whole, resized = (_embed(client, pages, on) for on in (False, True))
        queries = client.embed_texts(["night route", "fares in 2024", "a table", "bars", "2"])
    alike = np.concatenate([cosines(*pair) for pair in zip(whole, resized, strict=True)])
    same = sum(ranking(query, whole) == ranking(query, resized) for query in queries)
    for name, some in (("report", report), ("drawn", drawn)):
        factors = [factor(page, resizing) for page in some]
        print(f"{name}: {min(factors):.1f} to {max(factors):.1f} times fewer bytes")
    print(f"cosine: lowest {alike.min():.7f}, median {np.median(alike):.7f}")
    print(f"ranking of {len(pages)} pages: the same for {same} of {len(queries)} queries")


if __name__ == "__main__":
    main()
