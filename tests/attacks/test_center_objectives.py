"""Objectives on features and centres: their formulas, what they need, and that they survive as data."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust import losses
from keras_robust.attacks import Goal, OnCosines, View, get_objective, observe, to_config
from keras_robust.attacks.ascent import aim
from keras_robust.attacks.gradient import value_and_input_gradient
from keras_robust.errors import InputError
from keras_robust.layers import CosineCenters, max_mahalanobis_centers
from keras_robust.models import LatentClassifier

rng = np.random.default_rng(2)
CLASSES, DIM = 5, 7
CENTERS = max_mahalanobis_centers(CLASSES, DIM)
LABELS, TARGETS = np.array([0, 1, 2, 3, 4]), np.array([1, 2, 3, 4, 0])
FEATURES, CLEAN = rng.normal(size=(2, 5, DIM)).astype("float32")
LENGTHS = np.linalg.norm(FEATURES, axis=1, keepdims=True)
COSINES = FEATURES @ CENTERS.T / LENGTHS


def view(features):
    return View(tf.constant(features @ CENTERS.T.astype("float32")), tf.constant(features))


def pick(values, labels):
    return values[np.arange(len(labels)), labels]


def half_squares(labels):
    return 0.5 * ((FEATURES - 2 * CENTERS[labels]) ** 2).sum(axis=1)


def clean_cosines():
    return (FEATURES * CLEAN).sum(axis=1) / LENGTHS[:, 0] / np.linalg.norm(CLEAN, axis=1)


def margins(scores, labels):
    best = np.array([np.delete(row, label).max() for row, label in zip(scores, labels, strict=True)])
    return best - pick(scores, labels)


MMC = {"name": "max_mahalanobis_center", "scale": 2.0}
ON_COSINES = {"name": "on_cosines", "objective": "margin", "scale": 3.0}
UNTARGETED = [
    ("cosine_distance", 1 - clean_cosines()),
    ("feature_to_center", 1 - pick(COSINES, LABELS)),
    ("second_order", np.sin(np.arccos(pick(COSINES, LABELS))) / LENGTHS[:, 0]),
    (MMC, half_squares(LABELS)),
    (ON_COSINES, margins(3 * COSINES, LABELS) - 50),
]
TARGETED = [
    ("feature_to_center", pick(COSINES, TARGETS) - 1),
    (MMC, -half_squares(TARGETS)),
    (ON_COSINES, -margins(3 * COSINES, TARGETS) - 50),
]


@pytest.mark.parametrize(("config", "expected"), UNTARGETED)
def test_untargeted_values_equal_the_formula(config, expected):
    values = get_objective(config)(view(FEATURES), Goal(LABELS, None, view(CLEAN)))
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("config", "expected"), TARGETED)
def test_targeted_values_equal_the_formula(config, expected):
    values = get_objective(config)(view(FEATURES), Goal(LABELS, TARGETS))
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_on_cosines_asks_for_what_its_objective_asks_for():
    plain, divergence = OnCosines("margin"), OnCosines("kl")
    assert plain.targetable and not plain.needs_clean
    assert divergence.needs_clean and not divergence.targetable
    clean = CLEAN / np.linalg.norm(CLEAN, axis=1, keepdims=True) @ CENTERS.T
    expected = losses.kl_divergence(10 * clean, 10 * COSINES)
    np.testing.assert_allclose(
        divergence(view(FEATURES), Goal(LABELS, None, view(CLEAN))), expected, rtol=1e-4, atol=1e-5
    )


def test_on_cosines_does_not_see_the_length_of_features():
    long = 1e4 * FEATURES
    for name, sees in ((OnCosines("cross_entropy"), False), (get_objective("cross_entropy"), True)):
        features = tf.constant(long)
        with tf.GradientTape() as tape:
            tape.watch(features)
            logits = tf.matmul(features, CENTERS.T.astype("float32"))
            values = name(View(logits, features), Goal(np.argmax(long @ CENTERS.T, axis=1)))
        gradient = np.abs(tape.gradient(values, features).numpy()).max(axis=1) * 1e4
        assert (gradient.min() < 1e-20) == sees


@pytest.mark.parametrize("config", [MMC, ON_COSINES, {"name": "second_order"}])
def test_a_config_is_plain_data_that_reads_back(config):
    objective = get_objective(config)
    again = get_objective(json.loads(json.dumps(to_config(objective))))
    assert again == objective and hash(again) == hash(objective)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**MMC, "scale": 0.0}, "scale must be a finite number > 0"),
        ({**ON_COSINES, "scale": -1.0}, "scale must be a finite number > 0"),
        ({**ON_COSINES, "objective": "marginn"}, "Did you mean 'margin'"),
    ],
)
def test_bad_configs_are_told(config, words):
    with pytest.raises(InputError, match=words):
        get_objective(config)


@pytest.mark.parametrize(
    "seen", [View(np.zeros((2, 3), "float32")), View(np.zeros((2, 3)), np.zeros((2, 4, 4, 3)))]
)
@pytest.mark.parametrize("name", ["feature_to_center", "second_order", "on_cosines"])
def test_a_model_without_flat_features_is_refused(name, seen):
    with pytest.raises(InputError, match=r"needs a LatentClassifier whose latent is flat"):
        get_objective(name)(seen, Goal(np.array([0, 1])))


def test_a_clean_image_has_no_gradient_to_start_from():
    """Why the adversary of BIBO starts at random."""
    encoder = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(6)])
    classifier = LatentClassifier(encoder, keras.Sequential([keras.Input((6,)), CosineCenters(3)]))
    images = tf.constant(rng.uniform(size=(8, 4, 4, 1)).astype("float32"))
    objective = get_objective("cosine_distance")
    goal = aim(classifier, objective, images, None)

    def steepness(at):
        gradient = value_and_input_gradient(lambda x: objective(observe(classifier, x), goal), at)[1]
        return np.abs(gradient).max()

    assert steepness(images) < 1e-5 < 1e-2 < steepness(images + rng.normal(size=images.shape) * 0.1)
