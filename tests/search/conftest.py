"""Services with documents, for the tests of an index over them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import pagevec
from conftest import EXAMPLES, Service, serving_documents
from pagevec.engine.embedder import LocalEmbedder


@pytest.fixture
def there(embedder: LocalEmbedder, tmp_path: Path) -> Iterator[Service]:
    """A service with an empty store that takes documents."""
    store, folder = str(tmp_path / "there"), tmp_path / "uploads"
    with serving_documents(embedder, store, folder, max_upload_bytes=1 << 20) as (started, _):
        yield started


@pytest.fixture(scope="module")
def filled(embedder: LocalEmbedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has the examples."""
    folder = tmp_path_factory.mktemp("filled")
    with serving_documents(embedder, str(folder / "store"), folder / "uploads") as (started, _):
        with pagevec.Index(started.url, started.key) as index:
            index.add(EXAMPLES)
        yield started
