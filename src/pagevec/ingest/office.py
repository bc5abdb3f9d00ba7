"""Office, HTML, EPUB and CSV files -> PDF -> pages, where LibreOffice is installed.

LibreOffice gets a copy of the document in an empty home. It loads nothing that the document links
to and runs no macro: its settings say so, and where the system allows it there is no network and
no other readable file of the user.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagevec.errors import DocumentError
from pagevec.ingest.confinement import confine
from pagevec.ingest.epub import epub_to_html
from pagevec.ingest.page import Pages, ReadOptions
from pagevec.ingest.pdf import open_pdf
from pagevec.ingest.texts import decode

_TABLES = frozenset({".csv", ".tsv"})
_WEB_PAGES = frozenset({".html", ".htm", ".xhtml", ".epub"})
_HEAD = 4096
_UTF_8 = 76  # LibreOffice's number for it

_MEMORY = 900 << 20
_SAID = 300  # characters of LibreOffice's own words in an error

# No macro, no script, no update of links, no content from places that are not trusted.
_SETTINGS = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry"
 xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
{items}
</oor:items>
"""
_ITEM = """<item oor:path="/org.openoffice.{path}"><prop oor:name="{name}" oor:op="fuse">
<value>{value}</value></prop></item>"""
_SWITCHED_OFF = (
    ("Office.Common/Security/Scripting", "MacroSecurityLevel", "3"),
    ("Office.Common/Security/Scripting", "DisableMacrosExecution", "true"),
    ("Office.Common/Security/Scripting", "DisableActiveContent", "true"),
    ("Office.Common/Security/Scripting", "DisableOLEAutomation", "true"),
    ("Office.Common/Security/Scripting", "BlockUntrustedRefererLinks", "true"),
    ("Office.Common/Security/Scripting", "DisablePythonRuntime", "true"),
    ("Office.Writer/Content/Update", "Link", "2"),
    ("Office.Calc/Content/Update", "Link", "2"),
    ("Office.Common/Load", "UserDefinedSettings", "false"),
)


@contextmanager
def open_office(document: Path, options: ReadOptions) -> Iterator[Pages]:
    """Convert `document` with LibreOffice and open the PDF.

    Raises:
        DocumentError: LibreOffice is not found, or could not convert it.
    """
    program = shutil.which("soffice") or shutil.which("libreoffice")
    if program is None:
        raise DocumentError("files of this type need LibreOffice (soffice) on the PATH")
    with (
        tempfile.TemporaryDirectory(prefix="pagevec-office-") as folder,
        open_pdf(_convert(program, document, Path(folder)), options) as pages,
    ):
        yield pages


def _convert(program: str, document: Path, folder: Path) -> Path:
    copy, filters = _copy(document, folder)
    profile = folder / "profile" / "user"
    profile.mkdir(parents=True)
    items = "\n".join(_ITEM.format(path=p, name=n, value=v) for p, n, v in _SWITCHED_OFF)
    (profile / "registrymodifications.xcu").write_text(_SETTINGS.format(items=items))
    command = [
        program,
        f"-env:UserInstallation={(folder / 'profile').as_uri()}",
        "--headless",
        "--norestore",
        *filters,
        "--outdir",
        str(folder),
        str(copy),
    ]
    words = folder / "words"
    own = {"HOME": str(folder), "TMPDIR": str(folder)}
    try:
        with words.open("wb") as said:
            # In the process group of the reader, with which it and its children end.
            subprocess.run(  # noqa: S603 - LibreOffice, found on the PATH
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=folder,
                env={"PATH": os.environ.get("PATH", ""), **own},
                preexec_fn=lambda: _confine(folder, Path(program).resolve()),
            )
    except (subprocess.SubprocessError, ValueError):  # Windows confines nothing: ValueError
        raise DocumentError(
            "files of this type are read by LibreOffice, which this system cannot keep from the "
            "network and from other files (Linux from 5.19 with Landlock and seccomp can)"
        ) from None
    except OSError as error:
        raise DocumentError(f"LibreOffice cannot be started: {error}") from None
    made = folder / "document.pdf"
    if not made.is_file():
        lines = words.read_text(errors="replace").replace(str(folder), "").splitlines()
        # Neither the warning that there is no Java nor the stack of a crash tells a user anything.
        reason = " ".join(one for one in lines if "javaldx" not in one and "[0x" not in one)
        crash = "it crashed, or the document needs more memory than it may take"
        raise DocumentError(f"LibreOffice could not convert it: {reason[-_SAID:] or crash}")
    return made


def _copy(document: Path, folder: Path) -> tuple[Path, list[str]]:
    """Copy a document under a neutral name, which is no option and no address.

    Returns:
        The copy, and the options for it: what LibreOffice takes for a web page has no headings in
        its PDF, and it guesses encodings from the language of the system.
    """
    suffix = document.suffix.lower()
    copy = folder / f"document{suffix}"
    if suffix in _TABLES:
        text, _ = decode(document.read_bytes())
        copy.write_text(text, encoding="utf-8", newline="")
        separator = max("\t" if suffix == ".tsv" else ",;\t|", key=text[:_HEAD].count)
        return copy, [f"--infilter=CSV:{ord(separator)},34,{_UTF_8},1", "--convert-to", "pdf"]
    if suffix in _WEB_PAGES:
        copy = folder / "document.html"
        copy.write_bytes(_read_web_page(document, suffix))
        return copy, ["--infilter=HTML (StarWriter)", "--convert-to", "pdf:writer_pdf_Export"]
    shutil.copyfile(document, copy)
    return copy, ["--convert-to", "pdf"]


def _read_web_page(document: Path, suffix: str) -> bytes:
    if suffix == ".epub":
        return epub_to_html(document).encode()
    content = document.read_bytes()
    if b"charset" in content[:_HEAD] or b"encoding=" in content[:_HEAD]:
        return content
    return b'<meta charset="utf-8">' + decode(content)[0].encode()


def _confine(folder: Path, program: Path) -> None:
    import resource

    # LibreOffice stands in a folder of this name, in the folder that it is installed in.
    installed = program.parent.parent if program.parent.name == "program" else program.parent
    confine(folder, installed)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
