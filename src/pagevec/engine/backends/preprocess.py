"""Image -> patches, text -> tokens: exactly what colpali-engine's processors do, one input each.

Inputs are prepared one by one, on several threads, and put together only when a batch is formed
(`collate`). Padding belongs to a batch, never to an input.
"""

import copy
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image

from pagevec.engine.models.registry import Family
from pagevec.errors import InvalidText, TextTooLong
from pagevec.grid import PageResizing
from pagevec.images import EncodedImage, pad_to_ratio

CORES = torch.get_num_threads()
"""Cores of this process: fewer than the machine has where OMP_NUM_THREADS says so (Ray sets it)."""
_BEHIND = 5  # nice value: a third of the share of a thread at 0, where cores are scarce


class Prepared(Protocol):
    """One input, ready for the model."""

    @property
    def tokens(self) -> int:
        """The sequence's length, visual and text tokens."""
        ...


@dataclass(frozen=True, eq=False)
class ModelInput:
    """One input as colpali-engine's processors prepare it.

    Attributes:
        sequence: tensors (tokens,), such as `input_ids` and `attention_mask`.
        visual: tensors of the page, such as `pixel_values`, with a first dimension of their own.
    """

    sequence: dict[str, torch.Tensor]
    visual: dict[str, torch.Tensor]

    @property
    def tokens(self) -> int:
        """The sequence's length, visual and text tokens."""
        return len(self.sequence["input_ids"])


