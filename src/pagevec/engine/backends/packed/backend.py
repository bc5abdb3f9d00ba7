"""One forward pass over a pack: prepared inputs in, ragged multi-vectors out."""

from collections.abc import Sequence
from itertools import accumulate

import torch

from pagevec.engine.backends.device import require_kind, split_rows
from pagevec.engine.backends.packed.inputs import PackedPage, resize_page
from pagevec.engine.backends.packed.language import DeepFeatures, LanguageModel
from pagevec.engine.backends.packed.layers import concatenate
from pagevec.engine.backends.packed.positions import PositionCache, TextPositions
from pagevec.engine.backends.packed.segments import Segments
from pagevec.engine.backends.packed.vision import VisionTower
from pagevec.engine.backends.preprocess import CheckpointBackend, TextInput
from pagevec.engine.models.loader import LoadedModel
from pagevec.images import EncodedImage
from pagevec.types import MultiVector


class PackedBackend(CheckpointBackend):
    """Implements `Backend[TextInput | PackedPage]` for models on Qwen2-VL, 2.5, Omni and 3."""

    def __init__(self, loaded: LoadedModel) -> None:
        super().__init__(loaded, packed=True)
        family, self._device = loaded.family, loaded.device
        model = loaded.model.get_submodule(family.backbone)
        self._image_processor = loaded.processor.image_processor
        self._vision = VisionTower(model.visual, self._image_processor)
        self._language = LanguageModel(model.get_decoder())
        self._embedding = model.get_input_embeddings()
        self._projection = (
            torch.nn.Identity()
            if family.projection is None
            else loaded.model.get_submodule(family.projection)
        )
        self._positions = PositionCache(
            model,
            self._device,
            self._tiny.sequence["input_ids"],
            has_grid_positions=family.has_grid_positions,
        )

    def prepare_page(self, image: EncodedImage) -> PackedPage:
        """See `Backend.prepare_page`."""
        page = self._pad_to_ratio(image.decode())
        return resize_page(page, self._image_processor, self._prompt_tokens)

    @torch.inference_mode()
    def forward(self, batch: Sequence[TextInput | PackedPage]) -> list[MultiVector]:
        """See `Backend.forward`.

        Raises:
            torch.OutOfMemoryError: the batch does not fit into the device's memory.
            InternalError: the batch mixes texts and pages, or the result is not finite.
        """
        if isinstance(batch[0], PackedPage):
            hidden = self._forward_pages(require_kind(batch, PackedPage))
        else:
            hidden = self._forward_texts(require_kind(batch, TextInput))
        return split_rows(self._projection(hidden), [one.tokens for one in batch])

    def _forward_pages(self, pages: Sequence[PackedPage]) -> torch.Tensor:
        positions = [self._positions.of_page(page.shape) for page in pages]
        pixels = [page.pixels.to(self._device, non_blocking=True) for page in pages]
        cells, *deep = self._vision(pixels, positions)
        hidden = self._embedding(torch.cat([one.input_ids for one in positions]))
        starts = accumulate((len(one.input_ids) for one in positions[:-1]), initial=0)
        visual = torch.cat(
            [start + one.visual_tokens for start, one in zip(starts, positions, strict=True)]
        )
        hidden[visual] = cells
        return self._decode(hidden, positions, [(visual, features) for features in deep])

    def _forward_texts(self, texts: Sequence[TextInput]) -> torch.Tensor:
        ids = [text.sequence["input_ids"] for text in texts]
        positions = [self._positions.of_text(len(one)) for one in ids]
        return self._decode(self._embedding(torch.cat(ids).to(self._device)), positions)

    def _decode(
        self,
        hidden: torch.Tensor,
        positions: Sequence[TextPositions],
        deep: Sequence[DeepFeatures] = (),
    ) -> torch.Tensor:
        cos_sin = concatenate([one.cos_sin for one in positions])
        segments = Segments.concatenate(one.segments for one in positions)
        return self._language(hidden, cos_sin, segments, deep)
