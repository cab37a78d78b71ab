"""What holds for every registered discriminator, and what each of them is known to be."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.errors import InputError
from keras_robust.models import build_discriminator, discriminators

SMALL = {"residual_mlp": {"depth": 1, "width": 8}, "wide_resnet": {"depth": 10, "width": 1}}
every = pytest.mark.parametrize("name", list(discriminators))
rng = np.random.default_rng(0)
LATENTS = rng.normal(size=(6, 5)).astype("float32")


def shift_weights(model):
    for weight in model.weights:
        weight.assign(weight + 0.1)


@every
def test_outputs_are_a_score_and_classes_in_float32(name):
    outputs = build_discriminator(name, (5,), 3, **SMALL[name])(LATENTS)
    assert {key: (value.shape, value.dtype.name) for key, value in outputs.items()} == {
        "manifold": ((6,), "float32"),
        "classes": ((6, 3), "float32"),
    }
    assert sorted(build_discriminator(name, (5,), **SMALL[name]).output) == ["manifold"]


@every
def test_any_latent_is_flattened(name):
    flat, deep = (build_discriminator(name, shape, 3, **SMALL[name]) for shape in ((12,), (2, 2, 3)))
    deep.set_weights(flat.get_weights())
    latents = rng.normal(size=(4, 12)).astype("float32")
    for key, value in flat(latents).items():
        np.testing.assert_allclose(value, deep(latents.reshape(4, 2, 2, 3))[key], rtol=1e-6)


@every
def test_it_is_float32_under_any_policy(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_discriminator(name, (5,), 3, **SMALL[name])
    finally:
        keras.config.set_dtype_policy("float32")
    computing = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    assert {layer.compute_dtype for layer in computing} == {"float32"}


@every
def test_it_is_saved(name, tmp_path):
    model = build_discriminator(name, (5,), 3, **SMALL[name])
    shift_weights(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.architecture == model.architecture
    for key, value in model(LATENTS).items():
        np.testing.assert_array_equal(again(LATENTS)[key], value)


@every
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depht": 3}, "Did you mean 'depth'"),
        ({"width": 0}, "width must be an integer >= 1"),
        ({"depth": 0}, "depth must be"),
        ({"input_shape": 3}, "input_shape must be a sequence of positive integers"),
        ({"input_shape": ()}, "input_shape must be a sequence of positive integers"),
        ({"num_classes": 0}, "num_classes must be an integer >= 1"),
    ],
)
def test_bad_options_are_told(name, options, message):
    with pytest.raises(InputError, match=message):
        build_discriminator(**{"name": name, "input_shape": (5,), **options})


def test_an_unknown_name_is_told():
    with pytest.raises(InputError, match="Did you mean 'wide_resnet'"):
        build_discriminator("wide_resnt", (5,))


def test_the_mlp_equals_its_formula():
    model = build_discriminator("residual_mlp", (5,), 3, depth=1, width=8)
    shift_weights(model)
    first, bias, second, third, fourth, fifth, *_ = model.get_weights()
    stem = LATENTS @ first + bias
    hidden = np.maximum(np.maximum(stem, 0) @ second + third, 0) @ fourth + fifth
    features = np.maximum(stem + hidden, 0)
    found = model(LATENTS)
    weights = {
        layer.name: layer.get_weights() for layer in model.layers if layer.name in ("manifold", "classes")
    }
    kernel, offset = weights["manifold"]
    np.testing.assert_allclose(found["manifold"], (features @ kernel + offset)[:, 0], rtol=1e-5)
    kernel, offset = weights["classes"]
    np.testing.assert_allclose(found["classes"], features @ kernel + offset, rtol=1e-5)


def test_the_wide_resnet_is_that_of_convolutions_on_1x1_maps():
    """The architecture of the classifiers, on a map of one pixel, with zeros around the centre taps."""
    from keras_robust.models.residual import FAN_OUT_NORMAL, ResidualUnits

    images = keras.Input((1, 1, 5))
    units = ResidualUnits("float32", kernel_initializer=FAN_OUT_NORMAL)
    maps = units.conv(images, 16)
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        maps = units.pre_activation(maps, [(3, channels), (3, channels)], stride)
    convolutional = keras.Model(images, keras.layers.Flatten()(units.activate(maps)))

    dense = build_discriminator("wide_resnet", (5,), 3, depth=10, width=1)
    features = keras.Model(dense.input, dense.get_layer("manifold").input)
    shift_weights(features)
    kernels = [weight.numpy() for weight in features.weights]
    for weight in convolutional.weights:
        at = next(
            i for i, kernel in enumerate(kernels) if kernel.shape == tuple(weight.shape[-kernel.ndim :])
        )
        kernel = kernels.pop(at)
        if len(weight.shape) == 4:
            middle = np.zeros(weight.shape, "float32")
            middle[weight.shape[0] // 2, weight.shape[1] // 2] = kernel
            kernel = middle
        weight.assign(kernel)
    assert not kernels
    expected = convolutional(LATENTS[:, None, None])
    np.testing.assert_allclose(features(LATENTS), expected, rtol=1e-4, atol=1e-4)


def test_the_wide_resnet_starts_with_the_variance_of_the_convolutions():
    model = build_discriminator("wide_resnet", (640,), depth=10, width=5)
    kernels = [layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    for kernel in kernels:
        fan_out = kernel.shape[1]
        near = [np.sqrt(2 / (taps * fan_out)) for taps in (9, 1)]
        tolerance = 6 / np.sqrt(2 * kernel.size)
        assert fan_out == 1 or min(abs(kernel.std() / std - 1) for std in near) < tolerance


def test_without_batch_norm_latents_do_not_interact():
    model = build_discriminator("residual_mlp", (5,))
    together = model(LATENTS, training=True)["manifold"]
    alone = tf.concat([model(row[None], training=True)["manifold"] for row in LATENTS], axis=0)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    normalised = build_discriminator("residual_mlp", (5,), batch_norm=True)
    together = normalised(LATENTS, training=True)["manifold"]
    assert not np.allclose(together[:1], normalised(LATENTS[:1], training=True)["manifold"], atol=1e-3)
