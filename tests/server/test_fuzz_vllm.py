"""Ten thousand malformed bodies on the paths of vLLM, Jina and OpenAI: documented statuses only."""

import base64
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import KEY, png
from processes import MIB, Process, environment, serving
from server.sending import Request, send

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

BODIES = 10_000
LIMITS = {
    "PAGEVEC_MAX_VISUAL_TOKENS": "16",
    "PAGEVEC_MAX_INPUTS": "8",
    "PAGEVEC_MAX_TEXT_CHARS": "64",
    "PAGEVEC_MAX_IMAGE_PIXELS": "4096",
    "PAGEVEC_MAX_IMAGE_BYTES": "8192",
    "PAGEVEC_MAX_BODY_BYTES": "65536",
    "PAGEVEC_LOG_LEVEL": "warning",
}
PAGE = base64.b64encode(png(48, 32)).decode()
PATHS = (
    *("/pooling", "/v1/embeddings", "/score", "/v1/score"),
    *("/rerank", "/v1/rerank", "/v2/rerank"),
)
NAMES = (
    "model", "input", "messages", "query", "queries", "documents", "items", "text_1", "text_2",
    "data_1", "data_2", "top_n", "encoding_format", "embed_dtype", "endianness", "task", "user",
    "return_multivector", "return_documents", "dimensions", "truncate_prompt_tokens", "more",
    "role", "content", "type", "text", "image", "image_url", "url",
)  # fmt: skip
WORDS = (
    "night route", "", "bundled", "float", "base64", "bytes", "float16", "big", "user", "text",
    "image_url", "token_embed", "\u0000", "\ud800", "\U0001f6a2" * 20, "x" * 65, PAGE,
    f"data:image/png;base64,{PAGE}", "https://example.org/x.png", "data:,", PAGE[:40],
)  # fmt: skip


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving(tmp_path_factory.mktemp("fuzz-vllm"), environment(**LIMITS)) as started:
        yield started


class Maker:
    """Makes requests at random: near those that are valid, and far from them."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)  # noqa: S311

    def make(self) -> Request:
        path = self._dice.choice(PATHS)
        whole = json.dumps(self._body(path)).encode()
        if self._dice.random() < 0.3:
            place = self._dice.randrange(len(whole))
            noise = self._dice.randbytes(self._dice.randrange(4))
            whole = whole[:place] + noise + whole[place + self._dice.randrange(3) :]
        key = KEY if self._dice.random() < 0.97 else self._dice.choice(["wrong", "", "\xff"])
        documented = {200, 400, 401, 404, 408, 413, 415, 429, 431, 503}
        return Request("POST", path, key, whole, "application/json", documented)

    def _body(self, path: str) -> Any:
        if self._dice.random() < 0.1:
            return self._value()
        fields: dict[str, Any] = {}
        if "rerank" in path:
            fields = {"query": self._input(), "documents": self._inputs()}
        elif "score" in path:
            fields = {"queries": self._inputs(), "documents": self._inputs()}
        elif "pooling" in path and self._dice.random() < 0.5:
            fields = {"messages": [{"role": "user", "content": self._parts()}]}
        else:
            fields = {"input": self._inputs(), "return_multivector": True}
            if "pooling" in path:
                del fields["return_multivector"]
        while self._dice.random() < 0.3:
            fields[self._dice.choice(NAMES)] = self._value()
        return fields

    def _inputs(self) -> Any:
        if self._dice.random() < 0.2:
            return self._input()
        return [self._input() for _ in range(self._dice.choice([0, 1, 1, 2, 3, 9, 12]))]

    def _input(self) -> Any:
        return self._dice.choice(
            [
                lambda: self._dice.choice(WORDS),
                lambda: "night route",
                lambda: {"text": self._dice.choice(WORDS)},
                lambda: {"image": self._dice.choice(WORDS[-5:])},
                lambda: {"content": self._parts()},
                self._value,
            ]
        )()

    def _parts(self) -> Any:
        kinds = [
            {"type": "text", "text": self._dice.choice(WORDS)},
            {"type": "image_url", "image_url": {"url": self._dice.choice(WORDS[-5:])}},
            {"type": "image_url", "image_url": f"data:image/png;base64,{PAGE}"},
            self._value(),
        ]
        return self._dice.choices(kinds, k=self._dice.choice([0, 1, 1, 1, 2]))

    def _value(self, depth: int = 0) -> Any:
        if depth < 4 and self._dice.random() < 0.4:
            inner = [self._value(depth + 1) for _ in range(self._dice.randrange(4))]
            if self._dice.random() < 0.5:
                return inner
            return {self._dice.choice(NAMES): one for one in inner}
        return self._dice.choice([None, True, 0, -1, 10**30, 1.5, *WORDS])


def test_malformed_bodies(process: Process) -> None:
    """10,000 of them: statuses that are documented, no fault, bounded memory, answers after."""
    maker = Maker(5)
    send(process.port, [maker.make() for _ in range(BODIES // 10)])
    warm = process.memory()
    statuses = send(process.port, [maker.make() for _ in range(BODIES)])
    grown = process.memory() - warm
    print(f"{dict(statuses)}, {warm // MIB} MiB, grown by {grown / MIB:.0f} MiB")
    assert {200, 400, 401, 404, 413} <= set(statuses)
    assert grown < 150 * MIB
    with process.client() as client:
        assert client.get("/health").json() == {"status": "alive"}
        assert client.post("/pooling", json={"input": "a"}).status_code == 200
    log = process.log.read_text()
    assert "Traceback" not in log and "internal error" not in log, log[-4000:]
