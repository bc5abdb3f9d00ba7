"""The description at /openapi.json: whole, true, and what /docs shows without other hosts."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from conftest import make_settings, running
from pagevec.engine.embedder import LocalEmbedder
from pagevec.server.openapi import describe
from server.calls import GETS, HELLO, PATHS, TYPES, texts

Json = dict[str, Any]
REFUSALS = {"404", "405", "408", "431", "500", "503"}
VLLM = (
    *("/pooling", "/v1/embeddings", "/score", "/v1/score"),
    *("/rerank", "/v1/rerank", "/v2/rerank"),
)
OPERATIONS = [
    *(("post", path) for path in (*PATHS, *VLLM)),
    *(("get", path) for path in (*GETS, "/v1/models")),
]
FORMATS = {
    "/embeddings": ["json", "npz"],
    "/": ["json", "npz"],
    "/json/embeddings": ["json"],
    "/npz/embeddings": ["npz"],
}


@pytest.fixture(scope="module")
def described(client: httpx.Client) -> Json:
    content: Json = client.get("/openapi.json").json()
    return content


def operations(described: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def check(described: Json, schema: str, content: Any) -> None:
    """Check that `content` is what the component `schema` says, and has no other field."""
    whole = {"$ref": f"#/components/schemas/{schema}", "unevaluatedProperties": False}
    Draft202012Validator({**whole, "components": described["components"]}).validate(content)


def test_operations(described: Json) -> None:
    """Each path has an operation with a name of its own, a tag that is explained, and words."""
    found = list(operations(described))
    assert sorted((method, path) for method, path, _ in found) == sorted(OPERATIONS)
    names = [operation["operationId"] for _, _, operation in found]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]+", name) for name in names)
    tags = {tag["name"] for tag in described["tags"]}
    assert {tag for _, _, operation in found for tag in operation["tags"]} == tags
    assert all(operation["summary"] and operation["description"] for _, _, operation in found)


def test_formats(described: Json, embedder: LocalEmbedder) -> None:
    """A path lists the formats that it answers by itself; the default one comes first."""
    for path, formats in FORMATS.items():
        content = described["paths"][path]["post"]["responses"]["200"]["content"]
        assert list(content) == [TYPES[one] for one in formats]
    with running(embedder, make_settings(default_format="npz")) as other:
        paths = httpx.get(f"{other.url}/openapi.json", trust_env=False).json()["paths"]
    content = paths["/embeddings"]["post"]["responses"]["200"]["content"]
    assert list(content) == [TYPES["npz"], TYPES["json"]]


def test_statuses(described: Json) -> None:
    """Every operation lists every status that a caller has to expect; one needs a key."""
    for method, path, operation in operations(described):
        statuses = set(operation["responses"])
        if method == "post" or path == "/v1/models":
            assert statuses == {"200", "400", "401", "413", "415", "429"} | REFUSALS
            assert operation["security"] == [{"bearer": []}]
        else:
            assert statuses == {"200"} | REFUSALS
            assert "security" not in operation
    assert described["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_every_code_is_described(described: Json) -> None:
    """Each code of docs/http-api.md stands in the response of its status, with an example."""
    for status, code in [("400", "invalid_image"), ("413", "too_much_work"), ("503", "draining")]:
        response = described["components"]["responses"][f"Error{status}"]
        assert f"`{code}`: " in response["description"]
        examples = response["content"]["application/json"]["examples"]
        check(described, "ErrorResponse", examples[code]["value"])
    assert "configuration_error" not in str(described)


def test_references(described: Json) -> None:
    """Each schema and each response stands once; every reference leads to one of them."""
    references = re.findall(r"'#/components/(\w+)/(\w+)'", str(described))
    for kind, name in references:
        assert name in described["components"][kind]
    used = {name for kind, name in references if kind == "schemas"}
    assert used == set(described["components"]["schemas"])
    # Generators make a type of each title, and of a field with a default a field that is required.
    for schema in described["components"]["schemas"].values():
        assert not any({"title", "default"} & set(one) for one in schema["properties"].values())
        assert all(len(one["description"]) > 5 for one in schema["properties"].values())


def test_examples_are_requests(described: Json, client: httpx.Client) -> None:
    """The service answers each example, as described."""
    content = described["paths"]["/embeddings"]["post"]["requestBody"]["content"]
    examples = content["application/json"]["examples"]
    assert {one["value"]["input_type"] for one in examples.values()} == {"text", "image"}
    for one in examples.values():
        answer = client.post("/embeddings", json=one["value"])
        assert answer.status_code == 200
        check(described, "EmbeddingsResponse", answer.json())
    shown = described["paths"]["/embeddings"]["post"]["responses"]["200"]["content"]
    check(described, "EmbeddingsResponse", shown["application/json"]["example"])
    for path in VLLM:
        operation = described["paths"][path]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        answer = client.post(path, json=example)
        assert answer.status_code == 200, answer.text
        shown = operation["responses"]["200"]["content"]["application/json"]["example"]
        assert set(answer.json()) == set(shown), path


def test_answers_are_as_described(described: Json, client: httpx.Client) -> None:
    """Each kind of answer fits its schema, and has no field that stands in none."""
    check(described, "ModelInfo", client.get("/info").json())
    check(described, "ServiceStatus", client.get("/health").json())
    check(described, "ServiceStatus", client.get("/ready").json())
    for options in ({}, {"dtype": "int8"}, {"dtype": "binary"}, {"tokens": True}):
        answer = client.post("/json/embeddings", json={**texts("a fare"), **options})
        check(described, "EmbeddingsResponse", answer.json())
    wrong = {"input_type": "image", "inputs": ["no image"]}
    for status, answer in [
        (400, client.post("/embeddings", json=wrong)),
        (401, client.post("/embeddings", json=HELLO, headers={"Authorization": "no"})),
        (404, client.get("/nothing")),
        (405, client.delete("/info")),
    ]:
        assert answer.status_code == status
        check(described, "ErrorResponse", answer.json())
        response = described["components"]["responses"][f"Error{status}"]
        assert f"`{answer.json()['code']}`" in response["description"]
        assert all(name in answer.headers for name in response.get("headers", {}))


def test_docs_load_nothing_from_elsewhere(client: httpx.Client) -> None:
    """All that /docs loads comes from the service, also below a path; its policy allows no more."""
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy + page.text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 5
    for address in loaded:
        assert not address.startswith("/")
        if not address.startswith("data:"):
            assert len(client.get(f"/{address}").raise_for_status().content) > 50
    assert '"openapi.json"' in client.get("/docs/start.js").text
    assert client.get("/docs/assets/swagger-ui-bundle.js").headers["etag"]
    assert client.get("/docs/assets/nothing.js").json()["code"] == "not_found"


def test_describing_needs_no_service() -> None:
    """The description depends on the default format alone, so that a client can be generated."""
    assert describe("json") == describe("json") != describe("npz")
