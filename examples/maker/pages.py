"""The six pages of the example report, laid out with reportlab."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from reportlab.lib.colors import white
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Frame, Paragraph, Table

from maker import content, figures
from maker.figures import GREY, NAVY, ORANGE, PALE, RULE, TEAL

WIDTH, HEIGHT = A4
MARGIN = 56.0
INNER = WIDTH - 2 * MARGIN
TOP, BOTTOM = HEIGHT - 84, 60.0

BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=9.8, leading=14.2, spaceAfter=6)
ARTICLE = ParagraphStyle("article", BODY, fontSize=10.1, leading=15, spaceAfter=7)
LETTER = ParagraphStyle("letter", BODY, fontSize=11, leading=17, spaceAfter=10)
TITLE = ParagraphStyle(
    "title", fontName="Helvetica-Bold", fontSize=20, leading=25, textColor=NAVY, spaceAfter=12
)
HEAD = ParagraphStyle(
    "head", TITLE, fontSize=12, leading=15, textColor=TEAL, spaceBefore=8, spaceAfter=4
)
SMALL = ParagraphStyle("small", BODY, fontSize=8, leading=10.8, textColor=GREY, spaceAfter=4)
CELL = ParagraphStyle("cell", BODY, fontSize=8.8, leading=11.8, spaceAfter=0)


def place(c: Canvas, story: Iterable[Flowable], top: float = TOP) -> float:
    """Set the story below `top`, between the margins, and return where it ends."""
    for item in story:
        top -= 0 if top == TOP else item.getSpaceBefore()
        _, height = item.wrapOn(c, INNER, top - BOTTOM)
        if top - height < BOTTOM:
            raise ValueError(f"page {c.getPageNumber()} is too full")
        item.drawOn(c, MARGIN, top - height)
        top -= height + item.getSpaceAfter()
    return top


def furniture(c: Canvas, section: str) -> None:
    """Draw the running head and the page number."""
    c.setFont("Helvetica", 8)
    c.setFillColor(GREY)
    c.drawString(MARGIN, HEIGHT - 48, f"{content.COMPANY}, annual report 2024")
    c.drawRightString(WIDTH - MARGIN, HEIGHT - 48, section)
    c.drawRightString(WIDTH - MARGIN, 36, str(c.getPageNumber()))
    c.setStrokeColor(RULE)
    c.setLineWidth(0.6)
    c.line(MARGIN, HEIGHT - 55, WIDTH - MARGIN, HEIGHT - 55)


def grid(
    rows: Sequence[Sequence[object]],
    widths: Sequence[float],
    *,
    align: str = "RIGHT",
    bold: Sequence[int] = (),
    padding: float = 5,
) -> Table:
    """Return a table with a dark head; `align` is for all columns but the first."""
    table = Table([list(row) for row in rows], colWidths=list(widths))
    table.setStyle(
        [
            ("FONT", (0, 0), (-1, -1), "Helvetica", 8.8),
            *(("FONT", (0, row), (-1, row), "Helvetica-Bold", 8.8) for row in (0, *bold)),
            ("BACKGROUND", (0, 0), (-1, 0), NAVY),
            ("TEXTCOLOR", (0, 0), (-1, 0), white),
            ("ALIGN", (1, 0), (-1, -1), align),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ("ROWBACKGROUNDS", (0, 1), (-1, -1), [white, PALE]),
            ("LINEBELOW", (0, 1), (-1, -1), 0.4, RULE),
            *(("LINEABOVE", (0, row), (-1, row), 0.9, NAVY) for row in bold),
            ("TOPPADDING", (0, 0), (-1, -1), padding),
            ("BOTTOMPADDING", (0, 0), (-1, -1), padding),
        ]
    )
    table.spaceAfter = 14
    return table


def cover(c: Canvas) -> None:
    """Title, ferry and a letter."""
    c.setFillColor(NAVY)
    c.rect(0, HEIGHT - 360, WIDTH, 360, stroke=0, fill=1)
    c.setFillColor(white)
    c.setFont("Helvetica", 13)
    c.drawString(MARGIN, HEIGHT - 84, content.COMPANY)
    c.setFont("Helvetica-Bold", 44)
    c.drawString(MARGIN, HEIGHT - 148, "Annual report")
    c.setFillColor(ORANGE)
    c.drawString(MARGIN, HEIGHT - 198, "2024")
    figures.ferry(c, WIDTH - MARGIN - 204, HEIGHT - 308, WIDTH)
    end = place(c, [Paragraph(p, LETTER) for p in content.LETTER], HEIGHT - 398)
    name, role = content.SIGNED
    place(c, [Paragraph(f"<b>{name}</b>", LETTER), Paragraph(role, SMALL)], end - 10)


def articles(c: Canvas) -> None:
    """Running text in two columns."""
    furniture(c, "The year")
    top = place(c, [Paragraph("The year on the water and on the road", TITLE)])
    gutter = 26.0
    width = (INNER - gutter) / 2
    half = content.ARTICLES_LEFT
    columns = (content.ARTICLES[:half], content.ARTICLES[half:])
    for column, x in zip(columns, (MARGIN, MARGIN + width + gutter), strict=True):
        story: list[Flowable] = []
        for title, *paragraphs in column:
            story += [Paragraph(title, HEAD), *(Paragraph(p, ARTICLE) for p in paragraphs)]
        Frame(x, BOTTOM, width, top - BOTTOM, 0, 0, 0, 0).addFromList(story, c)
        if story:
            raise ValueError("a column of articles is too long")


def _totals(rows: content.Rows) -> tuple[int, ...]:
    return tuple(map(sum, zip(*(values for _, values in rows), strict=True)))


def _number_rows(rows: Iterable[tuple[str, Sequence[int]]]) -> list[tuple[str, ...]]:
    """Format the rows: thousands with commas, a dash for nothing."""
    return [(name, *(f"{v:,}" if v else content.NOTHING for v in values)) for name, values in rows]


def numbers(c: Canvas) -> None:
    """Passengers by route, and money, in three tables."""
    furniture(c, "Figures")
    widths = (INNER - 5 * 56, *([56] * 5))
    revenue, costs = _totals(content.REVENUE), _totals(content.COSTS)
    result = tuple(r - k for r, k in zip(revenue, costs, strict=True))
    tables = (
        ("Passengers", content.PASSENGERS, [("All routes", _totals(content.PASSENGERS))]),
        ("Revenue, thousand euros", content.REVENUE, [("Total revenue", revenue)]),
        (
            "Costs, thousand euros",
            content.COSTS,
            [("Total costs", costs), ("Operating result", result)],
        ),
    )
    story: list[Flowable] = [Paragraph("Five years in figures", TITLE)]
    for head, rows, sums in tables:
        body = _number_rows([*rows, *sums])
        bold = range(len(rows) + 1, len(body) + 1)
        story.append(grid([(head, *content.YEARS), *body], widths, bold=bold, padding=6.2))
    place(c, [*story, *(Paragraph(note, SMALL) for note in content.FIGURE_NOTES)])


def charts(c: Canvas) -> None:
    """A bar chart and a line chart, each with a caption."""
    furniture(c, "Charts")
    top = place(c, [Paragraph("Parcels and punctuality", TITLE)])
    height = 258.0
    for chart, caption in (
        (figures.bar_chart(INNER, height), content.PARCELS_CAPTION),
        (figures.line_chart(INNER, height), content.ON_TIME_CAPTION),
    ):
        top = place(c, [chart], top) - 10
        top = place(c, [Paragraph(caption, BODY)], top) - 26


def drawing(c: Canvas) -> None:
    """A technical drawing with its list of parts and a safety note."""
    furniture(c, "Engineering")
    top = place(c, [Paragraph("Electric drive of the ferry Kittiwake", TITLE)])
    top = figures.drive_drawing(c, MARGIN, WIDTH - MARGIN, top) - 10
    widths = (84, INNER - 84 - 106 - 54 - 82, 106, 54, 82)
    note = ParagraphStyle(
        "note", SMALL, fontSize=7, leading=9.2, leftIndent=8, rightIndent=8, borderPadding=7,
        borderColor=ORANGE, borderWidth=0.8, spaceBefore=8,
    )  # fmt: skip
    place(c, [grid(content.PARTS, widths, align="LEFT"), Paragraph(content.SAFETY, note)], top)


def german(c: Canvas) -> None:
    """A page in German: opening hours, addresses and fares."""
    furniture(c, "Deutsch")
    head, *rows = content.GERMAN_HOURS
    hours = [head, *((Paragraph(row[0], CELL), *row[1:]) for row in rows)]
    widths = (INNER - 64 - 64 - 92 - 76, 64, 64, 92, 76)
    story = [
        Paragraph("Für unsere Fahrgäste in Lüttholm", TITLE),
        Paragraph(content.GERMAN_INTRO, BODY),
        Paragraph("Öffnungszeiten und Anschriften", HEAD),
        grid(hours, widths, align="LEFT"),
        Paragraph("Abfahrten", HEAD),
        grid(content.GERMAN_DEPARTURES, (INNER - 270, 80, 90, 100), align="LEFT"),
        Paragraph("Fahrpreise der Nachtfähre", HEAD),
        grid(content.GERMAN_FARES, (INNER - 200, 100, 100)),
        Paragraph("Gut zu wissen", HEAD),
        *(Paragraph(note, BODY) for note in content.GERMAN_NOTES),
    ]
    place(c, story)


def build(path: Path) -> None:
    """Write the report. Its streams stay uncompressed, so no zlib version can alter the bytes."""
    c = Canvas(str(path), pagesize=A4, invariant=1, pageCompression=0, lang="en")
    c.setTitle("Annual report 2024")
    c.setAuthor(content.COMPANY)
    for page in (cover, articles, numbers, charts, drawing, german):
        page(c)
        c.showPage()
    c.save()
