"""Image to patches, text to tokens: what the backends over a colpali-engine checkpoint share.

Inputs are prepared one by one, in several threads, exactly as colpali-engine's processors do it.
Padding belongs to a batch, never to an input.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from pagevec.engine.backends.device import choose_hints
from pagevec.engine.backends.tokens import TokenSpeller
from pagevec.engine.models.loader import LoadedModel
from pagevec.errors import InvalidText, TextTooLong
from pagevec.grid import PageResizing
from pagevec.images import pad_to_ratio
from pagevec.types import ModelInfo, Token

_TINY = (64, 64)


@dataclass(frozen=True, eq=False)
class ModelInput:
    """One input as colpali-engine's processors prepare it.

    Attributes:
        sequence: tensors (tokens,), such as `input_ids` and `attention_mask`.
        visual: tensors of a page, such as `pixel_values`, with a first dimension of their own.
    """

    sequence: dict[str, torch.Tensor]
    visual: dict[str, torch.Tensor]

    @property
    def tokens(self) -> int:
        """Length of its sequence, visual and text tokens."""
        return len(self.sequence["input_ids"])


class TextInput(ModelInput):
    """A text."""


class PageInput(ModelInput):
    """A page."""


class CheckpointBackend:
    """The half of a backend that prepares inputs, with a checkpoint's own processor.

    Pages all use the same settings of the tokenizer, so their threads share one processor. Texts
    have their own, one thread at a time.

    Attributes:
        hints: see `BatchHints`.
    """

    def __init__(
        self, loaded: LoadedModel, *, packed: bool = False, fallback: str | None = None
    ) -> None:
        """Prepare inputs for a forward pass.

        Args:
            loaded: the model.
            packed: whether it goes without padding.
            fallback: why this pass serves in place of the packed one.
        """
        self._page_processor = loaded.processor
        self._text_processor = loaded.text_processor
        self._text_lock = threading.Lock()
        self._speller = TokenSpeller(loaded.text_processor)
        self._family = loaded.family
        self._max_tokens = loaded.model.config.get_text_config().max_position_embeddings
        self._tiny = self._process_page(Image.new("RGB", _TINY, "white"))
        self._prompt_tokens = self._tiny.tokens - self._count_visual_tokens(*_TINY)
        resizing = self._find_resizing() if loaded.family.limits_visual_tokens else None
        self._info = replace(
            loaded.info,
            resizing=resizing,
            tells_tokens=True,
            forward="packed" if packed else "padded",
            fallback=fallback,
        )
        self.hints = choose_hints(loaded, packed=packed)

    def info(self) -> ModelInfo:
        """See `Backend.info`."""
        return self._info

    def prepare_texts(self, texts: Sequence[str]) -> list[TextInput]:
        """Prepare texts as queries, with colpali-engine's augmentation tokens.

        Raises:
            InvalidText: a text is not valid Unicode, or this family's processor rejects it.
            TextTooLong: a text has more tokens than the model's context.
        """
        for index, text in enumerate(texts):
            refuse_lone_surrogates(text, index)
        try:
            prepared = self._process_texts(texts)
        except ValueError:
            prepared = [self._process_or_blame(index, text) for index, text in enumerate(texts)]
        for index, one in enumerate(prepared):
            self._refuse_too_many_tokens(one, index)
        return prepared

    def page_tokens(self, width: int, height: int) -> int:
        """See `Backend.page_tokens`."""
        ratio = self._family.max_side_ratio
        if ratio is not None:
            width, height = max(width, -(-height // ratio)), max(height, -(-width // ratio))
        return self._prompt_tokens + self._count_visual_tokens(width, height)

    def tokenize(self, text: str, prepared: TextInput) -> list[Token]:
        """Return the token behind each vector of `text`: see `TokenSpeller.spell`."""
        with self._text_lock:
            return self._speller.spell(text, prepared.sequence["input_ids"].tolist())

    def _process_texts(self, texts: Sequence[str]) -> list[TextInput]:
        with self._text_lock:
            batch = self._text_processor.process_queries(list(texts))
        if self._family.texts_need_type_ids:
            batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
        return [TextInput(sequence=row, visual={}) for row in _remove_padding(batch)]

    def _process_or_blame(self, index: int, text: str) -> TextInput:
        # Idefics' processors expect an image for every `<image>` in a text.
        try:
            return self._process_texts([text])[0]
        except ValueError as error:
            raise InvalidText(
                f"the model's processor rejects the text: {error}", index=index
            ) from None

    def _process_page(self, image: Image.Image) -> PageInput:
        batch = self._page_processor.process_images([image])
        shape = batch["input_ids"].shape
        tensors = _select_tensors(batch)
        return PageInput(
            sequence={name: t[0] for name, t in tensors.items() if t.shape == shape},
            visual={name: t for name, t in tensors.items() if t.shape != shape},
        )

    def _pad_to_ratio(self, image: Image.Image) -> Image.Image:
        ratio = self._family.max_side_ratio
        return image if ratio is None else pad_to_ratio(image, ratio)

    def _count_visual_tokens(self, width: int, height: int) -> int:
        processor = self._text_processor
        if not hasattr(processor, "_get_num_multimodal_tokens"):
            images = processor.image_processor
            patches = images.get_number_of_image_patches(height, width, {})
            return int(patches // images.merge_size**2)
        with self._text_lock:
            sizes = processor._get_num_multimodal_tokens(image_sizes=[(height, width)])
        return int(sizes["num_image_tokens"][0])

    def _find_resizing(self) -> PageResizing:
        images = self._page_processor.image_processor
        is_visual = self._tiny.sequence["input_ids"] == self._page_processor.image_token_id
        return PageResizing(
            cell=images.patch_size * images.merge_size,
            min_pixels=images.size["shortest_edge"],
            max_pixels=images.size["longest_edge"],
            first=int(is_visual.nonzero()[0]),
            max_ratio=self._family.max_side_ratio or 1,
        )

    def _refuse_too_many_tokens(self, text: TextInput, index: int) -> None:
        if text.tokens > self._max_tokens:
            raise TextTooLong(
                f"the text has {text.tokens} tokens, but the model takes {self._max_tokens}; "
                "split it",
                index=index,
            )


def _remove_padding(batch: Any) -> Iterable[dict[str, torch.Tensor]]:
    tensors = _select_tensors(batch)
    for row, mask in enumerate(tensors["attention_mask"].bool()):
        yield {name: tensor[row][mask] for name, tensor in tensors.items()}


def _select_tensors(batch: Any) -> dict[str, torch.Tensor]:
    # PaliGemma's processor adds labels for training; with them the model would compute a loss.
    return {
        name: value for name, value in batch.items() if torch.is_tensor(value) and name != "labels"
    }


def refuse_lone_surrogates(text: str, index: int) -> None:
    """Raise if a text cannot be tokenized.

    Raises:
        InvalidText: it is not valid Unicode; with its `index`.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidText(f"the text is not valid Unicode: {error.reason}", index=index) from None
