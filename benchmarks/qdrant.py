"""A store in Qdrant's engine: bytes of a page on disk and in memory, writing, searching."""

import statistics
import tempfile
from pathlib import Path
from time import process_time

import numpy as np

from benchmarks.machine import time_once
from benchmarks.report import Measurement, Table, make_command, number_option
from pagevec.stores import open_store
from pagevec.stores.base import Store
from pagevec.types import MultiVector, Page, PageKey

_QUERY = 20
_BATCH = 16
_TEXT_BYTES, _THUMBNAIL_BYTES = 3000, 8000
"""As of a page of a report: the text compresses by half, the picture does not."""

# What is in the files of a shard, by a part of their path.
_PARTS = {
    "vectors, float16": "vector_storage-page/vectors",
    "sign bits": "vector_storage-page/quantized",
    "text, thumbnail, metadata": "payload_storage",
    "indexes of the payload": "payload_index",
    "log of writes": "/wal/",
}


def measure(pages: int, vectors: int, dim: int, rounds: int) -> Measurement:
    """Write pages into the engine and search them, with queries of 20 vectors.

    A server keeps the same files for each of its shards, and a log that does not grow with them. A
    search compares all sign bits, then 512 pages by their vectors: run this with two numbers of
    pages to see what one more costs. Times are medians, with the store in the disk's cache.
    """
    with tempfile.TemporaryDirectory() as folder, open_store(f"qdrant:{folder}/store") as store:
        seconds = sum(
            _write(store, first, pages, vectors, dim) for first in range(0, pages, _BATCH)
        )
        query = _make_vectors(_QUERY, 0, dim)
        store.candidates(query, store.shortlist)
        before = process_time()
        ranked = [
            time_once(lambda: store.candidates(query, store.shortlist)) for _ in range(rounds)
        ]
        computing = (process_time() - before) / rounds
        bytes_of = _measure_files(Path(folder) / "store" / str(dim))
    rows = [{"part": part, "bytes": size / pages} for part, size in bytes_of.items()]
    milliseconds = statistics.median(ranked) * 1000
    note = (
        f"insert {pages / seconds:.0f} pages/s; search {milliseconds:.0f} ms, "
        f"{computing * 1000:.0f} ms of computing on all cores together"
    )
    table = Table({"part": "part", "bytes a page": "bytes:,.0f"}, rows, note=note)
    setup = {"pages": pages, "vectors": vectors, "dim": dim, "rounds": rounds}
    figures = {
        "insert_pages_per_second": pages / seconds,
        "search_ms": milliseconds,
        "search_cpu_ms": computing * 1000,
    }
    return Measurement("qdrant", setup, {"bytes": table}, figures)


def _write(store: Store, first: int, pages: int, vectors: int, dim: int) -> float:
    """Write a batch of pages; return the seconds of writing, without making them."""
    numbers = range(first + 1, min(first + _BATCH, pages) + 1)
    batch = [
        Page(
            PageKey("bench", number),
            _make_vectors(vectors, number, dim),
            text=np.random.default_rng(number).bytes(_TEXT_BYTES // 2).hex(),
            thumbnail=np.random.default_rng(number).bytes(_THUMBNAIL_BYTES),
        )
        for number in numbers
    ]
    return time_once(lambda: store.add(batch))


def _make_vectors(count: int, seed: int, dim: int) -> MultiVector:
    """Return random unit vectors (count, dim)."""
    values = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    vectors: MultiVector = values / np.linalg.norm(values, axis=1, keepdims=True)
    return vectors


def _measure_files(shard: Path) -> dict[str, int]:
    """Return the bytes on disk of each part; files are sparse, and larger than what is in them."""
    sizes = dict.fromkeys([*_PARTS, "other"], 0)
    for file in (one for one in shard.rglob("*") if one.is_file()):
        named = (part for part, path in _PARTS.items() if path in file.as_posix())
        sizes[next(named, "other")] += file.stat().st_blocks * 512
    return sizes


main = make_command(
    measure,
    number_option("--pages", 2000),
    number_option("--vectors", 700),
    number_option("--dim", 128),
    number_option("--rounds", 5),
)

if __name__ == "__main__":
    main()
