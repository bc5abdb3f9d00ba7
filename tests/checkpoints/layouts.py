"""Tiny checkpoints in the layouts of other libraries, and the vectors that those give.

transformers writes its own. The code of TomoroAI's ColQwen3 and NVIDIA's Nemotron ColEmbed is in
their repositories alone: their models are put together here from transformers' parts, as that code
describes them.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save_file

from .build import build_checkpoint, randomise
from .families import processor_class

Vectors = npt.NDArray[np.float32]


class Layout(ABC):
    """A model in a layout of its own, in float32.

    Args:
        directory: where its checkpoint is written, beside that of the family.

    Attributes:
        family: colpali-engine's family whose backbone and files it has.
        dim: components of one vector.
    """

    family: ClassVar[str]
    dim: int

    def __init__(self, directory: Path) -> None:
        base = build_checkpoint(self.family, directory.with_name(f"{directory.name}-base"))
        directory.mkdir()
        self.write(base, directory)

    @abstractmethod
    def write(self, base: Path, directory: Path) -> None:
        """Write the checkpoint into `directory`; `base` has the family's."""

    @abstractmethod
    def embed_image(self, image: Image.Image) -> Vectors:
        """Return a page's vectors as the library has them."""

    @abstractmethod
    def embed_text(self, text: str) -> Vectors:
        """Return a query's vectors as the library has them."""


class Native(Layout):
    """transformers' own classes, which write the checkpoint themselves."""

    model: ClassVar[str]
    processor: ClassVar[str]
    dim = 96

    def write(self, base: Path, directory: Path) -> None:
        import transformers

        model_class = getattr(transformers, self.model)
        backbone = transformers.AutoConfig.from_pretrained(base)
        config = model_class.config_class(vlm_config=backbone, embedding_dim=self.dim)
        self._model = model_class(config).eval()
        randomise(self._model)
        self._model.save_pretrained(directory)
        theirs = processor_class(self.family).from_pretrained(base)
        parts = {"image_processor": theirs.image_processor, "tokenizer": theirs.tokenizer}
        if hasattr(theirs, "image_seq_len"):
            parts["image_seq_len"] = theirs.image_seq_len
        self._processor = getattr(transformers, self.processor)(**parts)
        self._processor.save_pretrained(directory)

    def embed_image(self, image: Image.Image) -> Vectors:
        return self._embed(self._processor.process_images(images=[image]))

    def embed_text(self, text: str) -> Vectors:
        return self._embed(self._processor.process_queries(text=[text]))

    def _embed(self, batch: Any) -> Vectors:
        batch.pop("labels", None)
        with torch.inference_mode():
            return _to_numpy(self._model(**batch).embeddings)


class NativeColPali(Native):
    family, model, processor = "colpali", "ColPaliForRetrieval", "ColPaliProcessor"


class NativeColQwen2(Native):
    family, model, processor = "colqwen2", "ColQwen2ForRetrieval", "ColQwen2Processor"


class NativeColQwen25(NativeColQwen2):
    """ColQwen2's class around the backbone of ColQwen2.5."""

    family = "colqwen2_5"


class NativeColModernVBert(Native):
    family = "colmodernvbert"
    model, processor = "ColModernVBertForRetrieval", "ColModernVBertProcessor"


class OnQwen3(Layout):
    """A whole Qwen3-VL, with the prompts that `write_prompts` leaves behind."""

    family = "colqwen3"

    def write(self, base: Path, directory: Path) -> None:
        from transformers import AutoConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

        for file in base.iterdir():
            if file.suffix != ".safetensors":
                (directory / file.name).write_bytes(file.read_bytes())
        self.vlm = Qwen3VLForConditionalGeneration(AutoConfig.from_pretrained(base)).eval()
        self._processor = Qwen3VLProcessor.from_pretrained(base)
        randomise(self.vlm)
        self.finish(directory)

    @abstractmethod
    def finish(self, directory: Path) -> None:
        """Write weights and config.json."""

    @abstractmethod
    def project(self, tokens: dict[str, Any]) -> torch.Tensor:
        """Return the vectors of a batch of one, not yet of unit length."""

    def embed(self, prompt: str, image: Image.Image | None = None) -> Vectors:
        images = {} if image is None else {"images": [image]}
        batch = self._processor(text=[prompt], return_tensors="pt", **images)
        with torch.inference_mode():
            return _to_numpy(torch.nn.functional.normalize(self.project(dict(batch)), dim=-1))


