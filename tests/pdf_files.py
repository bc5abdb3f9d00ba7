"""Odd PDFs, made object by object, of the kinds that no library writes on purpose."""

from collections.abc import Mapping, Sequence

Stream = tuple[bytes, bytes]
_FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"


def write_pdf(objects: Mapping[int, bytes | Stream]) -> bytes:
    """A PDF of these objects by number, 1 its root: plain ones, and streams (entries, content)."""
    file, places = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", dict[int, int]()
    for number, body in objects.items():
        places[number] = len(file)
        file += b"%d 0 obj\n%s\nendobj\n" % (
            number,
            _write_stream(*body) if isinstance(body, tuple) else body,
        )
    size, start = max(objects) + 1, len(file)
    rows = [b"0000000000 65535 f \n"]
    for number in range(1, size):
        there = number in places
        rows.append(b"%010d %05d %s \n" % (places.get(number, 0), 0, b"n" if there else b"f"))
    table = b"xref\n0 %d\n%s" % (size, b"".join(rows))
    return file + table + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (size, start)


def _write_stream(entries: bytes, content: bytes) -> bytes:
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (entries, len(content), content)


def words(text: str, x: float = 72, y: float = 700, size: float = 24) -> bytes:
    """The content of a page that shows `text` at this place."""
    return b"BT /F1 %g Tf %g %g Td (%s) Tj ET\n" % (size, x, y, text.encode())


def one_page(
    content: bytes,
    *,
    box: Sequence[float] = (0, 0, 612, 792),
    page: bytes = b"",
    fonts: bytes = b"",
    resources: bytes = b"",
    catalog: bytes = b"",
    more: Mapping[int, bytes | Stream] | None = None,
) -> bytes:
    """A PDF of one page (object 3) with a font F1 (object 5); `more` objects are from 6 on."""
    media = b" ".join(b"%d" % side for side in box)
    font = b"/Font<</F1 5 0 R%s>>%s" % (fonts, resources)
    return write_pdf({
        1: b"<</Type/Catalog/Pages 2 0 R%s>>" % catalog,
        2: b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: b"<</Type/Page/Parent 2 0 R/MediaBox[%s]/Contents 4 0 R/Resources<<%s>>%s>>"
        % (media, font, page),
        4: (b"", content),
        5: _FONT,
        **(more or {}),
    })  # fmt: skip


def pages_pdf(texts: Sequence[str], *, count: int | None = None, bad: Mapping[int, bytes]) -> bytes:
    """A PDF with a page for each text; page objects in `bad`, by number from 1, are these bytes.

    An empty one is left out of the file. `count` is what the page tree says, if not the truth.
    """
    objects: dict[int, bytes | Stream] = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[%s]/Count %d>>"
        % (
            b" ".join(b"%d 0 R" % (10 + 2 * n) for n in range(len(texts))),
            len(texts) if count is None else count,
        ),
        5: _FONT,
    }
    for n, text in enumerate(texts):
        page = (
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents %d 0 R"
            b"/Resources<</Font<</F1 5 0 R>>>>>>" % (11 + 2 * n)
        )
        objects[10 + 2 * n] = bad.get(n + 1, page)
        objects[11 + 2 * n] = (b"", words(text, 30, 100))
    return write_pdf({number: body for number, body in objects.items() if body})


