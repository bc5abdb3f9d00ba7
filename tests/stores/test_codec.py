"""Vectors as bytes and back."""

import numpy as np

from pagevec.stores.codec import unpack


def test_every_half_is_converted() -> None:
    """The fast conversion from float16 to float32 is exact for every finite number."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    read = unpack(finite.tobytes(), 8, "float16")
    np.testing.assert_array_equal(read, finite.astype(np.float32).reshape(-1, 8))
