"""straight_through: the same classifier, with gradients through the layers that hide them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_robust.attacks import PGD, classify
from keras_robust.attacks.gradient import value_and_input_gradient
from keras_robust.errors import InputError
from keras_robust.layers import StraightThrough
from keras_robust.losses import cross_entropy
from keras_robust.models import JointClassifier, LatentClassifier, split, straight_through


@keras.saving.register_keras_serializable("tests")
class Quantize(layers.Layer):
    """Rounds pixels to a few levels."""

    def call(self, images):
        return ops.round(images * 5) / 5


def quantized(classifier):
    return keras.Sequential(
        [keras.Input(classifier.input_shape[1:]), Quantize(name="quantize"), classifier], name="quantized"
    )


def functional(classifier):
    images = keras.Input(classifier.input_shape[1:])
    return keras.Model(images, classifier(Quantize(name="quantize")(images)))


def nested(classifier):
    inner = quantized(classifier)
    images = keras.Input(classifier.input_shape[1:])
    return keras.Model(images, inner(images, training=False))


def latent(classifier):
    return split(quantized(classifier), at="quantize")


def joint(classifier):
    """Pixels that cross the cut, so that there is no head."""
    images = keras.Input(classifier.input_shape[1:])
    levels = Quantize(name="quantize")(images)
    mixed = layers.Average(name="mixed")([levels, layers.Activation("linear", name="same")(levels)])
    return split(keras.Model(images, classifier(mixed)), at="same")


BUILDS = [quantized, functional, nested, latent, joint]
every_build = pytest.mark.parametrize("build", BUILDS)


@every_build
def test_it_breaks_what_quantising_hides(digits_classifier, digits, build):
    images, labels = digits[0][:100], digits[1][:100]
    model = build(digits_classifier)
    copy = straight_through(model, at="quantize")
    attack = PGD(eps=0.2, steps=10, start=None)
    np.testing.assert_array_equal(attack(model, images, labels), images)
    assert (classify(model, images) == labels).mean() > 0.9
    found = attack(copy, images, labels)
    assert (classify(model, found) == labels).mean() < 0.2


@every_build
def test_outputs_and_variables_are_the_models(digits_classifier, digits, build):
    images = digits[0][:20]
    model = build(digits_classifier)
    copy = straight_through(model, at="quantize")
    np.testing.assert_array_equal(copy(images), model(images))
    assert {id(weight) for weight in copy.weights} == {id(weight) for weight in model.weights}
    assert copy.name == model.name


@every_build
def test_the_gradient_is_that_behind_the_layer(digits_classifier, digits, build):
    images, labels = ops.convert_to_tensor(digits[0][:20]), digits[1][:20]
    copy = straight_through(build(digits_classifier), at="quantize")

    def loss_of(model):
        return lambda candidates: cross_entropy(labels, model(candidates))

    _, found = value_and_input_gradient(loss_of(copy), images)
    _, expected = value_and_input_gradient(loss_of(digits_classifier), ops.round(images * 5) / 5)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("build", "kind"), [(latent, LatentClassifier), (joint, JointClassifier)])
def test_the_latent_stays_at_hand(digits_classifier, digits, build, kind):
    model = build(digits_classifier)
    copy = straight_through(model, at="quantize")
    assert type(copy) is kind
    for found, expected in zip(
        copy.latent_and_logits(digits[0][:5]), model.latent_and_logits(digits[0][:5]), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def several():
    shared = Quantize(name="shared")
    images = keras.Input((4, 4, 1))
    dropped = layers.Dropout(0.5, name="dropped")(shared(images), training=False)
    again = shared(layers.Rescaling(0.5, name="half")(dropped))
    return keras.Model(images, layers.Dense(2, name="logits")(layers.Flatten(name="flat")(again)))


def gradient_of(model):
    images = ops.convert_to_tensor(np.full((1, 4, 4, 1), 0.4, "float32"))
    return np.asarray(value_and_input_gradient(lambda x: model(x)[:, 0], images)[1])


@pytest.mark.parametrize("at", ["shared", 1, ["shared"], ("shared", "half", "dropped")])
def test_a_layer_used_twice_is_passed_twice(at):
    model = several()
    assert not gradient_of(model).any()
    copy = straight_through(model, at=at)
    factor = 1.0 if isinstance(at, tuple) else 0.5
    kernel = model.get_layer("logits").kernel[:, 0]
    np.testing.assert_allclose(gradient_of(copy).ravel(), factor * np.asarray(kernel), rtol=1e-6)
    wrapped = [layer for layer in copy.layers if isinstance(layer, StraightThrough)]
    assert len(wrapped) == (len(at) if isinstance(at, tuple) else 1)


def test_a_nested_model_can_be_passed_as_a_whole(digits_classifier, digits):
    denoiser = keras.Sequential([keras.Input((8, 8, 1)), Quantize()], name="denoiser")
    images = keras.Input((8, 8, 1))
    model = keras.Model(images, digits_classifier(denoiser(images)))
    copy = straight_through(model, at=denoiser)
    found = PGD(eps=0.2, steps=5, start=None)(copy, digits[0][:50], digits[1][:50])
    assert (classify(model, found) == digits[1][:50]).mean() < 0.3


def test_the_copy_is_saved(digits_classifier, digits, tmp_path):
    copy = straight_through(functional(digits_classifier), at="quantize")
    copy.save(tmp_path / "copy.keras")
    again = keras.models.load_model(tmp_path / "copy.keras")
    np.testing.assert_array_equal(again(digits[0][:5]), copy(digits[0][:5]))


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (
            "shard",
            "Unknown layer: 'shard'. Did you mean 'shared'.*Valid: dropped, flat, half, logits, shared",
        ),
        (["shared", 7], r"index 7 is outside"),
        ("flat", "Received: 'flat'. Valid: dropped, half, shared"),
        (Quantize(name="stranger"), "Unknown layer: 'stranger'"),
    ],
)
def test_errors_list_what_is_valid(at, words):
    with pytest.raises(InputError, match=words):
        straight_through(several(), at=at)


def test_a_model_without_a_graph_is_refused():
    with pytest.raises(InputError, match="'raw', which is not built"):
        straight_through(keras.Sequential([layers.Dense(3)], name="raw"), at=0)