class Tomoro(OnQwen3):
    """TomoroAI's ColQwen3."""

    dim = 320

    def finish(self, directory: Path) -> None:
        width = self.vlm.config.text_config.hidden_size
        self._projection = torch.nn.Linear(width, self.dim)
        randomise(self._projection)
        _save(directory, vlm=self.vlm, embedding_proj_layer=self._projection)
        _change_config(
            directory, model_type="colqwen3", embed_dim=self.dim, architectures=["ColQwen3"]
        )

    def project(self, tokens: dict[str, Any]) -> torch.Tensor:
        return self._projection(self.vlm.model(**tokens).last_hidden_state)

    def embed_image(self, image: Image.Image) -> Vectors:
        cell = "<|vision_start|><|image_pad|><|vision_end|>"
        prompt = f"<|im_start|>user\n{cell}Describe the image.<|im_end|><|endoftext|>"
        return self.embed(prompt, image)

    def embed_text(self, text: str) -> Vectors:
        return self.embed(text.strip() + "<|endoftext|>" * 10)


class Nemotron(OnQwen3):
    """NVIDIA's Nemotron ColEmbed v2."""

    def finish(self, directory: Path) -> None:
        self.dim = self.vlm.config.text_config.hidden_size
        _save(directory, **dict(self.vlm.named_children()))
        _change_config(
            directory,
            model_type="qwen3_vl_nemotron_embed",
            architectures=["Qwen3VLNemotronEmbedModel"],
            pooling="colbert",
        )

    def project(self, tokens: dict[str, Any]) -> torch.Tensor:
        model, seen = self.vlm.model, []
        positions, _ = model.get_rope_index(
            tokens["input_ids"],
            image_grid_thw=tokens.get("image_grid_thw"),
            attention_mask=tokens["attention_mask"],
            mm_token_type_ids=tokens["mm_token_type_ids"],
        )
        count = tokens["input_ids"].shape[1]
        tokens["attention_mask"] = torch.zeros(1, 1, count, count)  # nothing is masked
        hook = model.language_model.norm.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0])
        )
        model(**tokens, position_ids=positions)
        hook.remove()
        return seen[0]

    def embed_image(self, image: Image.Image) -> Vectors:
        cell = "<|vision_start|><|image_pad|><|vision_end|>"
        return self.embed(_chat(f"{cell}passage: "), image)

    def embed_text(self, text: str) -> Vectors:
        return self.embed(_chat(f"Query: query: {text}"))


def _chat(content: str) -> str:
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
    )


def _to_numpy(vectors: torch.Tensor) -> Vectors:
    [only] = vectors.float().numpy()
    return np.asarray(only)


def _save(directory: Path, **modules: torch.nn.Module) -> None:
    tensors = {
        f"{name}.{key}": tensor.clone()
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _change_config(directory: Path, **changes: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


LAYOUTS: dict[str, tuple[str, Callable[[Path], Layout]]] = {
    "colpali_hf": ("colpali_hf", NativeColPali),
    "colqwen2_hf": ("colqwen2_hf", NativeColQwen2),
    "colqwen2_hf, Qwen2.5": ("colqwen2_hf", NativeColQwen25),
    "colmodernvbert_hf": ("colmodernvbert_hf", NativeColModernVBert),
    "colqwen3_tomoro": ("colqwen3_tomoro", Tomoro),
    "nemotron_colembed": ("nemotron_colembed", Nemotron),
}
"""For each name the family that serves it, and what writes its checkpoint."""
