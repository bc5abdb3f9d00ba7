"""Make the example documents of this folder: a report, a scanned receipt and a text note.

Run `python examples/make_examples.py`. It needs reportlab, Pillow and numpy. With the same
versions of these, every run gives the same bytes; the kept report was made with reportlab 5.1.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from maker import content, pages

RECEIPT_SIZE = (600, 1000)
INK, PAPER, DESK = 40, 243, 205


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def receipt_lines() -> list[tuple[int, str, str]]:
    """Return the lines of the receipt as size, left part and right part."""
    total = sum(price for _, price in content.RECEIPT_ITEMS)
    date, time, till, number = content.RECEIPT_META
    name, *address = content.RECEIPT_HEAD
    return [
        (38, name, ""),
        *((21, line, "") for line in address),
        (0, "", ""),
        (21, f"{date}  {time}", f"{till}  {number}"),
        (0, "", ""),
        *((23, item, f"{price:.2f}") for item, price in content.RECEIPT_ITEMS),
        (0, "", ""),
        (31, "TOTAL EUR", f"{total:.2f}"),
        (21, "of which VAT 10%", f"{total - total / 1.1:.2f}"),
        (21, "Paid by card, no tip", f"{total:.2f}"),
        (0, "", ""),
        *((21, line, "") for line in content.RECEIPT_FOOT),
    ]


def draw_receipt() -> Image.Image:
    """Return the clean slip of paper; a line without a right part is centred."""
    width, height = RECEIPT_SIZE[0] - 90, RECEIPT_SIZE[1] - 90
    slip = Image.new("L", (width, height), PAPER)
    draw = ImageDraw.Draw(slip)
    y, pad = 44.0, 34
    for size, left, right in receipt_lines():
        if not size:
            for x in range(pad, width - pad, 12):
                draw.line((x, y + 8, x + 6, y + 8), fill=INK, width=2)
            y += 30
            continue
        font = _font(size)
        if right:
            draw.text((pad, y), left, INK, font=font)
            draw.text((width - pad, y), right, INK, font=font, anchor="ra")
        else:
            draw.text((width / 2, y), left, INK, font=font, anchor="ma")
        y += size * 1.62
    draw_bars(draw, (110, height - 118, width - 110, height - 48))
    return slip


def draw_bars(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], seed: int = 3) -> None:
    """Fill the box with upright bars, as of a barcode."""
    left, top, right, bottom = box
    for bar, gap in np.random.default_rng(seed).integers(2, 7, (80, 2)).tolist():
        if left + bar > right:
            return
        draw.rectangle((left, top, left + bar - 1, bottom), fill=INK)
        left += bar + gap


def scan(slip: Image.Image, seed: int = 7) -> Image.Image:
    """Lay the slip on a desk, a little askew, and add the light and the grain of a scanner."""
    page = Image.new("L", RECEIPT_SIZE, DESK)
    page.paste(slip, ((page.width - slip.width) // 2, (page.height - slip.height) // 2))
    page = page.rotate(1.6, Image.Resampling.BICUBIC, fillcolor=DESK)
    page = page.filter(ImageFilter.GaussianBlur(0.7))
    pixels = np.asarray(page, dtype=np.float64)
    light = np.linspace(6, -10, pixels.shape[1])
    grain = np.random.default_rng(seed).normal(0, 4, pixels.shape)
    # Sixteen grey levels are enough for a till slip, and keep the file small.
    levels = np.clip((pixels + light + grain) / 17, 0, 15).round() * 17
    return Image.fromarray(levels.astype(np.uint8))


def main() -> None:
    """Write all examples to the folder of this script, or to the one given with --out."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    pages.build(out / "annual-report.pdf")
    scan(draw_receipt()).save(out / "receipt.png", optimize=True)
    (out / "notes.txt").write_text(content.NOTES, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
