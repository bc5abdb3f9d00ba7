"""The estimate of a request's duration."""

import pytest

from pagevec.engine.speed import Speed


def test_learned_speed_predicts_the_same_batch() -> None:
    """What was measured is what is predicted for as much work."""
    speed = Speed(attention_knee=1e9)
    speed.learn_forward(False, [700] * 4, 2800, 2.0)
    assert speed.forward_seconds(False, speed.work(700) * 8) == pytest.approx(4.0, rel=1e-3)


def test_padding_is_work_where_there_is_some() -> None:
    """Of a long and a short input the short one costs as much, if it is padded to the long one."""
    for padded, inputs in ((True, 2), (False, 1)):
        speed = Speed(attention_knee=1e9, padded=padded)
        speed.learn_forward(False, [1000, 1], 1000, 2.0)
        assert speed.forward_seconds(False, 1000) == pytest.approx(2.0 / inputs, rel=1e-2)


def test_kinds_have_their_own_speed() -> None:
    """Pages cost a vision tower as well: their speed says nothing of queries."""
    speed = Speed()
    speed.learn_forward(False, [700], 700, 1.0)
    assert speed.forward_seconds(True, speed.work(700)) == 0.0


def test_small_batches_are_no_measure() -> None:
    """A lone query takes the time of a launch, not of its tokens; it must not slow the estimate."""
    speed = Speed()
    speed.learn_forward(True, [20] * 50, 1000, 0.05)
    before = speed.forward_seconds(True, 1000)
    speed.learn_forward(True, [20], 1000, 0.05)
    assert speed.forward_seconds(True, 1000) == before


def test_long_sequences_cost_more_than_their_length() -> None:
    """At the knee attention has doubled the work of each token."""
    speed = Speed(attention_knee=2000)
    assert speed.work(2000) == pytest.approx(2 * 2000)


def test_preparation_is_shared_by_threads() -> None:
    """Two threads prepare pages in half the time."""
    speed = Speed()
    speed.learn_prepare(1_000_000, 0.1)
    assert speed.prepare_seconds(4_000_000, 2) == pytest.approx(0.2)


def test_dots_are_no_measure_of_pixels() -> None:
    """A page of one pixel takes the time of the calls; it must not make large pages look slow."""
    speed = Speed()
    speed.learn_prepare(1, 0.001)
    assert speed.prepare_seconds(1_000_000, 1) == 0.0
