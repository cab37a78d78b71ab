"""One train step equals the paper's formula, written out by hand."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from defense_building import batch, build

from keras_robust import losses
from keras_robust.attacks import PGD
from keras_robust.defenses.base import _weighted_mean
from keras_robust.noise import Noise

EPS, STEPS, STEP_SIZE, RATE, SEED = 0.2, 3, 0.08, 0.1, 4


def hidden(weights, images):
    return tf.nn.relu(tf.reshape(images, (len(images), -1)) @ weights[0] + weights[1])


def logits(weights, images):
    return hidden(weights, images) @ weights[2] + weights[3]


def cross_entropy(labels, scores):
    return -tf.gather(tf.nn.log_softmax(scores), labels, batch_dims=1)


def divergence(scores, others):
    p, log_p, log_q = tf.nn.softmax(scores), tf.nn.log_softmax(scores), tf.nn.log_softmax(others)
    return tf.reduce_sum(p * (log_p - log_q), axis=1)


def ascend(objective, images, start):
    moved = start
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            tape.watch(moved)
            value = objective(moved)
        moved = moved + STEP_SIZE * tf.sign(tape.gradient(value, moved))
        moved = tf.clip_by_value(tf.clip_by_value(moved, images - EPS, images + EPS), 0.0, 1.0)
    return moved


def standard(weights, images, labels, adversarial):
    return cross_entropy(labels, logits(weights, images))


def adversarial_training(weights, images, labels, adversarial):
    clean, robust = logits(weights, images), logits(weights, adversarial)
    return cross_entropy(labels, clean) + cross_entropy(labels, robust)


def madry(weights, images, labels, adversarial):
    return cross_entropy(labels, logits(weights, adversarial))


def trades(weights, images, labels, adversarial):
    clean, robust = logits(weights, images), logits(weights, adversarial)
    return cross_entropy(labels, clean) + 6.0 * divergence(clean, robust)


def feature_scattering(weights, images, labels, adversarial):
    """Smoothing 0.3 over three classes."""
    targets = 0.15 + 0.55 * tf.one_hot(labels, 3)
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits(weights, adversarial)), axis=1)


def bilateral(weights, images, labels, adversarial):
    log_p = tf.nn.log_softmax(logits(weights, adversarial))
    own = tf.one_hot(labels, 3)
    v = -log_p.numpy()
    shares = (1 - own) * (v - np.where(own > 0, np.inf, v).min(axis=1, keepdims=True) + 0.01)
    targets = 0.6 * own + 0.4 * shares / tf.reduce_sum(shares, axis=1, keepdims=True)
    return -tf.reduce_sum(targets * log_p, axis=1)


def tla(weights, images, labels, adversarial):
    clean, robust = hidden(weights, images), hidden(weights, adversarial)
    unit = [x / tf.norm(x, axis=1, keepdims=True) for x in (robust, clean)]
    distances = 1 - unit[0] @ tf.transpose(unit[1])
    values = []
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if labels[j] != label]
        negative = min(others, key=lambda j: distances[i, j])
        ahead = (j % len(labels) for j in range(i + 1, i + 1 + len(labels)))
        positive = next(j for j in ahead if labels[j] == label)
        length = tf.norm(robust[i]) + tf.norm(clean[positive]) + tf.norm(clean[negative])
        gap = tf.nn.relu(distances[i, positive] - distances[i, negative] + 0.03)
        values.append(2 * gap + 0.001 * length)
    return cross_entropy(labels, logits(weights, adversarial)) + tf.stack(values)


# name, options of the defense, its loss per example, what its adversary climbs
CASES = {
    "standard": ("standard", {}, standard, "cross_entropy"),
    "adv": ("adversarial_training", {}, adversarial_training, "cross_entropy"),
    "madry": ("adversarial_training", {"clean_weight": 0}, madry, "cross_entropy"),
    "trades": ("trades", {}, trades, "kl"),
    "feature_scattering": ("feature_scattering", {"smoothing": 0.3}, feature_scattering, "transport"),
    "bilateral": ("bilateral", {"label_mass": 0.4}, bilateral, "most_confusing"),
    "tla": ("tla", {}, tla, "cross_entropy"),
}


def by_hand(loss, climbed, weights, images, labels, example_weights):
    """Loss and weights after one step of SGD."""
    start = tf.clip_by_value(images + EPS * Noise((SEED, 0)).uniform(images.shape, -1.0, 1.0), 0.0, 1.0)
    objective = {
        "cross_entropy": lambda moved: cross_entropy(labels, logits(weights, moved)),
        "kl": lambda moved: divergence(logits(weights, images), logits(weights, moved)),
        "transport": lambda moved: losses.transport_cost(logits(weights, images), logits(weights, moved)),
        "most_confusing": lambda moved: (
            -cross_entropy(
                tf.argmax(logits(weights, images) - 1e9 * tf.one_hot(labels, 3), axis=1),
                logits(weights, moved),
            )
        ),
    }[climbed]
    adversarial = ascend(objective, images, start)
    variables = [tf.Variable(weight) for weight in weights]
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(example_weights * loss(variables, images, labels, adversarial))
    gradients = tape.gradient(mean, variables)
    return float(mean), [w - RATE * g for w, g in zip(variables, gradients, strict=True)]


# How weights are given is the matter of the base, for all alike.
WEIGHTED = [*itertools.product(CASES, ["none", "sample"]), ("adv", "column"), ("adv", "class")]


@pytest.mark.parametrize(("case", "weighting"), WEIGHTED)
def test_one_step_by_hand(case, weighting):
    name, options, loss, climbed = CASES[case]
    images, labels = batch()
    by_class = {0: 0.5, 1: 3.0, 2: 1.0}
    example_weights, given = {
        "none": (np.ones(8, "float32"), {}),
        "sample": (np.linspace(0, 2, 8, dtype="float32"), {}),
        "column": (np.linspace(2, 0, 8, dtype="float32"), {}),
        "class": (np.array([by_class[label] for label in labels], "float32"), {"class_weight": by_class}),
    }[weighting]
    if weighting == "sample":
        given = {"sample_weight": example_weights}
    if weighting == "column":
        given = {"sample_weight": example_weights[:, None]}
    adversary = PGD(eps=EPS, steps=STEPS, step_size=STEP_SIZE, loss=climbed)
    defense = build(name, adversary=adversary, seed=SEED, **options)
    expected_loss, expected = by_hand(
        loss, climbed, defense.classifier.get_weights(), images, labels, example_weights
    )
    defense.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    logs = defense.fit(images, labels, batch_size=8, shuffle=False, verbose=0, **given).history

    assert logs["loss"] == pytest.approx([expected_loss], rel=1e-5)
    for weight, by_oracle in zip(defense.classifier.get_weights(), expected, strict=True):
        np.testing.assert_allclose(weight, by_oracle, rtol=0, atol=1e-6)


def test_regularizers_of_layers_are_part_of_the_loss():
    images, labels = batch()
    steps = []
    for factor in (0.0, 0.3):
        defense = build("standard")
        defense.classifier.head.layers[-1].kernel.regularizer = keras.regularizers.L2(factor)
        start = defense.classifier.get_weights()
        defense.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
        defense.fit(images, labels, verbose=0)
        steps.append(defense.classifier.get_weights())
    np.testing.assert_allclose(steps[1][2], steps[0][2] - RATE * 2 * 0.3 * start[2], atol=1e-6)
    np.testing.assert_allclose(steps[1][0], steps[0][0], atol=1e-7)


def test_weighted_mean_leaves_a_term_of_the_whole_batch_alone():
    values, weights = np.array([1.0, 2.0, 6.0], "float32"), np.array([0.0, 3.0, 1.0], "float32")
    assert float(_weighted_mean(values, None)) == pytest.approx(3)
    assert float(_weighted_mean(values, weights)) == pytest.approx((0 * 1 + 3 * 2 + 1 * 6) / 3)
    assert float(_weighted_mean(tf.constant(5.0), weights)) == 5
    assert _weighted_mean(tf.constant([1.0, 2.0], "bfloat16"), weights[:2]).dtype == "float32"
