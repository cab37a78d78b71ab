"""The manifold transform: its step in closed form, its gradients, saving, serving and attacks."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_robust import evaluation
from keras_robust.attacks import PGD, classify
from keras_robust.attacks.gradient import value_and_input_gradient
from keras_robust.errors import InputError
from keras_robust.exporting import export, load_exported
from keras_robust.losses import cross_entropy
from keras_robust.models import (
    LatentClassifier,
    build,
    build_discriminator,
    split,
    with_manifold_transform,
)
from keras_robust.models.manifold_transform import ManifoldTransform
from keras_robust.models.precision import bfloat16_copy
from keras_robust.models.ways import ways_of

EPS = 0.1
rng = np.random.default_rng(0)
IMAGES = rng.uniform(size=(20, 3, 2, 1)).astype("float32")
LABELS = np.arange(20, dtype="int32") % 4


def smooth_classifier():
    random.seed(2)
    encoder = keras.Sequential(
        [
            keras.Input((3, 2, 1)),
            layers.Flatten(),
            layers.Dense(5, activation="tanh", kernel_initializer="normal"),
        ]
    )
    model = LatentClassifier(encoder, keras.Sequential([keras.Input((5,)), layers.Dense(4)]))
    for weight in model.weights:
        weight.assign(weight + rng.normal(size=weight.shape))
    return model


def linear_judge(size, bias=0.0):
    """A discriminator whose score is a fixed linear function."""
    latent = keras.Input((size,))
    dense = layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(seed=1), name="linear")
    judge = keras.Model(latent, {"manifold": layers.Reshape(())(dense(latent))})
    kernel = np.linspace(-1, 1.5, size, dtype="float32")[:, None]
    judge.get_layer("linear").set_weights([kernel, np.float32([bias])])
    return judge


def score_of(model, judge, images, on):
    latent, logits = model.latent_and_logits(images)
    return judge(logits if on == "logits" else latent)["manifold"]


def by_hand(model, judge, shares, on="logits"):
    """x_t, with m of each image given by a function of P(clean)."""
    images = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(images)
        score = score_of(model, judge, images, on)
    m = shares(1 / (1 + np.exp(-score.numpy())))
    step = EPS * m[:, None, None, None] * np.sign(tape.gradient(score, images))
    return np.clip(IMAGES + step, 0, 1)


MODEL = smooth_classifier()
CASES = {
    "imt": ({"mode": "imt"}, np.ones_like),
    "imt+": ({"mode": "imt+"}, lambda clean: np.where((clean > 0.3) & (clean < 0.7), 0.5, 1.0)),
    "svhn": (
        {"mode": "imt+", "band": (0.3, 0.6)},
        lambda clean: np.where((clean > 0.3) & (clean < 0.6), 0.5, 1),
    ),
    "threshold": (
        {"mode": "imt+", "threshold": 0.4},
        lambda clean: np.where(1 - clean < 0.4, 0.5, 1.0),
    ),
}


@pytest.mark.parametrize("on", ["logits", "latent"])
@pytest.mark.parametrize("gradient", ["identity", "second_order"])
@pytest.mark.parametrize(("options", "shares"), CASES.values(), ids=CASES)
def test_the_step_is_the_formula(options, shares, gradient, on):
    judge = linear_judge({"logits": 4, "latent": 5}[on])
    middle = np.median(score_of(MODEL, judge, IMAGES, on))
    judge.get_layer("linear").bias.assign([-middle])
    expected = by_hand(MODEL, judge, shares, on)
    sizes = abs(expected - IMAGES).reshape(20, -1).max(axis=1)
    if options["mode"] == "imt+":
        assert np.unique(sizes.round(3)).size > 1, "or both lengths would not be seen"
    model = with_manifold_transform(MODEL, judge, **options, eps=EPS, on=on, gradient=gradient)
    np.testing.assert_allclose(model(IMAGES), MODEL(expected), rtol=1e-5, atol=1e-6)
    for found, wanted in zip(model.latent_and_logits(IMAGES), MODEL.latent_and_logits(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_certain_discriminator_still_points_somewhere():
    model = with_manifold_transform(MODEL, linear_judge(4, bias=1e4), "imt", eps=EPS)
    expected = by_hand(MODEL, linear_judge(4, bias=1e4), np.ones_like)
    np.testing.assert_allclose(model(IMAGES), MODEL(expected), rtol=1e-5, atol=1e-6)


def test_a_step_of_no_length_is_the_static_model():
    model = with_manifold_transform(MODEL, linear_judge(4), eps=0)
    np.testing.assert_array_equal(model(IMAGES), MODEL(IMAGES))


def test_the_identity_passes_the_gradient_at_the_transformed_image():
    judge = linear_judge(4)
    moved = tf.constant(by_hand(MODEL, judge, np.ones_like), tf.float32)
    model = with_manifold_transform(MODEL, judge, "imt", eps=EPS)
    gradients = [
        value_and_input_gradient(lambda x, one=one: cross_entropy(LABELS, one(x)), at)[1]
        for one, at in ((model, tf.constant(IMAGES)), (MODEL, moved))
    ]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-6)


def test_second_order_passes_the_gradient_of_the_gradient():
    """d x_t / d x = I + m eps H / mean|g|, with H from finite differences of g."""
    judge = linear_judge(4)
    model = with_manifold_transform(MODEL, judge, "imt", eps=EPS, gradient="second_order")
    upstream = rng.normal(size=IMAGES.shape)

    def uphill(images):
        images = tf.constant(images, tf.float32)
        score = lambda x: score_of(MODEL, judge, x, "logits")  # noqa: E731
        return value_and_input_gradient(score, images)[1].numpy().astype("float64")

    _, found = value_and_input_gradient(
        lambda x: tf.reduce_sum(model.step(x) * tf.constant(upstream, tf.float32), axis=(1, 2, 3)),
        tf.constant(IMAGES),
    )
    size = abs(uphill(IMAGES)).mean(axis=(1, 2, 3), keepdims=True)
    expected = upstream.copy()
    for index in np.ndindex(IMAGES.shape[1:]):
        nudge = np.zeros(IMAGES.shape[1:], "float32")
        nudge[index] = 1e-2
        slope = (uphill(IMAGES + nudge) - uphill(IMAGES - nudge)) / 2e-2
        expected[(slice(None), *index)] += (EPS * upstream * slope / size).sum(axis=(1, 2, 3))
    assert abs(expected - upstream).max() > 0.05, "or the second order would not be seen"
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("gradient", ["identity", "second_order"])
def test_end_to_end_leaves_no_more_than_grey_box(digits_classifier, digits, gradient):
    images, labels = digits[0][:100], digits[1][:100]
    random.seed(0)
    judge = build_discriminator("residual_mlp", (10,), depth=1, width=16)
    static = split(digits_classifier, at=0)
    models = {"static": static, "imt": with_manifold_transform(static, judge, eps=0.05, gradient=gradient)}
    matrix = evaluation.transfer(models, (images, labels), PGD(eps=0.1, steps=10), eps=0.1, progress=False)
    found = matrix.to_dict()["accuracy"]
    assert found["imt"]["imt"] <= found["static"]["imt"] < matrix.to_dict()["clean"]["imt"]


def test_it_shares_the_variables():
    judge = linear_judge(4)
    model = with_manifold_transform(MODEL, judge)
    assert {id(weight) for weight in model.weights} == {id(w) for w in [*MODEL.weights, *judge.weights]}


@pytest.mark.parametrize("gradient", ["identity", "second_order"])
def test_it_is_saved(tmp_path, gradient):
    options = {"mode": "imt+", "eps": EPS, "band": (0.2, 0.6), "threshold": 0.3, "gradient": gradient}
    model = with_manifold_transform(smooth_classifier(), linear_judge(5), on="latent", **options)
    model.save(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").stat().st_size < 200_000
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
    assert len(again.weights) == len(model.weights)
    kept = ("mode", "eps", "band", "threshold", "on", "gradient")
    assert [again.get_config()[key] for key in kept] == [model.get_config()[key] for key in kept]
    layer = ManifoldTransform.from_config(model.transform.get_config())
    layer.set_weights(model.transform.get_weights())
    np.testing.assert_array_equal(layer(IMAGES), model.transform(IMAGES))


def test_it_exports_and_serves(tmp_path):
    model = with_manifold_transform(MODEL, linear_judge(4), eps=EPS)
    serve = load_exported(export(model, tmp_path / "served"))
    np.testing.assert_allclose(serve(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(serve(IMAGES[:3]), model(IMAGES[:3]), rtol=1e-5, atol=1e-6)


def test_tflite_is_refused(tmp_path):
    model = with_manifold_transform(MODEL, linear_judge(4))
    with pytest.raises(InputError, match=r"'manifold_transform'.*gradient at inference.*SavedModel"):
        export(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())
    export(MODEL, tmp_path / "model.tflite")


def test_it_takes_points():
    random.seed(0)
    from keras_robust import models

    static = models.build("mlp", hidden=(8,))
    model = with_manifold_transform(static, build_discriminator("residual_mlp", (2,)), eps=EPS)
    points, labels = rng.uniform(size=(7, 2)).astype("float32"), np.zeros(7, "int32")
    found = PGD(eps=0.1, steps=2)(model, points, labels)
    assert classify(model, found).shape == (7,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "itm"}, "Unknown mode of the manifold transform: 'itm'. Did you mean 'imt'"),
        ({"gradient": "exact"}, "Unknown gradient of the manifold transform.*identity, second_order"),
        ({"on": "logit"}, "Did you mean 'logits'"),
        ({"on": "latent"}, r"must take the latent of the classifier, \(5,\)"),
        ({"eps": -1}, "eps must be a finite number >= 0"),
        ({"band": (0.7, 0.3)}, "band must be"),
        ({"band": (0.1, 0.3, 0.5)}, "band must be"),
        ({"threshold": 2}, "threshold must be"),
        ({"discriminator": keras.Sequential([layers.Dense(1)])}, "discriminator must be a built keras.Model"),
        ({"discriminator": MODEL}, "must take the logits of the classifier"),
        ({"model": lambda images: images}, "transform needs the latent"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(InputError, match=message):
        with_manifold_transform(**{"model": MODEL, "discriminator": linear_judge(4), **options})


def test_without_a_discriminator_it_takes_the_one_beside_the_classifier():
    model, judge = smooth_classifier(), linear_judge(4)
    with pytest.raises(InputError, match="No discriminator is kept beside"):
        with_manifold_transform(model)
    object.__setattr__(model, "companions", {"discriminator": judge})
    assert with_manifold_transform(model, mode="imt").discriminator is judge


def test_the_ways_to_attack_it_are_its_classifier_and_its_other_gradient():
    static = smooth_classifier()
    model = with_manifold_transform(static, linear_judge(4), "imt", eps=EPS)
    ways = ways_of(model)
    assert ways == {"static": static, "second_order": ways["second_order"]} and ways_of(static) == {}
    assert ways_of(model) == ways, "or each batch would trace a new model"
    other = ways["second_order"]
    assert (model.gradient, other.gradient) == ("identity", "second_order")
    np.testing.assert_array_equal(other(IMAGES), model(IMAGES))

    def gradient(model):
        objective = lambda images: cross_entropy(np.zeros(len(IMAGES), int), model(images))  # noqa: E731
        return np.asarray(value_and_input_gradient(objective, tf.constant(IMAGES))[1])

    assert np.abs(gradient(other) - gradient(model)).max() > 1e-6


@pytest.mark.parametrize("mode", ["imt", "imt+"])
def test_second_order_says_something_of_rectifiers_too(mode):
    random.seed(0)
    static = build("wide_resnet", input_shape=(8, 8, 1), num_classes=4, depth=10, width=1)
    judge = build_discriminator("residual_mlp", (4,), depth=1, width=8)
    images = tf.constant(rng.uniform(size=(6, 8, 8, 1)).astype("float32"))
    model = with_manifold_transform(static, judge, mode, eps=EPS)

    def gradient(model):
        objective = lambda images: cross_entropy(np.zeros(6, int), model(images))  # noqa: E731
        return np.asarray(value_and_input_gradient(objective, images)[1])

    smooth = with_manifold_transform(static, judge, mode, eps=EPS, gradient="second_order")
    for _ in range(2):
        first, second = gradient(model), gradient(ways_of(model)["second_order"])
        assert set(ways_of(smooth)) == {"static", "identity"}
        np.testing.assert_allclose(gradient(smooth), second, atol=1e-6)
        assert np.abs(second - first).mean() > 0.01 * np.abs(first).mean()
        np.testing.assert_array_equal(ways_of(model)["second_order"](images), model(images))
        for weight in static.trainable_weights:  # trained on, it is attacked as it is now
            weight.assign(weight * 1.1)


@pytest.mark.parametrize("gradient", ["identity", "second_order"])
@pytest.mark.parametrize("mode", ["imt", "imt+"])
def test_a_search_in_bfloat16_leaves_the_step_in_float32(mode, gradient):
    model = with_manifold_transform(smooth_classifier(), linear_judge(4), mode, eps=EPS, gradient=gradient)
    copy = bfloat16_copy(model)
    assert {copy.step.compute_dtype, copy.transform.compute_dtype} == {"float32"}
    assert {layer.compute_dtype for layer in copy.discriminator._flatten_layers()} == {"float32"}
    assert "bfloat16" in {layer.compute_dtype for layer in copy.classifier._flatten_layers()}
    np.testing.assert_allclose(copy(IMAGES), model(IMAGES), rtol=0.05, atol=0.1)
    found = PGD(eps=0.1, steps=2, search_dtype="bfloat16")(model, IMAGES, LABELS)
    assert np.abs(found - IMAGES).max() <= 0.1 + 1e-6
