"""Virtual adversarial perturbations against the Hessian of the divergence of linear models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from keras_robust.attacks import VAT
from keras_robust.attacks.vat import divergence_from, steepest_direction
from keras_robust.errors import InputError
from keras_robust.noise import Noise

SHAPE = (4, 3, 1)
EPS = 0.1
rng = np.random.default_rng(0)
IMAGES = rng.uniform(0.3, 0.7, size=(20, *SHAPE)).astype("float32")
LABELS = np.zeros(20, "int32")
KEY = (3, 1)
every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


def flat(images):
    return np.asarray(images, "float64").reshape(len(images), -1)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def steepest(direction, norm):
    return np.sign(direction) if norm == "linf" else unit(direction)


def divergences(weights, moved):
    log_p, log_q = (special.log_softmax((flat(x) - 0.5) @ weights, axis=1) for x in (IMAGES, moved))
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


@pytest.fixture
def two_classes(linear):
    weights = rng.normal(size=(12, 2)).astype("float32")
    # Undecided in the middle of the images, so that some are of either class.
    return linear(weights, SHAPE, -0.5 * weights.sum(axis=0)), weights


@every_norm
@pytest.mark.parametrize("iterations", [1, 3])
def test_two_classes_have_one_direction(two_classes, norm, iterations):
    """Of rank one, the Hessian turns every start into the difference of the weights, on the start's side."""
    model, weights = two_classes
    noise = Noise(KEY).normal(IMAGES.shape)
    attack = VAT(eps=EPS, norm=norm, iterations=iterations)
    moved = attack.perturb(model, tf.constant(IMAGES), tf.constant(LABELS), Noise(KEY))
    difference = (weights[:, 1] - weights[:, 0]).astype("float64")[None]
    side = np.sign(flat(noise) @ difference[0])[:, None]
    assert set(side[:, 0]) == {1, -1}
    expected = EPS * side * steepest(difference, norm)
    np.testing.assert_allclose(flat(moved) - flat(IMAGES), expected, atol=1e-4)


@every_norm
def test_a_call_goes_the_way_that_changes_the_prediction_more(two_classes, norm):
    model, weights = two_classes
    step = EPS * steepest((weights[:, 1] - weights[:, 0])[None], norm).reshape(1, *SHAPE)
    ways = np.stack([IMAGES + step, IMAGES - step])
    better = np.argmax([divergences(weights, way) for way in ways], axis=0)
    assert set(better) == {0, 1}
    found = VAT(eps=EPS, norm=norm)(model, IMAGES, LABELS)
    np.testing.assert_allclose(found, ways[better, np.arange(20)], atol=1e-4)


def test_iterations_lead_to_the_dominant_eigenvector(linear):
    weights = rng.normal(size=(12, 4)).astype("float32")
    divergence = divergence_from(linear(weights, SHAPE), tf.constant(IMAGES))
    p = special.softmax(flat(IMAGES) @ weights, axis=1)
    hessians = [weights @ (np.diag(row) - np.outer(row, row)) @ weights.T for row in p]
    values, vectors = map(np.array, zip(*map(np.linalg.eigh, hessians), strict=True))
    clear = values[:, -2] < 0.7 * values[:, -1]
    assert clear.sum() > 5
    start = Noise(KEY).normal(IMAGES.shape)

    def alignment(iterations):
        found = steepest_direction(divergence, tf.constant(IMAGES), start, 0.01, iterations)
        return np.abs((unit(flat(found)) * vectors[:, :, -1]).sum(axis=1))[clear]

    one, many = alignment(1), alignment(15)
    assert (many > 0.99).all()
    assert one.mean() < many.mean()
    # one iteration is one product with the Hessian
    turned = unit(np.stack([h @ d for h, d in zip(hessians, flat(start), strict=True)]))
    found = unit(flat(steepest_direction(divergence, tf.constant(IMAGES), start, 0.01, 1)))
    assert ((turned * found).sum(axis=1) > 0.99).all()


def test_bfloat16_finds_the_direction_of_float32(build_conv_classifier):
    images = rng.uniform(size=(20, 8, 8, 1)).astype("float32")
    found = [
        VAT(eps=EPS, norm="l2", search_dtype=dtype)(build_conv_classifier(), images, LABELS)
        for dtype in ("float32", "bfloat16")
    ]
    cosines = (unit(flat(found[0] - images)) * unit(flat(found[1] - images))).sum(axis=1)
    assert np.median(cosines) > 0.9


def test_labels_are_not_looked_at(conv_classifier):
    images = rng.uniform(size=(5, 8, 8, 1)).astype("float32")
    one, other = (VAT(eps=EPS)(conv_classifier, images, np.full(5, label)) for label in (0, 1))
    np.testing.assert_array_equal(one, other)


def test_a_training_step_may_compile_it(two_classes):
    model, _ = two_classes

    def perturb(images):
        return VAT(eps=EPS).perturb(model, images, LABELS, Noise(KEY))

    with tf.GradientTape() as tape:
        moved = tf.function(perturb, autograph=False)(tf.constant(IMAGES))
        loss = tf.reduce_sum(moved)
    np.testing.assert_allclose(moved, perturb(tf.constant(IMAGES)), atol=1e-6)
    assert all(gradient is None for gradient in tape.gradient(loss, model.trainable_variables))


def test_a_constant_model_leaves_the_images():
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.set_weights([np.zeros((12, 3)), np.zeros(3)])
    np.testing.assert_array_equal(VAT(eps=EPS)(model, IMAGES, LABELS), IMAGES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"iterations": 0}, "iterations must be an integer >= 1. Received: iterations=0"),
        ({"xi": 0.0}, "xi must be a finite number > 0. Received: xi=0.0"),
        ({"xi": float("nan")}, "xi=nan"),
    ],
)
def test_wrong_options_are_told(options, words):
    with pytest.raises(InputError, match=words):
        VAT(eps=EPS, **options)
