"""The backend over sentence-transformers: a `MultiVectorEncoder`, for what pagevec does not know.

The library prepares the inputs and runs the model, so its vectors are those that it gives alone.
"""

import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image

from pagevec.engine.backends.base import BatchHints
from pagevec.engine.backends.device import TorchDevice, require_kind, split_rows
from pagevec.engine.backends.preprocess import refuse_lone_surrogates
from pagevec.engine.models.checkpoint import Checkpoint, find_faults, require_all_loaded
from pagevec.engine.models.compat import import_torchvision
from pagevec.engine.models.devices import (
    choose_dtype,
    compute_capability,
    find_device,
    require_dtype,
)
from pagevec.engine.models.files import read_json, reading
from pagevec.engine.models.registry import ENCODER
from pagevec.errors import CheckpointError, ConfigurationError, InvalidImage, TextTooLong
from pagevec.extras import how_to_install
from pagevec.images import EncodedImage
from pagevec.settings import Settings
from pagevec.types import ModelInfo, MultiVector

_BATCH_TOKENS = 4096
_SIZES_CACHED = 256
_TRIAL = "page"


@dataclass(frozen=True)
class EncoderText:
    """A query; `tokens` as the tokenizer counts them."""

    text: str
    tokens: int


@dataclass(frozen=True, eq=False)
class EncoderPage:
    """A decoded page; `tokens` as the processor counts them for its size."""

    image: Image.Image
    tokens: int


class EncoderBackend:
    """Implements `Backend[EncoderText | EncoderPage]`.

    Args:
        settings: name the checkpoint, its device and dtype.

    Attributes:
        hints: see `BatchHints`.

    Raises:
        CheckpointError: the checkpoint cannot be read, is no multi-vector model, or weights of it
            would be random.
        ConfigurationError: sentence-transformers is not installed, the device or the dtype is not
            available, or a setting is of no use here.
    """

    def __init__(self, settings: Settings) -> None:
        _refuse_settings(settings)
        started = time.perf_counter()
        device = find_device(settings)
        dtype = choose_dtype(settings.dtype, device, compute_capability(device))
        require_dtype(dtype, device)
        import_torchvision()
        checkpoint = Checkpoint.of(settings, device)
        with checkpoint.telling_progress():
            self._encoder = _read_encoder(checkpoint, settings, device, dtype)
        # A fast tokenizer keeps the settings of its last call: texts are counted with another one.
        self._encoding, self._counting = threading.Lock(), threading.Lock()
        self._tokenizer = copy.deepcopy(self._encoder.tokenizer)
        self._most_tokens = self._find_most_tokens()
        self._page_tokens = lru_cache(_SIZES_CACHED)(self._count_page_tokens)
        self.hints = BatchHints(
            padded=True,
            batch_tokens=_BATCH_TOKENS,
            device=TorchDevice(device),
            load_seconds={"read": time.perf_counter() - started},
        )
        self._info = ModelInfo(
            model=checkpoint.name,
            revision=checkpoint.revision,
            family=ENCODER,
            dim=int(self._encoder.get_embedding_dimension()),
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            parameters=sum(one.numel() for one in self._encoder.parameters()),
            notice=checkpoint.notice,
            forward="padded",
        )
        with reading(f"a first text does not go through {checkpoint.name}"):
            self.forward(self.prepare_texts([_TRIAL]))

    def info(self) -> ModelInfo:
        """See `Backend.info`."""
        return self._info

    def prepare_texts(self, texts: Sequence[str]) -> list[EncoderText]:
        """See `Backend.prepare_texts`; the texts are queries."""
        return [self._prepare_text(text, index) for index, text in enumerate(texts)]

    def prepare_page(self, image: EncodedImage) -> EncoderPage:
        """See `Backend.prepare_page`."""
        return EncoderPage(image.decode(), self.page_tokens(image.width, image.height))

    def page_tokens(self, width: int, height: int) -> int:
        """See `Backend.page_tokens`.

        Raises:
            InvalidImage: the model takes no images.
        """
        if "image" not in self._encoder.modalities:
            raise InvalidImage(f"{self._info.model} embeds texts alone: it takes no page images")
        return self._page_tokens(width, height)

    def forward(self, batch: Sequence[EncoderText | EncoderPage]) -> list[MultiVector]:
        """See `Backend.forward`."""
        if isinstance(batch[0], EncoderPage):
            pages = [{"image": page.image} for page in require_kind(batch, EncoderPage)]
            return self._encode(self._encoder.encode_document, pages)
        # Never bare strings: the library fetches addresses, and opens files, that end like images.
        texts = [{"text": text.text} for text in require_kind(batch, EncoderText)]
        return self._encode(self._encoder.encode_query, texts)

    def _encode(self, encode: Callable[..., Any], inputs: Sequence[Any]) -> list[MultiVector]:
        with self._encoding:
            vectors = encode(list(inputs), batch_size=len(inputs), show_progress_bar=False)
        return split_rows(torch.cat(vectors), [len(one) for one in vectors])

    def _prepare_text(self, text: str, index: int) -> EncoderText:
        refuse_lone_surrogates(text, index)
        with self._counting:
            tokens = len(self._tokenizer(text)["input_ids"])
        if self._most_tokens is not None and tokens > self._most_tokens:
            raise TextTooLong(
                f"the text has {tokens} tokens, but the model takes {self._most_tokens}; split it",
                index=index,
            )
        return EncoderText(text, tokens)

    def _find_most_tokens(self) -> int | None:
        """Return how many tokens of a query are read; the library cuts off what is beyond."""
        transformer = self._encoder[0]
        expansion = getattr(transformer, "query_expansion", None) or {}
        fixed = expansion.get("length") if expansion.get("strategy") == "fixed" else None
        limits = [
            fixed,
            getattr(transformer, "query_length", None),
            getattr(self._encoder, "max_seq_length", None),
        ]
        return min((limit for limit in limits if limit), default=None)

    def _count_page_tokens(self, width: int, height: int) -> int:
        blank = Image.new("RGB", (width, height))
        with self._encoding:
            features = self._encoder.preprocess([{"image": blank}], task="document")
        return int(features["attention_mask"].sum())


