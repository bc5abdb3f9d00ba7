"""`pagevec embed`: files in, an .npz of multi-vectors out."""

from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from pagevec.client import Client
from pagevec.ingest.names import name_unstored
from pagevec.ingest.sources import read_pages
from pagevec.ingest.worker import embed_pages
from pagevec.types import Model, MultiVector


@click.command("embed")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("embeddings.npz"), show_default=True
)
@click.option("--url", help="A running service; without it the model runs in this process.")
@click.option("--key", envvar="SERVICE_API_KEY", show_envvar=True, help="Bearer key for --url.")
@click.option("--model", help="Without --url: a checkpoint, its directory, or `bundled`.")
def command(
    files: tuple[Path, ...], out: Path, url: str | None, key: str | None, model: str | None
) -> None:
    """Embed the pages of PDFs, images and texts into one .npz file.

    It holds `names` (such as `reports/2024.pdf#3`) and `emb_0`, `emb_1`, ... in the same order,
    each float32 (vectors, dim).
    """
    with _open_model(url, key, model) as opened:
        names, vectors = _embed_all(opened, list(files))
    arrays: dict[str, Any] = {f"emb_{index}": one for index, one in enumerate(vectors)}
    with out.open("wb") as file:
        np.savez(file, names=np.array(names), **arrays)
    click.echo(f"{len(names)} pages, {sum(map(len, vectors))} vectors -> {out}")


def _open_model(url: str | None, key: str | None, model: str | None) -> Model:
    if url is not None:
        return Client(url, key, dtype="float32", resize=False)
    from pagevec.local import load

    return load(model)


def _embed_all(model: Model, paths: list[Path]) -> tuple[list[str], list[MultiVector]]:
    names, vectors = [], []
    with tqdm(unit=" pages") as progress:
        for document in name_unstored(paths):
            for page in read_pages(document.path):
                [embedded] = embed_pages(model, document.name, [page], resizing=None)
                names.append(f"{document.name}#{page.number}")
                vectors.append(embedded.vectors)
                progress.update()
    return names, vectors
