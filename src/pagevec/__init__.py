"""pagevec: document pages in, ColPali multi-vectors out; documents in, answers out.

>>> import pagevec
>>> model = pagevec.load("bundled")  # or pagevec.Client(url, key)  # doctest: +SKIP
>>> index = pagevec.Index("./pagevec-store", model)  # doctest: +SKIP
>>> index.add(["reports/"])  # doctest: +SKIP
>>> hits = index.search("night route passengers")  # doctest: +SKIP
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from pagevec._former import FormerNames

if TYPE_CHECKING:
    from pagevec.client import AsyncClient, Client
    from pagevec.errors import PagevecError
    from pagevec.local import LocalModel, load
    from pagevec.search.aio import AsyncIndex
    from pagevec.search.index import Index
    from pagevec.search.results import Hit, Report
    from pagevec.types import AsyncModel, Model, ModelInfo, MultiVector

__version__ = "0.2.0"

__all__ = [
    "AsyncClient",
    "AsyncIndex",
    "AsyncModel",
    "Client",
    "Hit",
    "Index",
    "LocalModel",
    "Model",
    "ModelInfo",
    "MultiVector",
    "PagevecError",
    "Report",
    "load",
]

# Imported when they are used (PEP 562): the client needs no torch, the model no client.
_MODULES = {
    "AsyncClient": "pagevec.client",
    "AsyncIndex": "pagevec.search.aio",
    "AsyncModel": "pagevec.types",
    "Client": "pagevec.client",
    "Hit": "pagevec.search.results",
    "Index": "pagevec.search.index",
    "LocalModel": "pagevec.local",
    "Model": "pagevec.types",
    "ModelInfo": "pagevec.types",
    "MultiVector": "pagevec.types",
    "PagevecError": "pagevec.errors",
    "Report": "pagevec.search.results",
    "load": "pagevec.local",
}

sys.meta_path.append(FormerNames())


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pagevec' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