def _refuse_settings(settings: Settings) -> None:
    """Raise if a setting cannot be followed here."""
    useless = {
        "PAGEVEC_PRECISION": settings.precision != "full",
        "PAGEVEC_FORWARD": settings.forward == "packed",
        "PAGEVEC_MAX_VISUAL_TOKENS": settings.max_visual_tokens is not None,
    }
    for name, is_set in useless.items():
        if is_set:
            raise ConfigurationError(
                f"{name} has no effect with PAGEVEC_FAMILY={ENCODER}: unset it"
            )


def _read_encoder(
    checkpoint: Checkpoint, settings: Settings, device: torch.device, dtype: torch.dtype
) -> Any:
    try:
        from sentence_transformers import MultiVectorEncoder
    except ImportError:
        raise ConfigurationError(
            f"PAGEVEC_FAMILY={ENCODER} requires {how_to_install('encoder')}"
        ) from None
    with reading(f"{checkpoint.name} cannot be read"):
        _require_multi_vectors(checkpoint)
        with _reports_of_loading() as reports:
            encoder = MultiVectorEncoder(
                checkpoint.source,
                device=str(device),
                trust_remote_code=settings.trust_remote_code,
                model_kwargs={"dtype": dtype},
                **checkpoint.hub_options(),
            )
    for report in reports:
        # Heads that the backbone does not have are not read.
        missing = {key: report.get(key) for key in ("missing_keys", "mismatched_keys")}
        require_all_loaded(checkpoint.name, find_faults(missing))
    encoder.to(dtype)
    return encoder.eval()


def _require_multi_vectors(checkpoint: Checkpoint) -> None:
    """Raise where sentence-transformers would project to multi-vectors with random weights."""
    if checkpoint.find_file("modules.json") is not None:
        listed = checkpoint.find_file("config_sentence_transformers.json")
        kind = read_json(listed).get("model_type") if listed else None
        if kind in ("MultiVectorEncoder", "ColBERT"):
            return
    config = checkpoint.find_file("config.json")
    architectures = read_json(config).get("architectures") or [] if config else []
    if any(one == "HF_ColBERT" or one.endswith("ForRetrieval") for one in architectures):
        return
    raise CheckpointError(
        f"{checkpoint.name} is no multi-vector model of sentence-transformers: it has no "
        "modules.json of a MultiVectorEncoder, so its projection would be random"
    )


@contextmanager
def _reports_of_loading() -> Iterator[list[dict[str, Any]]]:
    """Yield a list that gets transformers' report on each model that is loaded in the block."""
    from transformers import PreTrainedModel

    reports: list[dict[str, Any]] = []
    original = PreTrainedModel.__dict__["from_pretrained"]

    def from_pretrained(cls: Any, *args: Any, **options: Any) -> Any:
        options["output_loading_info"] = True
        model, report = original.__func__(cls, *args, **options)
        reports.append(report)
        return model

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        yield reports
    finally:
        PreTrainedModel.from_pretrained = original
