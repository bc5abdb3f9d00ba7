"""The address that morphik-core is given: the service's, with the path that picks the format.

Its releases send the same bytes, whichever format they read, and append `/embeddings` themselves;
so `https://host/npz` in `morphik.toml` is what tells the service to answer npz.
"""

import re
from typing import Literal, get_args
from urllib.parse import urlsplit

from pagevec.errors import ConfigurationError

WireFormat = Literal["json", "npz"]
FORMATS: tuple[WireFormat, ...] = get_args(WireFormat)

# Never at the second slash of `//`: a host may be called `embeddings`.
_ENDING = re.compile(r"(?<!/)(/(?P<wire>json|npz))?(/embeddings)?/*$")


def domain_for(url: str, wire: WireFormat) -> str:
    """Return what stands in `morphik.toml` for the service at `url`.

    Raises:
        ConfigurationError: `url` is not an address that can have a path appended.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"{url!r} is not an address such as https://host or http://host:1")
    return f"{base_of(url)}/{wire}"


def base_of(domain: str) -> str:
    """Return the service's own address: `https://host/npz` -> `https://host`."""
    return _ENDING.sub("", domain.strip(), count=1)


def wire_of(domain: str) -> WireFormat | None:
    """Return the format that the path of `domain` asks for, if it asks for one."""
    found = _ENDING.search(domain.strip())
    return next((wire for wire in FORMATS if found and found["wire"] == wire), None)
