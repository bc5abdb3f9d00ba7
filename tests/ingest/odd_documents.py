"""Odd documents of many kinds, as they come from scanners, phones, programs and bad disks."""

import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

A4 = "/MediaBox [0 0 595 842]"

# Of a PDF with three pages, the fields of its second one.
ODD_PAGES = {
    "box-huge": "/MediaBox [0 0 14400 14400]",
    "box-a-million": "/MediaBox [0 0 1000000 1000000]",
    "box-a-billion": "/MediaBox [0 0 1000000000 1000000000]",
    "box-reversed": "/MediaBox [595 842 0 0]",
    "box-none": "/MediaBox null",
    "box-empty": "/MediaBox [0 0 0 0]",
    "crop-outside": f"{A4} /CropBox [5000 5000 6000 6000]",
    "crop-partly-outside": f"{A4} /CropBox [-500 300 400 2000]",
    "strip": "/MediaBox [0 0 3 900]",
    "long": "/MediaBox [0 0 600 14400]",
    "unit": f"{A4} /UserUnit 10",
    "turned": f"{A4} /Rotate 90",
    "turned-oddly": f"{A4} /Rotate 45",
}


def write_odd_documents(folder: Path) -> None:
    """Write one document of each kind into `folder`."""
    for name, fields in ODD_PAGES.items():
        (folder / f"{name}.pdf").write_bytes(three_pages(fields))
    (folder / "count-lies.pdf").write_bytes(three_pages(A4, count=7))
    (folder / "page-missing.pdf").write_bytes(three_pages(A4, kids="3 0 R 99 0 R 7 0 R"))
    (folder / "page-null.pdf").write_bytes(three_pages(A4, kids="3 0 R null 7 0 R"))
    _write_encrypted(folder / "encrypted.pdf")
    whole = three_pages(A4)
    (folder / "junk-before.pdf").write_bytes(b"junk\n" * 50 + whole)
    (folder / "no-end.pdf").write_bytes(whole[: whole.rindex(b"xref")])
    (folder / "half.pdf").write_bytes(whole[: len(whole) // 3])
    (folder / "page.pdf").write_bytes(b"<html>not a PDF</html>")
    (folder / "empty.pdf").write_bytes(b"")
    _write_pictures(folder)
    _write_texts(folder)
    for name in (
        b"caf\xe9.txt",
        b"two\nlines.txt",
        b"-dash.txt",
        b"x" * 240 + b".txt",
        b"%41#.txt",
    ):
        (folder / os.fsdecode(name)).write_bytes(b"a text whose name is " + name)


def three_pages(
    second: str, count: int = 3, kids: str = "3 0 R 5 0 R 7 0 R", first: str = A4
) -> bytes:
    """Return a PDF of three pages with a word on each; the second one has other fields."""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>",
    ]
    for number, fields in enumerate((first, second, first)):
        drawn = f"BT /F 24 Tf 72 400 Td (WORD{number}) Tj ET"
        objects += [
            f"<< /Type /Page /Parent 2 0 R {fields} /Contents {2 * number + 4} 0 R /Resources "
            "<< /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
            f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
        ]
    return write_pdf(objects)


def write_pdf(objects: Iterable[str]) -> bytes:
    """Return a PDF of `objects`, numbered from 1; the first one is the catalogue."""
    content, places = b"%PDF-1.7\n", list[int]()
    for number, one in enumerate(objects, start=1):
        places.append(len(content))
        content += f"{number} 0 obj\n{one}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(places) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return content + f"{end}startxref\n{len(content)}\n%%EOF\n".encode()


def _write_encrypted(path: Path) -> None:
    canvas = Canvas(str(path), encrypt=StandardEncryption("secret", strength=128))
    canvas.drawString(72, 400, "a secret")
    canvas.save()


def _write_pictures(folder: Path) -> None:
    page = Image.new("L", (300, 420), 255)
    ImageDraw.Draw(page).rectangle((40, 60, 200, 120), fill=0)
    deep = page.convert("I").point(lambda value: value * 200).convert("I;16")
    deep.save(folder / "deep.tif", save_all=True, append_images=[deep])
    clear = Image.new("RGBA", page.size)
    clear.paste((0, 0, 0, 255), (40, 60, 200, 120))
    clear.save(folder / "clear.tif", save_all=True, append_images=[clear])
    clear.save(folder / "clear.png")
    page.save(folder / "frames.jpg", "TIFF", save_all=True, append_images=[page, page])
    turned = Image.Exif()
    turned[0x0112] = 6
    page.rotate(90, expand=True).save(folder / "turned.jpg", exif=turned)
    page.convert("CMYK").save(folder / "print.jpg")
    page.convert("1").save(folder / "fax.tif", compression="group4", dpi=(204, 98))
    page.resize((1, 1)).save(folder / "dot.png")
    page.resize((6000, 4)).save(folder / "line.png")
    Image.new("1", (7016, 9921), 1).save(folder / "a3.tif", compression="group4", dpi=(600, 600))
    Image.new("L", (30_000, 30_000)).save(folder / "bomb.png")
    (folder / "empty.png").write_bytes(b"")
    file = BytesIO()
    page.resize((1200, 1680)).save(file, "JPEG")
    (folder / "half.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])


def _write_texts(folder: Path) -> None:
    words = "Der Fährmann überquert den Fluß in der Nacht. "
    for encoding in ("utf-16", "utf-8-sig", "cp1252"):
        (folder / f"{encoding}.txt").write_bytes((words * 20).encode(encoding))
    (folder / "russian.txt").write_bytes(
        ("Паром отходит в полдень от пристани. " * 20).encode("koi8-r")
    )
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 40)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "blank.txt").write_bytes(b" \n\t\n" * 50)
