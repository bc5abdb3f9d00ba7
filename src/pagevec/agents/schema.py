"""What the tools of an agent take and answer: a contract, whose words the agent's model reads."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pagevec.wire.documents import DocumentName

WIDTH, NARROWEST, WIDEST = 1000, 64, 2000
"""Pixels of a page's image: where nothing is asked for, at least, at most."""

_Words = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")]
_Document = Annotated[_Words, StringConstraints(min_length=1)]


class SearchPages(BaseModel):
    """Arguments of `search_pages`."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[_Words, StringConstraints(min_length=1, max_length=2000)] = Field(
        description="The question, or words that stand on the page, in any language."
    )
    k: int = Field(5, ge=1, le=20, description="How many pages at most.")
    documents: list[_Document] = Field(
        [],
        max_length=100,
        description="Only pages of these documents: their ids or names, as list_documents and "
        "search_pages answer them; the name of a folder stands for all documents below it. Empty: "
        "all documents.",
    )


class ReadPage(BaseModel):
    """Arguments of `read_page`."""

    model_config = ConfigDict(extra="forbid")

    document: _Document = Field(
        description="Id or name of a document, as search_pages and list_documents answer them."
    )
    page: int = Field(ge=1, lt=2**31, description="Number of the page, from 1.")
    width: int = Field(
        WIDTH,
        ge=NARROWEST,
        le=WIDEST,
        description="Pixels of the image's width at most; more for small print.",
    )


class ListDocuments(BaseModel):
    """Arguments of `list_documents`."""

    model_config = ConfigDict(extra="forbid")

    search: Annotated[_Words, StringConstraints(max_length=1000)] = Field(
        "", description="Only documents with this in their names; upper and lower case are alike."
    )
    limit: int = Field(50, ge=1, le=200, description="How many documents at most.")
    after: _Words = Field(
        "",
        description="For the documents that follow: what the answer before this one had as `next`.",
    )


class FoundPage(BaseModel):
    """A page that answers the query."""

    document: DocumentName = Field(description="whose page it is")
    page: int = Field(description="its number, from 1")
    score: float = Field(description="how well its picture answers, within one search")
    relevance: float = Field(description="what orders the pages: picture and text together")
    found_words: list[str] = Field(description="words of the query that its text has")
    text: str | None = Field(description="its text around the words of the query; null: none")
    error: str | None = Field(description="what is missing of the document, if anything is")


class FoundPages(BaseModel):
    """The pages that answer the query best, the best first."""

    pages: list[FoundPage] = Field(description="up to k pages")


class ShownImage(BaseModel):
    """The image of a page."""

    width: int = Field(description="in pixels")
    height: int = Field(description="in pixels")
    reason: str | None = Field(description="why it is only a small one, if it is")


class ShownPage(BaseModel):
    """A page."""

    document: DocumentName = Field(description="whose page it is")
    page: int = Field(description="its number, from 1")
    text: str | None = Field(description="its text layer; null where it has none")
    text_left_out: int = Field(description="characters at the text's end that are left out")
    image: ShownImage | None = Field(description="null for a text, which has none")
