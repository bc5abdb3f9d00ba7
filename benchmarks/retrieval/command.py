"""`python -m benchmarks retrieval`."""

from pathlib import Path

import click

from benchmarks.output import give, json_option
from benchmarks.retrieval.fonts import FontsMissing
from benchmarks.retrieval.real import DocumentsMissing
from benchmarks.retrieval.run import measure
from benchmarks.retrieval.words import WordListMissing
from benchmarks.servers import ServerFailed
from pagevec.engine.models.bundled import bundled_checkpoint

_FAULTS = (FontsMissing, WordListMissing, DocumentsMissing, ServerFailed)


@click.command("retrieval")
@click.option(
    "--pages", type=click.IntRange(min=10), default=500, show_default=True, help="Held-out pages."
)
@click.option("--real", type=click.IntRange(min=0), default=200, show_default=True, help="Real.")
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="A checkpoint's directory; default: the bundled one.",
)
@json_option
def command(pages: int, real: int, model: Path | None, file: Path | None) -> None:
    """Measure whether a model finds the page that a query's words stand on.

    On pages with fonts, words and layouts that `training/` never prints, and on PDFs of Debian
    packages; beside it BM25 over their text layers.
    """
    try:
        report = measure(model or bundled_checkpoint(), pages, real)
    except _FAULTS as error:
        raise click.ClickException(str(error)) from error
    except ModuleNotFoundError as error:
        if error.name not in ("bm25s", "reportlab"):
            raise
        raise click.ClickException(f"{error}: pip install 'pagevec[bench,pdf]'") from error
    give("retrieval", report, file)
