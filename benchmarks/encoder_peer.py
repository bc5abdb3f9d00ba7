"""sentence-transformers' `MultiVectorEncoder` with the weights of a colpali-engine checkpoint."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

_CONTENT = (
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}IMAGE"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}"
)
_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def is_installed() -> bool:
    """Whether sentence-transformers is there."""
    return importlib.util.find_spec("sentence_transformers") is not None


def load_encoder(model: Any, processor: Any, device: torch.device) -> Any:
    """Return a `MultiVectorEncoder` that gives the vectors of a ColQwen2.5 model.

    Its modules are those of sentence-transformers: a transformer, which is read from a folder with
    a chat template that spells colpali-engine's prompt of a page, a projection, and a norm.

    Args:
        model: colpali-engine's ColQwen2_5, on any device.
        processor: its processor.
        device: where the encoder runs.
    """
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    projection = model.custom_text_proj
    with TemporaryDirectory() as folder:
        _save_backbone(model, processor, Path(folder))
        transformer = Transformer(folder, model_kwargs={"dtype": projection.weight.dtype})
    dense = Dense(
        projection.in_features,
        projection.out_features,
        activation_function=None,
        init_weight=projection.weight.detach().cpu(),
        init_bias=projection.bias.detach().cpu(),
        module_input_name="token_embeddings",
    )
    norm = Normalize(module_input_name="token_embeddings")
    modules = [transformer, dense, norm, MultiVectorMask()]
    return MultiVectorEncoder(modules=modules, device=str(device)).eval()


def embed_with(encoder: Any, batch: int) -> Callable[[Sequence[bytes]], list[Any]]:
    """Return a function from image files to multi-vectors, `batch` pages at a time."""

    def embed(files: Sequence[bytes]) -> list[Any]:
        pages = [Image.open(BytesIO(file)).convert("RGB") for file in files]
        vectors = encoder.encode_document(pages, batch_size=batch, show_progress_bar=False)
        return [one.float().cpu().numpy() for one in vectors]

    return embed


def _save_backbone(model: Any, processor: Any, folder: Path) -> None:
    """Save what transformers' AutoModel and AutoProcessor read: no projection, a chat template."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

    weights = {n: w.cpu() for n, w in model.state_dict().items() if "custom_text_proj" not in n}
    with torch.device("meta"):
        backbone = Qwen2_5_VLModel(model.config)
    backbone.load_state_dict(weights, assign=True, strict=False)
    backbone.save_pretrained(folder)
    processor.save_pretrained(folder)
    file = folder / "processor_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "processor_class": "Qwen2_5_VLProcessor"}))
    prompt = processor.visual_prompt_prefix.replace(_IMAGE, _CONTENT.replace("IMAGE", _IMAGE))
    template = "{% for message in messages %}" + prompt + "{% endfor %}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
