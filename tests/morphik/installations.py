"""Folders laid out like releases of morphik-core; the code in them is our own."""

from pathlib import Path

SECRET = "jwt-secret-of-somebody"

_TOML = """[api]
host = "0.0.0.0"
port = 8000

#### Registered models
[registered_models]
# OpenAI models
openai_gpt4-1 = {{ model_name = "gpt-4.1" }}

[worker]
arq_max_jobs = 1  # Maximum concurrent jobs for ARQ worker

[morphik]
enable_colpali = false
mode = "self_hosted"  # "cloud" or "self_hosted"
api_domain = "api.morphik.ai"  # API domain for cloud URIs
# Only call the embedding API if colpali_mode is "api"
morphik_embedding_api_domain = {domain}  # endpoint for multivector embedding service
colpali_mode = "local" # "off", "local", or "api"
{more}
[pdf_viewer]
frontend_url = "http://localhost:3000/api/pdf" # "https://morphik.ai/api/pdf"

# [graph]
# mode="api"
"""

ENV = f"""JWT_SECRET_KEY="{SECRET}"  # Required in production
# POSTGRES_URI="postgresql+asyncpg://localhost:5432/morphik" # Required

export GEMINI_API_KEY='...' # Optional
"""

_JSON_CLIENT = '''
class ColpaliApiEmbeddingModel:
    """Reads JSON; np.load( stands in this sentence only."""

    async def call_api(self, inputs, input_type):
        async with AsyncClient() as client:
            reply = await client.post(self.endpoint, json={"inputs": inputs})
        return reply.json()["embeddings"]
'''

_NPZ_CLIENT = """
class ColpaliApiEmbeddingModel:
    async def _call_api_endpoint(self, endpoint, inputs, input_type):
        async with AsyncClient() as client:
            reply = await client.post(endpoint, json={"inputs": inputs})
        if reply.status_code != 200:
            raise RuntimeError(reply.json()["error"])
        arrays = await asyncio.to_thread(np.load, io.BytesIO(reply.content))
        return [arrays[f"emb_{i}"] for i in range(int(arrays["count"]))]

    def size(self, batch):
        return len(json.dumps(batch))
"""

_CONFIG = """
class Settings(BaseSettings):
    MORPHIK_EMBEDDING_API_KEY: Optional[str] = None
    MORPHIK_EMBEDDING_API_DOMAIN: {kind}  # endpoints
"""


def json_release(folder: Path, more: str = "") -> Path:
    """Make a release of mid-2025: JSON, one address as a string."""
    return _installation(folder, '"http://localhost:6000"', "str", _JSON_CLIENT, more)


def npz_release(folder: Path, more: str = "") -> Path:
    """Make a release of 2026: npz, a list of addresses."""
    return _installation(folder, '["http://localhost:6000"]', "list[str]", _NPZ_CLIENT, more)


def middle_release(folder: Path) -> Path:
    """Make a release of late 2025: npz, and still one address as a string."""
    return _installation(folder, '"http://localhost:6000"', "str", _NPZ_CLIENT)


def forked_release(folder: Path) -> Path:
    """Make a fork whose client reads both formats."""
    return _installation(folder, '"http://localhost:6000"', "str", _JSON_CLIENT + _NPZ_CLIENT)


def image_only(folder: Path) -> Path:
    """Make what the Docker installer leaves: the configuration, no source, no .env."""
    (folder / "morphik.toml").write_text(_TOML.format(domain='"http://localhost:6000"', more=""))
    return folder


def _installation(folder: Path, domain: str, kind: str, client: str, more: str = "") -> Path:
    (folder / "core" / "embedding").mkdir(parents=True)
    (folder / "morphik.toml").write_text(_TOML.format(domain=domain, more=more))
    (folder / ".env").write_text(ENV)
    (folder / "core" / "embedding" / "colpali_api_embedding_model.py").write_text(client)
    (folder / "core" / "config.py").write_text(_CONFIG.format(kind=kind))
    return folder
