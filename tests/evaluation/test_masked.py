"""The layers that mask are Keras layers like any other."""

import keras
import numpy as np
import pytest

from keras_robust import models
from keras_robust.evaluation.masked import InferenceNoise, Purification, Quantization

IMAGES = np.linspace(0, 1, 128, dtype="float32").reshape(2, 8, 8, 1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Quantization(3),
        lambda: InferenceNoise(0.1),
        lambda: Purification(models.build("small_cnn", filters=4, hidden=8), 0.2),
    ],
    ids=["Quantization", "InferenceNoise", "Purification"],
)
def test_a_layer_is_saved_and_loaded(build, tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 1)), build()])
    expected = model(IMAGES)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    noise = 6 * getattr(model.layers[0], "stddev", 0.0)
    np.testing.assert_allclose(loaded(IMAGES), expected, atol=1e-6 + 2 * noise)
    assert type(loaded.layers[0]) is type(model.layers[0])
    assert getattr(loaded.layers[0], "stddev", None) == getattr(model.layers[0], "stddev", None)


def test_quantization_rounds_to_the_nearest_of_evenly_spaced_levels():
    nearest = np.array([0, 0.5, 1])[np.abs(IMAGES[..., None] - [0, 0.5, 1]).argmin(-1)]
    np.testing.assert_allclose(Quantization(3)(IMAGES), nearest)


def test_noise_is_fresh_in_every_call_and_has_its_deviation():
    layer = InferenceNoise(0.3)
    zeros = np.zeros((100, 8, 8, 1), "float32")
    first, second = np.asarray(layer(zeros)), np.asarray(layer(zeros))
    assert np.std(first) == pytest.approx(0.3, rel=0.05) and np.abs(first - second).max() > 0.3


def test_purification_takes_a_step_towards_the_likeliest_class(linear):
    kernel = np.array([[1.0, -1.0], [-1.0, 1.0]], "float32")
    layer = Purification(linear(kernel, (2, 1, 1)), 0.1)
    images = np.array([[0.6, 0.4], [0.3, 0.5], [0.95, 0.05]], "float32").reshape(3, 2, 1, 1)
    moved = [[0.7, 0.3], [0.2, 0.6], [1.0, 0.0]]
    np.testing.assert_allclose(np.reshape(layer(images), (3, 2)), moved, atol=1e-6)