def form(*, appearances: bool, need_appearances: bool = False) -> bytes:
    """A form with a typed-in text (ALBATROSS, at y 600 to 640) and a ticked box (at y 500)."""
    # Text and box belong to the fields; streams show them where there are any.
    text = b"/Tx BMC q BT /F1 24 Tf 0 g 4 10 Td (ALBATROSS) Tj ET Q EMC"
    tick = b"q 0 g 4 4 32 32 re f Q"
    shown = b"/Subtype/Form/Resources<</Font<</F1 5 0 R>>>>"
    field = (
        b"<</Type/Annot/Subtype/Widget/FT/Tx/T(vessel)/V(ALBATROSS)/DA(/F1 24 Tf 0 g)"
        b"/Rect[200 600 500 640]/F 4/P 3 0 R%s>>" % (b"/AP<</N 8 0 R>>" if appearances else b"")
    )
    box = (
        b"<</Type/Annot/Subtype/Widget/FT/Btn/T(agreed)/V/Yes/AS/Yes/Rect[200 500 240 540]/F 4"
        b"/P 3 0 R/AP<</N<</Yes 9 0 R/Off 10 0 R>>>>>>"
    )
    needed = b"/NeedAppearances true" if need_appearances else b""
    acro = b"/DR<</Font<</F1 5 0 R>>>>/DA(/F1 24 Tf 0 g)%s" % needed
    return one_page(
        words("Name of the vessel"),
        page=b"/Annots[6 0 R 7 0 R]",
        catalog=b"/AcroForm<</Fields[6 0 R 7 0 R]%s>>" % acro,
        more={
            6: field,
            7: box,
            8: (shown + b"/BBox[0 0 300 40]", text),
            9: (shown + b"/BBox[0 0 40 40]", tick),
            10: (shown + b"/BBox[0 0 40 40]", b""),
        },
    )


def annotated() -> bytes:
    """A page with a free text (PLUTONIUM, at y 600) and a yellow highlight (at y 690 to 720)."""
    return one_page(
        words("METALS"),
        page=b"/Annots[6 0 R 8 0 R]",
        more={
            6: b"<</Type/Annot/Subtype/FreeText/Contents(PLUTONIUM)/DA(/F1 24 Tf 0 g)"
            b"/Rect[72 590 372 630]/F 4/AP<</N 7 0 R>>>>",
            7: (
                b"/Subtype/Form/BBox[0 0 300 40]/Resources<</Font<</F1 5 0 R>>>>",
                b"BT /F1 24 Tf 4 10 Td (PLUTONIUM) Tj ET",
            ),
            8: b"<</Type/Annot/Subtype/Highlight/C[1 1 0]/QuadPoints[72 720 200 720 72 690 200 690]"
            b"/Rect[72 690 200 720]/F 4>>",
        },
    )


def with_image(content: bytes, entries: bytes) -> bytes:
    """A page that an image (its stream, and the entries that say what it is) fills."""
    return one_page(
        b"q 400 0 0 400 100 200 cm /Im Do Q",
        resources=b"/XObject<</Im 6 0 R>>",
        more={6: (b"/Subtype/Image" + entries, content)},
    )


def unembedded_cjk() -> bytes:
    """A page of Japanese in a font that the reader's system has to have."""
    return one_page(
        b"BT /F2 40 Tf 72 600 Td <6771 4EAC 90FD> Tj ET",
        fonts=b"/F2 6 0 R",
        more={
            6: b"<</Type/Font/Subtype/Type0/BaseFont/HeiseiMin-W3/Encoding/UniJIS-UCS2-H"
            b"/DescendantFonts[7 0 R]>>",
            7: b"<</Type/Font/Subtype/CIDFontType0/BaseFont/HeiseiMin-W3/FontDescriptor 8 0 R"
            b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Japan1)/Supplement 2>>>>",
            8: b"<</Type/FontDescriptor/FontName/HeiseiMin-W3/Flags 6/FontBBox[-123 -257 1001 910]"
            b"/ItalicAngle 0/Ascent 709/Descent -241/CapHeight 709/StemV 69>>",
        },
    )


def with_nul() -> bytes:
    """A page whose letters are, by its own table, NUL and half of a surrogate pair."""
    table = (
        b"/CIDInit/ProcSet findresource begin begincmap /CMapName/X def\n"
        b"1 begincodespacerange <00> <ff> endcodespacerange\n"
        b"2 beginbfchar <41> <0000> <42> <d800> endbfchar\nendcmap end"
    )
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 7 0 R>>"
    return one_page(
        b"BT /F2 40 Tf 72 600 Td (CABBAGE) Tj ET",
        fonts=b"/F2 6 0 R",
        more={6: font, 7: (b"", table)},
    )
