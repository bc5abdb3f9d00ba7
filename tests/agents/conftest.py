"""A store with the examples, for all tests of agents."""

import pytest

from conftest import EXAMPLES
from pagevec.engine.embedder import LocalEmbedder
from pagevec.local import LocalModel
from pagevec.search.index import Index


@pytest.fixture(scope="session")
def store(embedder: LocalEmbedder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a store, which no test changes."""
    folder = tmp_path_factory.mktemp("agents") / "store"
    with Index(folder, LocalModel(embedder)) as index:
        assert not index.add([EXAMPLES]).failed
    return str(folder)
