"""Clients of others, unmodified, against a real service: they get the vectors that pagevec has."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from conftest import Service
from pagevec.engine.embedder import LocalEmbedder
from pagevec.images import read_image
from pagevec.search.fusion import Mix, fuse
from pagevec.search.maxsim import maxsim
from pagevec.types import MultiVector, PageKey
from real_clients.environments import python_with, run_client

pytestmark = pytest.mark.long

PAGES = 60
WORDS = "harbour winter timetable ferry engine repairs lantern parcel bridge summer"


def draw_pages(folder: Path) -> list[dict[str, str]]:
    """Draw pages with three words each, all of them different; return their files and words."""
    words = WORDS.split()
    generator = np.random.default_rng(17)
    font, rows = ImageFont.load_default(36), list[dict[str, str]]()
    for number in range(PAGES):
        chosen = [words[place] for place in generator.permutation(len(words))[:3]]
        page = Image.new("RGB", (620, 440), "white")
        text = f"{chosen[0]} {number}\n\n{chosen[1]}\n\n{chosen[2]}"
        ImageDraw.Draw(page).text((60, 60), text, "black", font)
        page.save(folder / f"{number}.png")
        rows.append({"file": f"{number}.png", "query": f"{chosen[0]} {number} {chosen[2]}"})
    (folder / "pages.json").write_text(json.dumps(rows))
    return rows


def vectors(embedder: LocalEmbedder, *inputs: str | bytes) -> list[MultiVector]:
    if isinstance(inputs[0], bytes):
        images = [read_image(one) for one in inputs if isinstance(one, bytes)]
        return embedder.embed_images(images).result().vectors
    return embedder.embed_texts([str(one) for one in inputs]).result().vectors


def ndcg(scores: np.ndarray, right: int) -> float:
    """NDCG@10 of one query with one right page."""
    rank = int((scores > scores[right]).sum())
    return 1 / math.log2(rank + 2) if rank < 10 else 0.0


def test_mteb(service: Service, embedder: LocalEmbedder, tmp_path: Path) -> None:
    """Its classes encode and rerank page images; its evaluator gives the figure of `maxsim`."""
    rows = draw_pages(tmp_path)
    python = python_with("mteb==2.26.0")
    found = json.loads(
        run_client(python, "mteb_client.py", service.url, service.key, str(tmp_path)).splitlines()[
            -1
        ]
    )
    pages = vectors(embedder, *((tmp_path / row["file"]).read_bytes() for row in rows))
    queries = vectors(embedder, *(row["query"] for row in rows))
    assert found["shapes"] == [list(queries[0].shape), list(pages[0].shape)]
    np.testing.assert_allclose(found["scores"], maxsim(queries[1], pages[:4]), rtol=1e-3)
    assert found["best"] == 1
    expected = np.mean([ndcg(maxsim(one, pages), place) for place, one in enumerate(queries)])
    assert found["ndcg_at_10"] == pytest.approx(expected, abs=1e-4)
    assert expected > 0.5


def test_fusion_is_that_of_mteb() -> None:
    """Relevances are those of its `HybridSearch`, for random scores and weights, in both ways."""
    generator, cases = np.random.default_rng(5), list[dict[str, Any]]()
    for number in range(40):
        # It breaks ties by the highest id, pagevec by the first key: there are none.
        vectors = {str(place): float(one) for place, one in enumerate(generator.random(30) * 20)}
        text = {key: float(one) for key, one in zip(vectors, generator.random(30) * 9, strict=True)}
        text |= dict.fromkeys(list(text)[: generator.integers(1, 29)], 0.0)
        alpha, fusion = float(generator.random()), ("rsf", "rrf")[number % 2]
        # By places a page without the words has none; by scores it has the least.
        listed = {key: one for key, one in text.items() if one} if fusion == "rrf" else text
        weights = [alpha, 1 - alpha]
        cases.append({"scores": [vectors, listed], "weights": weights, "fusion": fusion, "t": text})
    python = python_with("mteb==2.26.0")
    fused = json.loads(run_client(python, "mteb_fusion.py", json.dumps(cases)).splitlines()[-1])
    for case, expected in zip(cases, fused, strict=True):
        vectors, text = (
            {PageKey(key, 1): one for key, one in scores.items()}
            for scores in (case["scores"][0], case["t"])
        )
        fusion = "rrf" if case["fusion"] == "rrf" else "relative"
        ours = fuse(vectors, text, Mix(alpha=case["weights"][0], fusion=fusion))
        assert {key.document: one for key, one in ours.items()} == pytest.approx(expected)


def test_langflow(service: Service, embedder: LocalEmbedder, tmp_path: Path) -> None:
    """Langflow's class gets the vectors of queries, texts and pages."""
    draw_pages(tmp_path)
    python = python_with("lfx-nextplaid==0.2.1")
    file = tmp_path / "0.png"
    printed = run_client(python, "langflow_client.py", service.url, service.key, str(file))
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    query, *documents = vectors(embedder, "night route", "fares in 2024", "a")
    np.testing.assert_allclose(found["query"], query, atol=1e-4)
    for one, expected in zip(found["documents"], documents, strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-4)
    [page] = vectors(embedder, file.read_bytes())
    [made] = np.array(found["pages"])  # it sends a JPEG
    assert np.mean(np.vecdot(made, page)) > 0.98


def test_openai(service: Service, embedder: LocalEmbedder) -> None:
    """OpenAI's client lists models, reads multi-vectors, and raises what the service says."""
    python = python_with("openai==3.57.0")
    printed = run_client(python, "openai_client.py", service.url, service.key)
    found = json.loads(printed.splitlines()[-1])
    assert found["models"] == ["bundled"]
    expected = vectors(embedder, "night route", "fares in 2024")
    for one, vector in zip(found["vectors"], expected, strict=True):
        np.testing.assert_allclose(one, vector, atol=1e-4)
    assert found["tokens"] > 10
    (first, said), (second, named) = found["refusals"]
    assert (first, second) == ("BadRequestError", "NotFoundError")
    assert "POST /pooling" in said and "gpt-4" in named
