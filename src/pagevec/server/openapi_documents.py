"""The description, in OpenAPI, of the paths about documents and searches."""

from collections.abc import Sequence
from typing import Any

from pagevec.wire import documents

Json = dict[str, Any]

DOCUMENT_SCHEMAS = (
    documents.DocumentList,
    documents.DocumentName,
    documents.DocumentStatus,
    documents.HitMaps,
    documents.PageContent,
    documents.RemovedDocument,
    documents.SearchHit,
    documents.SearchRequest,
    documents.SearchResponse,
    documents.StoreStatus,
    documents.UploadResponse,
)
_DOCUMENT = {
    "id": "dXBsb2Fkcy9yZXBvcnQucGRm",
    "name": "uploads/report.pdf",
    "state": "ingesting",
    "stored": 3,
    "pages": 20,
    "error": None,
    "is_upload": True,
}
_QUESTION = {"query": "parcels and punctuality", "k": 1, "maps": True}
_FOUND = {
    "query": "parcels and punctuality",
    "words": ["parcels", "and", "punctuality"],
    "hits": [
        {
            "document": {"id": _DOCUMENT["id"], "name": _DOCUMENT["name"]},
            "page": 4,
            "score": 17.3,
            "relevance": 1.0,
            "found_by": ["vectors", "text"],
            "found_words": ["parcels", "punctuality"],
            "snippet": "Parcels and punctuality",
            "error": None,
            "metadata": {"file": "report.pdf", "type": "image"},
            "image": f"documents/{_DOCUMENT['id']}/pages/4/image",
            "page_url": f"documents/{_DOCUMENT['id']}/pages/4",
            "maps": {
                "rows": 1,
                "columns": 2,
                "whole": "AP8=",
                "words": ["AP8=", "/wA=", "AP8="],
            },
            "no_maps": None,
        }
    ],
}


def document_paths(refusals: Json, of_changes: Json) -> Json:
    """Return the paths.

    Args:
        refusals: the responses other than 200 that each of them may have.
        of_changes: those that paths which change documents may have, too.
    """
    one = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    number = {
        "name": "number",
        "in": "path",
        "required": True,
        "schema": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
    }
    files = {
        "type": "object",
        "required": ["files"],
        "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
    return {
        "/documents": {
            "get": _operation(
                refusals,
                "list_documents",
                "List documents, by name",
                json_content("DocumentList", {"documents": [_DOCUMENT], "total": 1, "next": None}),
                parameters=[
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "at most"),
                    _query("after", {"type": "string"}, "`next` of the answer before"),
                    _query("search", {"type": "string"}, "part of the names"),
                ],
            ),
            "post": _operation(
                refusals,
                "upload_documents",
                "Add documents",
                json_content("UploadResponse", {"documents": [_DOCUMENT]}),
                statuses=("200", "202"),
                description="All files of a request or none. 202: their documents wait, ask for "
                "them again; 200: nothing is left to be done.",
                body={"multipart/form-data": {"schema": files}},
                parameters=[_query("wait", {"type": "boolean"}, "answer when all is done")],
                more=of_changes,
            ),
        },
        "/documents/{id}": {
            "get": _operation(
                refusals,
                "get_document",
                "One document",
                json_content("DocumentStatus", _DOCUMENT),
                parameters=[one],
            ),
            "delete": _operation(
                refusals,
                "remove_document",
                "Remove a document, and its file if it was uploaded",
                json_content(
                    "RemovedDocument", {"name": "uploads/report.pdf", "removed_pages": 20}
                ),
                parameters=[one],
                more=of_changes,
            ),
        },
        "/documents/{id}/pages/{number}": {
            "get": _operation(
                refusals,
                "get_page",
                "What is stored of a page",
                json_content("PageContent"),
                parameters=[one, number],
            )
        },
        "/documents/{id}/pages/{number}/image": {
            "get": _operation(
                refusals,
                "get_page_image",
                "A picture of a page",
                {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
                description="Drawn from the document's file. `Pagevec-Image: thumbnail` tells that "
                "it is the small picture in the store, `Pagevec-Image-Reason` why.",
                parameters=[
                    one,
                    number,
                    _query("width", {"type": "integer", "minimum": 16, "maximum": 2000}, "pixels"),
                ],
            )
        },
        "/search": {
            "post": _operation(
                refusals,
                "search",
                "Search the pages",
                json_content("SearchResponse", _FOUND),
                body={"application/json": {"schema": ref("SearchRequest"), "example": _QUESTION}},
            )
        },
        "/status": {
            "get": _operation(
                refusals, "status", "What there is, and what is done", json_content("StoreStatus")
            )
        },
    }


def _operation(
    refusals: Json,
    name: str,
    summary: str,
    content: Json,
    *,
    description: str = "",
    statuses: Sequence[str] = ("200",),
    body: Json | None = None,
    parameters: Sequence[Json] = (),
    more: Json | None = None,
) -> Json:
    return {
        "operationId": name,
        "tags": ["documents"],
        "summary": summary,
        "security": [{"bearer": []}],
        **({"description": description} if description else {}),
        **({"parameters": list(parameters)} if parameters else {}),
        **({"requestBody": {"required": True, "content": body}} if body else {}),
        "responses": {
            **{one: {"description": summary, "content": content} for one in statuses},
            **refusals,
            **(more or {}),
        },
    }


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def json_content(schema: str, example: Json | None = None) -> Json:
    """Return the content of an answer in JSON, which is a component."""
    entry = {"schema": ref(schema)}
    return {"application/json": entry | ({"example": example} if example else {})}


def ref(schema: str) -> Json:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{schema}"}
