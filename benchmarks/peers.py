"""The engine beside others on the same weights and pages: files in, arrays out."""

import gc
import importlib.util
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks import data
from benchmarks.encoder_peer import embed_with, load_encoder
from benchmarks.encoder_peer import is_installed as has_encoder
from benchmarks.machine import time_once
from benchmarks.models import DEVICE, MODEL, compare_vectors, make_settings, name_model, run_engine
from benchmarks.report import Measurement, Row, Table, make_command, number_option
from pagevec.engine.embedder import LocalEmbedder
from pagevec.engine.models.compat import import_torchvision
from pagevec.engine.models.registry import identify_family
from pagevec.images import read_image
from pagevec.types import ModelInfo, MultiVector

Embed = Callable[[list[bytes]], list[Any]]
_COLUMNS = {
    "engine": "engine",
    "pages/s": "pages_per_second:.2f",
    "rounds": "rounds:.2f",
    "x plain loop": "ratio:.2f",
    "x the best of the others": "ratio_to_best:.2f",
}
_OURS = "pagevec"
_BATCHES = (1, 4, 8)


@dataclass(frozen=True)
class Way:
    """A way to call colpali-engine.

    Attributes:
        name: in the table.
        attention: transformers' name of the implementation.
        batch: pages of one forward pass.
        plain: lists of numbers, padding kept, garbage collected after each batch.
    """

    name: str
    attention: str
    batch: int
    plain: bool = False


PLAIN = Way("plain loop (eager, one page, lists, collecting)", "eager", 1, plain=True)
SDPA = tuple(Way(f"colpali-engine, sdpa, batch {n}", "sdpa", n) for n in _BATCHES)
FLASH = tuple(
    Way(f"colpali-engine, flash-attn, batch {n}", "flash_attention_2", n) for n in _BATCHES[1:]
)


class ColpaliEngine:
    """The model and the processor of a checkpoint's family, on one device.

    Attributes:
        model: colpali-engine's model.
        processor: its processor.
        family: name of the family.
    """

    def __init__(self, checkpoint: Path, device: torch.device, dtype: torch.dtype) -> None:
        import_torchvision()
        from colpali_engine import models

        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        family = identify_family(config, str(checkpoint))
        model: Any = getattr(models, family.model_class)
        self.model = model.from_pretrained(checkpoint, dtype=dtype).to(device).eval()
        self.processor = getattr(models, family.processor_class).from_pretrained(checkpoint)
        self.family = family.name
        self._device = device

    def embed(self, way: Way, files: Sequence[bytes]) -> list[Any]:
        """Return a multi-vector for each image file: arrays without padding, or plain lists."""
        self.model.set_attn_implementation(way.attention)
        starts = range(0, len(files), way.batch)
        return [one for start in starts for one in self._embed(files[start:][: way.batch], way)]

    def _embed(self, files: Sequence[bytes], way: Way) -> list[Any]:
        pages = [Image.open(BytesIO(file)).convert("RGB") for file in files]
        batch = self.processor.process_images(pages).to(self._device)
        with torch.inference_mode():
            vectors = self.model(**batch)
        if not way.plain:
            return _remove_padding(vectors, batch["attention_mask"])
        rows: list[Any] = vectors.cpu().float().tolist()
        del batch, vectors
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return rows


def measure(checkpoint: Path, device: str, pages: int, rounds: int) -> Measurement:
    """Compare the engine with colpali-engine and sentence-transformers, in turn in each round.

    On a CPU the engine runs with `PAGEVEC_PRECISION=fastest`, too.
    """
    return compare(checkpoint, device, data.make_pages(pages), rounds)


def compare(checkpoint: Path, device: str, pages: list[bytes], rounds: int) -> Measurement:
    """Measure all engines on `pages`, in turn, after one round that warms them up."""
    with ExitStack() as stack:
        ours = stack.enter_context(run_engine(make_settings(checkpoint, device)))
        info = ours.info()
        theirs = ColpaliEngine(checkpoint, torch.device(info.device), getattr(torch, info.dtype))
        ways = [PLAIN, *SDPA, *(FLASH if _has_flash(info.device) else ())]
        engines: dict[str, Embed] = {way.name: partial(theirs.embed, way) for way in ways}
        engines |= _encoders(theirs, torch.device(info.device))
        engines[_OURS] = partial(_embed, ours)
        if info.device == "cpu":
            settings = make_settings(checkpoint, device, precision="fastest")
            fastest = stack.enter_context(run_engine(settings))
            engines[f"{_OURS}, fastest: {_numbers(fastest.info())}"] = partial(_embed, fastest)
        answers = {name: embed(pages) for name, embed in engines.items()}
        rates: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(rounds):
            for name, embed in engines.items():
                rates[name].append(len(pages) / time_once(partial(embed, pages)))
    near = compare_vectors(answers[_OURS], answers[SDPA[0].name])
    setup = {
        "model": name_model(checkpoint),
        "device": info.device,
        "dtype": info.dtype,
        "pages": len(pages),
    }
    remark = (
        f"largest difference {near.difference:.0e}, smallest cosine {near.cosine:.6f}, "
        f"equal signs {near.signs:.2%}"
    )
    note = "" if has_encoder() else "sentence-transformers is not installed: it took no part."
    tables = {"rates": Table(_COLUMNS, _make_rows(rates), note=note)}
    return Measurement("peers", setup, tables, {"agreement": asdict(near)}, remark)


def _embed(engine: LocalEmbedder, files: Sequence[bytes]) -> list[MultiVector]:
    embedded = engine.embed_images([read_image(file) for file in files]).result()
    return list(embedded.vectors)


def _encoders(theirs: ColpaliEngine, device: torch.device) -> dict[str, Embed]:
    """Return sentence-transformers' ways, where it is installed and knows the family."""
    if not has_encoder() or theirs.family != "colqwen2_5":
        return {}
    encoder = load_encoder(theirs.model, theirs.processor, device)
    return {f"sentence-transformers, batch {n}": embed_with(encoder, n) for n in _BATCHES}


def _numbers(info: ModelInfo) -> str:
    return info.dtype if info.precision == "full" else info.precision


def _make_rows(rates: dict[str, list[float]]) -> list[Row]:
    medians = {name: statistics.median(rounds) for name, rounds in rates.items()}
    plain = medians[PLAIN.name]
    best = max(rate for name, rate in medians.items() if not name.startswith(_OURS))
    return [
        {
            "engine": name,
            "pages_per_second": rate,
            "rounds": rates[name],
            "ratio": rate / plain,
            "ratio_to_best": rate / best,
        }
        for name, rate in medians.items()
    ]


def _remove_padding(vectors: torch.Tensor, mask: torch.Tensor) -> list[MultiVector]:
    """Cut `vectors` (pages, tokens, dim) into pages by `mask` (pages, tokens)."""
    arrays, kept = vectors.float().cpu().numpy(), mask.cpu().numpy().astype(bool)
    return [rows[real] for rows, real in zip(arrays, kept, strict=True)]


def _has_flash(device: str) -> bool:
    return device.startswith("cuda") and importlib.util.find_spec("flash_attn") is not None


main = make_command(
    measure, MODEL, DEVICE, number_option("--pages", 8), number_option("--rounds", 3)
)

if __name__ == "__main__":
    main()
