import numpy as np

from medsae.statistics import stream


def test_streams_are_fixed_by_seed_and_names():
    np.testing.assert_array_equal(stream(3, "a", 1).random(5), stream(3, "a", 1).random(5))


def test_streams_of_different_names_differ():
    draws = [
        stream(3, *names).random()
        for names in [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",)]
    ] + [stream(4, "a").random()]
    assert len(set(draws)) == len(draws)
