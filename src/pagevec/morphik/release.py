"""What a release of morphik-core expects: which format it reads, and which address it is given.

All releases send the same bytes, whichever format they read, and append `/embeddings` to the
address themselves. So the path of the address in `morphik.toml` (`https://host/npz`) decides the
format of the answer. The source of a checkout is parsed to detect the format; it is never run.
"""

import ast
import re
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from pagevec.errors import ConfigurationError
from pagevec.wire.negotiation import WireFormat

DIM = 128
"""Components of a vector in every release: the bits that its table has for one."""

CLIENT = Path("core/embedding/colpali_api_embedding_model.py")
CONFIG = Path("core/config.py")

_SETTING = "MORPHIK_EMBEDDING_API_DOMAIN"
# Never at the second slash of `//`: a host may be called `embeddings`.
_ENDING = re.compile(r"(?<!/)(/(?P<format>json|npz))?(/embeddings)?/*$")


def detect_format(folder: Path) -> WireFormat | None:
    """Return the format that the release in `folder` reads; None if its source does not show it.

    That is so without source (an installation that runs the image), before the client had an API
    mode, and in forks that read both formats.
    """
    nodes = list(ast.walk(_parse(folder / CLIENT)))
    names = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    # `.json()` alone may read an error message; only a JSON answer has this key.
    is_json = "embeddings" in texts and any(name.endswith(".json") for name in names)
    is_npz = "np.load" in names or "numpy.load" in names
    if is_json == is_npz:
        return None
    return "json" if is_json else "npz"


def takes_list(folder: Path) -> bool | None:
    """Return whether the release declares a list of addresses; None if there is no declaration.

    Later releases declare `list[str]`, and for a while refused a string; earlier ones declare `str`
    and refuse a list.
    """
    for node in ast.walk(_parse(folder / CONFIG)):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == _SETTING:
            return "list[" in ast.unparse(node.annotation).lower()
    return None


def add_format(url: str, wire: WireFormat) -> str:
    """Return the address for `morphik.toml`: `https://host` and npz give `https://host/npz`.

    Raises:
        ConfigurationError: `url` is not an address to which a path can be appended.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"--url {url}: expected https://host or http://host:port")
    return f"{remove_format(url)}/{wire}"


def remove_format(domain: str) -> str:
    """Return the service's own address: `https://host/npz` gives `https://host`."""
    return _ENDING.sub("", domain.strip(), count=1)


def read_format(domain: str) -> WireFormat | None:
    """Return the format in the path of `domain`; None if there is none."""
    ending = _ENDING.search(domain.strip())
    return next((one for one in get_args(WireFormat) if ending and ending["format"] == one), None)


def _parse(path: Path) -> ast.AST:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])
