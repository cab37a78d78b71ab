"""The fused operation gives what Keras's own layer gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.layers import BatchNormalization

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(1.0, 2.0, (6, 5, 4, 3)).astype("float32")
UPSTREAM = RNG.normal(size=IMAGES.shape).astype("float32")


def pair(shape=IMAGES.shape[1:], **options):
    """Our layer and Keras's, with equal weights that are not the initial ones."""
    options = {"momentum": 0.9, "epsilon": 1e-3, **options}
    layers = BatchNormalization(**options), keras.layers.BatchNormalization(**options)
    for layer in layers:
        layer.build((None, *shape))
    weights = [RNG.uniform(0.5, 2.0, weight.shape) for weight in layers[0].get_weights()]
    for layer in layers:
        layer.set_weights(weights)
    return layers


def run(layer, images=IMAGES, training=True, **options):
    """Outputs, gradients of images and weights, second derivative of the images, the weights after."""
    x = tf.constant(images)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=training, **options)
            loss = tf.reduce_sum(tf.sin(tf.cast(outputs, "float32")) * UPSTREAM)
        gradient, *others = tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)])
        bent = tf.reduce_sum(tf.square(tf.cast(gradient, "float32")))
    second = outer.gradient(bent, x)
    return [outputs, gradient, *others, second, *layer.get_weights()]


def forward_ops(layer, images=IMAGES, **options):
    graph = tf.function(lambda x: layer(x, **options)).get_concrete_function(tf.constant(images)).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"trainable": False}])
def test_outputs_gradients_and_moving_averages_are_those_of_keras(options, training):
    ours, theirs = pair(**options)
    for ours_is, theirs_is in zip(run(ours, training=training), run(theirs, training=training), strict=True):
        np.testing.assert_allclose(ours_is, theirs_is, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("training", [True, False])
def test_in_half_precision_it_is_as_near_to_float32_as_keras(training):
    policy = "mixed_bfloat16"
    ours, theirs = (run(layer, training=training)[0] for layer in pair(dtype=policy))
    assert ours.dtype == theirs.dtype == "bfloat16"
    np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=0.02)


def test_one_image_of_one_pixel_has_no_variance():
    ours, theirs = pair((1, 1, 3))
    images = IMAGES[:1, :1, :1]
    for layer in (ours, theirs):
        layer(images, training=True)
    for ours_is, theirs_is in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(ours_is, theirs_is, rtol=1e-5)


def test_no_image_gives_no_image():
    layer, _ = pair()
    assert layer(IMAGES[:0]).shape == (0, 5, 4, 3)


def test_it_is_one_operation():
    layer, keras_own = pair()
    assert "FusedBatchNormV3" in forward_ops(layer, training=True) & forward_ops(layer, training=False)
    assert "FusedBatchNormV3" not in forward_ops(keras_own, training=True)


@pytest.mark.parametrize(
    ("images", "options"),
    [
        (IMAGES[:, 0, 0], {}),
        (IMAGES.transpose(0, 3, 1, 2), {"axis": 1}),
        (IMAGES, {"synchronized": True}),
        (IMAGES, {"renorm": True}),
        (IMAGES.astype("float64"), {"dtype": "float64"}),
    ],
    ids=["vectors", "channels_first", "synchronized", "renorm", "float64"],
)
def test_what_cannot_be_fused_is_left_to_keras(images, options):
    layer, theirs = pair(images.shape[1:], **options)
    assert "FusedBatchNormV3" not in forward_ops(layer, images, training=True)
    np.testing.assert_allclose(layer(images), theirs(images), rtol=1e-5)


def test_a_mask_is_left_to_keras():
    layer, theirs = pair()
    mask = RNG.random(IMAGES.shape[:3]) > 0.5
    outputs = [one(IMAGES, training=True, mask=tf.constant(mask)) for one in (layer, theirs)]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_it_compiles_with_xla(training):
    layer, _ = pair()
    compiled = tf.function(lambda x: layer(x, training=training), jit_compile=True)
    start = layer.get_weights()
    expected = layer(IMAGES, training=training)
    layer.set_weights(start)
    np.testing.assert_allclose(compiled(IMAGES), expected, rtol=1e-4, atol=1e-5)
