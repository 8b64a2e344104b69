import numpy as np
import pytest

from medsae.statistics import cluster_weights, percentile_interval, stream


def test_each_resample_draws_as_many_clusters_as_there_are():
    weights = cluster_weights(7, 300, stream(0, "weights"))
    assert weights.shape == (300, 7)
    assert (weights.sum(1) == 7).all()
    # binomial(7, 1/7): mean 1, variance 6/7
    assert weights.mean() == 1.0
    assert weights.var() == pytest.approx(6 / 7, rel=0.15)


def test_interval_holds_the_central_95_percent():
    low, high = percentile_interval(np.arange(1001) / 1000)
    assert (low, high) == pytest.approx((0.025, 0.975))


def test_interval_of_each_column():
    values = np.stack([np.arange(101.0), 2 * np.arange(101.0)], axis=1)
    low, high = percentile_interval(values)
    np.testing.assert_allclose(low, [2.5, 5.0])
    np.testing.assert_allclose(high, [97.5, 195.0])


def test_interval_is_undefined_when_most_resamples_are():
    assert np.isnan(percentile_interval([np.nan, np.nan, np.nan, 1.0])).all()
    assert percentile_interval([np.nan, 1.0, 1.0, 1.0]) == (1.0, 1.0)


def test_interval_of_a_clustered_mean_covers_the_truth_and_that_of_single_rows_does_not():
    covered_by_clusters = covered_by_rows = 0
    n_sets, n_clusters, size = 500, 40, 5
    for number in range(n_sets):
        rng = np.random.default_rng([number, 1])
        values = np.repeat(rng.normal(size=n_clusters), size) + 0.3 * rng.normal(
            size=n_clusters * size
        )
        sums = values.reshape(n_clusters, size).sum(1)
        weights = cluster_weights(n_clusters, 199, rng)
        low, high = percentile_interval(weights @ sums / (n_clusters * size))
        covered_by_clusters += low <= 0 <= high
        single = cluster_weights(len(values), 199, rng) @ values / len(values)
        low, high = percentile_interval(single)
        covered_by_rows += low <= 0 <= high
    assert 0.90 < covered_by_clusters / n_sets < 0.98
    assert covered_by_rows / n_sets < 0.75
