"""Every prior has the quantiles of its distribution, and its draws are a function of the seed."""

import numpy as np
import pytest
from scipy import stats

from keras_robust.errors import InputError
from keras_robust.noise import Noise
from keras_robust.priors import priors, sample

DISTRIBUTIONS = {"normal": stats.norm(), "uniform": stats.uniform(-3, 6), "cauchy": stats.cauchy()}


@pytest.mark.parametrize("name", priors)
def test_draws_follow_the_distribution(name):
    draws = sample(name, (5000, 4), seed=3)
    assert draws.dtype == np.float32 and np.isfinite(draws).all()
    assert stats.kstest(draws.ravel(), DISTRIBUTIONS[name].cdf).pvalue > 0.001
    assert abs(stats.spearmanr(draws).statistic - np.eye(4)).max() < 0.05, "columns are independent"


@pytest.mark.parametrize(("name", "deviation"), [("normal", 1.0), ("uniform", np.sqrt(3.0))])
def test_moments(name, deviation):
    draws = sample(name, (20000,))
    assert abs(draws.mean()) < 0.05
    assert draws.std() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("name", priors)
def test_the_seed_makes_the_draws(name):
    np.testing.assert_array_equal(sample(name, (3, 2), seed=1), sample(name, (3, 2), seed=1))
    assert (sample(name, (3, 2), seed=1) != sample(name, (3, 2), seed=2)).all()


@pytest.mark.parametrize("name", priors)
def test_replicas_share_the_draws_of_one_device(name):
    whole = priors[name](Noise((0, 5)), (4, 2))
    parts = [priors[name](Noise((0, 5), (index, 2)), (2, 2)) for index in range(2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_bad_input_is_told():
    with pytest.raises(InputError, match="Unknown prior: 'gauss'"):
        sample("gauss", (2,))
    with pytest.raises(InputError, match="shape must be integers >= 0"):
        sample("normal", (2.5,))
