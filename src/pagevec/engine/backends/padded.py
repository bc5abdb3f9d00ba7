"""The padded backend: runs a library's own model, for every family that cannot be packed."""

from collections.abc import Sequence

import torch

from pagevec.engine.backends.device import require_kind, split_rows
from pagevec.engine.backends.preprocess import CheckpointBackend, ModelInput, PageInput, TextInput
from pagevec.engine.models.loader import LoadedModel
from pagevec.images import EncodedImage
from pagevec.types import MultiVector


class PaddedBackend(CheckpointBackend):
    """Implements `Backend[ModelInput]`: pads the inputs of a batch to the longest one."""

    def __init__(self, loaded: LoadedModel, *, fallback: str | None = None) -> None:
        super().__init__(loaded, fallback=fallback)
        self._model, self._device = loaded.model, loaded.device
        self._dtype = next(loaded.model.parameters()).dtype
        self._padding_side = loaded.processor.tokenizer.padding_side
        self._pad_token_id = loaded.processor.tokenizer.pad_token_id

    def prepare_page(self, image: EncodedImage) -> PageInput:
        """See `Backend.prepare_page`."""
        return self._process_page(self._pad_to_ratio(image.decode()))

    @torch.inference_mode()
    def forward(self, batch: Sequence[ModelInput]) -> list[MultiVector]:
        """See `Backend.forward`.

        Raises:
            torch.OutOfMemoryError: the batch does not fit into the device's memory.
            InternalError: the batch mixes texts and pages, or the result is not finite.
        """
        kind = PageInput if isinstance(batch[0], PageInput) else TextInput
        inputs = require_kind(batch, kind)
        tensors = _collate(inputs, self._padding_side, self._pad_token_id)
        on_device = {name: self._move(tensor) for name, tensor in tensors.items()}
        output = self._model(**on_device, use_cache=False)
        vectors = getattr(output, "embeddings", output)  # transformers' own models name them
        # Found on the host: an index by mask would make it wait for the device.
        [tokens] = tensors["attention_mask"].flatten().nonzero(as_tuple=True)
        unpadded = vectors.flatten(0, 1)[tokens.to(self._device, non_blocking=True)]
        return split_rows(unpadded, [one.tokens for one in inputs])

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self._device, dtype, non_blocking=True)


def _collate(
    batch: Sequence[ModelInput], padding_side: str, pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Pad the sequences of a batch to the longest one, as colpali-engine's processors do.

    Visual tensors are concatenated along their first dimension, and padded with zeros in the
    others.
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
    visual = {name: _concatenate([one.visual[name] for one in batch]) for name in batch[0].visual}
    return sequences | visual


def _concatenate(tensors: list[torch.Tensor]) -> torch.Tensor:
    sizes = [max(dims) for dims in zip(*(t.shape[1:] for t in tensors), strict=True)]
    return torch.cat([_pad(tensor, sizes) for tensor in tensors])


def _pad(tensor: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    missing = [(0, size - now) for size, now in zip(sizes, tensor.shape[1:], strict=True)]
    padding = [side for pair in reversed(missing) for side in pair]
    return torch.nn.functional.pad(tensor, padding) if any(padding) else tensor
