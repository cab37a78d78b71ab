"""Kernel density against scikit-learn; noise, means of codes and the clip against what they say."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.neighbors import KernelDensity as Oracle

from keras_robust.errors import InputError
from keras_robust.layers import CodeMean, KernelDensity, RandomNoise, WeightClip

rng = np.random.default_rng(0)
CENTERS = (3.0 + rng.normal(size=(60, 3))).astype("float32")
CLASSES = rng.integers(0, 4, 60)
CODES = (3.0 + rng.normal(size=(20, 3))).astype("float32")
ASKED = rng.integers(0, 4, 20)


def density(bandwidth=0.4):
    layer = KernelDensity(60, bandwidth)
    layer.set_centers(CENTERS, CLASSES)
    return layer


@pytest.mark.parametrize("bandwidth", [0.1, 0.4, 3.0])
def test_log_density_is_that_of_scikit_learn_within_the_class(bandwidth):
    found = np.asarray(density(bandwidth)((CODES, ASKED)))
    fits = {one: Oracle(bandwidth=bandwidth).fit(CENTERS[one == CLASSES]) for one in range(4)}
    expected = [fits[one].score_samples(code[None])[0] for code, one in zip(CODES, ASKED, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_gradient_leads_to_where_the_class_is_denser():
    codes = tf.constant(CODES)
    with tf.GradientTape() as tape:
        tape.watch(codes)
        before = density()((codes, ASKED))
    gradient = tape.gradient(before, codes)
    after = density()((codes + 1e-3 * gradient, ASKED))
    assert (np.asarray(after) > np.asarray(before)).all()


def test_a_class_without_centres_is_unlikely_beyond_measure():
    found = np.asarray(density()((CODES, np.full(20, 9))))
    assert np.isfinite(found).all() and (found < -1e20).all()


def test_a_density_is_saved_with_its_centres(tmp_path):
    codes, classes = keras.Input((3,)), keras.Input((), dtype="int32")
    model = keras.Model([codes, classes], density()((codes, classes)))
    model.save(tmp_path / "density.keras")
    again = keras.saving.load_model(tmp_path / "density.keras")
    np.testing.assert_array_equal(again([CODES, ASKED]), model([CODES, ASKED]))
    assert not model.trainable_variables


@pytest.mark.parametrize("training", [False, True])
def test_noise_is_always_on_and_of_the_deviation(training):
    layer = RandomNoise(0.25, seed=1)
    zeros = np.zeros((50, 8, 8, 2), "float32")
    one, other = (np.asarray(layer(zeros, training=training)) for _ in range(2))
    assert one.std() == pytest.approx(0.25, rel=0.03) and abs(one.mean()) < 0.02
    assert (one != other).mean() > 0.99
    again = RandomNoise.from_config(layer.get_config())
    np.testing.assert_array_equal(again(zeros), one)


def test_the_mean_is_the_first_half():
    moments = rng.normal(size=(4, 6)).astype("float32")
    np.testing.assert_array_equal(CodeMean()(moments), moments[:, :3])
    assert CodeMean().compute_output_shape((None, 6)) == (None, 3)
    with pytest.raises(InputError, match="means and as many log-variances"):
        CodeMean()(moments[:, :5])


def test_the_clip_holds():
    weights = rng.normal(size=(4, 6)).astype("float32")
    clip = WeightClip(0.3)
    np.testing.assert_allclose(clip(weights), np.clip(weights, -0.3, 0.3))
    again = keras.constraints.deserialize(keras.constraints.serialize(clip))
    assert isinstance(again, WeightClip) and again.limit == 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KernelDensity(0, 1.0), "num_centers must be an integer >= 1"),
        (lambda: KernelDensity(3, 0.0), "bandwidth must be a finite number > 0"),
        (lambda: RandomNoise(-1.0), "stddev must be a finite number >= 0"),
        (lambda: WeightClip(0), "must be a finite number > 0"),
    ],
)
def test_bad_options_are_told(make, message):
    with pytest.raises(InputError, match=message):
        make()
