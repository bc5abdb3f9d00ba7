"""Does the service answer what a morphik-core installation will ask, as its files say it?"""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx

from pagevec.check import Outcome, run_checks
from pagevec.errors import ConfigurationError
from pagevec.morphik.detect import wire_format
from pagevec.morphik.domain import WireFormat, base_of, wire_of
from pagevec.morphik.env_file import key_in
from pagevec.morphik.settings import DOMAIN, VARIABLE, MorphikSettings
from pagevec.wire.decode import decode_json, decode_npz

_TIMEOUT = httpx.Timeout(600.0, connect=30.0)


def verify(folder: Path) -> Iterator[Outcome]:
    """Yield what is seen: the switch, an answer as morphik-core reads it, then every check.

    Raises:
        ConfigurationError: the files name no address or no key, or cannot be read.
    """
    settings = MorphikSettings.of(folder)
    # Like morphik-core: `.env` wins over the environment.
    key = key_in(folder / ".env") or os.environ.get(VARIABLE)
    if not settings.domains:
        raise ConfigurationError(f"{DOMAIN} is not set: run `pagevec morphik configure`")
    if not key:
        raise ConfigurationError(f"{VARIABLE} is neither in .env nor in the environment")
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        # Said here, since the HTTP library would repeat the key in its error.
        raise ConfigurationError(f"{VARIABLE} has characters that an HTTP header cannot carry")
    yield _switch(settings)
    for domain in settings.domains:
        yield _answer(domain, key, wire_format(folder) or wire_of(domain))
        yield from run_checks(base_of(domain), key)


def _switch(settings: MorphikSettings) -> Outcome:
    seen = f"enable_colpali is {settings.is_enabled}, colpali_mode is {settings.mode}"
    return "pages are embedded by a service", settings.is_enabled and settings.mode == "api", seen


def _answer(domain: str, key: str, wire: WireFormat | None) -> Outcome:
    name = "answer is what morphik reads"
    try:
        return name, True, f"{_ask(domain, key, wire)} vectors from {domain} as {wire}"
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return name, False, f"{type(error).__name__}: {error}"


def _ask(domain: str, key: str, wire: WireFormat | None) -> int:
    """Send the request that morphik-core sends; return the number of vectors."""
    if wire is None:
        raise ValueError(f"which format it reads is not known, and {domain} does not say it")
    response = httpx.post(
        f"{domain.rstrip('/')}/embeddings",
        json={"input_type": "text", "inputs": ["hello"]},
        headers={"Authorization": f"Bearer {key}"},
        timeout=_TIMEOUT,
        trust_env=False,
    )
    response.raise_for_status()
    decode = decode_npz if wire == "npz" else decode_json
    return len(decode(response.content)[0])
