"""Is a checkpoint there, and whole? Its files are looked at before libraries read them.

What libraries say about a damaged file names neither the file nor what to do.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pagevec.errors import CheckpointError, ConfigurationError

_POINTER = b"version https://git-lfs.github.com/spec/"
_AGAIN = "download the checkpoint again"
_CAUSE_CHARS = 240

# Of the many files in a folder, those that are read where they are there.
_JSON = (
    "config.json",
    "adapter_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "chat_template.json",
)
_OTHERS = ("tokenizer.model", "merges.txt", "vocab.txt", "chat_template.jinja")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
# In the order in which transformers and PEFT look for them.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@contextmanager
def reading(fault: str, folder: Path | None = None) -> Iterator[None]:
    """Let whatever a library raises while it reads become one sentence.

    Args:
        fault: what is wrong then, such as `NAME cannot be read`; the cause follows.
        folder: holds the files; one of them that is damaged is named.

    Raises:
        CheckpointError: in place of any exception but those about settings.
    """
    try:
        yield
    except (CheckpointError, ConfigurationError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # Rust's panics are no Exception
        cause = describe(error)
        try:
            if folder is not None:
                require_whole(folder)
        except CheckpointError as damage:
            raise CheckpointError(f"{damage.message} ({cause})") from error
        raise CheckpointError(f"{fault}: {cause}") from error


def describe(error: BaseException) -> str:
    """Return in one short line what a library says."""
    said = " ".join(str(error).split())
    named = said if isinstance(error, OSError) and said else f"{type(error).__name__}: {said}"
    return named if len(named) <= _CAUSE_CHARS else f"{named[:_CAUSE_CHARS]}..."


def require_whole(folder: Path) -> None:
    """Check that the files of a checkpoint or an adapter are there and whole.

    Only beginnings and sizes of weights are looked at, so this takes no time.

    Raises:
        CheckpointError: naming the file at fault, and what to do.
    """
    files = _list(folder)
    for name in _JSON:
        if name in files:
            read_json(folder / name)
    for name in _OTHERS:
        if name in files:
            _read_start(folder / name)
    is_adapter = "adapter_config.json" in files
    if not is_adapter and "config.json" not in files:
        raise CheckpointError(
            f"{folder} has no config.json: it is not the folder of a model, or incomplete; {_AGAIN}"
        )
    wanted = _ADAPTER_WEIGHTS if is_adapter else _WEIGHTS
    weights = next((name for name in wanted if name in files), None)
    if weights is None:
        raise CheckpointError(f"{folder} has no weights ({wanted[0]}): {_AGAIN}")
    for name in _shards(folder / weights) if weights.endswith(".index.json") else [weights]:
        _require_whole_weights(folder / name)


def require_vocabulary(folder: Path) -> None:
    """Check that a folder has a tokenizer: libraries make an empty one in its place.

    Raises:
        CheckpointError: it has none.
    """
    if not any(name in _VOCABULARIES for name in _list(folder)):
        raise CheckpointError(f"{folder} has no tokenizer ({_VOCABULARIES[0]}): {_AGAIN}")


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`.

    Raises:
        CheckpointError: it cannot be read, or holds anything else.
    """
    _read_start(file)
    try:
        content = json.loads(file.read_bytes().decode("utf-8"))
    except UnicodeDecodeError:
        raise CheckpointError(f"{file} is not text in UTF-8: {_AGAIN}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not valid JSON ({error}): {_AGAIN}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a JSON object: {_AGAIN}")
    return content


def _list(folder: Path) -> frozenset[str]:
    try:
        names = frozenset(one.name for one in folder.iterdir())
    except NotADirectoryError:
        raise CheckpointError(f"{folder} is a file: name the folder that it is in") from None
    except FileNotFoundError:
        raise CheckpointError(f"there is no folder {folder}: correct PAGEVEC_MODEL") from None
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}") from None
    if not names:
        raise CheckpointError(f"{folder} is empty: {_AGAIN}")
    return names


def _read_start(file: Path) -> bytes:
    """Return the first bytes of a file that is one, has something in it, and is no pointer."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_POINTER))
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing: {_AGAIN}") from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    if not start:
        raise CheckpointError(f"{file} is empty: {_AGAIN}")
    if start == _POINTER:
        raise CheckpointError(
            f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in "
            f"{file.parent}, or {_AGAIN}"
        )
    return start


def _shards(index: Path) -> list[str]:
    content = read_json(index)
    shards = content.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(one, str) for one in shards.values()):
        raise CheckpointError(f"{index} has no weight_map of file names: {_AGAIN}")
    if not isinstance(content.get("metadata"), dict):
        raise CheckpointError(f"{index} has no metadata: {_AGAIN}")
    return sorted(set(shards.values()))


def _require_whole_weights(file: Path) -> None:
    start = _read_start(file)
    if file.suffix != ".safetensors":
        return
    size = file.stat().st_size
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > size - 8:
        raise CheckpointError(f"{file} is damaged, or ends too early: {_AGAIN}")
    with file.open("rb") as opened:
        opened.seek(8)
        header = opened.read(length)
    try:
        tensors = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
        ends = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        whole = {k: v["dtype"] for k, v in tensors.items() if str(v["dtype"])[0] in "IUB"}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise CheckpointError(f"{file} has no header of a safetensors file: {_AGAIN}") from None
    if size != 8 + length + ends:
        raise CheckpointError(
            f"{file} has {size:,} bytes where its header says {8 + length + ends:,}: {_AGAIN}"
        )
    for name, dtype in whole.items():
        if name.endswith(".weight") and dtype != "BF16":
            raise CheckpointError(
                f"{file} has whole numbers ({dtype}) in {name}: a quantized checkpoint cannot be "
                "served; take the one that it was made from (PAGEVEC_PRECISION quantizes)"
            )
