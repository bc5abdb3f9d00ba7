"""Vectors as bytes and back."""

from typing import get_args

import numpy as np
import pytest

from pagevec.stores.base import are_unit
from pagevec.stores.codec import VectorFormat, pack, unpack, unpack_unit
from vectors import unit_vectors


def test_every_half_is_converted() -> None:
    """The fast conversion from float16 to float32 is exact for every finite number."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    read = unpack(finite.tobytes(), 8, "float16")
    np.testing.assert_array_equal(read, finite.astype(np.float32).reshape(-1, 8))


@pytest.mark.parametrize("dim", [1, 7, 48, 100, 128, 320, 2560, 4096])
@pytest.mark.parametrize("form", get_args(VectorFormat))
def test_every_dimension(dim: int, form: VectorFormat) -> None:
    """Vectors come back as exact as their format, in as few bytes as can be; cuts are noticed."""
    vectors = unit_vectors(5, 1, dim)
    packed = pack(vectors, form)
    sizes = {"float16": 2 * dim, "int8": dim + 4, "binary": (dim + 7) // 8}
    assert len(packed) == 5 * sizes[form]
    back = unpack_unit(packed, dim, form, 5)
    if form == "binary":
        np.testing.assert_allclose(back, np.where(vectors > 0, 1, -1) / dim**0.5, rtol=1e-6)
    else:
        error = {"float16": 2.0**-11, "int8": float(np.abs(vectors).max()) / 254}[form]
        np.testing.assert_allclose(back, vectors, rtol=0, atol=1.001 * error)
    for cut in (packed[: -sizes[form]], packed[:-1], packed + b"\0"):
        with pytest.raises(ValueError, match=r"cut off|4 vectors|6 vectors|unit length"):
            unpack_unit(cut, dim, form, 5)


@pytest.mark.parametrize("dim", [128, 4096])
def test_what_int8_makes_of_odd_vectors_is_no_damage(dim: int) -> None:
    """Vectors with one large component lose or gain most by rounding: they are of unit length."""
    for steps in (0.49, 0.51, 1.49, 1.51, 2.51):
        vectors = np.full((3, dim), steps, np.float32)
        vectors[:, 0] = 127
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        assert are_unit(unpack_unit(pack(vectors, "int8"), dim, "int8", 3))
    for factor in (0, 0.5, 1.5, np.nan, np.inf):
        assert not are_unit(np.float32(factor) * vectors)