class Preprocessor:
    """Prepares inputs with a checkpoint's own processor; may be used from many threads.

    Attributes:
        tiny: a small white page, as the processor prepares it.
        resizing: how it resizes pages, where their visual tokens are cells of one grid.

    Texts and pages have a processor each: a fast tokenizer keeps the settings of its last call,
    and changing them while another thread uses it fails with "Already borrowed". Pages all use the
    same settings, so their threads share one; texts take turns.
    """

    def __init__(self, processor: Any, family: Family, max_tokens: int) -> None:
        self._for_pages = processor
        self._for_texts = copy.deepcopy(processor)
        self._one_at_a_time = threading.Lock()
        self._family = family
        self._max_tokens = max_tokens
        self.tiny = self._model_input(Image.new("RGB", (64, 64), "white"))
        self._prompt_tokens = self.tiny.tokens - self._visual_tokens(64, 64)
        self.resizing = self._page_resizing(self.tiny) if family.limits_visual_tokens else None

    def texts(self, texts: Sequence[str]) -> list[ModelInput]:
        """Prepare texts as queries, augmentation tokens included.

        Raises:
            InvalidText: a text is not valid Unicode, or this family's processor refuses it.
            TextTooLong: a text has more tokens than the model's context.
        """
        for index, text in enumerate(texts):
            _refuse_lone_surrogates(text, index)
        try:
            prepared = self._prepare_texts(texts)
        except ValueError:
            prepared = [self._prepare_or_blame(index, text) for index, text in enumerate(texts)]
        for index, one in enumerate(prepared):
            self._refuse_too_many_tokens(one, index)
        return prepared

    def page(self, page: EncodedImage) -> Prepared:
        """Decode and prepare a page.

        Raises:
            InvalidImage: its pixels cannot be decoded completely.
        """
        return self._prepare_page(self._within_ratio(page.decode()))

    def page_tokens(self, width: int, height: int) -> int:
        """Return how many tokens a page of this size has, without its pixels."""
        ratio = self._family.max_side_ratio
        if ratio is not None:
            width, height = max(width, -(-height // ratio)), max(height, -(-width // ratio))
        return self._prompt_tokens + self._visual_tokens(width, height)

    def _prepare_texts(self, texts: Sequence[str]) -> list[ModelInput]:
        with self._one_at_a_time:
            batch = self._for_texts.process_queries(list(texts))
        if self._family.texts_need_type_ids:
            batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
        return [ModelInput(sequence=row, visual={}) for row in _rows_without_padding(batch)]

    def _prepare_or_blame(self, index: int, text: str) -> ModelInput:
        # Idefics' processors want an image for every `<image>` that a text says.
        try:
            return self._prepare_texts([text])[0]
        except ValueError as error:
            raise InvalidText(
                f"the model's processor refuses the text: {error}", index=index
            ) from None

    def _prepare_page(self, image: Image.Image) -> Prepared:
        return self._model_input(image)

    def _model_input(self, image: Image.Image) -> ModelInput:
        batch = self._for_pages.process_images([image])
        shape = batch["input_ids"].shape
        tensors = _tensors(batch)
        return ModelInput(
            sequence={name: t[0] for name, t in tensors.items() if t.shape == shape},
            visual={name: t for name, t in tensors.items() if t.shape != shape},
        )

    def _within_ratio(self, image: Image.Image) -> Image.Image:
        ratio = self._family.max_side_ratio
        return image if ratio is None else pad_to_ratio(image, ratio)

    def _visual_tokens(self, width: int, height: int) -> int:
        processor = self._for_texts
        if not hasattr(processor, "_get_num_multimodal_tokens"):
            images = processor.image_processor
            patches = images.get_number_of_image_patches(height, width, {})
            return int(patches // images.merge_size**2)
        with self._one_at_a_time:
            sizes = processor._get_num_multimodal_tokens(image_sizes=[(height, width)])
        return int(sizes["num_image_tokens"][0])

    def _page_resizing(self, page: ModelInput) -> PageResizing:
        images = self._for_pages.image_processor
        is_visual = page.sequence["mm_token_type_ids"].bool()
        return PageResizing(
            cell=images.patch_size * images.merge_size,
            min_pixels=images.size["shortest_edge"],
            max_pixels=images.size["longest_edge"],
            first=int(is_visual.nonzero()[0]),
            max_ratio=self._family.max_side_ratio or 1,
        )

    def _refuse_too_many_tokens(self, text: Prepared, index: int) -> None:
        if text.tokens > self._max_tokens:
            raise TextTooLong(
                f"the text has {text.tokens} tokens, the model takes {self._max_tokens}; split it",
                index=index,
            )


def collate(
    batch: Sequence[ModelInput], padding_side: str, pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Put prepared inputs of one kind together: sequences padded to the longest one.

    Visual tensors are joined along their first dimension, after padding the others with zeros,
    which is how colpali-engine's processors lay out a batch.
    """
    sequences = {
        name: torch.nn.utils.rnn.pad_sequence(
            [one.sequence[name] for one in batch],
            batch_first=True,
            padding_value=pad_token_id if name == "input_ids" else 0,
            padding_side=padding_side,
        )
        for name in batch[0].sequence
    }
    visual = {name: _join([one.visual[name] for one in batch]) for name in batch[0].visual}
    return sequences | visual


def share_cores(threads: int) -> None:
    """Let torch use in this thread its share of the cores, one of `threads` equal ones."""
    torch.set_num_threads(max(1, CORES // threads))


def one_thread_each() -> None:
    """Let torch use one core in this thread: the threads share the work by inputs."""
    torch.set_num_threads(1)


def one_thread_behind() -> None:
    """The same, behind the threads that run the model and answer: pages are prepared ahead."""
    one_thread_each()
    if sys.platform == "linux":  # elsewhere this would slow the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BEHIND)


def _join(tensors: list[torch.Tensor]) -> torch.Tensor:
    sizes = [max(dims) for dims in zip(*(t.shape[1:] for t in tensors), strict=True)]
    return torch.cat([_grown(tensor, sizes) for tensor in tensors])


def _grown(tensor: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    missing = [(0, size - now) for size, now in zip(sizes, tensor.shape[1:], strict=True)]
    padding = [side for pair in reversed(missing) for side in pair]
    return torch.nn.functional.pad(tensor, padding) if any(padding) else tensor


def _rows_without_padding(batch: Any) -> Iterable[dict[str, torch.Tensor]]:
    tensors = _tensors(batch)
    for row, mask in enumerate(tensors["attention_mask"].bool()):
        yield {name: tensor[row][mask] for name, tensor in tensors.items()}


def _tensors(batch: Any) -> dict[str, torch.Tensor]:
    # PaliGemma's processor adds labels to train on; with them the model would compute a loss.
    return {
        name: value for name, value in batch.items() if torch.is_tensor(value) and name != "labels"
    }


def _refuse_lone_surrogates(text: str, index: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidText(f"the text is not valid Unicode: {error.reason}", index=index) from None
