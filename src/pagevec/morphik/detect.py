"""What a checkout of morphik-core expects, read from its source; nothing of it is run."""

import ast
from pathlib import Path

from pagevec.morphik.domain import WireFormat

CLIENT = Path("core/embedding/colpali_api_embedding_model.py")
CONFIG = Path("core/config.py")

_DOMAIN = "MORPHIK_EMBEDDING_API_DOMAIN"

LOOKED_FOR = f'response.json() with "embeddings", or numpy.load, in {CLIENT}'


def wire_format(folder: Path) -> WireFormat | None:
    """Return the format that the client reads; None if it cannot be told.

    It cannot where there is no source (an installation that runs the image), before the client
    of the API mode existed, and in forks that read both.
    """
    nodes = list(ast.walk(_tree(folder / CLIENT)))
    names = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    # `.json()` alone may read an error; the key is what only an answer in JSON has.
    is_json = "embeddings" in texts and any(name.endswith(".json") for name in names)
    is_npz = "np.load" in names or "numpy.load" in names
    if is_json == is_npz:
        return None
    return "json" if is_json else "npz"


def takes_list(folder: Path) -> bool | None:
    """Return whether the setting is declared as a list of addresses; None if it is not found.

    Later releases declare `list[str]` and, for a while, refused a string; earlier ones declare
    `str` and refuse a list.
    """
    for node in ast.walk(_tree(folder / CONFIG)):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == _DOMAIN:
            return "list[" in ast.unparse(node.annotation).lower()
    return None


def _tree(path: Path) -> ast.AST:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])
