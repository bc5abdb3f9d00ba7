"""transformers' loading reports: weights that found no place, places that got no weight."""

from collections.abc import Collection, Mapping
from typing import Any

from pagevec.errors import CheckpointError

_SHOWN = 4


def faults_in(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the keys at fault, by the kind of fault: missing, unexpected, mismatched."""
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    return {kind: sorted(map(str, report[kind])) for kind in kinds if report.get(kind)}


def refuse_faults(source: str, faults: Mapping[str, Collection[str]]) -> None:
    """Raise CheckpointError if there are any, naming some of them."""
    if faults:
        told = "; ".join(_told(kind, list(keys)) for kind, keys in faults.items())
        raise CheckpointError(
            f"{source} did not load completely ({told}): it is damaged, of another family "
            "(PAGEVEC_FAMILY), or made for another version of transformers"
        )


def _told(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{kind.replace('_', ' ')}: {', '.join(keys[:_SHOWN])}{more}"
