"""The service's client, and a model for engines of a test's own."""

from collections.abc import Iterator

import httpx
import pytest

from conftest import Service, make_settings
from pagevec.engine.models.loader import LoadedModel, load


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """The bundled model with small pages, for engines of this module's own."""
    return load(make_settings(max_visual_tokens=16))
