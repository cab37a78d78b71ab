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
    options = {"momentum": 0.9, "epsilon": 1e-5, **options}
    layers = BatchNormalization(**options), keras.layers.BatchNormalization(**options)
    for layer in layers:
        layer.build((None, *shape))
    weights = [RNG.uniform(0.5, 2.0, weight.shape) for weight in layers[0].get_weights()]
    for layer in layers:
        layer.set_weights(weights)
    return layers


def run(layer, images=IMAGES, training=True):
    """Outputs, gradients of images and weights, second derivative of the images, the weights after."""
    x = tf.constant(images)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=training)
            loss = tf.reduce_sum(tf.sin(tf.cast(outputs, "float32")) * UPSTREAM)
        gradient, *others = tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)])
        bent = tf.reduce_sum(tf.square(tf.cast(gradient, "float32")))
    second = outer.gradient(bent, x)
    return [outputs, gradient, *others, second, *layer.get_weights()]


def forward_ops(layer, images=IMAGES, **options):
    graph = tf.function(lambda x: layer(x, **options)).get_concrete_function(tf.constant(images)).graph
    return {operation.type for operation in graph.get_operations()}


def assert_equal(ours, theirs, rtol=1e-4, atol=1e-5):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


@pytest.mark.parametrize("training", [True, False, None])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"trainable": False}])
def test_outputs_gradients_and_moving_averages_are_those_of_keras(options, training):
    ours, theirs = pair(**options)
    assert_equal(run(ours, training=training), run(theirs, training=training), rtol=2e-4, atol=5e-5)


def test_what_is_frozen_after_a_call_stays():
    ours, theirs = pair()
    for layer in (ours, theirs):
        layer(IMAGES, training=True)
        layer.trainable = False
    assert_equal(run(ours), run(theirs), rtol=2e-4, atol=5e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_in_half_precision_it_is_as_near_to_float32_as_keras(policy, training):
    layers = pair(dtype=policy)
    exact, _ = pair()
    exact.set_weights([np.asarray(weight, "float32") for weight in layers[0].get_weights()])
    images = IMAGES.astype(layers[0].compute_dtype)
    expected = run(exact, np.asarray(images, "float32"), training)
    ours, theirs = (run(layer, images, training) for layer in layers)
    assert ours[0].dtype == theirs[0].dtype == layers[0].compute_dtype
    for one, other, truth in zip(ours, theirs, map(np.asarray, expected), strict=True):
        far, keras_far = (np.abs(np.asarray(value, "float32") - truth).max() for value in (one, other))
        assert far <= 2 * keras_far + 0.01 * np.abs(truth).max()


def test_large_values_in_half_precision_leave_the_averages_finite():
    images = (300 * IMAGES).astype("float16")
    layers = pair(dtype="float16")
    for layer in layers:
        layer(images, training=True)
    assert_equal(*(layer.get_weights() for layer in layers), rtol=2e-3)


@pytest.mark.parametrize("images", [IMAGES[:1, :1, :1], np.full((6, 5, 4, 3), 5.03, "float32")])
def test_what_does_not_vary_has_no_variance(images):
    ours, theirs = pair(images.shape[1:])
    for layer in (ours, theirs):
        outputs = layer(images, training=True)
        np.testing.assert_allclose(outputs, np.broadcast_to(layer.beta, images.shape), atol=5e-3)
    assert_equal(ours.get_weights(), theirs.get_weights())


@pytest.mark.parametrize("images", [IMAGES, IMAGES[:, 0, 0]], ids=["maps", "features"])
def test_no_image_gives_no_image(images):
    layer, _ = pair(images.shape[1:])
    before, nothing = layer.get_weights(), images[:0]
    assert layer(nothing).shape == layer(nothing, training=True).shape == nothing.shape
    assert_equal(layer.get_weights(), before)


@pytest.mark.parametrize("training", [True, False])
def test_features_are_maps_of_one_pixel(training):
    features = IMAGES[:, 0, 0]
    layers = pair(features.shape[1:])
    found, expected = ([layer(features, training=training), *layer.get_weights()] for layer in layers)
    assert_equal(found, expected)
    assert "FusedBatchNormV3" in forward_ops(layers[0], features, training=training)


@pytest.mark.parametrize("training", [True, False])
def test_shapes_may_be_unknown(training):
    layer, theirs = pair()
    traced = tf.function(
        lambda x: layer(x, training=training), input_signature=[tf.TensorSpec([None] * 4, "float32")]
    )
    assert_equal([traced(IMAGES)], [theirs(IMAGES, training=training)])


def test_it_is_one_operation():
    layer, keras_own = pair()
    assert "FusedBatchNormV3" in forward_ops(layer, training=True) & forward_ops(layer, training=False)
    assert "FusedBatchNormV3" not in forward_ops(keras_own, training=True)


@pytest.mark.parametrize(
    ("images", "options"),
    [
        (IMAGES[:, 0], {}),
        (IMAGES.transpose(0, 3, 1, 2), {"axis": 1}),
        (IMAGES, {"synchronized": True}),
        (IMAGES, {"renorm": True}),
        (IMAGES.astype("float64"), {"dtype": "float64"}),
    ],
    ids=["rows", "channels_first", "synchronized", "renorm", "float64"],
)
def test_what_cannot_be_fused_is_left_to_keras(images, options):
    layer, theirs = pair(images.shape[1:], **options)
    assert "FusedBatchNormV3" not in forward_ops(layer, images, training=True)
    np.testing.assert_allclose(layer(images), theirs(images), rtol=1e-5)


def test_a_mask_is_left_to_keras():
    mask = tf.constant(RNG.random(IMAGES.shape[:3]) > 0.5)
    assert_equal(*([layer(IMAGES, training=True, mask=mask), *layer.get_weights()] for layer in pair()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mean", [1.0, 100.0])
def test_under_xla_a_mean_far_from_zero_does_not_drown_the_variance(mean, training):
    images = (mean + 0.1 * RNG.normal(size=IMAGES.shape)).astype("float32")
    images[..., 0] = mean + 0.03
    layer, theirs = pair()
    compiled = tf.function(lambda x: layer(x, training=training), jit_compile=True)
    expected = theirs(images, training=training)
    assert_equal([compiled(images), *layer.get_weights()], [expected, *theirs.get_weights()], atol=2e-2)


def test_weights_and_models_are_kept_as_those_of_keras(tmp_path):
    models = [keras.Sequential([keras.Input(IMAGES.shape[1:]), layer]) for layer in pair()]
    ours, theirs = models
    theirs.layers[0].set_weights([2 * weight for weight in theirs.get_weights()])
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours.load_weights(tmp_path / "theirs.weights.h5")
    assert_equal(ours.get_weights(), theirs.get_weights())
    ours.save(tmp_path / "ours.keras")
    loaded = keras.models.load_model(tmp_path / "ours.keras")
    assert type(loaded.layers[0]) is BatchNormalization
    assert_equal([loaded(IMAGES)], [theirs(IMAGES)])
