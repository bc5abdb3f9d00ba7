"""Do both services answer the same? Speed is worth nothing otherwise."""

import numpy as np

from benchmarks.servers import Server
from pagevec.types import MultiVector
from pagevec.wire.decode import decode_json, decode_npz

TOLERANCE = 1e-4
_PADDING_LENGTH = 0.5  # rows are of unit length; a padding row is nearly zero


class AnswersDiffer(Exception):
    """The services gave different vectors: no figures are reported."""


def largest_difference(plain: Server, ours: Server, bodies: list[bytes]) -> float:
    """Ask both services, ours in both formats; return the largest difference of any number.

    Raises:
        AnswersDiffer: it is above the tolerance, or shapes differ.
    """
    return max(_difference(plain, ours, body) for body in bodies)


def difference_of(got: list[MultiVector], wanted: list[MultiVector]) -> float:
    """Return the largest difference of any number.

    Raises:
        AnswersDiffer: it is above the tolerance, or shapes differ.
    """
    if [one.shape for one in got] != [one.shape for one in wanted]:
        raise AnswersDiffer("pagevec and the plain loop answer with different shapes")
    pairs = zip(got, wanted, strict=True)
    difference = max(float(np.abs(one - other).max()) for one, other in pairs)
    if not difference <= TOLERANCE:
        raise AnswersDiffer(f"pagevec and the plain loop differ by {difference:.1e}")
    return difference


def _difference(plain: Server, ours: Server, body: bytes) -> float:
    wanted = [_without_padding(one) for one in decode_json(_ask(plain, "/embeddings", body))]
    answers = (
        decode_json(_ask(ours, "/json/embeddings", body)),
        decode_npz(_ask(ours, "/npz/embeddings", body)),
    )
    return max(difference_of(got, wanted) for got in answers)


def _without_padding(vectors: MultiVector) -> MultiVector:
    kept: MultiVector = vectors[np.linalg.norm(vectors, axis=1) > _PADDING_LENGTH]
    return kept


def _ask(server: Server, path: str, body: bytes) -> bytes:
    with server.client() as http:
        return http.post(path, content=body).raise_for_status().content
