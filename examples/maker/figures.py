"""The drawings of the example report: the ferry of the cover, two charts, a technical drawing."""

from collections.abc import Sequence

from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.charts.legends import Legend
from reportlab.graphics.charts.linecharts import HorizontalLineChart
from reportlab.graphics.shapes import Drawing, String
from reportlab.graphics.widgets.markers import makeMarker
from reportlab.lib.colors import Color, HexColor, white
from reportlab.pdfgen.canvas import Canvas

from maker import content

NAVY, TEAL, ORANGE = HexColor("#16324f"), HexColor("#2a9d8f"), HexColor("#e07a3f")
GREY, RULE, PALE = HexColor("#5c6873"), HexColor("#c4d0d9"), HexColor("#eef3f6")

Point = tuple[float, float]

BOX_W, BOX_H, COLUMN, ROW = 78.0, 42.0, 108.0, 76.0


def ferry(c: Canvas, x: float, y: float, page_width: float) -> None:
    """Draw the ferry of the cover on three waves, its waterline at `y`."""
    hull = c.beginPath()
    hull.moveTo(x, y + 34)
    for dx, dy in ((14, 0), (176, 0), (204, 34)):
        hull.lineTo(x + dx, y + dy)
    hull.close()
    c.setFillColor(ORANGE)
    c.drawPath(hull, stroke=0, fill=1)
    c.setFillColor(white)
    c.rect(x + 26, y + 34, 132, 22, stroke=0, fill=1)
    c.rect(x + 92, y + 56, 48, 18, stroke=0, fill=1)
    c.setFillColor(TEAL)
    c.rect(x + 50, y + 56, 16, 26, stroke=0, fill=1)
    c.setFillColor(NAVY)
    for i in range(7):
        c.rect(x + 34 + 17 * i, y + 41, 9, 8, stroke=0, fill=1)
    c.setStrokeColor(TEAL)
    c.setLineWidth(3)
    for row in range(3):
        left, level = 22.0 * row - 60, y - 8 - 14 * row
        wave = c.beginPath()
        wave.moveTo(left, level)
        while left < page_width:
            wave.curveTo(left + 15, level + 10, left + 30, level - 10, left + 45, level)
            left += 45
        c.drawPath(wave)


def _chart_frame(
    width: float, height: float, y_title: str, x_title: str, series: Sequence[tuple[str, Color]]
) -> Drawing:
    """Return a drawing with axis titles and, at the top right, a legend."""
    drawing = Drawing(width, height)
    style = {"fontName": "Helvetica", "fontSize": 8, "fillColor": GREY}
    drawing.add(String(0, height - 8, y_title, **style))
    drawing.add(String(width / 2 + 16, 2, x_title, textAnchor="middle", **style))
    legend = Legend()
    legend.x, legend.y, legend.boxAnchor = width + 14, height, "ne"
    legend.alignment, legend.columnMaximum, legend.deltax = "right", 1, 24
    legend.dx = legend.dy = 7
    legend.dxTextSpace, legend.autoXPadding, legend.strokeColor = 5, 14, None
    legend.variColumn = 1
    legend.fontName, legend.fontSize, legend.fillColor = "Helvetica", 8, NAVY
    legend.colorNamePairs = [(color, name) for name, color in series]
    drawing.add(legend)
    return drawing


def _style_axes(chart: VerticalBarChart | HorizontalLineChart, names: Sequence[str]) -> None:
    chart.categoryAxis.categoryNames = list(names)
    chart.valueAxis.visibleGrid, chart.valueAxis.visibleAxis = 1, 0
    chart.valueAxis.gridStrokeColor, chart.valueAxis.gridStrokeWidth = RULE, 0.5
    chart.valueAxis.visibleTicks = 0
    chart.categoryAxis.strokeColor, chart.categoryAxis.visibleTicks = GREY, 0
    for axis in (chart.valueAxis, chart.categoryAxis):
        axis.labels.fontName, axis.labels.fontSize = "Helvetica", 8


