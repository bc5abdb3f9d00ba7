"""Checkpoints as sentence-transformers 6 writes them: a list of modules, each in a folder.

A `MultiVectorEncoder` is a backbone at the root of the checkpoint, whose chat template spells the
prompts, and a `Dense` module that projects each token. What differs from the families of
colpali-engine in anything else is left to sentence-transformers.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pagevec.errors import CheckpointError

FindFile = Callable[[str], Path | None]
"""Returns the path of a checkpoint's file, by its name; None if it has none."""

_SERVE_IT = "serve it with PAGEVEC_FAMILY=sentence-transformers"
# Modules that change no vector, with the options that would make them do so.
_HARMLESS = {"Normalize": (), "MultiVectorMask": ("keep_only_token_ids",)}


@dataclass(frozen=True)
class _Module:
    kind: str
    folder: str
    config: Mapping[str, Any]


def read_projection(source: str, find: FindFile) -> torch.nn.Linear | None:
    """Return the projection of a `MultiVectorEncoder`; None where `source` is none.

    Args:
        source: name of the checkpoint, for errors.
        find: finds its files.

    Raises:
        CheckpointError: it has modules that are not a backbone, a projection and a norm.
    """
    modules = _read_modules(find)
    if modules is None:
        return None
    backbone, *others = modules
    dense = [module for module in others if module.kind == "Dense"]
    strange = [module.kind for module in others if not _is_known(module)]
    if backbone.kind != "Transformer" or backbone.folder or len(dense) != 1 or strange:
        named = ", ".join(module.kind for module in modules)
        raise CheckpointError(
            f"{source} has modules of sentence-transformers ({named}) that are more than a "
            f"backbone and a projection: {_SERVE_IT}"
        )
    return _read_linear(f"{dense[0].folder}/model.safetensors", source, find)


def require_same_prompts(source: str, processor: Any, find: FindFile) -> None:
    """Check that the chat template spells the prompts of colpali-engine's processor.

    Args:
        source: name of the checkpoint, for errors.
        processor: the processor.
        find: finds the checkpoint's files.

    Raises:
        CheckpointError: it spells others.
    """
    settings = _read(find("config_sentence_transformers.json")) or {}
    query = _render(processor, {"type": "text", "text": "page"})
    same = (
        not any((settings.get("prompts") or {}).values())
        and _render(processor, {"type": "image"}) == processor.visual_prompt_prefix
        and processor.tokenizer(query)["input_ids"]
        == processor.process_queries(["page"])["input_ids"][0].tolist()
    )
    if not same:
        raise CheckpointError(
            f"{source} has other prompts than colpali-engine has for its family: {_SERVE_IT}"
        )


def _read_modules(find: FindFile) -> list[_Module] | None:
    listed = _read(find("modules.json"))
    if not listed:
        return None
    modules = []
    for one in sorted(listed, key=lambda one: int(one["idx"])):
        folder = str(one["path"])
        config = _read(find(f"{folder}/config.json")) if folder else None
        modules.append(_Module(str(one["type"]).rpartition(".")[2], folder, config or {}))
    return modules


def _is_known(module: _Module) -> bool:
    config = module.config
    if module.kind == "Dense":
        is_linear = str(config.get("activation_function")).endswith("Identity")
        of_tokens = config.get("module_input_name", "token_embeddings") == "token_embeddings"
        return is_linear and of_tokens and not config.get("use_residual")
    return module.kind in _HARMLESS and not any(map(config.get, _HARMLESS[module.kind]))


def _read_linear(file: str, source: str, find: FindFile) -> torch.nn.Linear:
    from safetensors.torch import load_file

    path = find(file)
    if path is None:
        raise CheckpointError(f"{source} has no {file}: download the checkpoint again")
    tensors = load_file(path)
    weight, bias = tensors["linear.weight"], tensors.get("linear.bias")
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return linear


def _render(processor: Any, *content: dict[str, str]) -> str:
    message = {"role": "user", "content": list(content)}
    rendered: str = processor.apply_chat_template([message], tokenize=False, task="query")
    return rendered


def _read(file: Path | None) -> Any:
    return None if file is None else json.loads(file.read_text(encoding="utf-8"))
