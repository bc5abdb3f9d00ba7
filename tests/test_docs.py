"""What the documents say is true: their commands run, their tables are the code's."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Service, serving_documents
from integrations.environment import framework_python
from pagevec import errors
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.registry import FAMILIES

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
from update import MADE, map_markdown, update  # type: ignore[import-not-found]  # noqa: E402

pytestmark = pytest.mark.long

UNSEEN = (
    errors.CheckpointError,
    errors.ConfigurationError,
    errors.DocumentError,
    errors.LoadedElsewhere,
    errors.ObjectError,
)
PAGES = (
    "http-api",
    "client",
    "documents",
    "frameworks",
    "agents",
    "ray",
    "hosting",
    "operations",
    "qdrant",
)
BLOCK = re.compile(r"<!-- run -->\n```(bash|python)\n(.*?)```", re.S)
BLOCKS = [
    pytest.param(document.stem, language, code, id=f"{document.name}-{number}")
    for document in [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in PAGES)]
    for number, (language, code) in enumerate(BLOCK.findall(document.read_text(encoding="utf-8")))
]


@pytest.fixture(scope="module")
def service(embedder: LocalEmbedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with an empty store, that takes uploads."""
    folder = tmp_path_factory.mktemp("served")
    with serving_documents(embedder, str(folder / "store"), folder / "uploads") as (service, _):
        yield service


@pytest.mark.parametrize(("document", "language", "code"), BLOCKS)
def test_block(document: str, language: str, code: str, service: Service, tmp_path: Path) -> None:
    """Each command and each piece of Python that is marked to run does what it says."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    python = framework_python() if document == "frameworks" else sys.executable
    program = [python, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PAGEVEC_")},
        "SERVICE_API_KEY": service.key,
        "PAGEVEC_URL": service.url,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_PROXY": "*",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }
    done = subprocess.run(
        [*program, code.replace("http://127.0.0.1:8765", service.url)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "curl" in code:
        answers = '"embeddings"', '"hits":[{', '"relevance_score"'
        assert any(answer in done.stdout for answer in answers)


def test_blocks_are_found() -> None:
    """The marks are where this test looks for them."""
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("file", MADE, ids=lambda file: str(file.name))
def test_what_is_made_from_code(file: Path) -> None:
    """Tables of settings and the map of modules are those that the code makes (`make docs`)."""
    text = file.read_text(encoding="utf-8")
    assert update(text, *MADE[file]) == text


def test_every_error_is_documented() -> None:
    """Each code that a caller can get stands in the table of errors, beside its status."""
    table = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.PagevecError):
            if issubclass(error, UNSEEN):
                continue  # no caller of the service sees them
            rows = [row for row in table.splitlines() if f"`{error.code}`" in row]
            assert any(str(error.status) in row for row in rows), error.code


def test_every_module_has_a_subject() -> None:
    """The map of docs/structure.md says of each module what it is about, in its own docstring."""
    rows = map_markdown().splitlines()[2:]
    assert len(rows) > 100
    assert [row for row in rows if row.count("|") < 3 or len(row.split("|")[2]) < 10] == []


def test_every_family_is_named() -> None:
    """README says which families are served, and docs/models.md in which layouts."""
    readme, models = (
        re.sub(r"[^a-z0-9]", "", (ROOT / file).read_text(encoding="utf-8").lower())
        for file in ("README.md", "docs/models.md")
    )
    for family in FAMILIES:
        name = re.sub(r"[^a-z0-9]", "", family.name)
        assert name in models
        if family.library == "colpali-engine":
            assert name in readme or "omni" in name
