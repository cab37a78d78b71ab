"""What holds for every registered architecture, and what each of them is known to be."""

import inspect
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust import models
from keras_robust.errors import InputError

NAMES = list(models.architectures)
# What is tested of networks whose size does not matter; others are small as they are.
SMALL = {
    "cnn_4c3f": {"filters": 4, "hidden": 8},
    "er_cnn": {"filters": 2},
    "er_vgg": {"width_multiplier": 0.0625, "hidden": 8},
    "resnet": {"width": 4},
    "vgg": {"width_multiplier": 0.0625},
}
rng = np.random.default_rng(0)


def default(name, option):
    return inspect.signature(models.architectures[name]).parameters[option].default


def batch(classifier, size=3):
    return rng.uniform(size=(size, *classifier.input_shape[1:])).astype("float32")


def inner_layers(model):
    for layer in model.layers:
        yield from inner_layers(layer) if isinstance(layer, keras.Model) else [layer]


def shift_weights(model):
    """Away from the initial values that a fresh model shares, such as BatchNorm's statistics."""
    for weight in model.weights:
        weight.assign(weight + 0.01)


def trainable_parameters(name, **options):
    return sum(int(np.prod(weight.shape)) for weight in models.build(name, **options).trainable_weights)


@pytest.fixture(params=NAMES, scope="module")
def classifier(request):
    return models.build(request.param, **SMALL.get(request.param, {}))


@pytest.mark.parametrize("name", NAMES)
def test_default_build_maps_images_to_float32_latent_and_logits(name):
    classifier = models.build(name)
    latent, logits = classifier.latent_and_logits(batch(classifier))
    assert classifier.input_shape[1:] == tuple(default(name, "input_shape"))
    assert logits.shape == (3, default(name, "num_classes"))
    assert latent.shape == (3, *classifier.encoder.output_shape[1:]) == (3, *classifier.head.input_shape[1:])
    assert latent.dtype == logits.dtype == "float32"
    assert not np.allclose(keras.ops.sum(logits, axis=1), 1)  # no softmax


