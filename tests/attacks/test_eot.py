"""Expectation over transformation: gradients averaged over the passes of a classifier that draws noise."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_robust.attacks import APGD, CW, PGD, APGDTargeted, classify
from keras_robust.attacks.compiling import trace_count
from keras_robust.attacks.gradient import averaged, gradient_in_loop, value_and_input_gradient
from keras_robust.errors import InputError

COUNT = 500


@keras.saving.register_keras_serializable("tests")
class NoisyScale(layers.Layer):
    """Multiplies every pixel by 1 + scale * N(0, 1), drawn anew at every call, and counts the calls."""

    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.seed = keras.random.SeedGenerator(1)

    def build(self, shape):
        self.calls = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs):
        self.calls.assign_add(1)
        return inputs * (1.0 + self.scale * keras.random.normal(ops.shape(inputs), seed=self.seed))


def noisy(model, scale):
    images = keras.Input(model.input_shape[1:])
    return keras.Model(images, model(NoisyScale(scale)(images)))


def calls_of(model):
    return int(model.layers[1].calls)


IMAGES = np.full((COUNT, 2, 2, 1), 0.5, "float32")
WEIGHTS = np.array([[1.0], [-2.0], [3.0], [0.5]], "float32")


@pytest.fixture
def noisy_line(linear):
    """The one output of a linear model whose pixels are multiplied by 1 + 0.5 N(0, 1)."""
    model = noisy(linear(WEIGHTS, (2, 2, 1)), 0.5)
    return lambda images: model(images)[:, 0]


@pytest.mark.parametrize("samples", [1, 4, 25])
def test_the_mean_has_the_expected_value_and_variance(noisy_line, samples):
    """Each gradient is w (1 + n / 2), n ~ N(0, 1): its mean is w, its deviation |w| / (2 sqrt(samples))."""
    values, gradient = gradient_in_loop(noisy_line, samples)(ops.convert_to_tensor(IMAGES))
    gradient = np.asarray(gradient).reshape(COUNT, 4)
    deviation = abs(WEIGHTS[:, 0]) / 2 / np.sqrt(samples)
    assert (abs(gradient.mean(axis=0) - WEIGHTS[:, 0]) < 5 * deviation / np.sqrt(COUNT)).all()
    np.testing.assert_allclose(gradient.std(axis=0), deviation, rtol=0.2)
    np.testing.assert_allclose(np.asarray(values), gradient.sum(axis=1) / 2, rtol=1e-4, atol=1e-5)


def test_one_sample_is_the_gradient_itself(linear):
    model = linear(np.random.default_rng(0).normal(size=(4, 3)).astype("float32"), (2, 2, 1))
    images = ops.convert_to_tensor(IMAGES)

    def objective(candidates):
        return ops.sum(ops.sin(model(candidates)), axis=-1)

    for found, expected in zip(
        gradient_in_loop(objective, 1)(images), value_and_input_gradient(objective, images), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_integers_are_those_of_the_last_call():
    calls = []

    def look(images):
        calls.append(None)
        return (ops.cast(len(calls), "float32") + images, ops.convert_to_tensor(len(calls), "int32")), images

    (values, last), images = averaged(look, 3)(ops.ones(2))
    np.testing.assert_allclose(values, [3.0, 3.0])
    np.testing.assert_allclose(images, [1.0, 1.0])
    assert int(last) == 3


ATTACKS = [(PGD, {}), (PGD, {"keep_best": True}), (CW, {"momentum": 1.0}), (APGD, {}), (APGD, {"norm": "l2"})]
every_attack = pytest.mark.parametrize(("cls", "options"), ATTACKS)


@every_attack
def test_on_a_model_without_noise_samples_change_nothing(digits_classifier, digits, cls, options):
    images, labels = digits[0][:20], digits[1][:20]
    one, default, three = (
        cls(eps=0.1, steps=5, **options, **samples)(digits_classifier, images, labels)
        for samples in ({"samples": 1}, {}, {"samples": 3})
    )
    np.testing.assert_array_equal(one, default)
    np.testing.assert_allclose(three, one, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(("cls", "options", "looks"), [(PGD, {}, 4), (APGD, {}, 5)])
def test_every_step_makes_as_many_passes(linear, cls, options, looks, samples):
    model = noisy(linear(np.zeros((4, 2), "float32"), (2, 2, 1), bias=[1.0, 0.0]), 0.1)
    attack = cls(eps=0.1, steps=4, samples=samples, **options)
    attack(model, IMAGES[:3], np.zeros(3, "int32"))
    before = calls_of(model)
    attack(model, IMAGES[:3], np.zeros(3, "int32"))
    assert calls_of(model) - before == looks * samples


@pytest.mark.parametrize(("cls", "options"), [(PGD, {}), (APGD, {}), (APGDTargeted, {"classes": 1})])
def test_averaging_breaks_more_of_a_noisy_model(digits_classifier, digits, cls, options):
    images, labels = digits[0][:200], digits[1][:200]
    model = noisy(digits_classifier, 1.0)
    left = {}
    for samples in (1, 30):
        found = cls(eps=0.2, steps=4, samples=samples, **options)(model, images, labels)
        left[samples] = np.mean([classify(model, found) == labels for _ in range(5)])
    assert left[30] < left[1] - 0.04


def test_samples_trace_once_and_round_trip(build_conv_classifier):
    model = build_conv_classifier()
    images, labels = np.full((3, 8, 8, 1), 0.5, "float32"), np.array([0, 1, 2], "int32")
    for count, samples in enumerate((1, 2, 3), start=1):
        for steps in (1, 4):
            attack = PGD(eps=0.1, steps=steps, samples=samples)
            attack(model, images, labels)
        assert trace_count(model) == count
        assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack)) == attack


def test_compiled_by_xla_agrees(conv_classifier):
    images, labels = np.full((3, 8, 8, 1), 0.5, "float32"), np.array([0, 1, 2], "int32")
    plain, xla = (
        PGD(eps=0.1, steps=3, samples=3, jit_compile=jit)(conv_classifier, images, labels)
        for jit in (False, True)
    )
    np.testing.assert_allclose(xla, plain, atol=1e-4)


@pytest.mark.parametrize("cls", [PGD, APGD])
@pytest.mark.parametrize("samples", [0, 1.5, True])
def test_wrong_samples_are_refused(cls, samples):
    with pytest.raises(InputError, match="samples must be an integer >= 1"):
        cls(eps=0.1, samples=samples)
