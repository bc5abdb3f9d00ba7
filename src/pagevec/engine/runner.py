"""One forward pass: a batch of prepared inputs in, ragged multi-vectors out."""

from collections.abc import Sequence

import numpy as np
import torch

from pagevec.engine.loader import LoadedModel
from pagevec.engine.preprocess import Prepared, collate
from pagevec.errors import InternalError
from pagevec.types import MultiVector


class Runner:
    """Runs a model of colpali-engine, which gives (inputs, tokens, dim) with padding rows zero."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._dtype = next(loaded.model.parameters()).dtype

    @torch.inference_mode()
    def forward(self, batch: Sequence[Prepared]) -> list[MultiVector]:
        """Return one float32 array (tokens, dim) of unit rows for each input, in order.

        Raises:
            torch.OutOfMemoryError: the batch does not fit into the device's memory.
            InternalError: the model gave numbers that are not finite.
        """
        tensors = collate(batch, self._loaded.padding_side, self._loaded.pad_token_id)
        on_device = {name: self._on_device(tensor) for name, tensor in tensors.items()}
        vectors = self._loaded.model(**on_device, use_cache=False)
        unit = torch.nn.functional.normalize(vectors.to(torch.float32), dim=-1)
        padded = unit.cpu().numpy()
        mask = tensors["attention_mask"].numpy().astype(bool)
        return [_finite(rows[kept]) for rows, kept in zip(padded, mask, strict=True)]

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self._loaded.device, dtype, non_blocking=True)


def _finite(vectors: MultiVector) -> MultiVector:
    if not np.isfinite(vectors).all():
        raise InternalError("the model gave numbers that are not finite")
    return vectors
