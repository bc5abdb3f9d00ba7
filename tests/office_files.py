"""Office files of the smallest kind, made part by part, for what they hold and link to."""

import zipfile
from io import BytesIO

_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>{overrides}</Types>'
)
_RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}'
    "</Relationships>"
)
_RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006"
_SPREADSHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_DOCUMENT = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
_ODF = (
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    'xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" '
    'xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0" '
    'xmlns:script="urn:oasis:names:tc:opendocument:xmlns:script:1.0" '
    'xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0" '
    'xmlns:xlink="http://www.w3.org/1999/xlink" office:version="1.2"'
)


def pack(parts: dict[str, str]) -> bytes:
    """A ZIP of these parts; one named `mimetype` is first and not compressed."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            method = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            archive.writestr(name, content, method)
    return file.getvalue()


def docx(text: str, *, picture: str | None = None, included: str | None = None) -> bytes:
    """A Word document; it may link to a picture, and include the text of another file."""
    image = (
        '<w:p><w:r><w:drawing><wp:inline><wp:extent cx="3000000" cy="3000000"/>'
        '<wp:docPr id="1" name="p"/><a:graphic><a:graphicData '
        f'uri="{_DRAWING}/picture"><pic:pic><pic:nvPicPr><pic:cNvPr id="1" name="p"/>'
        '<pic:cNvPicPr/></pic:nvPicPr><pic:blipFill><a:blip r:link="rId9"/><a:stretch>'
        '<a:fillRect/></a:stretch></pic:blipFill><pic:spPr><a:xfrm><a:off x="0" y="0"/>'
        '<a:ext cx="3000000" cy="3000000"/></a:xfrm><a:prstGeom prst="rect"/></pic:spPr>'
        "</pic:pic></a:graphicData></a:graphic></wp:inline></w:drawing></w:r></w:p>"
    )
    field = (
        f'<w:p><w:fldSimple w:instr="INCLUDETEXT &quot;{included}&quot;"><w:r><w:t>x</w:t></w:r>'
        "</w:fldSimple></w:p>"
    )
    link = f'<Relationship Id="rId9" Type="{_RELATION}/image" TargetMode="External" '
    main = f'<Override PartName="/word/document.xml" ContentType="{_DOCUMENT}"/>'
    root = f'<Relationship Id="rId1" Type="{_RELATION}/officeDocument" Target="word/document.xml"/>'
    return pack({
        "[Content_Types].xml": _TYPES.format(overrides=main),
        "_rels/.rels": _RELATIONS.format(root),
        "word/_rels/document.xml.rels": _RELATIONS.format(
            f'{link}Target="{picture}"/>' if picture else ""
        ),
        "word/document.xml": (
            '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
            f'xmlns:r="{_RELATION}" xmlns:a="{_DRAWING}/main" xmlns:pic="{_DRAWING}/picture" '
            f'xmlns:wp="{_DRAWING}/wordprocessingDrawing"><w:body>'
            f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"
            f"{image if picture else ''}{field if included else ''}</w:body></w:document>"
        ),
    })  # fmt: skip


def xlsx(text: str, *, formula: str | None = None) -> bytes:
    """A workbook of one sheet with a text in A1 and perhaps a formula in A2."""
    types = "".join(
        f'<Override PartName="/xl/{part}.xml" ContentType="{_SPREADSHEET}.{kind}+xml"/>'
        for part, kind in (("workbook", "sheet.main"), ("sheet1", "worksheet"))
    )
    row = f'<row r="2"><c r="A2"><f>{formula}</f></c></row>' if formula else ""
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    return pack({
        "[Content_Types].xml": _TYPES.format(overrides=types),
        "_rels/.rels": _RELATIONS.format(
            f'<Relationship Id="rId1" Type="{_RELATION}/officeDocument" Target="xl/workbook.xml"/>'
        ),
        "xl/_rels/workbook.xml.rels": _RELATIONS.format(
            f'<Relationship Id="rId1" Type="{_RELATION}/worksheet" Target="sheet1.xml"/>'
        ),
        "xl/workbook.xml": (
            f'<workbook {space} xmlns:r="{_RELATION}"><sheets>'
            '<sheet name="one" sheetId="1" r:id="rId1"/></sheets></workbook>'
        ),
        "xl/sheet1.xml": (
            f'<worksheet {space}><sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>{text}</t>'
            f"</is></c></row>{row}</sheetData></worksheet>"
        ),
    })  # fmt: skip


def odt(text: str, *, picture: str | None = None, section: str | None = None) -> bytes:
    """A Writer document; it may link to a picture, and to a file that is a section of it."""
    image = (
        '<text:p><draw:frame svg:width="10cm" svg:height="10cm"><draw:image '
        f'xlink:href="{picture}" xlink:type="simple" xlink:actuate="onLoad"/></draw:frame></text:p>'
    )
    linked = (
        '<text:section text:name="linked"><text:section-source '
        f'xlink:href="{section}" xlink:type="simple"/><text:p>old</text:p></text:section>'
    )
    body = f"<text:p>{text}</text:p>{image if picture else ''}{linked if section else ''}"
    return _odf("text", f"<office:text>{body}</office:text>")


def odt_with_macro(text: str, command: str) -> bytes:
    """A Writer document with a Basic macro that runs `command` when it is opened."""
    library = 'xmlns:library="http://openoffice.org/2000/library" library:name="Standard"'
    event = (
        '<office:event-listeners><script:event-listener script:language="ooo:script" '
        'script:event-name="dom:load" xlink:type="simple" '
        'xlink:href="vnd.sun.star.script:Standard.Module1.Main?language=Basic&amp;location=document"'
        "/></office:event-listeners>"
    )
    macro = f'Sub Main\nShell "{command}"\nEnd Sub'.replace("&", "&amp;").replace('"', "&quot;")
    return _odf(
        "text",
        f"<office:text><text:p>{text}</text:p></office:text>",
        scripts=f"<office:scripts>{event}</office:scripts>",
        more={
            "Basic/script-lc.xml": '<library:libraries xmlns:library="http://openoffice.org/2000/'
            'library" xmlns:xlink="http://www.w3.org/1999/xlink"><library:library '
            'library:name="Standard" library:link="false"/></library:libraries>',
            "Basic/Standard/script-lb.xml": f"<library:library {library} "
            'library:readonly="false" library:passwordprotected="false">'
            '<library:element library:name="Module1"/></library:library>',
            "Basic/Standard/Module1.xml": '<script:module xmlns:script="http://openoffice.org/2000/'
            f'script" script:name="Module1" script:language="StarBasic">{macro}</script:module>',
        },
    )


def ods(text: str) -> bytes:
    """A Calc document of one cell."""
    cell = f"<table:table-cell><text:p>{text}</text:p></table:table-cell>"
    table = f'<table:table table:name="one"><table:table-row>{cell}</table:table-row></table:table>'
    return _odf("spreadsheet", f"<office:spreadsheet>{table}</office:spreadsheet>")


def odp(text: str) -> bytes:
    """An Impress document of one slide."""
    box = f"<draw:text-box><text:p>{text}</text:p></draw:text-box>"
    frame = (
        f'<draw:frame svg:width="20cm" svg:height="3cm" svg:x="1cm" svg:y="1cm">{box}</draw:frame>'
    )
    page = f'<draw:page draw:name="one">{frame}</draw:page>'
    return _odf("presentation", f"<office:presentation>{page}</office:presentation>")


def epub(*chapters: str) -> bytes:
    """An EPUB book with a chapter for each text."""
    items = "".join(
        f'<item id="c{n}" href="text/c%20{n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    return pack({
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": (
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">'
            '<rootfiles><rootfile full-path="OEBPS/book.opf" '
            'media-type="application/oebps-package+xml"/></rootfiles></container>'
        ),
        "OEBPS/book.opf": (
            '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/>'
            f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
        ),
        **{
            f"OEBPS/text/c {n}.xhtml": (
                '<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">'
                f"<head/><body><h1>Chapter {n}</h1><p>{text}</p></body></html>"
            )
            for n, text in enumerate(chapters)
        },
    })  # fmt: skip


def _odf(kind: str, body: str, *, scripts: str = "", more: dict[str, str] | None = None) -> bytes:
    type_ = f"application/vnd.oasis.opendocument.{kind}"
    parts = {
        "content.xml": f"<office:document-content {_ODF}>{scripts}<office:body>{body}</office:body>"
        "</office:document-content>",
        **(more or {}),
    }
    entries = "".join(
        f'<manifest:file-entry manifest:full-path="{name}" manifest:media-type="text/xml"/>'
        for name in parts
    )
    manifest = (
        '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0" '
        'manifest:version="1.2"><manifest:file-entry manifest:full-path="/" '
        f'manifest:media-type="{type_}"/>{entries}</manifest:manifest>'
    )
    return pack({"mimetype": type_, **parts, "META-INF/manifest.xml": manifest})
