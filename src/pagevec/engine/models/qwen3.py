"""Qwen3-VL in layouts whose own code is in the repositories of their checkpoints alone.

TomoroAI's ColQwen3 is colpali-engine's model under other names. NVIDIA's Nemotron ColEmbed attends
in both directions, and its vectors are the hidden vectors of the last layer.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from colpali_engine.models import ColQwen3, ColQwen3Processor
from PIL import Image
from transformers import (
    BatchFeature,
    Qwen3VLConfig,
    Qwen3VLModel,
    Qwen3VLProcessor,
)


class TomoroColQwen3(ColQwen3):  # type: ignore[misc]
    """TomoroAI's ColQwen3: a whole Qwen3-VL, named `vlm`, and a projection of 320 components.

    Source: modeling_colqwen3.py of TomoroAI/tomoro-colqwen3-embed-4b and -8b.
    """

    _checkpoint_conversion_mapping: ClassVar[dict[str, str]] = {
        r"^vlm\.model\.": "",
        r"^embedding_proj_layer\.": "custom_text_proj.",
    }
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^vlm\.lm_head\."]


class TomoroColQwen3Processor(ColQwen3Processor):  # type: ignore[misc]
    """colpali-engine's prompts; white space around a text does not count."""

    def process_queries(self, texts: Sequence[str], **options: Any) -> Any:
        """Prepare queries."""
        return super().process_queries([text.strip() for text in texts], **options)


class NemotronColEmbed(Qwen3VLModel):  # type: ignore[misc]
    """NVIDIA's Nemotron ColEmbed v2: Qwen3-VL that attends in both directions.

    Its vectors are those that leave the last layer, before the norm: whoever loads it has to take
    the norm out. Source: modeling_qwen3_vl_nemotron_embed.py of nvidia/nemotron-colembed-vl-4b-v2.
    """

    _checkpoint_conversion_mapping: ClassVar[dict[str, str]] = {r"^model\.": ""}
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^lm_head\."]

    def __init__(self, config: Qwen3VLConfig) -> None:
        config.text_config.is_causal = False
        super().__init__(config)
        for layer in self.language_model.layers:
            layer.self_attn.is_causal = False

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        """Read a checkpoint by the names of its own layout."""
        names = cls._checkpoint_conversion_mapping
        return super().from_pretrained(*args, key_mapping=names, **options)

    def forward(self, pixel_values: torch.Tensor | None = None, **inputs: Any) -> torch.Tensor:
        """Return the hidden vectors of a batch: (batch, tokens, hidden)."""
        hidden: torch.Tensor = (
            super().forward(pixel_values=pixel_values, **inputs).last_hidden_state
        )
        return hidden


class NemotronColEmbedProcessor(Qwen3VLProcessor):  # type: ignore[misc]
    """The prompts of Nemotron ColEmbed, in the chat template of its checkpoint.

    Source: processing_qwen3_vl_nemotron_embed.py of nvidia/nemotron-colembed-vl-4b-v2.

    Args:
        query_prefix: stands before a query, after `Query: `.
        passage_prefix: is the text beside a page.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        video_processor: Any = None,
        chat_template: str | None = None,
        query_prefix: str = "query:",
        passage_prefix: str = "passage:",
        **_: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, video_processor, chat_template)
        self.query_prefix, self.passage_prefix = query_prefix, passage_prefix
        self.tokenizer.padding_side = "left"

    def process_queries(self, texts: Sequence[str]) -> BatchFeature:
        """Prepare queries."""
        prefix = f"{self.query_prefix} " if self.query_prefix else ""
        texts = [self._render({"type": "text", "text": f"Query: {prefix}{one}"}) for one in texts]
        return self(text=texts, padding="longest", return_tensors="pt")

    def process_images(self, images: Sequence[Image.Image]) -> BatchFeature:
        """Prepare pages."""
        beside = f"{self.passage_prefix} " if self.passage_prefix else ""
        prompt = self._render({"type": "image"}, {"type": "text", "text": beside})
        return self(
            text=[prompt] * len(images), images=list(images), padding="longest", return_tensors="pt"
        )

    def _render(self, *content: dict[str, str]) -> str:
        message = {"role": "user", "content": list(content)}
        rendered: str = self.tokenizer.apply_chat_template(
            [message], tokenize=False, add_generation_prompt=True
        )
        return rendered
