"""Clients that others' generators make of /openapi.json: they compile, and the service answers."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest

from conftest import Service

pytestmark = pytest.mark.long

PYTHON_GENERATOR = "openapi-python-client==0.29.1"
NODE_PACKAGES = (
    "openapi-typescript@7.13.0",
    "openapi-fetch@0.17.0",
    "typescript@5.9.3",
    "@types/node@20.19.0",
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text(encoding="utf-8")

PYTHON = """
import io, json, sys
from pagevec_client import AuthenticatedClient, Client
from pagevec_client.api.embeddings import embed, embed_as_npz
from pagevec_client.api.service import info, ready
from pagevec_client.models import (
    EmbeddingsRequest, EmbeddingsRequestInputType, EmbeddingsResponse, ErrorResponse, ModelInfo,
)
from pagevec_client.types import File

url, key = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key)
body = EmbeddingsRequest(EmbeddingsRequestInputType.TEXT, ["night route", "fares in 2024"])
answer = embed.sync(client=client, body=body)
assert isinstance(answer, EmbeddingsResponse)
file = embed_as_npz.sync(client=client, body=body)
assert isinstance(file, File)
about = info.sync(client=Client(base_url=url))
assert isinstance(about, ModelInfo)
assert about.resizing is not None
pages = EmbeddingsRequest(EmbeddingsRequestInputType.IMAGE, ["no image"])
refused = embed.sync_detailed(client=client, body=pages)
assert isinstance(refused.parsed, ErrorResponse)
stranger = embed.sync(client=AuthenticatedClient(base_url=url, token="wrong"), body=body)
assert isinstance(stranger, ErrorResponse)
print(json.dumps({
    "vectors": [len(one) for one in answer.embeddings],
    "components": len(answer.embeddings[0][0]),
    "npz": len(file.payload.read()),
    "model": about.model,
    "max_inputs": about.limits.max_inputs,
    "cell": about.resizing.cell,
    "refused": [int(refused.status_code), refused.parsed.code, refused.parsed.index],
    "stranger": stranger.code,
}))
"""

TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { components, paths } from "./pagevec.js";

const [url, key] = process.argv.slice(2) as [string, string];
const headers = { Authorization: `Bearer ${key}` };
const client = createClient<paths>({ baseUrl: url, headers });
const stranger = createClient<paths>({ baseUrl: url });

const body: components["schemas"]["EmbeddingsRequest"] = {
  input_type: "text",
  inputs: ["night route", "fares in 2024"],
};
const json = await client.POST("/json/embeddings", { body });
if (json.error) throw new Error(json.error.code);
const vectors: number[][][] = json.data.embeddings;
const npz = await client.POST("/npz/embeddings", { body, parseAs: "arrayBuffer" });
if (npz.error) throw new Error(npz.error.code);
const file: ArrayBuffer = npz.data;
const info = await client.GET("/info");
if (info.error) throw new Error(info.error.code);
const limits: components["schemas"]["Limits"] = info.data.limits;
const refused = await client.POST("/json/embeddings", {
  body: { input_type: "image", inputs: ["no image"] },
});
const index: number | undefined = refused.error?.index;
const { error } = await stranger.POST("/json/embeddings", { body });
console.log(JSON.stringify({
  vectors: vectors.map((one) => one.length),
  components: vectors[0]?.[0]?.length,
  npz: file.byteLength,
  model: info.data.model,
  max_inputs: limits.max_inputs,
  cell: info.data.resizing?.cell,
  refused: [refused.response.status, refused.error?.code, index],
  stranger: error?.code,
}));
"""
# What is no field of a request is an error of the compiler.
WRONG = '({ input_type: "text", inputs: ["a"], dtyp: "int8" })'


def run(*command: str, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "NO_PROXY": "*", **variables},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_seen(output: str, service: Service) -> None:
    """The client has read an answer in both formats, the description of the model, and errors."""
    seen = json.loads(output)
    with service.client() as client:
        texts = {"input_type": "text", "inputs": ["night route", "fares in 2024"]}
        vectors = client.post("/json/embeddings", json=texts).json()["embeddings"]
        info = client.get("/info").json()
        npz = len(client.post("/npz/embeddings", json=texts).content)
    assert seen == {
        "vectors": [len(one) for one in vectors],
        "components": info["dim"],
        "npz": npz,
        "model": info["model"],
        "max_inputs": info["limits"]["max_inputs"],
        "cell": info["resizing"]["cell"],
        "refused": [400, "invalid_image", 0],
        "stranger": "unauthorized",
    }


def test_python(service: Service, tmp_path: Path) -> None:
    """openapi-python-client makes one without a warning; a script that uses it passes mypy."""
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = str(programs / "python")
    run(python, "-m", "pip", "install", "--quiet", PYTHON_GENERATOR, cwd=tmp_path)
    (config,) = re.findall(r"^    content_type_overrides:\n    .*\n", DOCUMENT, re.M)
    (tmp_path / "config.yaml").write_text(textwrap.dedent(config))
    (tmp_path / "script.py").write_text(PYTHON)
    options = ("--config", "config.yaml", "--meta", "none", "--fail-on-warning")
    run(
        str(programs / "openapi-python-client"),
        *("generate", "--url", f"{service.url}/openapi.json", *options),
        *("--output-path", "pagevec_client"),
        cwd=tmp_path,
        PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",  # it formats with its own ruff
    )
    # Generated code outside of these is the generator's own, the same for every service.
    checked = ("script.py", "pagevec_client/models", "pagevec_client/api")
    mypy = (sys.executable, "-m", "mypy", "--python-executable", python, "--follow-imports=silent")
    run(*mypy, *checked, cwd=tmp_path)
    assert_seen(run(python, "script.py", service.url, service.key, cwd=tmp_path), service)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm, which comes with Node, is missing")
def test_typescript(service: Service, tmp_path: Path) -> None:
    """openapi-typescript's types compile, openapi-fetch calls with them; a typo is an error.

    So does the example of docs/http-api.md.
    """
    (tmp_path / "package.json").write_text('{"type": "module", "private": true}')
    run("npm", "install", "--no-audit", "--no-fund", "--save-exact", *NODE_PACKAGES, cwd=tmp_path)
    bin_ = tmp_path / "node_modules" / ".bin"
    run(
        str(bin_ / "openapi-typescript"),
        f"{service.url}/openapi.json",
        "--output",
        "pagevec.d.ts",
        cwd=tmp_path,
    )
    (example,) = re.findall(r"```typescript\n(.*?)```", DOCUMENT, re.S)
    (tmp_path / "example.ts").write_text(example.replace("http://127.0.0.1:8765", service.url))
    (tmp_path / "main.ts").write_text(TYPESCRIPT)
    compile_ = (str(bin_ / "tsc"), "--strict", "--target", "es2022", "--module", "nodenext")
    run(*compile_, "main.ts", "example.ts", cwd=tmp_path)
    assert_seen(run("node", "main.js", service.url, service.key, cwd=tmp_path), service)
    assert run("node", "example.js", cwd=tmp_path, SERVICE_API_KEY=service.key) == "2\n"
    typed = TYPESCRIPT.replace("{ body });\nif (json", f"{{ body: {WRONG} }});\nif (json")
    (tmp_path / "typo.ts").write_text(typed)
    with pytest.raises(AssertionError, match="'dtyp' does not exist"):
        run(*compile_, "--noEmit", "typo.ts", cwd=tmp_path)
