"""The service's settings, read once, each with its help and its bounds."""

import ipaddress
from pathlib import Path
from typing import Literal, Self

from pydantic import SecretStr, field_validator, model_validator

from pagevec.environment import EnvironmentSettings, bounded, named
from pagevec.errors import ConfigurationError
from pagevec.limits import ImageLimits
from pagevec.secrets import fault_of_key, split_keys

_MIB = 1024 * 1024


class Settings(EnvironmentSettings):
    """The service's configuration. Read it with :meth:`from_environment`."""

    other_prefixes = ("PAGEVEC_MODAL_",)
    other_names = ("PAGEVEC_URL",)  # where the commands that ask a service find it

    # The model
    model: str = bounded(
        "auto",
        "checkpoint name on the hub, local directory, `bundled` (the small model in the package), "
        "or `auto`: the default checkpoint where CUDA is found, else `bundled`",
        min_length=1,
    )
    revision: str | None = bounded(None, "commit, tag or branch of the checkpoint")
    family: str = bounded(
        "auto",
        "model family (see `pagevec models`); auto reads it from the checkpoint; "
        "`sentence-transformers` leaves the model to that library (docs/models.md)",
    )
    trust_remote_code: bool = bounded(
        False,
        "run the code in the checkpoint's repository, which can do anything on this machine: read "
        "it first, and pin PAGEVEC_REVISION; only for PAGEVEC_FAMILY=sentence-transformers",
    )
    backend: str | None = bounded(
        None,
        "backend of your own, in place of a checkpoint (see docs/backends.md)",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        expected="package.module:name",
    )
    device: str = bounded(
        "auto",
        "device that runs the model; auto prefers CUDA, then MPS",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        expected="auto, cpu, mps, cuda or cuda:N",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = bounded(
        "auto",
        "dtype of the weights; auto is bfloat16 on CUDA (float16 below compute capability 8.0), "
        "else float32",
    )
    precision: Literal["full", "int8", "fp8", "fastest"] = bounded(
        "full",
        "precision of the large matrix products: full is that of the weights; int8 and fp8 are "
        "less exact (see docs/benchmarks.md) and need `pagevec[precision]`; fastest measures at "
        "start whether this CPU is faster in bfloat16 or int8 than in float32",
    )
    forward: Literal["auto", "packed", "padded"] = bounded(
        "auto",
        "forward pass: packed has no padding and is faster, padded is colpali-engine's own; auto "
        "is packed where the family allows it and a first page and query agree with padded",
    )
    max_visual_tokens: int | None = bounded(
        None, "visual tokens of one page; default: what the checkpoint says", ge=4, le=16384
    )
    offline: bool = bounded(False, "never contact the hub; use local files only")

    # The engine
    batch_tokens: int | None = bounded(
        None,
        "tokens of one forward pass; default: 1024 on a CPU, 16384 on an accelerator",
        ge=64,
        le=1_000_000,
    )
    model_threads: int | None = bounded(
        None,
        "batches that go through the model at once; default: up to 4 on a CPU, else 1",
        ge=1,
        le=64,
    )
    preprocess_threads: int | None = bounded(
        None, "threads that decode and resize pages; default: one for each core", ge=1, le=256
    )
    max_queued_inputs: int = bounded(
        10_000, "inputs that may wait; a request beyond that gets a 503", ge=1, le=10_000_000
    )
    max_answer_bytes: int = bounded(
        512 * _MIB, "bytes of one answer, at most; a request beyond that gets a 413", ge=1024
    )
    max_working_bytes: int = bounded(
        2048 * _MIB,
        "bytes that decoding pictures and pooling may take at once; an input that needs more gets "
        "a 413",
        ge=1024 * 1024,
    )
    request_seconds: float = bounded(
        120.0,
        "time budget of a request; one that cannot be done in it gets a 413",
        gt=0,
        le=86400,
    )

    # The HTTP service
    host: str = bounded("127.0.0.1", "address to listen on", min_length=1)
    port: int = bounded(8765, "port to listen on; 0 picks a free one", ge=0, le=65535)
    trusted_proxies: str = bounded(
        "127.0.0.1,::1",
        "proxies whose X-Forwarded-For says who the caller is, for the log",
        expected="addresses or networks, separated by commas",
    )
    default_format: Literal["json", "npz"] = bounded(
        "json", "format of the answer to POST /embeddings where Accept does not decide"
    )
    served_model_names: str | None = bounded(
        None,
        "other names under which requests of vLLM's and OpenAI's form may ask for the model",
        expected="names, separated by commas",
    )
    max_body_bytes: int = bounded(256 * _MIB, "bytes of a request body, at most", ge=1024)
    max_held_bytes: int | None = bounded(
        None,
        "bytes that all requests hold at once, half for bodies and half for answers; default: "
        "1 GiB, or four bodies if they are more",
        ge=4096,
    )
    max_inputs: int = bounded(256, "inputs in one request, at most", ge=1, le=100_000)
    max_text_chars: int = bounded(32_000, "characters of one text, at most", ge=1)
    max_image_bytes: int = bounded(ImageLimits.max_bytes, "bytes of one image file, at most", ge=64)
    max_image_pixels: int = bounded(
        ImageLimits.max_pixels, "pixels of one image, at most", ge=1, le=2**28
    )
    max_image_side: int = bounded(
        ImageLimits.max_side, "pixels of one side of an image, at most", ge=1
    )
    rate_limit: str | None = bounded(
        None,
        "requests that one key may send; default: no limit",
        expected="a rate such as `600/minute`",
    )
    rate_limit_storage: str = bounded(
        "memory://",
        "where requests are counted; Redis counts for several hosts together",
        min_length=1,
        expected="memory:// or redis://host:port",
    )
    store: str | None = bounded(
        None,
        "store whose documents are shown and searched over HTTP, and on a page at /: a folder, "
        "postgresql://... or qdrant:...; default: none, the service only embeds",
        min_length=1,
    )
    uploads: bool = bounded(
        False, "let callers add documents to the store, and remove documents from it"
    )
    uploads_folder: Path | None = bounded(
        None,
        "where uploaded files are kept until their documents are removed; default: `uploads` in "
        "the folder of the store",
    )
    max_upload_bytes: int = bounded(
        512 * _MIB, "bytes of one upload with all its files, at most", ge=1024
    )
    max_uploads_bytes: int = bounded(
        32 * 1024 * _MIB, "bytes of all uploaded files together, at most", ge=1024
    )
    max_document_pages: int = bounded(2000, "pages of one uploaded document, at most", ge=1)
    shutdown_seconds: int = bounded(
        150, "seconds that a stopping service gives its requests to finish", ge=0, le=86400
    )
    log_level: Literal["debug", "info", "warning", "error"] = bounded("info", "log level")
    log_format: Literal["json", "console"] = bounded("console", "format of the log's lines")

    # Names that others gave
    service_api_key: SecretStr | None = named(
        "bearer keys; several are valid at once, for rotation",
        "SERVICE_API_KEY",
        expected="keys in ASCII without spaces, separated by commas",
    )
    service_api_key_file: Path | None = named(
        "file of bearer keys, in place of SERVICE_API_KEY: one a line or separated by commas; "
        "read again when it changes",
        "SERVICE_API_KEY_FILE",
    )
    huggingface_token: SecretStr | None = named(
        "token for private checkpoints", "HUGGINGFACE_TOKEN", "HF_TOKEN"
    )
    hf_home: Path | None = named("where downloaded checkpoints are kept", "HF_HOME")

    @field_validator("rate_limit")
    @classmethod
    def _check_rate(cls, value: str | None) -> str | None:
        if value is not None:
            from limits import parse_many

            parse_many(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: str) -> str:
        for one in value.split(","):
            ipaddress.ip_network(one.strip())
        return value

    @field_validator("service_api_key")
    @classmethod
    def _check_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _usable_keys(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _check_one_source_of_keys(self) -> Self:
        if self.service_api_key is not None and self.service_api_key_file is not None:
            raise ValueError("set SERVICE_API_KEY or SERVICE_API_KEY_FILE, not both")
        return self

    @model_validator(mode="after")
    def _check_room_for_a_body(self) -> Self:
        if self.held_bytes < 2 * self.max_body_bytes:
            raise ValueError(
                f"PAGEVEC_MAX_HELD_BYTES={self.max_held_bytes}: has to be at least twice "
                f"PAGEVEC_MAX_BODY_BYTES={self.max_body_bytes}"
            )
        return self

    @model_validator(mode="after")
    def _check_uploads(self) -> Self:
        if self.uploads and self.store is None:
            raise ValueError("PAGEVEC_UPLOADS needs a store to add documents to: PAGEVEC_STORE")
        return self

    @property
    def held_bytes(self) -> int:
        """Bytes that all requests hold at once."""
        return self.max_held_bytes or max(1024 * _MIB, 4 * self.max_body_bytes)

    @property
    def image_limits(self) -> ImageLimits:
        """What one image may be at most."""
        return ImageLimits(self.max_image_bytes, self.max_image_pixels, self.max_image_side)

    @property
    def keys(self) -> tuple[str, ...]:
        """The bearer keys as they are now; empty when none is set.

        Raises:
            ConfigurationError: the file of keys cannot be read, or holds none that can be sent.
        """
        if self.service_api_key_file is not None:
            return self._read_keys(self.service_api_key_file)
        secret = self.service_api_key
        return () if secret is None else _usable_keys(secret.get_secret_value())

    def _read_keys(self, file: Path) -> tuple[str, ...]:
        try:
            return _usable_keys(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            reason = "the file is not text"  # the error itself would show what is in it
        except OSError as error:
            reason = error.strerror or type(error).__name__
        except ValueError as error:
            reason = str(error)
        raise ConfigurationError(f"{self.cite('service_api_key_file')}: {reason}")


def _usable_keys(text: str) -> tuple[str, ...]:
    """Return the keys in `text`.

    Raises:
        ValueError: there is no key, or one that cannot be sent.
    """
    keys = split_keys(text)
    if not keys:
        raise ValueError("there is no key in it")
    for number, key in enumerate(keys, 1):
        if fault := fault_of_key(key):
            raise ValueError(f"key {number} cannot be used: {fault}")
    return keys


# What a field takes, read from its JSON schema: errors, `--help` and documents agree
