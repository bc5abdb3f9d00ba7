"""One forward pass over a pack: prepared inputs in, ragged multi-vectors out."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from pagevec.engine.backends.packed.inputs import PackedPage, PackedPreprocessor
from pagevec.engine.backends.packed.language import Added, LanguageModel
from pagevec.engine.backends.packed.layers import joined
from pagevec.engine.backends.packed.positions import Tables
from pagevec.engine.backends.packed.segments import Segments
from pagevec.engine.backends.packed.vision import VisionTower
from pagevec.engine.backends.padded import ragged
from pagevec.engine.backends.preprocess import ModelInput, Prepared
from pagevec.engine.models.loader import LoadedModel
from pagevec.types import MultiVector


class PackedRunner:
    """Runs ColQwen2, 2.5, Omni and 3 without padding, on weights that colpali-engine loaded."""

    def __init__(self, loaded: LoadedModel) -> None:
        model, preprocessor, device = loaded.model, loaded.preprocessor, loaded.device
        assert isinstance(preprocessor, PackedPreprocessor)  # noqa: S101 - for the type checker
        self._vision = VisionTower(model.visual, preprocessor.images)
        self._language = LanguageModel(model.get_decoder())
        self._embedding = model.get_input_embeddings()
        self._projection = model.custom_text_proj
        self._tables = Tables(model, device, preprocessor.prompt)
        self._device = device

    @torch.inference_mode()
    def forward(self, batch: Sequence[Prepared]) -> list[MultiVector]:
        """Return one float32 array (tokens, dim) of unit rows for each input, in order.

        Raises:
            torch.OutOfMemoryError: the batch does not fit into the device's memory.
            InternalError: the model gave numbers that are not finite.
        """
        pages = [one for one in batch if isinstance(one, PackedPage)]
        hidden = self._pages(pages) if pages else self._texts(batch)
        return ragged(self._projection(hidden), [one.tokens for one in batch])

    def _pages(self, pages: Sequence[PackedPage]) -> torch.Tensor:
        tables = [self._tables.of_page(page.shape) for page in pages]
        pixels = [page.pixels.to(self._device, non_blocking=True) for page in pages]
        cells, *deep = self._vision(pixels, tables)
        hidden = self._embedding(torch.cat([one.ids for one in tables]))
        starts = accumulate((len(one.ids) for one in tables[:-1]), initial=0)
        visual = torch.cat([start + one.visual for start, one in zip(starts, tables, strict=True)])
        hidden[visual] = cells
        return self._decoded(hidden, tables, [(visual, features) for features in deep])

    def _texts(self, texts: Sequence[Prepared]) -> torch.Tensor:
        ids = [text.sequence["input_ids"] for text in texts if isinstance(text, ModelInput)]
        tables = [self._tables.of_text(len(one)) for one in ids]
        return self._decoded(self._embedding(torch.cat(ids).to(self._device)), tables)

    def _decoded(
        self, hidden: torch.Tensor, tables: Sequence[Any], added: Sequence[Added] = ()
    ) -> torch.Tensor:
        turns = joined([one.turns for one in tables])
        segments = Segments.joined(one.sequence for one in tables)
        return self._language(hidden, turns, segments, added)
