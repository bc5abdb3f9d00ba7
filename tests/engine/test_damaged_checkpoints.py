"""A damaged checkpoint ends the start with one sentence that names the file and what to do."""

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pagevec
from checkpoints import build_adapter, build_checkpoint
from conftest import png
from pagevec.errors import CheckpointError
from processes import environment, run_to_the_end

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
WEIGHTS = "model.safetensors"
FAMILIES = ("colqwen2_5", "colpali", "colidefics3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good checkpoint of each of `FAMILIES`, and an adapter of the first."""
    folder = tmp_path_factory.mktemp("made")
    for family in FAMILIES:
        build_checkpoint(family, folder / family)
    build_adapter(FAMILIES[0], folder / FAMILIES[0], folder / "adapter")
    return folder


def copy_of(made: Path, name: str, folder: Path) -> Path:
    """Return a copy of a checkpoint; that of an adapter has a copy of its base beside it."""
    shutil.copytree(made / name, folder / name)
    if name == "adapter":
        base = shutil.copytree(made / FAMILIES[0], folder / FAMILIES[0])
        edit_json(folder / name / "adapter_config.json", base_model_name_or_path=str(base))
    return folder / name


def vectors_of(folder: Path) -> list[Any]:
    with pagevec.load(str(folder), device="cpu") as model:
        return [*model.embed_texts(["fares"]), *model.embed_images([png(200, 280)])]


def check_sentence(message: str, folder: Path, file: str = "") -> None:
    """Check that a message is one sentence that names the folder, and the file."""
    assert str(folder) in message
    assert file in message
    assert "\n" not in message and len(message) < 700, message
    assert "Traceback" not in message


def edit_json(file: Path, *removed: str, **changed: Any) -> None:
    content = {**json.loads(file.read_text()), **changed}
    file.write_text(json.dumps({k: v for k, v in content.items() if k not in removed}))


def edit_weights(file: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def split(folder: Path, *, missing: bool = False, empty: bool = False) -> None:
    """Make shards of the weights, with an index."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2]}
    shards["model-00002-of-00002.safetensors"] = names[1::2]
    for shard, of in shards.items():
        save_file({name: tensors[name] for name in of}, folder / shard, {"format": "pt"})
    index = {name: shard for shard, of in shards.items() for name in of}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / WEIGHTS).unlink()
    if missing:
        (folder / "model-00002-of-00002.safetensors").unlink()
    if empty:
        (folder / "model-00002-of-00002.safetensors").write_bytes(b"")


def drop_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[max(tensors)]


def add_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.extra.weight"] = torch.ones(2)


def reshape_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if name.endswith("mlp.down_proj.weight"))
    tensors[name] = tensors[name].T.contiguous()


def quantize_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if name.endswith("mlp.down_proj.weight"))
    tensors[name] = tensors[name].to(torch.int8)


def as_folder(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def cut(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


Damage = tuple[str, Callable[[Path], object], str]
DAMAGES: dict[str, Damage] = {
    "pointer": ("colqwen2_5", lambda f: (f / WEIGHTS).write_bytes(POINTER), WEIGHTS),
    "pointer of a tokenizer": (
        "colqwen2_5",
        lambda f: (f / "tokenizer.json").write_bytes(POINTER),
        "tokenizer.json",
    ),
    "no tokenizer": (
        "colqwen2_5",
        lambda f: [one.unlink() for one in (*f.glob("token*"), *f.glob("[vm]*s.txt"))],
        "tokenizer.json",
    ),
    "empty config": (
        "colqwen2_5",
        lambda f: (f / "config.json").write_text("{}"),
        "config.json",
    ),
    "config without a byte": (
        "colqwen2_5",
        lambda f: (f / "config.json").write_text(""),
        "config.json",
    ),
    "config that is no JSON": (
        "colqwen2_5",
        lambda f: (f / "config.json").write_text("model_type: qwen"),
        "config.json",
    ),
    "config that is a list": (
        "colqwen2_5",
        lambda f: (f / "config.json").write_text("[]"),
        "config.json",
    ),
    "config in UTF-16": (
        "colqwen2_5",
        lambda f: (f / "config.json").write_text((f / "config.json").read_text(), "utf-16"),
        "config.json",
    ),
    "config of another model": (
        "colqwen2_5",
        lambda f: edit_json(f / "config.json", model_type="bert"),
        "config.json",
    ),
    "config with a model_type that is no text": (
        "colqwen2_5",
        lambda f: edit_json(f / "config.json", model_type={"a": []}),
        "config.json",
    ),
    "config with a value of the wrong type": (
        "colqwen2_5",
        lambda f: edit_json(f / "config.json", vision_config="large"),
        "",
    ),
    "no config": ("colqwen2_5", lambda f: (f / "config.json").unlink(), "config.json"),
    "truncated weights": ("colqwen2_5", lambda f: cut(f / WEIGHTS, 0.7), WEIGHTS),
    "weights cut in the header": ("colpali", lambda f: cut(f / WEIGHTS, 0.001), WEIGHTS),
    "weights of zeros": (
        "colqwen2_5",
        lambda f: (f / WEIGHTS).write_bytes(bytes(9000)),
        WEIGHTS,
    ),
    "weights with more at the end": (
        "colqwen2_5",
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes() + b"more"),
        WEIGHTS,
    ),
    "no weights": ("colqwen2_5", lambda f: (f / WEIGHTS).unlink(), WEIGHTS),
    "weights that are a folder": ("colqwen2_5", lambda f: as_folder(f / WEIGHTS), WEIGHTS),
    "a shard is missing": ("colqwen2_5", lambda f: split(f, missing=True), "00002-of-00002"),
    "a shard is empty": ("colqwen2_5", lambda f: split(f, empty=True), "00002-of-00002"),
    "an index of nothing": (
        "colqwen2_5",
        lambda f: (split(f), (f / f"{WEIGHTS}.index.json").write_text('{"weight_map": [1]}')),
        "index.json",
    ),
    "a tensor is missing": (
        "colqwen2_5",
        lambda f: edit_weights(f / WEIGHTS, drop_a_tensor),
        "missing",
    ),
    "a tensor too many": (
        "colqwen2_5",
        lambda f: edit_weights(f / WEIGHTS, add_a_tensor),
        "model.extra",
    ),
    "a tensor of another shape": (
        "colqwen2_5",
        lambda f: edit_weights(f / WEIGHTS, reshape_a_tensor),
        "",
    ),
    "a tensor of whole numbers": (
        "colqwen2_5",
        lambda f: edit_weights(f / WEIGHTS, quantize_a_tensor),
        "down_proj",
    ),
    "no processor": (
        "colqwen2_5",
        lambda f: [one.unlink(missing_ok=True) for one in f.glob("*process*.json")],
        "",
    ),
    "a processor of nothing": (
        "colpali",
        lambda f: (f / "preprocessor_config.json").write_text('{"size": "big"}'),
        "",
    ),
    "truncated tokenizer": ("colpali", lambda f: cut(f / "tokenizer.json", 0.6), "tokenizer.json"),
    "a tokenizer of nothing": (
        "colqwen2_5",
        lambda f: (f / "tokenizer.json").write_text('{"version": "1.0", "model": {}}'),
        "",
    ),
    "an adapter without its base": (
        "adapter",
        lambda f: edit_json(f / "adapter_config.json", base_model_name_or_path="/gone/base"),
        "/gone/base",
    ),
    "an adapter that names no base": (
        "adapter",
        lambda f: edit_json(f / "adapter_config.json", "base_model_name_or_path"),
        "adapter_config.json",
    ),
    "an adapter with a broken config": (
        "adapter",
        lambda f: (f / "adapter_config.json").write_text('{"r": 4,'),
        "adapter_config.json",
    ),
    "an adapter of an unknown kind": (
        "adapter",
        lambda f: edit_json(f / "adapter_config.json", peft_type="MAGIC"),
        "",
    ),
    "an adapter without weights": (
        "adapter",
        lambda f: (f / "adapter_model.safetensors").unlink(),
        "adapter_model.safetensors",
    ),
    "an adapter's weights as a pointer": (
        "adapter",
        lambda f: (f / "adapter_model.safetensors").write_bytes(POINTER),
        "adapter_model.safetensors",
    ),
    "an empty folder": ("colqwen2_5", lambda f: (shutil.rmtree(f), f.mkdir()), ""),
    "no folder": ("colqwen2_5", shutil.rmtree, ""),
    "a file in place of the folder": (
        "colqwen2_5",
        lambda f: (shutil.rmtree(f), f.write_bytes(b"x")),
        "",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage(name: str, made: Path, tmp_path: Path) -> None:
    """Each is one sentence, within seconds, that names the file, or the folder where all count."""
    checkpoint, damage, named = DAMAGES[name]
    folder = copy_of(made, checkpoint, tmp_path)
    damage(folder)
    started = time.monotonic()
    with pytest.raises(CheckpointError) as refused:
        pagevec.load(str(folder), device="cpu")
    check_sentence(refused.value.message, folder, named)
    assert time.monotonic() - started < 30


def test_shards_that_are_whole(made: Path, tmp_path: Path) -> None:
    """What is not damaged loads: weights in shards give the vectors of those in one file."""
    folder = copy_of(made, "colqwen2_5", tmp_path)
    before = vectors_of(folder)
    split(folder)
    for one, other in zip(before, vectors_of(folder), strict=True):
        assert np.abs(one - other).max() < 1e-5


def change_at_random(content: Any, chance: random.Random) -> None:
    """Remove or replace one value of a JSON object, at any depth."""
    inner = [one for one in content.values() if isinstance(one, dict) and one]
    if inner and chance.random() < 0.7:
        change_at_random(chance.choice(inner), chance)
        return
    key = chance.choice(sorted(content))
    if chance.random() < 0.3:
        del content[key]
    else:
        content[key] = chance.choice([None, "text", -1, 0, 3, 1e9, [], {}, [[1]], True])


def damage_at_random(folder: Path, chance: random.Random) -> bool:
    """Damage one file of `folder`.

    Returns:
        Whether all of the file is damaged: then a model that loads cannot have needed it.
    """
    file = chance.choice(sorted(one for one in folder.iterdir() if one.is_file()))
    content = file.read_bytes()
    read = json.loads(content) if file.suffix == ".json" else {}
    kinds: dict[str, Callable[[], object]] = {
        "deleted": file.unlink,
        "empty": lambda: file.write_bytes(b""),
        "a pointer": lambda: file.write_bytes(POINTER),
        "zeros": lambda: file.write_bytes(bytes(len(content))),
        "cut": lambda: file.write_bytes(content[: chance.randrange(len(content))]),
        "a folder": lambda: as_folder(file),
        "noise": lambda: file.write_bytes(chance.randbytes(len(content))),
        "noise at the start": lambda: file.write_bytes(chance.randbytes(64) + content[64:]),
        "in UTF-16": lambda: file.write_bytes(content.decode("latin-1").encode("utf-16")),
        "no JSON": lambda: file.write_bytes(content.replace(b":", b" ", 1)),
        "a list": lambda: file.write_bytes(b"[" + content + b"]"),
    }
    if read and chance.random() < 0.5:
        change_at_random(read, chance)
        file.write_text(json.dumps(read))
        return False
    kinds[chance.choice(sorted(kinds))]()
    return True


@pytest.mark.parametrize(
    "seed",
    [pytest.param(n, marks=[pytest.mark.long] if n >= 15 else []) for n in range(150)],
)
def test_damage_at_random(seed: int, made: Path, tmp_path: Path) -> None:
    """A file damaged at random was not needed, or one sentence names it or its folder."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    name = chance.choice([*FAMILIES, "adapter"])
    folder = copy_of(made, name, tmp_path)
    before = vectors_of(folder)
    is_whole_file = damage_at_random(folder, chance)
    try:
        vectors = vectors_of(folder)
    except CheckpointError as error:
        check_sentence(error.message, tmp_path)
    else:
        for one, good in zip(vectors, before, strict=True):
            assert np.abs(np.linalg.norm(one, axis=1) - 1).max() < 1e-3
            assert not is_whole_file or np.abs(one - good).max() < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("name", ["pointer", "no tokenizer", "an empty folder"])
def test_the_service_does_not_start(name: str, made: Path, tmp_path: Path) -> None:
    """`pagevec serve` logs the sentence, without a traceback, and ends with exit code 1."""
    checkpoint, damage, named = DAMAGES[name]
    folder = copy_of(made, checkpoint, tmp_path)
    damage(folder)
    done = run_to_the_end(tmp_path, environment(PAGEVEC_MODEL=str(folder)), "--device", "cpu")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if "startup failed" in line]
    assert str(folder) in line and named in line
