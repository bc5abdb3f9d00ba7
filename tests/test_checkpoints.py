"""The tiny checkpoints are laid out as colpali-engine's own classes expect, and sensitive."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from checkpoints import (
    FAMILIES,
    LEGACY_ADAPTERS,
    build_adapter,
    build_checkpoint,
    model_class,
    processor_class,
)
from conftest import png


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family: str = request.param
    return build_checkpoint(family, tmp_path_factory.mktemp("checkpoints") / family)


def digests(tensors: dict[str, torch.Tensor]) -> list[str]:
    return sorted(
        hashlib.sha256(
            f"{t.shape}".encode() + t.detach().contiguous().numpy().tobytes()
        ).hexdigest()
        for t in tensors.values()
    )


def test_every_tensor_has_its_place(checkpoint: Path) -> None:
    """colpali-engine loads every tensor of the file, renamed but unchanged, and needs no other."""
    cls = model_class(checkpoint.name)
    model, report = cls.from_pretrained(checkpoint, output_loading_info=True)
    assert not any(report.values()), report
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    # ColPali never reads its language model's head, and its published files do not have it.
    parameters = {n: p for n, p in model.named_parameters() if "lm_head" not in n}
    assert digests(parameters) == digests(load_file(checkpoint / "model.safetensors"))


def test_every_part_reaches_the_last_vector(checkpoint: Path) -> None:
    """A page's corner and a text's first word change the last vector: a wrong mask would show."""
    model = model_class(checkpoint.name).from_pretrained(checkpoint).eval()
    processor = processor_class(checkpoint.name).from_pretrained(checkpoint)
    page = Image.open(BytesIO(png(300, 200))).convert("RGB")
    changed = page.copy()
    changed.paste((0, 0, 0), (0, 0, 60, 60))

    @torch.inference_mode()
    def last(batch: Any) -> torch.Tensor:
        vectors: torch.Tensor = model(**batch)[batch["attention_mask"].bool()]
        return vectors[-1]

    for one, other in (
        (processor.process_images([page]), processor.process_images([changed])),
        (processor.process_queries(["red page"]), processor.process_queries(["new page"])),
    ):
        assert (last(one) - last(other)).abs().max() > 1e-3


def test_same_bytes_again(checkpoint: Path, tmp_path: Path) -> None:
    """Two builds of a checkpoint are equal, so a failure can be repeated."""
    again = build_checkpoint(checkpoint.name, tmp_path)
    for file in checkpoint.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("family", LEGACY_ADAPTERS)
def test_older_adapters_have_the_published_names(family: str, tmp_path: Path) -> None:
    """Legacy adapters differ from today's in nothing but the names, those of the published ones."""
    base = build_checkpoint(family, tmp_path / "base")
    build_adapter(family, base, tmp_path / "today")
    build_adapter(family, base, tmp_path / "legacy", legacy_keys=True)
    today, legacy = (
        load_file(tmp_path / kind / "adapter_model.safetensors") for kind in ("today", "legacy")
    )
    text_model = "model.language_model.model" if family == "colpali" else "model"
    assert f"base_model.model.{text_model}.layers.0.self_attn.q_proj.lora_A.weight" in legacy
    assert "base_model.model.custom_text_proj.lora_B.weight" in legacy
    assert not any("vision" in name or "visual" in name for name in legacy)
    assert not {n for n in today if ".layers." in n} & set(legacy)
    assert digests(legacy) == digests(today)
