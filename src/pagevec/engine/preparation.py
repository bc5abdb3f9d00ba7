"""From a request to prepared inputs: priced, admitted, then tokenized or decoded in fair turns."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pagevec.engine.admission import Admission, Price
from pagevec.engine.pooling import pooled_count, pooling_bytes
from pagevec.engine.requests import Item, Request
from pagevec.engine.throughput import Throughput
from pagevec.engine.workers import Task, Workers, WorkingBytes
from pagevec.errors import InternalError, PagevecError
from pagevec.images import EncodedImage
from pagevec.types import Token

# Texts are tokenized in parts of a few hundredths of a second, between which others have a turn.
_PART_CHARACTERS = 32_000
# What a text costs beside its characters.
_TEXT_SECONDS = 1e-4


class Preparation:
    """Prepares inputs in threads of its own and hands them on."""

    def __init__(
        self,
        backend: Any,
        throughput: Throughput,
        admission: Admission,
        working_bytes: WorkingBytes,
        threads: int,
        *,
        batch_tokens: Callable[[], int],
        has_room: Callable[[str], bool],
        enqueue: Callable[[list[Item]], None],
        stop: Callable[[BaseException], None],
        begin: Callable[[], None],
    ) -> None:
        """Start the threads.

        Args:
            backend: prepares inputs.
            throughput: estimates what requests cost, and learns from what they did.
            admission: decides which requests are accepted.
            working_bytes: of which decoding takes its share.
            threads: threads that decode pages.
            batch_tokens: returns the tokens of a full batch.
            has_room: whether one more page of a caller may wait for the model.
            enqueue: called with inputs that are ready for the model.
            stop: called if a thread ends by an error.
            begin: called in each thread before it works.
        """
        self._backend = backend
        self._dim = backend.info().dim
        self._throughput = throughput
        self._admission = admission
        self._threads = threads
        self._batch_tokens = batch_tokens
        self._enqueue = enqueue
        # Texts have a thread of their own, so that they never wait for a page to be decoded.
        self._texts = Workers("pagevec-text", 1, working_bytes, begin=begin, stop=stop, spare=False)
        self._pages = Workers(
            "pagevec-page",
            threads,
            working_bytes,
            begin=begin,
            stop=stop,
            nice=True,
            has_room=lambda task: has_room(task.request.caller),
        )

    def begin_texts(self, request: Request, texts: Sequence[str], tokens: bool) -> None:
        """Admit `texts` as far as their lengths tell, and put them in line.

        Raises:
            PagevecError: the request is too much.
        """
        seconds = [self._tokenizing_seconds(text) for text in texts]
        self._admission.admit(request, Price(len(texts), prepare=sum(seconds)))
        job = _TextJob(request, texts, tokens)
        for part in _parts(texts):
            run = partial(self._prepare_texts, job, part)
            self._texts.submit(Task(request, run, sum(seconds[part])))

    def begin_pages(self, request: Request, pages: Sequence[EncodedImage]) -> None:
        """Admit `pages` as far as their headers tell, and put them in line.

        Raises:
            PagevecError: the request is too much.
        """
        self._admission.admit(request, self._price_pages(request, pages, []))
        # How many tokens they have is asked in a thread that may wait for the tokenizer.
        run = partial(self._admit_pages, request, pages)
        self._texts.submit(Task(request, run, len(pages) * _TEXT_SECONDS))

    def wake(self) -> None:
        """Look again whether one more page may wait for the model."""
        self._pages.wake()

    def forget(self, request: Request) -> None:
        """Drop what is in line for a request that nobody waits for."""
        self._texts.forget(request)
        self._pages.forget(request)

    def close(self) -> None:
        """End the threads."""
        self._texts.close()
        self._pages.close()

    def _prepare_texts(self, job: "_TextJob", part: slice) -> None:
        """Prepare one part of the texts; after the last part, hand all of them on."""
        begun = time.perf_counter()
        texts = job.texts[part]
        try:
            prepared = self._backend.prepare_texts(texts)
        except PagevecError as error:
            raise error if error.index is None else error.at(part.start + error.index) from error
        if len(prepared) != len(texts):
            raise InternalError(f"the backend prepared {len(prepared)} of {len(texts)} texts")
        if job.with_tokens:
            job.tokens += map(self._backend.tokenize, texts, prepared)
        job.prepared += prepared
        seconds = time.perf_counter() - begun
        job.request.add_prepare(seconds)
        self._throughput.learn_text(sum(map(len, texts)), seconds)
        # A request that turns out to be too much is not prepared to its end.
        self._admission.admit(job.request, self._price_texts(job))
        if len(job.prepared) == len(job.texts):
            job.request.set_tokens(job.tokens)
            self._hand_on(job.request, enumerate(job.prepared))

    def _admit_pages(self, request: Request, pages: Sequence[EncodedImage]) -> None:
        lengths = [self._backend.page_tokens(page.width, page.height) for page in pages]
        self._admission.admit(request, self._price_pages(request, pages, lengths))
        for index, page in enumerate(pages):
            run = partial(self._prepare_page, request, index, page)
            seconds = self._throughput.prepare_seconds(page.decode_pixels)
            self._pages.submit(Task(request, run, seconds, page.decode_bytes, index))

    def _prepare_page(self, request: Request, index: int, page: EncodedImage) -> None:
        begun = time.perf_counter()
        prepared = self._backend.prepare_page(page)
        seconds = time.perf_counter() - begun
        request.add_prepare(seconds)
        self._throughput.learn_prepare(page.decode_pixels, seconds)
        self._hand_on(request, [(index, prepared)])

    def _hand_on(self, request: Request, prepared: Iterable[tuple[int, Any]]) -> None:
        now, work = time.perf_counter(), self._throughput.work
        self._enqueue([Item(request, place, one, now, work(one.tokens)) for place, one in prepared])

    # Prices

    def _price_texts(self, job: "_TextJob") -> Price:
        left = sum(map(self._tokenizing_seconds, job.texts[len(job.prepared) :]))
        lengths = [one.tokens for one in job.prepared]
        return self._price(job.request, lengths, Price(len(job.texts), prepare=left))

    def _price_pages(
        self, request: Request, pages: Sequence[EncodedImage], lengths: Sequence[int]
    ) -> Price:
        pixels = sum(page.decode_pixels for page in pages)
        most = max(range(len(pages)), key=lambda place: pages[place].decode_bytes)
        decoding = Price(
            len(pages),
            prepare=self._throughput.prepare_seconds(pixels, self._threads),
            working_bytes=pages[most].decode_bytes,
            neediest=most,
        )
        return self._price(request, lengths, decoding)

    def _price(self, request: Request, lengths: Sequence[int], preparing: Price) -> Price:
        """Return the price of a request whose inputs have these lengths, in tokens.

        Args:
            request: says how its vectors are pooled, and what they take in the answer.
            lengths: of its inputs, as far as they are known.
            preparing: what it costs until they are prepared.
        """
        throughput, factor = self._throughput, request.pool_factor
        work = throughput.request_work(lengths, self._batch_tokens())
        price = replace(
            preparing,
            forward=throughput.forward_seconds(request.is_query, work),
            answer_bytes=request.vector_bytes * sum(pooled_count(n, factor) for n in lengths),
        )
        if factor == 1 or not lengths:
            return price
        price = replace(price, pooling=sum(map(throughput.pooling_seconds, lengths)))
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        needed = pooling_bytes(lengths[longest], self._dim)
        if needed <= price.working_bytes:
            return price
        return replace(price, working_bytes=needed, neediest=longest)

    def _tokenizing_seconds(self, text: str) -> float:
        return _TEXT_SECONDS + self._throughput.text_seconds(len(text))


@dataclass(eq=False)
class _TextJob:
    """The texts of one request, which are prepared part by part."""

    request: Request
    texts: Sequence[str]
    with_tokens: bool
    prepared: list[Any] = field(default_factory=list)
    tokens: list[Sequence[Token]] = field(default_factory=list)


def _parts(texts: Sequence[str]) -> Iterator[slice]:
    """Cut texts into parts of few characters in all, each of one text at least."""
    start = characters = 0
    for place, text in enumerate(texts):
        if place > start and characters + len(text) > _PART_CHARACTERS:
            yield slice(start, place)
            start, characters = place, 0
        characters += len(text)
    yield slice(start, len(texts))
