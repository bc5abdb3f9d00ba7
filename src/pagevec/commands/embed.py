"""`pagevec embed`: files in, an .npz of multi-vectors out."""

import sys
import threading
import zipfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from itertools import count as numbers_from
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pagevec.commands import (
    FAILED,
    FromEnvironment,
    Service,
    note,
    progress_bar,
    with_ca,
    with_key,
    with_output,
    with_passwords,
)
from pagevec.commands.interrupts import interruptible, report_when_interrupted
from pagevec.terminal import count, echo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pagevec.ingest.names import SourceDocument
    from pagevec.ingest.page import ReadOptions
    from pagevec.ingest.pipeline import Batch
    from pagevec.types import Model, MultiVector


@click.command("embed")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("embeddings.npz"),
    show_default=True,
)
@click.option(
    "--url",
    cls=FromEnvironment,
    envvar="PAGEVEC_URL",
    show_envvar=True,
    help="A running service; without one the model runs in this process.",
)
@with_key
@with_ca
@click.option(
    "--model", help="Run this one in this process: a checkpoint, its folder, or `bundled`."
)
@with_passwords
@click.option("--strict", is_flag=True, help="Exit code 1 if a document or a page failed.")
@with_output
@interruptible
def command(
    files: tuple[Path, ...],
    out: Path,
    url: str | None,
    key: str | None,
    ca: Path | None,
    model: str | None,
    passwords: tuple[str, ...],
    more_passwords: tuple[str, ...],
    strict: bool,
) -> None:
    """Embed the pages of PDFs, images and texts into one .npz file.

    It holds `names` (such as `reports/2024.pdf#3`) and `emb_0`, `emb_1`, ... in the same order,
    each float32 (vectors, dim). A page that cannot be read is reported and left out. If this is
    interrupted, what came until then is in FILE.part.
    """
    from pagevec.ingest.names import name_unstored
    from pagevec.ingest.page import ReadOptions
    from pagevec.ingest.sources import find_documents

    found = find_documents(files)
    failed = 0
    with (
        _write_npz(out) as archive,
        _open_model(url, key, ca, model) as opened,
        progress_bar("pages") as progress,
    ):
        options = ReadOptions(opened.info().resizing, passwords + more_passwords)
        for document in name_unstored(found):
            with closing(_embed(opened, document, options)) as batches:
                for batch in batches:
                    for page in batch.pages:
                        archive.add(f"{page.key.document}#{page.key.number}", page.vectors)
                    progress.update(len(batch.pages))
                    failed += len(batch.faults)
                    for said in _complain(document, batch):
                        echo(said, err=True)
    note(*found.describe(), *found.describe_links())
    written = f"-> {out}" if archive.names else f"{out} is not written"
    echo(f"{count(len(archive.names), 'page')}, {count(archive.vectors, 'vector')} {written}")
    sys.exit(FAILED if failed and strict else 0)


def _open_model(url: str | None, key: str | None, ca: Path | None, model: str | None) -> "Model":
    context = click.get_current_context()
    typed = context.get_parameter_source("url") is click.core.ParameterSource.COMMANDLINE
    if model is not None and typed:
        raise click.UsageError("--url and --model exclude each other")
    if url is not None and model is None:
        return Service(url, key, ca).connect(dtype="float32", resize=False)
    from pagevec.local import load

    return load(model)


def _complain(document: "SourceDocument", batch: "Batch") -> list[str]:
    return [
        *(f"failed: {document.name}: {fault.reason}" for fault in batch.faults),
        *(f"warning: {document.name}: {warning}" for warning in batch.warnings),
    ]


def _embed(
    model: "Model", document: "SourceDocument", options: "ReadOptions"
) -> Generator["Batch", None, None]:
    """Yield the pages of a document; a document that fails is a fault of its first page."""
    from pagevec.ingest.boundary import open_document
    from pagevec.ingest.pipeline import Batch, PageFault, embed_in_batches, is_of_the_service

    try:
        with document.at_hand() as file, open_document(file, options, document.shown) as pages:
            if pages.warnings:
                yield Batch((), warnings=pages.warnings)
            numbers = range(1, pages.count + 1)
            yield from embed_in_batches(model, document.name, pages, numbers, None)
    except Exception as error:
        if is_of_the_service(error):
            raise
        yield Batch((), (PageFault(1, str(error)),))


@contextmanager
def _write_npz(file: Path) -> Iterator["_Archive"]:
    """Give an .npz that vectors are added to as they come; it is in its place once all are there.

    Interrupted, what came until then is in FILE.part, which is an .npz, too.
    """
    archive = _Archive(_free_draft(file))
    report_when_interrupted(lambda: f"interrupted: {archive.keep()}")
    try:
        yield archive
    except KeyboardInterrupt:  # its report keeps the draft
        raise
    except BaseException:
        kept = archive.keep()
        if archive.names:
            echo(kept, err=True)
        raise
    archive.finish()
    if archive.names:
        archive.draft.replace(file)
    else:
        archive.draft.unlink()  # what FILE holds of another time is worth more than nothing


def _free_draft(file: Path) -> Path:
    """Return a name for the draft of `file`; drafts of interrupted runs are not written over."""
    if not file.parent.is_dir():
        raise click.BadParameter(f"there is no folder {file.parent}", param_hint="--out")
    names = (f"{file.name}.part{number or ''}" for number in numbers_from())
    return next(draft for name in names if not (draft := file.with_name(name)).exists())


class _Archive:
    """An .npz of `names` and of `emb_0`, `emb_1`, ... in the same order. Thread-safe."""

    def __init__(self, draft: Path) -> None:
        self.draft = draft
        self.names: list[str] = []
        self.vectors = 0
        self._archive = zipfile.ZipFile(draft, "x")
        self._lock = threading.Lock()

    def add(self, name: str, vectors: "MultiVector") -> None:
        """Add the vectors of a page."""
        with self._lock:
            self._write(f"emb_{len(self.names)}", vectors)
            self.names.append(name)
            self.vectors += len(vectors)

    def finish(self) -> None:
        """Write the names, which make it an .npz that can be read. Nothing is added after that."""
        import numpy as np

        with self._lock:
            if self._archive.fp is not None:  # it is open
                self._write("names", np.array(self.names, dtype=np.str_))
                self._archive.close()

    def keep(self) -> str:
        """Finish the draft; return a sentence that says what is in it."""
        self.finish()
        if not self.names:
            self.draft.unlink(missing_ok=True)
            return "nothing is embedded"
        return f"{count(len(self.names), 'page')} that came until now: {self.draft}"

    def _write(self, name: str, values: "NDArray[np.generic]") -> None:
        import numpy as np

        content = BytesIO()
        np.save(content, values, allow_pickle=False)
        self._archive.writestr(f"{name}.npy", content.getvalue())
