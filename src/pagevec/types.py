"""The values that every part of pagevec shares, and the `Model` protocol."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pagevec.grid import PageResizing, PatchGrid

if TYPE_CHECKING:
    from PIL.Image import Image

DocumentsAre = Literal["read", "write"] | None
"""Whether a service's callers can read its documents, or change them too; None: it has none."""

InputType = Literal["text", "image"]
"""The two kinds of input; one request carries one kind."""

MultiVector = NDArray[np.float32]
"""Late-interaction embedding of one input: float32, (vectors, dim), rows of unit length."""

TokenRows = NDArray[np.int32]
"""Which row of a page's vectors stands for each of its tokens: int32, (tokens,)."""

ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[np.uint8] | Image"
"""A path, the bytes of an image file, a Pillow image, or uint8 pixels: (h, w), (h, w, 3 or 4)."""

Progress = Callable[[int, int], object]
"""Called with how many inputs are done, and how many there are in all."""


@dataclass(frozen=True)
class Token:
    """The token behind one vector of a text.

    Attributes:
        text: the token as the tokenizer spells it.
        start: where it begins in the text, in characters; None for a token that is not part of
            the text, such as a prompt or augmentation token.
        end: where it ends in the text; None as for `start`.
    """

    text: str
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, eq=False)
class Query:
    """A query, embedded.

    Attributes:
        text: the query in words.
        vectors: its multi-vector, float32 (vectors, dim).
        tokens: one token for each vector; empty where the model does not tell them.
    """

    text: str
    vectors: MultiVector
    tokens: tuple[Token, ...] = ()


class _FormerlyMapping:
    """Lets a value that used to be a dict be read like one, with a warning, for one version."""

    def __getitem__(self, name: str) -> Any:
        known = {one.name for one in fields(self)}  # type: ignore[arg-type]
        if name not in known:
            raise KeyError(name)
        warnings.warn(
            f"info()[{name!r}] is deprecated: write info().{name}", DeprecationWarning, stacklevel=2
        )
        return getattr(self, name)


@dataclass(frozen=True)
class Limits(_FormerlyMapping):
    """What one request may hold at most; None where there is no limit, or none is told.

    Attributes:
        max_body_bytes: bytes of a request body.
        max_inputs: inputs in one request.
        max_text_chars: characters of one text.
        max_image_bytes: bytes of one image file.
        max_image_pixels: pixels of one image.
        max_image_side: pixels of one side of an image.
        request_seconds: time budget of one request.
        rate_limit: requests of one key, such as `600/minute`.
    """

    max_body_bytes: int | None = None
    max_inputs: int | None = None
    max_text_chars: int | None = None
    max_image_bytes: int | None = None
    max_image_pixels: int | None = None
    max_image_side: int | None = None
    request_seconds: float | None = None
    rate_limit: str | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the limits in `content`, ignoring fields that this version does not know."""
        return cls(**_known_fields(cls, content))


@dataclass(frozen=True)
class ModelInfo(_FormerlyMapping):
    """What embeds: the model, where it runs, and its limits.

    Attributes:
        model: checkpoint name or directory.
        revision: its commit, where known.
        family: name of the model family.
        dim: components of each vector.
        device: device that holds the weights.
        dtype: data type of the weights.
        parameters: number of parameters.
        resizing: how the model resizes pages; None in families whose visual tokens are not the
            cells of one grid.
        notice: what a user must know, such as what the model is not made for.
        precision: of the large matrix products; `full` is that of the dtype.
        forward: `packed` where a batch goes through the model without padding, else `padded`.
        fallback: why the padded pass serves a model that could be packed, where it does.
        tells_tokens: whether `tokens` can be asked for with the vectors of texts.
        version: version of pagevec that answers.
        default_format: format of answers where the request does not decide; of a service only.
        limits: what one request may hold.
        documents: whether the service has documents to search: read, or write where callers may
            add and remove some; None where it only embeds.
    """

    model: str
    revision: str | None = None
    family: str = ""
    dim: int = 0
    device: str = ""
    dtype: str = ""
    parameters: int = 0
    resizing: PageResizing | None = None
    notice: str | None = None
    precision: str = "full"
    forward: str | None = None
    fallback: str | None = None
    tells_tokens: bool = False
    version: str | None = None
    default_format: str | None = None
    limits: Limits = Limits()
    documents: DocumentsAre = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the facts in `content`, ignoring fields that this version does not know.

        Args:
            content: the JSON object that `GET /info` answers, of this or another version.

        Raises:
            ValueError: `content` is of another form.
        """
        try:
            known = _known_fields(cls, content)
            known["limits"] = Limits.from_json(content.get("limits") or {})
            if known.get("resizing") is not None:
                known["resizing"] = PageResizing(**_known_fields(PageResizing, known["resizing"]))
            return cls(**{"model": "", **known})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a description of a model: {error}") from error


def _known_fields(kind: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: content[one.name] for one in fields(kind) if one.name in content}


