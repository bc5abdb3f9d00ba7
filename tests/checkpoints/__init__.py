"""Tiny random checkpoints of the nine late-interaction families of colpali-engine.

Each directory has the file layout, the config keys and the tensor names of the family's published
checkpoints, so that loading one takes the same code path, key renaming included, as loading the
real model. Only the sizes and the vocabulary differ: the weights are random, seeded and large
enough that a mistake in a mask, a position or a key changes the output visibly.
"""

from .adapters import build_adapter
from .build import build_checkpoint
from .families import DIMENSIONS, FAMILIES, LEGACY_ADAPTERS, model_class, processor_class

__all__ = [
    "DIMENSIONS",
    "FAMILIES",
    "LEGACY_ADAPTERS",
    "build_adapter",
    "build_checkpoint",
    "model_class",
    "processor_class",
]