def bar_chart(width: float, height: float) -> Drawing:
    """Return the chart of parcels by depot and quarter."""
    colors = (NAVY, TEAL, ORANGE)
    names = [name for name, _ in content.PARCELS]
    series = list(zip(names, colors, strict=True))
    drawing = _chart_frame(width, height, "Parcels delivered", "Quarter of 2024", series)
    chart = VerticalBarChart()
    chart.x, chart.y, chart.width, chart.height = 36, 34, width - 36, height - 64
    chart.data = [values for _, values in content.PARCELS]
    _style_axes(chart, content.QUARTERS)
    chart.valueAxis.valueMin, chart.valueAxis.valueMax, chart.valueAxis.valueStep = 0, 14_000, 2_000
    chart.valueAxis.labelTextFormat = lambda value: f"{value:,.0f}"
    chart.groupSpacing, chart.barSpacing, chart.bars.strokeWidth = 12, 1, 0
    chart.barLabelFormat = lambda value: f"{value:,.0f}"
    chart.barLabels.nudge, chart.barLabels.fontName, chart.barLabels.fontSize = 7, "Helvetica", 7
    chart.barLabels.boxFillColor, chart.barLabels.boxStrokeColor = white, None
    for i, color in enumerate(colors):
        chart.bars[i].fillColor, chart.bars[i].strokeColor = color, None
    drawing.add(chart)
    return drawing


def line_chart(width: float, height: float) -> Drawing:
    """Return the chart of punctuality by month."""
    colors = (ORANGE, NAVY)
    names = [name for name, _ in content.ON_TIME]
    series = list(zip(names, colors, strict=True))
    drawing = _chart_frame(width, height, "Departures on time, %", "Month", series)
    chart = HorizontalLineChart()
    chart.x, chart.y, chart.width, chart.height = 36, 34, width - 36, height - 64
    chart.data = [values for _, values in content.ON_TIME]
    _style_axes(chart, content.MONTHS)
    chart.valueAxis.valueMin, chart.valueAxis.valueMax, chart.valueAxis.valueStep = 75, 100, 5
    markers = ("FilledSquare", "FilledCircle")
    for i, (color, marker) in enumerate(zip(colors, markers, strict=True)):
        chart.lines[i].strokeColor, chart.lines[i].strokeWidth = color, 1.8
        chart.lines[i].symbol = makeMarker(marker, size=5, fillColor=color, strokeColor=color)
    drawing.add(chart)
    return drawing


def _arrow(c: Canvas, *points: Point, color: Color = NAVY, dash: bool = False) -> None:
    """Draw a line through the points, which runs level or upright, with a head at its end."""
    (x0, y0), (x1, y1) = points[-2:]
    ux, uy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
    c.saveState()
    c.setStrokeColor(color)
    c.setFillColor(color)
    c.setLineWidth(1.3)
    c.setDash([3, 2] if dash else [])
    line = c.beginPath()
    line.moveTo(*points[0])
    for point in points[1:-1]:
        line.lineTo(*point)
    line.lineTo(x1 - 5 * ux, y1 - 5 * uy)
    c.drawPath(line)
    head = c.beginPath()
    head.moveTo(x1, y1)
    head.lineTo(x1 - 7 * ux - 3 * uy, y1 - 7 * uy - 3 * ux)
    head.lineTo(x1 - 7 * ux + 3 * uy, y1 - 7 * uy + 3 * ux)
    head.close()
    c.drawPath(head, stroke=0, fill=1)
    c.restoreState()


def _box(c: Canvas, center: Point, name: str, number: str) -> None:
    x, y = center
    c.setFillColor(white)
    c.setStrokeColor(NAVY)
    c.setLineWidth(1)
    c.roundRect(x - BOX_W / 2, y - BOX_H / 2, BOX_W, BOX_H, 4, stroke=1, fill=1)
    c.setFillColor(NAVY)
    c.setFont("Helvetica-Bold", 7.8)
    c.drawCentredString(x, y + 3, name)
    c.setFillColor(GREY)
    c.setFont("Helvetica", 8)
    c.drawCentredString(x, y - 10, number)


def _dimension(c: Canvas, start: Point, end: Point, label: str) -> None:
    """Draw a dimension line with a head at both ends and its label in a gap in the middle."""
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    for tip in (start, end):
        _arrow(c, middle, tip, color=GREY)
    c.saveState()
    c.translate(*middle)
    if start[0] == end[0]:
        c.rotate(90)
    c.setFont("Helvetica", 8)
    half = c.stringWidth(label, "Helvetica", 8) / 2 + 4
    c.setFillColor(white)
    c.rect(-half, -6, 2 * half, 12, stroke=0, fill=1)
    c.setFillColor(GREY)
    c.drawCentredString(0, -3, label)
    c.restoreState()


