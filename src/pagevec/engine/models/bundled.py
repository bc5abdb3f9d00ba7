"""The model that ships with the package: ColQwen2.5's architecture, small, with its own tokenizer.

It is loaded by the same code path as any checkpoint. `training/` made it; its card, with what it
can and cannot do, is `weights/README.md`.
"""

from pathlib import Path

NAME = "bundled"
REVISION = "drawn-3"
NOTICE = (
    "a small model for a first look: it finds printed words (Latin letters, 14 points and above "
    "at A4), it does not understand; for real work name a real checkpoint"
)


def bundled_checkpoint() -> Path:
    """Return the directory of the bundled checkpoint."""
    return Path(__file__).parent / "weights"
