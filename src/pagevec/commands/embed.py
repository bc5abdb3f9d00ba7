"""`pagevec embed`: files in, an .npz of multi-vectors out."""

import sys
import zipfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pagevec.client import Client
from pagevec.commands import with_ca, with_passwords
from pagevec.ingest.boundary import open_document
from pagevec.ingest.names import SourceDocument, name_unstored
from pagevec.ingest.page import ReadOptions
from pagevec.ingest.pipeline import Batch, PageFault, embed_in_batches, is_of_the_service
from pagevec.ingest.sources import find_documents
from pagevec.terminal import echo
from pagevec.types import Model, MultiVector


@click.command("embed")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("embeddings.npz"), show_default=True
)
@click.option("--url", help="A running service; without it the model runs in this process.")
@click.option("--key", envvar="SERVICE_API_KEY", show_envvar=True, help="Bearer key for --url.")
@with_ca
@click.option("--model", help="Without --url: a checkpoint, its directory, or `bundled`.")
@with_passwords
@click.option("--strict", is_flag=True, help="Exit code 1 if a document or a page failed.")
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
    found = find_documents(files)
    failed = 0
    with (
        _write_npz(out) as archive,
        _open_model(url, key, ca, model) as opened,
        tqdm(unit=" pages", disable=None) as progress,
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
    for line in (*found.describe(), *found.describe_links()):
        echo(line, err=True)
    written = f"-> {out}" if archive.names else f"{out} is not written"
    echo(f"{len(archive.names)} pages, {archive.vectors} vectors {written}")
    sys.exit(2 if failed and not archive.names else 1 if failed and strict else 0)


def _open_model(url: str | None, key: str | None, ca: Path | None, model: str | None) -> Model:
    if url is not None:
        return Client(url, key, dtype="float32", resize=False, ca=ca)
    from pagevec.local import load

    return load(model)


def _complain(document: SourceDocument, batch: Batch) -> list[str]:
    return [
        *(f"failed: {document.name}: {fault.reason}" for fault in batch.faults),
        *(f"warning: {document.name}: {warning}" for warning in batch.warnings),
    ]


def _embed(
    model: Model, document: SourceDocument, options: ReadOptions
) -> Generator[Batch, None, None]:
    """Yield the pages of a document; a document that fails is a fault of its first page."""
    try:
        with open_document(document.path, options) as pages:
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
    draft = file.with_name(file.name + ".part")
    with zipfile.ZipFile(draft, "w") as archive:
        opened = _Archive(archive)
        try:
            yield opened
        finally:
            opened.write("names", np.array(opened.names, dtype=np.str_))
    if opened.names:
        draft.replace(file)
    else:
        draft.unlink()  # what FILE holds of another time is worth more than nothing


class _Archive:
    """An .npz of `names` and of `emb_0`, `emb_1`, ... in the same order."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names: list[str] = []
        self.vectors = 0

    def add(self, name: str, vectors: MultiVector) -> None:
        self.write(f"emb_{len(self.names)}", vectors)
        self.names.append(name)
        self.vectors += len(vectors)

    def write(self, name: str, values: NDArray[np.generic]) -> None:
        content = BytesIO()
        np.save(content, values, allow_pickle=False)
        self._archive.writestr(f"{name}.npy", content.getvalue())