def test_latent_and_logits_is_the_call(classifier):
    images = batch(classifier)
    latent, logits = classifier.latent_and_logits(images)
    np.testing.assert_allclose(logits, classifier(images), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(latent, classifier.encoder(images), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits, classifier.head(latent), rtol=1e-5, atol=1e-5)


def test_keras_file_round_trip(classifier, tmp_path):
    shift_weights(classifier)
    classifier.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = batch(classifier)
    for ours, theirs in zip(
        classifier.latent_and_logits(images), loaded.latent_and_logits(images), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert loaded.architecture == classifier.architecture


def test_weights_load_into_a_rebuilt_model(classifier, tmp_path):
    shift_weights(classifier)
    classifier.save_weights(tmp_path / "model.weights.h5")
    options = dict(classifier.architecture)
    rebuilt = models.build(options.pop("name"), **options)
    images = batch(classifier)
    assert not np.allclose(rebuilt(images), classifier(images))
    rebuilt.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(rebuilt(images), classifier(images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_smallest_input_builds_and_less_is_refused(name):
    shape = default(name, "input_shape")
    spatial = shape[:2] if len(shape) == 3 else shape
    for size in itertools.count():
        resized = (*([size] * len(spatial)), *shape[len(spatial) :])
        try:
            classifier = models.build(name, input_shape=resized, num_classes=3, **SMALL.get(name, {}))
            break
        except InputError as error:
            assert "input_shape" in str(error)
            assert repr(resized) in str(error)
    assert 0 < size <= min(spatial)
    assert classifier(batch(classifier)).shape == (3, 3)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_is_in_the_layers_only(name):
    before = keras.config.dtype_policy().name
    classifier = models.build(name, dtype="mixed_bfloat16", **SMALL.get(name, {}))
    assert keras.config.dtype_policy().name == before
    latent, logits = classifier.latent_and_logits(batch(classifier))
    assert latent.dtype == logits.dtype == "float32"
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in classifier.weights} == {"float32"}
    weighted = [layer for layer in inner_layers(classifier) if layer.weights]
    assert [layer.name for layer in weighted if layer.dtype_policy.name != "mixed_bfloat16"] == ["logits"]
    assert "dtype" not in classifier.architecture


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options",
    [{"num_classes": 0}, {"input_shape": 28}, {"input_shape": (None, 8, 1)}, {"dtype": "floaty"}],
    ids=lambda options: next(iter(options)),
)
def test_bad_common_options_are_refused(name, options):
    with pytest.raises(InputError, match=next(iter(options))):
        models.build(name, **options)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("cnn_4c3ff", {}, "Did you mean 'cnn_4c3f'"),
        ("cnn_4c3f", {"filter": 3}, "Did you mean 'filters'"),
        ("cnn_4c3f", {"latent": "5C"}, "Valid: 2C, 3C, 4C"),
        ("cnn_4c3f", {"variant": "carlin"}, "Did you mean 'carlini'"),
        ("cnn_4c3f", {"filters": 0}, "filters must be an integer >= 1"),
        ("cnn_4c3f", {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ("wide_resnet", {"depth": 18}, "6n \\+ 4"),
        ("rn_34_10", {"widths": "wider"}, "Did you mean 'wide'"),
        ("vgg", {"depth": 13}, "Valid: 11, 16, 19, 9"),
        ("vgg", {"width_multiplier": 0}, "width_multiplier must be a finite number > 0"),
        ("resnet", {"depth": 50}, "Valid: 18, 32"),
        ("resnet", {"version": 3}, "Valid: 1, 2"),
        ("resnet", {"width": 0}, "width must be an integer >= 1"),
        ("mlp", {"hidden": ()}, "hidden must be a sequence of positive integers, 1 or more"),
        ("vgg", {"hidden": 512}, "hidden must be a sequence of positive integers, 0 or more; received 512"),
        ("er_cnn", {"hidden": 500}, "hidden must be a sequence"),
        ("er_vgg", {"hidden": (512,)}, r"hidden must be an integer >= 1. Received: hidden=\(512,\)"),
        ("cnn_4c3f", {"filters": (32, 32)}, "filters must be an integer >= 1"),
        ("er_cnn", {"embedding": 0}, "embedding must be an integer >= 1"),
        ("er_cnn", {"input_shape": (47, 48, 3), "reduce": True}, "of at least 48"),
        ("er_vgg", {"input_shape": (32, 32, 1)}, "3 channels"),
        ("er_vgg", {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_bad_options_are_named_with_the_valid_ones(name, options, words):
    with pytest.raises(InputError, match=words):
        models.build(name, **options)


def test_architecture_is_plain_data():
    classifier = models.build("mlp", hidden=(8, 4), dtype="float32")
    assert type(classifier.architecture) is dict
    assert classifier.architecture == {"name": "mlp", "hidden": [8, 4]}
    assert json.loads(json.dumps(classifier.architecture)) == classifier.architecture


@pytest.mark.parametrize(
    "name, options, count",
    [
        # The counts that circulate with the reference implementations.
        ("wide_resnet", {}, 691_674),
        ("wide_resnet", {"depth": 28, "width": 10}, 36_479_194),
        ("rn_34_10", {"widths": "narrow"}, 464_154),
        ("resnet", {"depth": 18}, 11_173_962),
        ("resnet", {"depth": 18, "version": 2}, 11_172_170),
        ("resnet", {"depth": 18, "version": 2, "width": 32}, 2_796_714),
        ("resnet", {"depth": 32}, 466_906),
        # Four convolutions with three normalisations, the code, and the classifier on it.
        ("er_cnn", {}, 16 * (128 + 128 * 256 + 256 * 512 + 512 * 1024) + 2 * 1792 + 4100 + 134_838),
        # Those of VGG have a bias in each normalised convolution: one per channel.
        ("vgg", {"depth": 11}, 9_231_114 - 2752),
        ("vgg", {"depth": 16}, 14_728_266 - 4224),
        ("vgg", {"depth": 19}, 20_040_522 - 5504),
    ],
)
def test_known_parameter_counts(name, options, count):
    assert trainable_parameters(name, **options) == count


@pytest.mark.parametrize("shape, n, h", [((28, 28, 1), 32, 200), ((32, 32, 3), 64, 256)])
@pytest.mark.parametrize("variant, factor", [("literal", 1), ("carlini", 2)])
def test_cnn_4c3f_sizes(shape, n, h, variant, factor):
    options = {"input_shape": shape, "filters": n, "hidden": h, "variant": variant}
    side = ((shape[0] - 4) // 2 - 4) // 2
    flat = side * side * n * factor
    assert flat == {(32, 1): 512, (32, 2): 1024, (64, 1): 1600, (64, 2): 3200}[n, factor]
    assert models.build("cnn_4c3f", **options).encoder.output_shape == (None, flat)
    chans = [shape[2], n, n, n * factor, n * factor]
    convs = sum(9 * a * b + b for a, b in itertools.pairwise(chans))
    dense = sum(a * b + b for a, b in itertools.pairwise([flat, h, h, 10]))
    assert trainable_parameters("cnn_4c3f", **options) == convs + dense


@pytest.mark.parametrize(
    "cut, latent",
    [
        ("2C", (None, 12, 12, 32)),
        ("3C", (None, 10, 10, 32)),
        ("4C", (None, 512)),
        ("4C+1FC", (None, 200)),
        ("4C+2FC", (None, 200)),
    ],
)
def test_cnn_4c3f_is_the_same_network_wherever_it_is_cut(cut, latent):
    reference = models.build("cnn_4c3f")
    classifier = models.build("cnn_4c3f", latent=cut)
    classifier.set_weights(reference.get_weights())
    images = batch(reference)
    assert classifier.encoder.output_shape == latent
    np.testing.assert_allclose(classifier(images), reference(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side, pools", [(28, 4), (32, 5), (64, 5), (1, 0)])
def test_vgg_pools_while_there_is_something_to_pool(side, pools):
    classifier = models.build("vgg", input_shape=(side, side, 1), width_multiplier=0.125)
    layers = list(inner_layers(classifier))
    assert sum(isinstance(layer, keras.layers.MaxPooling2D) for layer in layers) == pools
    assert classifier.encoder.output_shape == (None, 64)


@pytest.mark.parametrize(
    "shape, options, sides",
    [((28, 28, 1), {}, [14, 7, 3, 1]), ((96, 96, 3), {"depth": 5, "reduce": True}, [48, 24, 12, 6, 3, 1])],
)
@pytest.mark.parametrize("embedding", [4, 16])
def test_er_cnn_halves_the_maps_down_to_a_code(shape, options, sides, embedding):
    classifier = models.build("er_cnn", input_shape=shape, embedding=embedding, filters=2, **options)
    maps = [x.output.shape[1] for x in inner_layers(classifier) if isinstance(x, keras.layers.Conv2D)]
    assert maps == sides
    assert classifier.encoder.output_shape == classifier.head.input_shape == (None, embedding)


def test_er_networks_scale_images_inside():
    classifier = models.build("er_cnn", filters=2)
    rescaling, vgg = classifier.encoder.layers[1], models.build("er_vgg", width_multiplier=0.0625)
    np.testing.assert_allclose(rescaling(np.array([[[[0.0]], [[1.0]]]])).numpy().ravel(), [-1, 1])
    normalized = vgg.encoder.layers[1](np.full((1, 1, 1, 3), 0.5, "float32")).numpy().ravel()
    expected = (0.5 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normalized, expected, rtol=1e-5)


def test_resnet_bottleneck_has_four_times_the_features():
    classifier = models.build("resnet", depth=32, version=2, bottleneck=True)
    assert classifier.encoder.output_shape == (None, 256)


def zero_branches(classifier):
    """Leave the stem and the 1×1 shortcuts; every 3×3 convolution after the stem gives zero."""
    stem, *others = [x for x in inner_layers(classifier) if isinstance(x, keras.layers.Conv2D)]
    for layer in others:
        if layer.kernel_size == (3, 3):
            layer.kernel.assign(keras.ops.zeros_like(layer.kernel))
    return stem, [layer for layer in others if layer.kernel_size == (1, 1)]


def convolve(layer, x):
    return tf.nn.conv2d(tf.cast(x, "float32"), layer.kernel, layer.strides, "SAME").numpy()


def test_rn_34_10_shortcuts_pool_and_pad():
    classifier = models.build("rn_34_10", input_shape=(8, 8, 3))
    stem, projections = zero_branches(classifier)
    assert not projections

    def activate(x):
        x = x / np.sqrt(1 + 1e-3)
        return np.where(x > 0, x, 0.1 * x)

    def pool_and_pad(x, pad):
        b, h, w, c = x.shape
        pooled = x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
        return np.pad(pooled, [(0, 0), (0, 0), (0, 0), (pad, pad)])

    images = batch(classifier)
    x = activate(convolve(stem, tf.image.per_image_standardization(images)))
    x = pool_and_pad(pool_and_pad(x, 8), 16)
    latent, _ = classifier.latent_and_logits(images)
    np.testing.assert_allclose(latent, activate(x).mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_resnet_v1_rectifies_between_its_convolutions_and_after_each_sum():
    """Every branch turns its input around and back, so that nothing is left of it between the two."""
    classifier = models.build("resnet", input_shape=(8, 8, 3), width=4, version=1)
    stem, *others = [x for x in inner_layers(classifier) if isinstance(x, keras.layers.Conv2D)]
    branches = [layer for layer in others if layer.kernel_size == (3, 3)]
    for number, layer in enumerate(branches):
        kernel = np.zeros(layer.kernel.shape, "float32")
        kernel[1, 1] = (-1) ** (number + 1) * np.eye(*kernel.shape[2:])
        layer.kernel.assign(kernel)
    images, scale = batch(classifier), np.sqrt(1 + 1e-5)
    x = np.maximum(convolve(stem, images) / scale, 0)
    for layer in (layer for layer in others if layer.kernel_size == (1, 1)):
        x = np.maximum(convolve(layer, x) / scale, 0)
    latent, _ = classifier.latent_and_logits(images)
    assert len(branches) == 16 and (x == 0).any() and (x > 0).any()
    np.testing.assert_allclose(latent, x.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_cnn_4c3f_by_hand():
    classifier = models.build("cnn_4c3f", filters=2, hidden=3)
    shift_weights(classifier)
    images = x = batch(classifier)
    weights = iter(classifier.get_weights())
    for _ in range(2):
        for _ in range(2):
            x = np.maximum(tf.nn.conv2d(x, next(weights), 1, "VALID").numpy() + next(weights), 0)
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
    latent, logits = classifier.latent_and_logits(images)
    x = x.reshape(len(x), -1)
    np.testing.assert_allclose(latent, x, rtol=1e-4, atol=1e-6)
    for _ in range(2):
        x = np.maximum(x @ next(weights) + next(weights), 0)
    np.testing.assert_allclose(logits, x @ next(weights) + next(weights), rtol=1e-4, atol=1e-6)


def test_wide_resnet_shortcuts_project_the_activated_input():
    classifier = models.build("wide_resnet", input_shape=(8, 8, 3), depth=10, width=2)
    stem, projections = zero_branches(classifier)
    assert [layer.strides for layer in projections] == [(1, 1), (2, 2), (2, 2)]
    images = batch(classifier)
    x = convolve(stem, images)
    for layer in projections:
        x = convolve(layer, np.maximum(x / np.sqrt(1 + 1e-5), 0))
    latent, _ = classifier.latent_and_logits(images)
    expected = np.maximum(x / np.sqrt(1 + 1e-5), 0).mean(axis=(1, 2))
    np.testing.assert_allclose(latent, expected, rtol=1e-4, atol=1e-5)


def test_residual_convolutions_start_with_fan_out_variance():
    classifier = models.build("wide_resnet", depth=10, width=10)
    kernels = [x.kernel.numpy() for x in inner_layers(classifier) if isinstance(x, keras.layers.Conv2D)]
    for kernel in kernels:
        expected = np.sqrt(2 / (kernel.shape[0] ** 2 * kernel.shape[3]))
        assert abs(kernel.std() / expected - 1) < 6 / np.sqrt(2 * kernel.size)


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_image_standardization_agrees_with_tensorflow(scale):
    from keras_robust.models.madry import ImageStandardization

    images = tf.constant(0.5 + scale * rng.uniform(-0.5, 0.5, (4, 6, 5, 3)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(images)
        standardized = ImageStandardization()(images)
        loss = tf.reduce_sum(standardized**3)
    np.testing.assert_allclose(standardized, tf.image.per_image_standardization(images), atol=1e-5)
    assert np.isfinite(tape.gradient(loss, images)).all()
