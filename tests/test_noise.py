"""Noise is a pure function of its key, whoever draws it and however it is compiled."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_robust.noise import Noise

DRAWS = {"uniform": Noise.uniform, "normal": Noise.normal}
each_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


@each_draw
def test_same_key_same_numbers(draw):
    first, again = (draw(Noise((3, 7)), (4, 5)).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)


@each_draw
@pytest.mark.parametrize("other", [(3, 8), (4, 7), (7, 3), (3 + 2**31, 7), (-3, 7)])
def test_another_key_gives_other_numbers(draw, other):
    assert not np.isclose(draw(Noise((3, 7)), (50,)), draw(Noise(other), (50,)), atol=1e-4).any()


@each_draw
def test_successive_draws_differ(draw):
    noise = Noise((0, 0))
    assert not np.isclose(draw(noise, (50,)), draw(noise, (50,)), atol=1e-4).any()


def test_tensor_keys_equal_python_keys():
    key = (tf.constant(3, tf.int64), tf.Variable(7, dtype=tf.int64))
    np.testing.assert_array_equal(Noise(key).uniform((5,)), Noise((3, 7)).uniform((5,)))


def test_folds_are_reproducible_and_uncorrelated():
    noise = Noise((1, 2))
    folds = [noise.fold(index).normal((20_000,)).numpy() for index in range(4)]
    folds.append(noise.normal((20_000,)).numpy())
    correlation = np.corrcoef(folds) - np.eye(len(folds))
    assert abs(correlation).max() < 5 / np.sqrt(20_000)
    np.testing.assert_array_equal(folds[2], Noise((1, 2)).fold(tf.constant(2)).normal((20_000,)))


def test_a_fold_does_not_depend_on_earlier_draws():
    noise = Noise((1, 2))
    before = noise.fold(5).uniform((4,))
    noise.uniform((4,))
    np.testing.assert_array_equal(before, noise.fold(5).uniform((4,)))


@each_draw
@pytest.mark.parametrize("fold", [False, True])
def test_shards_together_draw_what_one_device_would(draw, fold):
    def numbers(shape, shard=(0, 1)):
        noise = Noise((9, 4), shard)
        return draw(noise.fold(1) if fold else noise, shape)

    shards = [numbers((2, 3), (index, 3)) for index in range(3)]
    np.testing.assert_array_equal(np.concatenate(shards), numbers((6, 3)))


def test_the_place_of_a_shard_may_be_a_tensor():
    expected = Noise((9, 4), (1, 2)).uniform((2, 3))
    np.testing.assert_array_equal(Noise((9, 4), (tf.constant(1), 2)).uniform((2, 3)), expected)


@pytest.mark.parametrize(
    ("draw", "distribution"),
    [
        (lambda noise, shape: noise.uniform(shape), stats.uniform(0, 1)),
        (lambda noise, shape: noise.uniform(shape, -1.0, 3.0), stats.uniform(-1, 4)),
        (lambda noise, shape: noise.normal(shape), stats.norm(0, 1)),
    ],
)
def test_numbers_follow_their_distribution(draw, distribution):
    sample = draw(Noise((5, 6)), (40_000,)).numpy()
    assert sample.dtype == np.float32
    assert stats.kstest(sample, distribution.cdf).pvalue > 1e-3
    assert abs(sample.mean() - distribution.mean()) < 5 * distribution.std() / 200
    np.testing.assert_allclose(sample.std(), distribution.std(), rtol=0.03)


def test_uniform_stays_inside_the_open_interval():
    sample = Noise((0, 0)).uniform((200_000,)).numpy()
    assert sample.min() > 0 and sample.max() < 1


@each_draw
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_noise_equals_eager_noise(draw, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def compiled(step):
        return draw(Noise((3, step)).fold(step), (6, 5, 3))

    np.testing.assert_allclose(compiled(tf.constant(8)), draw(Noise((3, 8)).fold(8), (6, 5, 3)), atol=1e-5)
