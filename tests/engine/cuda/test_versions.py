"""Each version of torch that is allowed has the operators that the CUDA path calls."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from benchmarks.emulated_cuda import emulated_cuda

from checkpoints import FAMILIES
from engine.cuda.conftest import TEXTS, Checkpoints, load_on_cuda, mean_cosine, prepare_pages
from engine.cuda.record_operators import RECORDED, VERSIONS
from pagevec.engine.models.registry import find_family

RECORD: dict[str, Any] = json.loads(RECORDED.read_text())
PACKED = [name for name in FAMILIES if find_family(name).packed]


@cache
def signature(version: str, name: str) -> Any:
    """Return the recorded signature of an operator."""
    signatures = RECORD[version]["signatures"]
    assert name in signatures, (
        f"torch {version} has no {name}, or it is not recorded: "
        f"python tests/engine/cuda/record_operators.py {name}"
    )
    return torch._C.parse_schema(signatures[name])


def refuse_other_signatures(version: str, func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise a TypeError if this version cannot be called like this."""
    name = func.name().removeprefix("aten::").removesuffix(".default")
    known = {one.name: one for one in signature(version, name).arguments}
    positional = [one for one in known.values() if not one.kwarg_only]
    called = func._schema.arguments[: len(args)]
    if len(called) > len(positional):
        raise TypeError(f"torch {version}: {name} takes {len(positional)} arguments")
    for ours, theirs in zip(called, positional, strict=False):
        if (ours.name, str(ours.type)) != (theirs.name, str(theirs.type)):
            raise TypeError(f"torch {version}: {name} has {theirs} where {ours} is meant")
    for one in kwargs:
        if one not in known:
            raise TypeError(f"torch {version}: {name} has no argument {one}")


@pytest.mark.parametrize("family", PACKED)
def test_the_packed_path_answers(family: str, checkpoints: Checkpoints) -> None:
    """Every operator of the start and of passes is called as each version declares it."""
    checkpoint = checkpoints.of(family)

    def check(func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        for version in VERSIONS:
            refuse_other_signatures(version, func, args, kwargs)

    with emulated_cuda(check=check):
        # The padded pass is transformers' own, which supports these versions itself.
        backend = load_on_cuda(checkpoint, forward="packed")
        pages, texts = prepare_pages(backend), list(backend.prepare_texts(TEXTS))
        assert mean_cosine(backend.forward(pages), checkpoint.pages) > 0.999
        assert mean_cosine(backend.forward(texts), checkpoint.texts) > 0.999


def test_the_record_is_of_this_torch() -> None:
    """What is recorded of the installed version is what it declares itself."""
    version = torch.__version__.partition("+")[0]
    if version not in VERSIONS:
        pytest.skip(f"torch {version} is not recorded")
    for name in RECORD["operators"]:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
        assert str(operator._schema) == str(signature(version, name))


def test_a_signature_that_a_version_lacks_is_noticed() -> None:
    """An argument that torch 2.10 does not know yet is refused, as it would be on that version."""
    attention = torch.ops.aten._flash_attention_forward.default
    if "num_splits" not in {one.name for one in attention._schema.arguments}:
        pytest.skip("this torch does not know it either")
    with pytest.raises(TypeError, match="no argument num_splits"):
        refuse_other_signatures("2.10.0", attention, (), {"num_splits": 1})
    refuse_other_signatures("2.13.0", attention, (), {"num_splits": 1})
