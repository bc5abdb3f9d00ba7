"""Working with morphik-core: a drop-in for its embedding client, and its files switched over."""

from pagevec.morphik.model import ColpaliApiEmbeddingModel, EmbeddingUnavailableError

__all__ = ["ColpaliApiEmbeddingModel", "EmbeddingUnavailableError"]
