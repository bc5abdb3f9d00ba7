"""A program that uses one warm client in many processes or threads, as applications do.

    python -m client.forking WAY URL KEY COUNT

It embeds COUNT words, each of which has a vector of its own (`engine.hash_backend`), and prints how
many were right, foreign, or refused with an error.
"""

import asyncio
import multiprocessing
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engine.hash_backend import embed
from pagevec.client import AsyncClient, Client
from pagevec.errors import PagevecError
from pagevec.types import MultiVector

Tally = Counter[str]
Texts = Sequence[str]
PROCESSES = 8
_EACH = 20  # texts in a call, which takes several requests

client: Client
twin: AsyncClient


def check(texts: Texts) -> Tally:
    """Embed `texts` with the client that was there before the fork."""
    try:
        return tally(texts, client.embed_texts(texts))
    except PagevecError as error:
        print(error, file=sys.stderr)
        return Counter(errors=len(texts))


def tally(texts: Texts, vectors: Sequence[MultiVector]) -> Tally:
    return Counter(
        "right" if np.allclose(one, embed(text.encode()), atol=1e-3) else "foreign"
        for text, one in zip(texts, vectors, strict=True)
    )


def in_a_pool(calls: list[Texts]) -> Tally:
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        return sum(pool.imap_unordered(check, calls), Counter[str]())


def in_threads(calls: list[Texts]) -> Tally:
    with ThreadPoolExecutor(2 * PROCESSES) as pool:
        return sum(pool.map(check, calls), Counter[str]())


def before_the_fork(calls: list[Texts]) -> Tally:
    """Workers are forked while a thread of the master embeds; each of them has threads, too."""
    of_master, *of_workers = deal(calls)

    def work(calls: list[Texts]) -> Tally:
        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(check, calls), Counter[str]())

    with ThreadPoolExecutor(1) as master:
        own = master.submit(work, of_master)
        return sum(in_children(work, of_workers), own.result())


def in_event_loops(calls: list[Texts]) -> Tally:
    """The parent and its children use one asynchronous client, each in a loop of its own."""
    of_parent, *of_children = deal(calls)

    async def embed_all(calls: list[Texts]) -> Tally:
        at_once = asyncio.Semaphore(4)

        async def embed_one(texts: Texts) -> Tally:
            async with at_once:
                return tally(texts, await twin.embed_texts(texts))

        return sum(await asyncio.gather(*map(embed_one, calls)), Counter[str]())

    def work(calls: list[Texts]) -> Tally:
        return asyncio.run(embed_all(calls))

    async def of_both() -> Tally:
        await twin.embed_query("warm")  # children inherit the connections of a running loop
        own = asyncio.create_task(embed_all(of_parent))
        found = await asyncio.to_thread(in_children, work, of_children)
        return sum(found, await own)

    return asyncio.run(of_both())


def deal(calls: list[Texts]) -> list[list[Texts]]:
    return [calls[first::PROCESSES] for first in range(PROCESSES)]


def in_children(work: Callable[[list[Texts]], Tally], shares: list[list[Texts]]) -> list[Tally]:
    """Fork a child for each share at once; return what each of them found."""
    context = multiprocessing.get_context("fork")
    pipes = []
    for share in shares:
        receiving, sending = context.Pipe(duplex=False)
        child = context.Process(target=lambda: sending.send(work(share)))  # noqa: B023
        child.start()
        pipes.append((child, receiving))
    found = [receiving.recv() if receiving.poll(120) else Counter(lost=1) for _, receiving in pipes]
    for child, _ in pipes:
        child.join()
    return found


WAYS = {one.__name__: one for one in (in_a_pool, in_threads, before_the_fork, in_event_loops)}


def main(way: str, url: str, key: str, count: int) -> None:
    global client, twin  # noqa: PLW0603 - what a module of an application has
    client = Client(url, key, max_inputs=5, patience=60.0)
    twin = AsyncClient(url, key, max_inputs=5, in_flight=2, patience=60.0)
    words = [f"word-{number}" for number in range(count)]
    warm = check(words[:_EACH])
    assert warm == Counter(right=min(_EACH, count)), warm
    found = WAYS[way]([words[at : at + _EACH] for at in range(0, count, _EACH)])
    after = check(words[:_EACH])  # the children have not broken the parent's connections
    print(dict(found), dict(after), os.getpid(), threading.active_count())
    sys.exit(0 if (found, after) == (Counter(right=count), warm) else 1)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
