"""colpali-engine by itself, as its users call it: the yardstick of the engine."""

import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pagevec.engine.models.registry import family_of
from pagevec.engine.models.torchvision_fix import import_torchvision
from pagevec.types import MultiVector


@dataclass(frozen=True)
class Way:
    """A way to call it.

    Attributes:
        attention: transformers' name of it; batch: pages of one pass.
        plain: lists of numbers, padding kept, rubbish collected after each batch.
    """

    name: str
    attention: str
    batch: int
    plain: bool = False


PLAIN = Way("plain loop (eager, one page, lists, collecting)", "eager", 1, plain=True)
SDPA = tuple(Way(f"colpali-engine, sdpa, batch {n}", "sdpa", n) for n in (1, 4, 8))
FLASH = tuple(Way(f"colpali-engine, flash-attn, batch {n}", "flash_attention_2", n) for n in (4, 8))


class ColpaliEngine:
    """Its model and processor of a checkpoint's family, on one device."""

    def __init__(self, checkpoint: Path, device: torch.device, dtype: torch.dtype) -> None:
        import_torchvision()
        from colpali_engine import models

        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        family = family_of(config["model_type"], str(checkpoint))
        model: Any = getattr(models, family.model_class)
        self._model = model.from_pretrained(checkpoint, dtype=dtype).to(device).eval()
        self._processor = getattr(models, family.processor_class).from_pretrained(checkpoint)
        self._device = device

    def embed(self, files: Sequence[bytes], way: Way) -> list[Any]:
        """Return a multi-vector for each image file: arrays without padding, or plain lists."""
        self._model.set_attn_implementation(way.attention)
        starts = range(0, len(files), way.batch)
        return [one for start in starts for one in self._batch(files[start:][: way.batch], way)]

    def _batch(self, files: Sequence[bytes], way: Way) -> list[Any]:
        pages = [Image.open(BytesIO(file)).convert("RGB") for file in files]
        batch = self._processor.process_images(pages).to(self._device)
        with torch.inference_mode():
            vectors = self._model(**batch)
        if not way.plain:
            return _without_padding(vectors, batch["attention_mask"])
        rows: list[Any] = vectors.cpu().float().tolist()
        del batch, vectors
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return rows


def _without_padding(vectors: torch.Tensor, mask: torch.Tensor) -> list[MultiVector]:
    arrays, kept = vectors.float().cpu().numpy(), mask.cpu().numpy().astype(bool)
    return [rows[real] for rows, real in zip(arrays, kept, strict=True)]
