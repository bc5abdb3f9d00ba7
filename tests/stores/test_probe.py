"""How sign bits are compared: in numpy, and in machine code once that pays."""

import logging
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pagevec.stores import probe
from pagevec.stores.probe import (
    Probe,
    ReadBlock,
    as_words,
    compare_blocks,
    compare_in_numpy,
    pool_similar,
)


@pytest.mark.parametrize("dim", [1, 64, 100, 128, 320, 2048])
def test_machine_code_compares_as_numpy_does(dim: int) -> None:
    """Distances are equal to the last bit, for pages of one vector and of many."""
    compare = probe._Choice().comparison(1 << 20)
    assert compare is not compare_in_numpy
    random = np.random.default_rng(dim)
    for lengths in ([1], [1, 1, 1], [700, 1, 33, 512], random.integers(1, 90, 40).tolist()):
        bits = np.packbits(random.integers(0, 2, (sum(lengths), dim), dtype=np.uint8), axis=1)
        words = as_words(bits, -(-dim // 64))
        words.flags.writeable = False  # as what is read from a file
        starts = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        query = Probe.of(random.standard_normal((9, dim), dtype=np.float32))
        expected = compare_in_numpy(words.T, starts, query)
        np.testing.assert_array_equal(compare(words.T, starts, query), expected)
        planes = np.ascontiguousarray(words.T)
        np.testing.assert_array_equal(compare(planes, starts, query), expected)


def test_blocks_are_compared_in_order() -> None:
    """Blocks of any sizes, empty ones too, give the distances of their pages, one by one."""
    random = np.random.default_rng(0)
    pages = [
        np.packbits(random.integers(0, 2, (count, 100), dtype=np.uint8), axis=1)
        for count in random.integers(1, 40, 300).tolist()
    ]
    ends = [0, 0, 1, 40, 41, 41, 150, 299, 300]
    query = random.standard_normal((5, 100), dtype=np.float32)
    blocks = (ReadBlock(pages[first:last]) for first, last in pairwise(ends))
    found = compare_blocks(query, len(pages), blocks)
    single = [compare_blocks(query, 1, [ReadBlock([page])])[0] for page in pages]
    np.testing.assert_array_equal(found, np.array(single))
    assert len(compare_blocks(query, 0, [])) == 0


def test_similar_vectors_of_a_query_are_pooled() -> None:
    """Vectors about a direction become their sum; the others stay as they are."""
    apart = np.eye(3, 16, dtype=np.float32)
    near = apart[0] + 0.1 * np.eye(16, dtype=np.float32)[10:14]
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    pooled = pool_similar(np.concatenate([apart[1:2], near, apart[2:]]))
    assert len(pooled) == 3
    expected = [apart[1], near.sum(axis=0), apart[2]]
    assert all(np.abs(pooled - one).max(axis=1).min() < 1e-6 for one in expected)
    assert pool_similar(np.empty((0, 16), np.float32)).shape == (0, 16)


def test_machine_code_is_loaded_once_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few searches of a small store load nothing; many of them do, and one of a large store."""
    monkeypatch.setattr(probe._Choice, "_PAYS_AFTER", 1000)
    small, large = probe._Choice(), probe._Choice()
    assert [small.comparison(400) is compare_in_numpy for _ in range(4)] == [True, True] + [
        False
    ] * 2
    assert large.comparison(5000) is not compare_in_numpy


def test_numpy_compares_where_numba_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without numba nothing is said; a numba that does not load is named once in the log."""
    monkeypatch.setattr(probe, "find_spec", lambda _: None)
    assert probe._Choice().comparison(1 << 20) is compare_in_numpy
    assert not caplog.records
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "pagevec.stores.kernel", raising=False)
    choice = probe._Choice()
    monkeypatch.setitem(sys.modules, "numba", None)
    with caplog.at_level(logging.WARNING):
        assert [choice.comparison(1 << 20) for _ in range(3)] == [compare_in_numpy] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "numba" in caplog.text


def test_no_folder_to_keep_machine_code_in(tmp_path: Path) -> None:
    """It is compiled in each process where nothing can be written, or what was kept is damaged."""
    code = """
from pagevec.stores import probe
assert probe._Choice().comparison(1 << 20) is not probe.compare_in_numpy
"""
    kept = tmp_path / "kept"
    (tmp_path / "file").write_text("")
    for folder in (kept, tmp_path / "file" / "below", kept, kept):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        for file in [*kept.rglob("*.nb[ic]")][:1]:
            file.write_bytes(file.read_bytes()[:100])
    assert [*kept.rglob("*.nbi")]
