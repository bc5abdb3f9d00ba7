"""`pagevec morphik verify`: check the service that the files of an installation name."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx

from pagevec.check import TIMEOUT, Outcome, run_checks
from pagevec.client.connections import CertificateAuthority, trust
from pagevec.client.faults import wrap_error
from pagevec.client.reach import require_answer
from pagevec.errors import ConfigurationError
from pagevec.morphik.installation import DOMAIN, VARIABLE, MorphikSettings, read_key
from pagevec.morphik.release import DIM, detect_format, read_format, remove_format
from pagevec.secrets import fault_of_key
from pagevec.wire.decode import decode_json, decode_npz
from pagevec.wire.negotiation import WireFormat


def verify(folder: Path, ca: CertificateAuthority | None = None) -> Iterator[Outcome]:
    """Yield the outcome of each check, for each address of the installation.

    The checks are whether the installation uses a service, whether the answer has the format that
    morphik-core reads, and those of `pagevec check`.

    Args:
        folder: of the installation, with `morphik.toml`.
        ca: whom to trust for https, as in `pagevec.client.Client`.

    Raises:
        ConfigurationError: the files name no address or no key, or cannot be read.
        Unreachable: nobody answers at an address.
    """
    settings = MorphikSettings.read(folder)
    # As in morphik-core, `.env` takes precedence over the environment.
    key = read_key(folder / ".env") or os.environ.get(VARIABLE)
    if not settings.domains:
        raise ConfigurationError(f"{DOMAIN} is not set: run `pagevec morphik configure`")
    if not key:
        raise ConfigurationError(f"{VARIABLE} is neither in .env nor in the environment")
    if fault := fault_of_key(key):  # which an error of the HTTP library would repeat
        raise ConfigurationError(f"{VARIABLE}: {fault}")
    yield _check_switch(settings)
    for domain in settings.domains:
        require_answer(remove_format(domain), ca)
    for domain in settings.domains:
        yield _check_answer(domain, key, detect_format(folder) or read_format(domain), ca)
        yield from run_checks(remove_format(domain), key, ca)


def _check_switch(settings: MorphikSettings) -> Outcome:
    seen = f"enable_colpali is {settings.is_enabled}, colpali_mode is {settings.mode}"
    return "pages are embedded by a service", settings.is_enabled and settings.mode == "api", seen


def _check_answer(
    domain: str, key: str, wire: WireFormat | None, ca: CertificateAuthority | None
) -> Outcome:
    name = "answer is what morphik reads"
    try:
        return name, True, f"{_ask(domain, key, wire, ca)} vectors from {domain} as {wire}"
    except httpx.RequestError as error:
        return name, False, str(wrap_error(error, domain))
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return name, False, f"{type(error).__name__}: {error}"


def _ask(domain: str, key: str, wire: WireFormat | None, ca: CertificateAuthority | None) -> int:
    """Send the request that morphik-core sends and return the number of vectors."""
    if wire is None:
        raise ValueError(f"neither the source nor {domain} shows which format it reads")
    response = httpx.post(
        f"{domain.rstrip('/')}/embeddings",
        json={"input_type": "text", "inputs": ["hello"]},
        headers={"Authorization": f"Bearer {key}"},
        timeout=TIMEOUT,
        trust_env=False,
        verify=trust(ca, domain),
    )
    response.raise_for_status()
    [vectors] = (decode_npz if wire == "npz" else decode_json)(response.content)
    if vectors.shape[1] != DIM:
        raise ValueError(
            f"vectors of {vectors.shape[1]} dimensions; morphik-core's table takes {DIM}: serve a "
            "model of that dimension"
        )
    return len(vectors)
