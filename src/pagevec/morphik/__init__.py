"""morphik-core: a drop-in for its embedding client, and the switch of its installations."""

from pagevec.morphik.model import ColpaliApiEmbeddingModel, EmbeddingUnavailableError

__all__ = ["ColpaliApiEmbeddingModel", "EmbeddingUnavailableError"]
