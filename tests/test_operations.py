"""The commands and figures of docs/operations.md that need more than a folder and a service."""

import os
import re
from pathlib import Path

import pytest
import torch
from benchmarks.full_size import make_config

from conftest import Service
from documents import DOCS, commands, run
from pagevec.client import Client
from pagevec.engine.models.registry import DEFAULT_CHECKPOINT, PARAMETERS, bundled_checkpoint
from pagevec.search.index import Index
from pagevec.settings import Settings
from pagevec.stores import open_store
from pagevec.types import PageKey
from postgres_server import binaries, new_database
from vectors import page

TEXT = (DOCS / "operations.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_store_in_postgresql(postgres: str, tmp_path: Path) -> None:
    """What pg_dump wrote and pg_restore read is the same store, in another database."""
    [block] = commands("operations.md", "postgres backup")
    store, restored = new_database(postgres), new_database(postgres)
    pages = [page("reports/a", number, text="fares", metadata={"n": 1}) for number in (1, 2)]
    with open_store(store) as opened:
        opened.add(pages)
        opened.ledger.set_label("reports", "/srv/reports")
    path = f"{binaries()}{os.pathsep}{os.environ['PATH']}"
    run(f"PATH={path}\n{block}", tmp_path, STORE=store, RESTORED=restored)
    with open_store(store) as one, open_store(restored, create=False) as other:
        keys = [PageKey("reports/a", 1), PageKey("reports/a", 2)]
        for ours, theirs in zip(one.fetch(keys), other.fetch(keys), strict=True):
            assert (ours.key, ours.text, ours.metadata) == (
                theirs.key,
                theirs.text,
                theirs.metadata,
            )
            assert (ours.vectors == theirs.vectors).all()
        assert other.ledger.labels() == {"reports": "/srv/reports"}


@pytest.mark.long
def test_another_machine(service: Service, tmp_path: Path) -> None:
    """A store that was moved is searched; its documents, elsewhere now, are not embedded again."""
    [block] = commands("operations.md", "move")
    reports = tmp_path / "old" / "reports"
    reports.mkdir(parents=True)
    (reports / "fares.txt").write_text("The fares of the night route.")
    with Client(service.url, service.key) as model:
        with Index(str(tmp_path / "pages"), model) as index:
            assert index.add([reports]).pages_stored == 1
        there = tmp_path / "there"
        run(block.replace("scp -r moving newhost:/srv/pages", f"cp -r moving {there}"), tmp_path)
        moved = tmp_path / "new" / "reports"
        moved.parent.mkdir()
        reports.rename(moved)
        with Index(str(there), model) as index:
            [hit] = index.search("night route", k=1)
            assert hit.document == "reports/fares.txt"
            report = index.add([moved])
    assert (report.pages_stored, len(report.skipped), report.renamed) == (0, 1, ())


def cells(name: str) -> list[list[float]]:
    """Return the numbers in each cell of a table's row, after the first."""
    [line] = [line for line in TEXT.splitlines() if line.startswith(f"| {name}")]
    return [
        [float(number.replace(",", "")) for number in re.findall(r"\d[\d,.]*", cell)]
        for cell in line.strip("|").split("|")[1:]
    ]


def total(column: int, *names: str) -> float:
    """Return the sum of the first numbers in a column of the rows called `names`."""
    return sum(cells(name)[column][0] for name in names)


@pytest.mark.long
def test_the_default_model() -> None:
    """Its parameters are those of the architecture, counted."""
    from colpali_engine.models import ColQwen2_5, ColQwen2_5_Processor

    processor = ColQwen2_5_Processor.from_pretrained(bundled_checkpoint())
    with torch.device("meta"):
        model = ColQwen2_5(make_config(processor.tokenizer))
    sizes = {name: each.numel() for name, each in model.named_parameters()}
    parts = {"language": "language_model.", "vision": "visual.", "projection": "custom_text_proj."}
    for name, part in parts.items():
        assert total(0, name) == sum(n for each, n in sizes.items() if each.startswith(part))
    assert total(0, "**together") == sum(sizes.values()) == total(0, *parts)
    vision = model.config.vision_config
    assert f"{3 * vision.intermediate_size + 4 * vision.hidden_size:,} numbers" in TEXT


def test_memory_of_the_default_model() -> None:
    """The products and the sums of the table are right, and the limits are those of the code."""
    parameters, widest = total(0, "**together"), 15_380
    assert PARAMETERS[DEFAULT_CHECKPOINT] == parameters
    assert cells("weights") == [[round(parameters * size / 1e9, 1)] for size in (2, 4)]
    (on_gpu, tokens), (on_cpu, passes, fewer) = cells("a batch")
    assert on_gpu == round(tokens * 4 * widest * 2 / 1e9, 1)
    assert on_cpu == round(passes * fewer * 4 * widest * 4 / 1e9, 1)
    settings = Settings(_env_file=None)
    requests = settings.held_bytes + settings.max_working_bytes + 2 * 32 * 2**20
    assert cells("requests") == [[round(requests / 1e9, 1)]] * 2
    device, gpu, cpu = cells("**sum on the device")[0], *cells("**sum in the machine")
    assert device == [pytest.approx(total(0, "weights", "a batch", "CUDA"))]
    assert gpu == [pytest.approx(total(0, "the process", "requests"))]
    assert cpu == [pytest.approx(total(1, "weights", "a batch", "CUDA", "requests"))]
