"""Reading npz files: each array comes back as it was, and threads do not disturb each other."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from load import collecting_garbage, loaded
from pagevec.wire.decode import decode_npz
from pagevec.wire.encode import encode
from pagevec.wire.npz import Npz
from vectors import unit_vectors

dtypes = st.sampled_from(["<f2", "<f4", "<i1", "|u1", "<i4", "<i8", "|b1", "<U3", ">f4"])
shapes = array_shapes(min_dims=0, min_side=0, max_side=5)


def saved(**named: NDArray[Any]) -> BytesIO:
    """Return what numpy writes."""
    file = BytesIO()
    np.savez_compressed(file, allow_pickle=True, **named)
    return file


@settings(derandomize=True, deadline=None, database=None)
@given(dtypes.flatmap(lambda dtype: arrays(dtype, shapes)), st.booleans())
def test_arrays_come_back_as_they_were(values: NDArray[Any], turned: bool) -> None:
    """Values, dtype and shape, in C's order and in Fortran's."""
    values = np.asfortranarray(values) if turned else values
    with Npz(saved(one=values)) as file:
        read = file["one"]
        assert "one" in file
        assert "two" not in file
    np.testing.assert_array_equal(read, values)
    assert (read.dtype, read.shape) == (values.dtype, values.shape)


@pytest.mark.parametrize("values", [np.array([None]), np.zeros(2, [("x", "f4"), ("y", "f4")])])
def test_objects_are_refused(values: NDArray[Any]) -> None:
    """Nothing but numbers and characters is read, so no pickle ever runs."""
    with Npz(saved(one=values)) as file, pytest.raises(ValueError, match="array"):
        file["one"]


def test_answers_are_read_in_many_threads() -> None:
    """CPython's parser of literals fails where threads meet in it; reading does not use it."""
    body = encode([unit_vectors(2, seed) for seed in range(20)], "text", "float16", "npz")
    with collecting_garbage(), loaded(*(lambda: len(decode_npz(body)),) * 8, pause=0) as load:
        load.wait_for(200)
    assert set(load.answers) == {20}
