"""The bodies of the HTTP contract about documents and searches, and what a search asks."""

import base64
import binascii
import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from pagevec.errors import InvalidJSON, InvalidRequest, NotFound
from pagevec.types import FoundBy, Fusion
from pagevec.wire.schema import explain

MOST_HITS = 100
_MOST_FILTERS = 1000
_MOST_ID = 8192

_Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]  # PostgreSQL stores no NUL
Value = _Text | bool | int | float | None


class SearchRequest(BaseModel):
    """`POST /search`: a question, and among which pages the answer is looked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    query: Annotated[str, Field(min_length=1)] = Field(description="the question, in words")
    k: Annotated[int, Field(ge=1, le=MOST_HITS)] = Field(10, description="hits at most")
    documents: Annotated[list[_Text], FailFast(), Field(max_length=_MOST_FILTERS)] = Field(
        [], description="only pages of these documents: ids or names; a name of a folder stands "
        "for all documents below it"
    )  # fmt: skip
    metadata: Annotated[dict[_Text, Value], Field(max_length=_MOST_FILTERS)] = Field(
        {}, description="only pages whose metadata has these values"
    )
    text: bool = Field(True, description="find pages by the words of their text layers, too")
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="weight of the vectors; the words have the rest"
    )
    fusion: Fusion = Field(
        "relative", description="bring both together by their scores, or by their places (rrf)"
    )
    maps: bool = Field(False, description="answer where on each page the words find their answer")


class DocumentName(BaseModel):
    """Which document."""

    id: str = Field(description="opaque; safe in addresses")
    name: str = Field(description="LABEL/path")


class DocumentStatus(DocumentName):
    """A document as it is now."""

    state: Literal["waiting", "ingesting", "complete", "incomplete", "failed"] = Field(
        description="incomplete: some pages are missing; failed: all of them are"
    )
    stored: int = Field(description="pages that can be found")
    pages: int | None = Field(description="pages that it has; null where that is not known")
    error: str | None = Field(description="why it failed, or which pages are missing")
    is_upload: bool = Field(description="whether its file was uploaded, and is kept")


class UploadResponse(BaseModel):
    """What becomes of uploaded files, in their order."""

    documents: list[DocumentStatus] = Field(description="one for each file")


class DocumentList(BaseModel):
    """Some of the documents, by name."""

    documents: list[DocumentStatus] = Field(description="up to `limit` of them")
    total: int = Field(description="how many there are")
    next: str | None = Field(description="to be sent as `after` for more; null if there are none")


class RemovedDocument(BaseModel):
    """A document that was removed."""

    name: str = Field(description="its name")
    removed_pages: int = Field(description="pages that it had")


class PageContent(BaseModel):
    """What is stored of a page, its vectors excepted."""

    document: DocumentName = Field(description="whose page it is")
    page: int = Field(description="its number, from 1")
    text: str | None = Field(description="its text layer, or the text itself")
    metadata: dict[str, Any] = Field(description="what filters look at")
    image: str | None = Field(description="address of its picture; null for a text")


class HitMaps(BaseModel):
    """Where on a page a query finds its answer: grids of bytes, in base64, row by row."""

    rows: int = Field(description="rows of each grid")
    columns: int = Field(description="cells in a row")
    whole: str = Field(description="the map of all words together")
    words: list[str] = Field(description="one map for each of the answer's `words`")


class SearchHit(BaseModel):
    """A page that answers the query."""

    document: DocumentName = Field(description="whose page it is")
    page: int = Field(description="its number, from 1")
    score: float = Field(description="exact MaxSim: the sum over the query's vectors")
    relevance: float = Field(description="what orders the hits: score and words, brought together")
    found_by: list[FoundBy] = Field(
        description="vectors: among the best by score; text: its text has words of the query"
    )
    found_words: list[str] = Field(description="these words, without those that most pages have")
    snippet: str | None = Field(description="words around those of the query, as plain text")
    error: str | None = Field(description="what is missing of the document")
    metadata: dict[str, Any] = Field(description="of the page")
    image: str | None = Field(description="address of its picture, relative to the service's")
    page_url: str = Field(description="address of its text and metadata")
    maps: HitMaps | None = Field(description="if asked for, and where the page has any")
    no_maps: str | None = Field(description="why the page has no maps, if they were asked for")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, content: Any) -> Any:
        """Read the answer of a service of before, which knew vectors alone."""
        if not isinstance(content, dict):
            return content
        return {
            "relevance": content.get("score"),
            "found_by": ["vectors"],
            "found_words": [],
        } | content


class SearchResponse(BaseModel):
    """The pages that answer a query best, the best first."""

    query: str = Field(description="as it was asked")
    words: list[str] = Field(description="its words, where the model tells its tokens")
    hits: list[SearchHit] = Field(description="up to k pages")


class StoreStatus(BaseModel):
    """What is in the store, and what the service is doing."""

    documents: int = Field(description="how many there are")
    pages: int = Field(description="pages that can be found")
    ingesting: int = Field(description="documents that wait or are being ingested")
    pages_per_second: float | None = Field(description="ingested, over the last minute")
    queued_inputs: int = Field(description="inputs that wait for the model")
    device: str = Field(description="what the model runs on")


class SignInRequest(BaseModel):
    """`POST /sign-in`: the token of a printed address."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    token: str = Field(description="what stands behind `#token=`")


class SignInResponse(BaseModel):
    """The key, for the page that asked."""

    key: str = Field(description="to be sent as a bearer key")


def read_search(body: bytes) -> SearchRequest:
    """Return what a body asks for.

    Raises:
        InvalidJSON: it is not JSON.
        InvalidRequest: its shape, a field or a value is not what the contract allows.
    """
    try:
        content = orjson.loads(body)
    except ValueError as error:
        raise InvalidJSON(f"the body is not JSON: {error}") from None
    known = SearchRequest.model_fields
    unknown = [name for name in content if name not in known] if isinstance(content, dict) else []
    if unknown:
        raise InvalidRequest(f"unknown field {unknown[0][:40]!r}; known fields: {', '.join(known)}")
    try:
        request = SearchRequest.model_validate(content)
    except ValidationError as error:
        raise explain(error) from None
    if not request.query.strip():
        raise InvalidRequest("query: it is blank; ask with words")
    return request


def id_of(name: str) -> str:
    """Return the id of the document `name`."""
    return base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()


def name_of(identity: str) -> str:
    """Return the name of the document with this id.

    Raises:
        NotFound: no document has such an id.
    """
    try:
        if len(identity) > _MOST_ID or not re.fullmatch(r"[A-Za-z0-9_-]+", identity):
            raise ValueError
        name = base64.urlsafe_b64decode(identity + "=" * (-len(identity) % 4)).decode()
        if "\0" in name or id_of(name) != identity:
            raise ValueError
    except (ValueError, binascii.Error):
        raise NotFound(f"there is no document {identity[:60]!r}") from None
    return name
