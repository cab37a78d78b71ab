"""StraightThrough: the function's values, the identity's gradient."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_robust.attacks.gradient import value_and_input_gradient
from keras_robust.errors import InputError
from keras_robust.layers import StraightThrough

rng = np.random.default_rng(0)
IMAGES = rng.uniform(size=(3, 4, 4, 2)).astype("float32")


@keras.saving.register_keras_serializable("tests")
def four_levels(images):
    return ops.round(images * 3) / 3


def convolution():
    return layers.Conv2D(2, 3, padding="same")


@pytest.mark.parametrize(
    "make", [lambda: four_levels, lambda: ops.sign, convolution, lambda: layers.Discretization([0.2, 0.7])]
)
def test_values_are_the_functions_and_the_gradient_is_the_identitys(make):
    function = make()
    layer = StraightThrough(function)
    weights = ops.convert_to_tensor(rng.normal(size=IMAGES.shape).astype("float32"))

    def objective(images):
        return ops.sum(weights * layer(images), axis=(1, 2, 3))

    _, gradient = value_and_input_gradient(objective, ops.convert_to_tensor(IMAGES))
    np.testing.assert_array_equal(gradient, weights)
    outputs = layer(IMAGES)
    np.testing.assert_array_equal(outputs, np.asarray(function(IMAGES), "float32"))
    assert outputs.dtype == "float32"


def test_the_gradient_of_what_follows_is_taken_at_the_functions_values():
    def objective(images):
        return ops.sum(ops.square(StraightThrough(four_levels)(images)), axis=(1, 2, 3))

    _, gradient = value_and_input_gradient(objective, ops.convert_to_tensor(IMAGES))
    np.testing.assert_allclose(gradient, 2 * np.round(IMAGES * 3) / 3, rtol=1e-6)


def test_another_function_may_give_the_gradient_and_changes_no_value():
    weights = ops.convert_to_tensor(rng.normal(size=IMAGES.shape).astype("float32"))
    layer = StraightThrough(four_levels, backward=ops.tanh)

    def objective(images):
        return ops.sum(weights * layer(images), axis=(1, 2, 3))

    _, gradient = value_and_input_gradient(objective, ops.convert_to_tensor(IMAGES))
    np.testing.assert_allclose(gradient, weights * (1 - np.tanh(IMAGES) ** 2), rtol=1e-5)
    np.testing.assert_array_equal(layer(IMAGES), four_levels(IMAGES))
    again = StraightThrough.from_config(layer.get_config())
    assert again.function is four_levels
    np.testing.assert_array_equal(again.backward(IMAGES), ops.tanh(IMAGES))


@pytest.mark.parametrize("function", [four_levels, convolution(), StraightThrough(four_levels)])
def test_it_is_saved_with_what_it_wraps(function, tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 2)), StraightThrough(function), layers.Flatten()])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
    assert len(again.weights) == len(model.weights)


def test_the_training_flag_reaches_the_layer():
    layer = StraightThrough(layers.Dropout(0.5, seed=0))
    np.testing.assert_array_equal(layer(IMAGES, training=False), IMAGES)
    assert (np.asarray(layer(IMAGES, training=True)) == 0).mean() > 0.3


@pytest.mark.parametrize("function", [layers.Flatten(), layers.Conv2D(2, 3), lambda x: ops.sum(x, axis=-1)])
@pytest.mark.parametrize("images", [IMAGES, keras.Input((4, 4, 2))])
def test_another_shape_is_refused(function, images):
    with pytest.raises(InputError, match=r"keeps the shape.*\(.*4, 4, 2\) into"):
        StraightThrough(function)(images)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(InputError, match=r"a layer or a function.*'round' of type str"):
        StraightThrough("round")