def _hull(c: Canvas, left: float, right: float, middle: float, half: float) -> None:
    path = c.beginPath()
    bow = right - 74
    path.moveTo(left, middle - half)
    path.lineTo(left, middle + half)
    path.lineTo(bow, middle + half)
    path.curveTo(right - 18, middle + half, right, middle + half * 0.55, right, middle)
    path.curveTo(right, middle - half * 0.55, right - 18, middle - half, bow, middle - half)
    path.close()
    c.setFillColor(PALE)
    c.setStrokeColor(GREY)
    c.setLineWidth(1.6)
    c.drawPath(path, stroke=1, fill=1)


def _connections(c: Canvas, at: dict[tuple[int, int], Point]) -> None:
    """Draw the arrows between the boxes, whose centres are `at` their column and row."""
    dx, dy = BOX_W / 2, BOX_H / 2
    bus_x = (at[1, 0][0] + at[2, 0][0]) / 2
    for side in (1, -1):
        x, y = at[2, side]
        board = at[2, 0][1] + side * dy
        mid = (board + y - side * dy) / 2
        for tip in (board, y - side * dy):
            _arrow(c, (x, mid), (x, tip))
        start = (at[2, 0][0] - dx, at[2, 0][1] + side * 8)
        _arrow(c, start, (bus_x, start[1]), (bus_x, y), (at[1, side][0] + dx, y))
        _arrow(c, (at[1, side][0] - dx, y), (at[0, side][0] + dx, y))
        _arrow(c, (at[3, side][0], y - side * dy), (at[3, side][0], at[3, 0][1] + side * dy))
        control = (at[1, 0][0], at[1, 0][1] + side * dy)
        _arrow(c, control, (control[0], y - side * dy), color=TEAL, dash=True)
        coolant = (at[0, 0][0], at[0, 0][1] + side * dy)
        _arrow(c, coolant, (coolant[0], y - side * dy), color=ORANGE, dash=True)
    _arrow(c, (at[3, 0][0] - dx, at[3, 0][1]), (at[2, 0][0] + dx, at[2, 0][1]))


def drive_drawing(c: Canvas, left: float, right: float, top: float) -> float:
    """Draw the electric drive of the ferry in plan; return the lower edge of the drawing."""
    hull_left, half = left + 26, 118.0
    middle = top - 50 - half
    _hull(c, hull_left, right, middle, half)
    first = hull_left + 12 + BOX_W / 2
    at = {(col, row): (first + COLUMN * col, middle + ROW * row) for col, row, *_ in content.BOXES}
    _connections(c, at)
    inlet_x, inlet_y = at[3, 1]
    _arrow(c, (inlet_x, top - 26), (inlet_x, inlet_y + BOX_H / 2))
    for col, row, name, number in content.BOXES:
        _box(c, at[col, row], name, number)
    _box(c, (inlet_x, top - BOX_H / 2), "Charging tower", "K-1105")
    c.setFont("Helvetica-Oblique", 8)
    c.setFillColor(GREY)
    c.drawString(hull_left, middle + half + 8, "Plan of the main deck, seen from above")
    c.drawRightString(inlet_x - BOX_W / 2 - 8, top - 12, "on the quay")
    c.drawCentredString(right - 20, middle - 3, "bow")
    _dimension(c, (left + 8, middle - half), (left + 8, middle + half), "beam 9.60 m")
    low = middle - half - 18
    _dimension(c, (hull_left, low), (right, low), "length 38.40 m")
    keys = (("690 V DC power", NAVY, False), ("control", TEAL, True), ("coolant", ORANGE, True))
    x = hull_left
    for name, color, dash in keys:
        _arrow(c, (x, low - 22), (x + 30, low - 22), color=color, dash=dash)
        c.setFillColor(GREY)
        c.setFont("Helvetica", 8)
        c.drawString(x + 36, low - 25, name)
        x += 66 + c.stringWidth(name, "Helvetica", 8)
    return low - 34
