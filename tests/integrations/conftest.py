"""The examples, indexed here and in a service, for retrievers of all frameworks."""

from collections.abc import Iterator

import pytest

import pagevec
from conftest import EXAMPLES, Service, serving_documents
from pagevec.engine.embedder import LocalEmbedder
from pagevec.local import LocalModel


@pytest.fixture(scope="session")
def model(embedder: LocalEmbedder) -> LocalModel:
    return LocalModel(embedder)


@pytest.fixture(scope="session")
def store(model: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a store that has the examples."""
    folder = str(tmp_path_factory.mktemp("indexed") / "store")
    with pagevec.Index(folder, model) as index:
        index.add(EXAMPLES)
    return folder


@pytest.fixture(scope="session")
def index(store: str, model: LocalModel) -> Iterator[pagevec.Index]:
    with pagevec.Index(store, model) as opened:
        yield opened


@pytest.fixture(scope="session")
def there(embedder: LocalEmbedder, store: str, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A service that has the same store, and takes no uploads."""
    uploads = tmp_path_factory.mktemp("uploads")
    with serving_documents(embedder, store, uploads, uploads=False) as (started, _):
        yield started


@pytest.fixture
def away() -> Iterator[pagevec.Index]:
    """An index over a service that is away, asked once."""
    with pagevec.Client("http://127.0.0.1:9", "key", patience=0) as client:
        yield pagevec.Index(client)
