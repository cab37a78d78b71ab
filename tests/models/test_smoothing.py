"""Smooth rectifiers."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_robust.models.smoothing import SmoothReLU, smoothed


def softplus(x):
    return np.logaddexp(0, 10 * x) / 10


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.ReLU(), softplus),
        (layers.ReLU(negative_slope=0.25), lambda x: 0.25 * x + 0.75 * softplus(x)),
        (layers.LeakyReLU(negative_slope=0.1), lambda x: 0.1 * x + 0.9 * softplus(x)),
        (layers.ReLU(max_value=1.0), lambda x: np.clip(x, 0, 1)),
        (layers.ReLU(threshold=0.5), lambda x: np.where(x >= 0.5, x, 0)),
        (layers.Activation("relu"), softplus),
        (layers.Activation("tanh"), np.tanh),
    ],
)
def test_rectifiers_become_softplus_and_the_rest_stays(layer, expected, tmp_path):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(7), layer])
    x = np.random.default_rng(0).normal(size=(20, 5)).astype("float32")
    copy = smoothed(model)
    np.testing.assert_allclose(copy(x), expected(model.layers[0](x).numpy()), rtol=1e-5, atol=1e-6)
    copy.save(tmp_path / "copy.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "copy.keras")(x), copy(x))


def test_a_layer_keeps_its_slope():
    assert SmoothReLU.from_config(SmoothReLU(0.3).get_config()).negative_slope == 0.3
