"""How long a request will take, estimated from the batches so far."""

import pytest

from pagevec.engine.throughput import Throughput


def test_learned_throughput_predicts_as_much_work() -> None:
    """The time that a batch took is predicted for as much work."""
    throughput = Throughput(quadratic_crossover=1e9)
    throughput.learn_forward(False, [700] * 4, 2800, 2.0)
    work = throughput.work(700) * 8
    assert throughput.forward_seconds(False, work) == pytest.approx(4.0, rel=1e-3)


def test_padding_counts_as_work() -> None:
    """A short input beside a long one costs as much as the long one, if it is padded to it."""
    for padded, inputs in ((True, 2), (False, 1)):
        throughput = Throughput(quadratic_crossover=1e9, padded=padded)
        throughput.learn_forward(False, [1000, 1], 1000, 2.0)
        assert throughput.forward_seconds(False, 1000) == pytest.approx(2.0 / inputs, rel=1e-2)


def test_kinds_have_their_own_throughput() -> None:
    """Pages also pass through a vision tower: what they take says nothing about queries."""
    throughput = Throughput()
    throughput.learn_forward(False, [700], 700, 1.0)
    assert throughput.forward_seconds(True, throughput.work(700)) == 0.0


def test_small_batches_do_not_count() -> None:
    """A lone query takes the time of a launch: it must not spoil the estimate."""
    throughput = Throughput()
    throughput.learn_forward(True, [20] * 50, 1000, 0.05)
    before = throughput.forward_seconds(True, 1000)
    throughput.learn_forward(True, [20], 1000, 0.05)
    assert throughput.forward_seconds(True, 1000) == before


def test_long_sequences_cost_more_than_their_length() -> None:
    """At the crossover attention has doubled the work of each token."""
    throughput = Throughput(quadratic_crossover=2000)
    assert throughput.work(2000) == pytest.approx(2 * 2000)


def test_preparation_is_shared_by_threads() -> None:
    """Two threads prepare pages in half the time."""
    throughput = Throughput()
    throughput.learn_prepare(1_000_000, 0.1)
    assert throughput.prepare_seconds(4_000_000, 2) == pytest.approx(0.2)


def test_tiny_pages_do_not_count() -> None:
    """A page of one pixel takes the time of the calls; it must not make large pages look slow."""
    throughput = Throughput()
    throughput.learn_prepare(1, 0.001)
    assert 0 < throughput.prepare_seconds(1_000_000, 1) < 1


def test_nothing_is_free_before_it_is_measured() -> None:
    """A cold service does not take on work as if it took no time."""
    throughput = Throughput()
    assert throughput.prepare_seconds(1_000_000) > 0.01
    assert throughput.text_seconds(1_000_000) > 0.1
    assert throughput.pooling_seconds(10_000) > 1


def test_what_was_measured_replaces_what_was_assumed() -> None:
    """Tokenizing and pooling are estimated from what they took, pooling by its pairs."""
    throughput = Throughput()
    throughput.learn_text(10_000, 0.5)
    throughput.learn_pooling(1000, 0.1)
    assert throughput.text_seconds(20_000) == pytest.approx(1.0)
    assert throughput.pooling_seconds(1000) == pytest.approx(0.1)
    assert throughput.pooling_seconds(2000) > 0.39


def test_pooling_long_vectors_takes_longer() -> None:
    """Vectors are compared by their components, or by as many numbers as there are vectors."""
    narrow, wide = Throughput(dim=128), Throughput(dim=4096)
    assert Throughput(dim=48).pooling_seconds(700) == narrow.pooling_seconds(700)
    assert 4 < wide.pooling_seconds(700) / narrow.pooling_seconds(700) < 8
    wide.learn_pooling(700, 0.4)
    assert wide.pooling_seconds(1400) / 0.4 > 6  # twice the vectors, each compared by twice as many


def test_a_request_is_priced_with_its_padding() -> None:
    """Short texts beside long ones cost as much as these, where the model pads."""
    mixed = [10, 500] * 10
    padded, packed = Throughput(1e9, padded=True), Throughput(1e9, padded=False)
    assert packed.request_work(mixed, 1024) == pytest.approx(sum(mixed), rel=1e-3)
    assert padded.request_work(mixed, 1024) > 1.5 * sum(mixed)


def test_a_batch_of_pages_as_work_of_queries() -> None:
    """Four pages took two seconds, a token of a query takes a millisecond: 2000 tokens."""
    throughput = Throughput(quadratic_crossover=1e12)
    assert throughput.pass_work == float("inf")
    throughput.learn_forward(False, [250] * 4, 1000, 2.0)
    throughput.learn_forward(True, [20] * 50, 1000, 1.0)
    assert throughput.pass_work == pytest.approx(2000)