class Model(Protocol):
    """Turns page images and texts into multi-vectors: in this process or behind HTTP.

    `pagevec.load(...)` and `pagevec.Client(...)` return one; `pagevec.Index` takes one, and calls
    it from several threads at once.
    """

    def embed_images(self, images: Sequence[ImageInput]) -> list[MultiVector]:
        """Return one multi-vector for each page image, in order; all or none."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        """Return one multi-vector for each text, in order; all or none."""
        ...

    def embed_query(self, text: str) -> MultiVector:
        """Return the multi-vector of a query."""
        ...

    def info(self) -> ModelInfo:
        """Return what embeds."""
        ...

    def close(self) -> None:
        """Release the model or the connections."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class TellsTokens(Protocol):
    """A model that tells which token each vector of a query is; maps by word need it."""

    def embed_query_with_tokens(self, text: str) -> Query:
        """Return a query's multi-vector, with the token behind each vector."""
        ...


class AsyncModel(Protocol):
    """The asynchronous twin of `Model`: the same calls, awaited."""

    async def embed_images(self, images: Sequence[ImageInput]) -> list[MultiVector]:
        """Return what `Model.embed_images` returns."""
        ...

    async def embed_texts(self, texts: Sequence[str]) -> list[MultiVector]:
        """Return what `Model.embed_texts` returns."""
        ...

    async def embed_query(self, text: str) -> MultiVector:
        """Return what `Model.embed_query` returns."""
        ...

    async def info(self) -> ModelInfo:
        """Return what embeds."""
        ...

    async def aclose(self) -> None:
        """Release the connections."""
        ...


@dataclass(frozen=True, order=True)
class PageKey:
    """A page, by its document and its number in it (from 1)."""

    document: str
    number: int


@dataclass(frozen=True, eq=False)
class Page:
    """A page as it is stored.

    Attributes:
        key: document and number of the page.
        vectors: its multi-vector, float32 (vectors, dim), rows of unit length; of a long page
            those of its tiles, one after another.
        metadata: what filters look at and hits carry: JSON values. `tiles` is the number of
            tiles of a long page.
        text: the page's text layer or its own text, where it has one.
        thumbnail: a small JPEG of the page, where it has one.
        grid: where its visual tokens are in `token_vectors`, or in those of each tile, where that
            is known.
        token_rows: for each vector that the model gave the row of `vectors` that stands for it,
            numbered as they are met; None where `vectors` has them all. Tiles share no rows.
    """

    key: PageKey
    vectors: MultiVector
    metadata: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None
    thumbnail: bytes | None = None
    grid: PatchGrid | None = None
    token_rows: TokenRows | None = None

    @property
    def tiles(self) -> list[MultiVector]:
        """The multi-vectors that are scored on their own: that of the page, or of each tile."""
        if self._tile_count == 1:
            return [self.vectors]
        if self.token_rows is None:
            return np.split(self.vectors, self._tile_count)
        tiles = np.split(self.token_rows, self._tile_count)
        return [self.vectors[np.unique(rows)] for rows in tiles]

    @property
    def token_vectors(self) -> MultiVector:
        """A vector for each token that the model saw, float32 (tokens, dim)."""
        return self.vectors if self.token_rows is None else self.vectors[self.token_rows]

    @property
    def token_tiles(self) -> list[MultiVector]:
        """`token_vectors` of the page, or of each tile."""
        return np.split(self.token_vectors, self._tile_count)

    @property
    def _tile_count(self) -> int:
        # Other programs' pages have no grid, whatever their metadata says.
        return self.metadata.get("tiles", 1) if self.grid else 1


Fusion = Literal["relative", "rrf"]
"""How the order by vectors and that by words are brought together."""

FoundBy = Literal["vectors", "text"]
"""Why a page was found: its vectors are among the best, or its text has words of the query."""


@dataclass(frozen=True)
class ScoredPage:
    """A page and its exact MaxSim score for a query.

    Attributes:
        key: document and number of the page.
        score: sum over the query's vectors of their highest cosine with one of the page's.
        metadata: of the page.
        relevance: what pages are ordered by: the score on the scale of the candidates, and how
            well the page's text answers where that counts, too.
        found_by: why it was found.
        found_words: words of the query, as they were typed, that its text has; those that most
            pages have are left out.
    """

    key: PageKey
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    relevance: float = 0.0
    found_by: tuple[FoundBy, ...] = ("vectors",)
    found_words: tuple[str, ...] = ()


@dataclass(frozen=True)
class DocumentRecord:
    """What a store's ledger knows of a document.

    Attributes:
        name: the document's name in page keys.
        content_hash: SHA-256 of the file, in hex.
        pages: how many pages it has; None until that is known.
        complete: whether all of them are stored.
        error: why it could not be ingested, where it failed.
        version: of the object that it was ingested from, by which that is known without being
            fetched; None for a file, and where the filesystem tells none.
    """

    name: str
    content_hash: str
    pages: int | None = None
    complete: bool = False
    error: str | None = None
    version: str | None = None
