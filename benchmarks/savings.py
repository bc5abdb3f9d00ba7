"""What each candidate for a faster pass on a GPU would save, counted without one."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from benchmarks import data
from benchmarks.counts import count, full_size_backend
from benchmarks.gpu import candidates
from benchmarks.gpu.bench import QUERY
from benchmarks.report import Measurement, Row, Table, make_command, number_option
from pagevec.engine.backends.packed.backend import PackedBackend

_COLUMNS = {
    "candidate": "candidate",
    "launches": "launches",
    "GB elementwise": "gigabytes:.1f",
    "launches of a query": "query_launches",
}
Use = Callable[[PackedBackend], AbstractContextManager[Any]]
USES: dict[str, Use] = {
    "as it is": nullcontext,
    "rotary embedding, silu x up: one kernel each": partial(
        candidates.fuse_elementwise, make=candidates.as_one_kernel
    ),
    "residual sums within products": candidates.add_within_products,
    "both": partial(candidates.fuse_all, make=candidates.as_one_kernel),
}
"""What can be counted, each on until the end of its block."""


def measure(pages: int) -> Measurement:
    """Count a pass of A4 pages of the 3B model, and of a query, with each candidate."""
    rows: list[Row] = []
    with full_size_backend() as (cuda, backend):
        [image] = data.make_images(1)
        page, [query] = backend.prepare_page(image), backend.prepare_texts([QUERY])
        for name, use in USES.items():
            with use(backend):
                of_pages = count(cuda, backend, [page] * pages)
                of_query = count(cuda, backend, [query])
            rows.append(
                {
                    "candidate": name,
                    "launches": of_pages.launches.total(),
                    "gigabytes": of_pages.elementwise_bytes.total() / 1e9,
                    "query_launches": of_query.launches.total(),
                }
            )
    setup = {"model": "3B architecture, bfloat16, shapes only", "A4 pages": pages}
    return Measurement("savings", setup, {"rows": Table(_COLUMNS, rows)})


main = make_command(measure, number_option("--pages", 21))

if __name__ == "__main__":
    main()
