"""What mteb's HybridSearch makes of scores, as it is.

    python mteb_fusion.py CASES

CASES is a JSON list of {"scores": [{id: score}, ...], "weights": [...], "fusion": "rsf" or "rrf"}.
"""

import json
import sys
from typing import Any

from mteb.models.hybrid_wrappers import HybridSearch

from pagevec.engine.models.compat import import_torchvision

import_torchvision()  # before mteb imports sentence-transformers


class Ranker:
    """A search model of which only its scores are asked."""

    mteb_model_meta = None

    def index(self, *_: Any, **__: Any) -> None:
        """Not asked."""

    search = index


fused = [
    HybridSearch(
        [Ranker(), Ranker()], weights=case["weights"], fusion_strategy=case["fusion"]
    ).fuse(case["scores"])
    for case in json.loads(sys.argv[1])
]
print(json.dumps(fused))
