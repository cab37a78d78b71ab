"""Soft labels, their cross-entropy, logit matching and triplets against NumPy and closed forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy.spatial.distance import cdist

from keras_robust import losses
from keras_robust.errors import InputError

rng = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 3, 4, 0, 2], "int32")
LOGITS = rng.normal(scale=3, size=(7, 5)).astype("float32")
OTHER = rng.normal(scale=3, size=(7, 5)).astype("float32")
quick = settings(max_examples=30)


def round_trip(loss):
    return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))


# Smoothed labels


@pytest.mark.parametrize("classes", [5, 10, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.1])
def test_smoothed_labels_are_the_papers(classes, smoothing):
    onehot = np.eye(classes)[LABELS]
    share = smoothing / (classes - 1)
    expected = (1 - smoothing - share) * onehot + share
    found = np.asarray(losses.smoothed_labels(LABELS, classes, smoothing))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[np.arange(7), LABELS], 1 - smoothing, rtol=1e-6)


def test_soft_cross_entropy_equals_the_oracle_and_its_gradient_is_the_difference():
    targets = special.softmax(OTHER.astype("float64"), axis=1)
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = losses.soft_cross_entropy(targets.astype("float32"), logits)
    expected = -(targets * special.log_softmax(LOGITS.astype("float64"), axis=1)).sum(axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(
        tape.gradient(values, logits), special.softmax(LOGITS, axis=1) - targets, atol=1e-5
    )


def test_soft_cross_entropy_of_hard_labels_is_the_cross_entropy():
    loss = round_trip(losses.SoftCrossEntropy(smoothing=0.0))
    np.testing.assert_allclose(
        loss.call(LABELS[:, None], LOGITS), losses.cross_entropy(LABELS, LOGITS), rtol=1e-5
    )
    half = losses.SoftCrossEntropy()
    expected = losses.soft_cross_entropy(losses.smoothed_labels(LABELS, 5, 0.5), LOGITS)
    np.testing.assert_allclose(half(LABELS, LOGITS), np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, float("nan"), "half"])
def test_smoothing_is_a_share(smoothing):
    with pytest.raises(InputError, match=r"smoothing must be a number in \[0, 1\]"):
        losses.SoftCrossEntropy(smoothing)


# Adversarial labels


def test_adversarial_labels_equal_the_formula():
    found = np.asarray(losses.adversarial_labels(LABELS, LOGITS, mass=0.4, gamma=0.2))
    for row, label, logits in zip(found, LABELS, LOGITS.astype("float64"), strict=True):
        v = -special.log_softmax(logits)
        others = np.delete(np.arange(5), label)
        shares = v[others] - v[others].min() + 0.2
        np.testing.assert_allclose(row[others], 0.4 * shares / shares.sum(), rtol=1e-4)
        assert row[label] == pytest.approx(0.6)


@quick
@given(mass=st.floats(0.01, 1), gamma=st.floats(1e-3, 1))
def test_adversarial_labels_are_distributions_with_a_higher_loss(mass, gamma):
    found = np.asarray(losses.adversarial_labels(LABELS, LOGITS, mass, gamma))
    assert (found >= -1e-7).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    smooth = losses.smoothed_labels(LABELS, 5, mass)
    harder, plain = (np.asarray(losses.soft_cross_entropy(labels, LOGITS)) for labels in (found, smooth))
    assert (harder >= plain - 1e-4).all()
    confusing = np.where(np.eye(5)[LABELS] > 0, -np.inf, LOGITS).argmax(axis=1)
    others = np.where(np.eye(5)[LABELS] > 0, np.inf, found)
    np.testing.assert_array_equal(others.argmin(axis=1), confusing)


def test_adversarial_labels_tend_to_smoothed_ones():
    found = losses.adversarial_labels(LABELS, LOGITS, 0.5, gamma=1e6)
    np.testing.assert_allclose(found, losses.smoothed_labels(LABELS, 5, 0.5), atol=1e-5)


# Logit matching


def test_logit_matching_equals_the_oracle():
    expected = ((OTHER.astype("float64") - LOGITS) ** 2).mean(axis=1)
    np.testing.assert_allclose(losses.logit_matching(LOGITS, OTHER), expected, rtol=1e-5)
    assert float(round_trip(losses.LogitMatching())(LOGITS, OTHER)) == pytest.approx(
        expected.mean(), rel=1e-5
    )


@pytest.mark.parametrize(
    ("gradient", "other", "ratio"),
    [
        ([-5.0, 2.0], [[1.0], [0.5]], 2.0),  # signed maxima, not sizes
        ([1.0], [1e-9], 10.0),
        ([-1.0, -2.0], [1.0], 0.0),
        ([1.0], [0.0], 0.0),
    ],
)
def test_gradient_ratio_is_that_of_the_maxima_within_its_limit(gradient, other, ratio):
    assert float(losses.gradient_ratio(np.float32(gradient), np.float32(other), 10.0)) == pytest.approx(ratio)


# Triplets


def triplet_oracle(labels, anchors, features, margin):
    distances = cdist(anchors, features, "cosine")
    size, values, positives, negatives = len(labels), [], [], []
    for i, label in enumerate(labels):
        positive = next(j % size for j in range(i + 1, i + size + 1) if labels[j % size] == label)
        others = [j for j in range(size) if labels[j] != label]
        negative = min(others, key=lambda j: distances[i, j])
        values.append(max(0, distances[i, positive] - distances[i, negative] + margin))
        positives.append(positive)
        negatives.append(negative)
    return np.array(values), positives, negatives


@pytest.mark.parametrize("margin", [0.0, 0.03, 5.0])
def test_triplets_equal_the_oracle(margin):
    values, positives, negatives = triplet_oracle(LABELS, OTHER.astype("float64"), LOGITS, margin)
    chosen = losses.partners(LABELS, OTHER, LOGITS)
    np.testing.assert_array_equal(chosen.positive, positives)
    np.testing.assert_array_equal(chosen.negative, negatives)
    assert np.all(chosen.exists)
    np.testing.assert_allclose(losses.triplet(LABELS, OTHER, LOGITS, margin), values, rtol=1e-5, atol=1e-6)
    loss = round_trip(losses.Triplet(margin))
    assert float(loss(LABELS, (LOGITS, OTHER))) == pytest.approx(values.mean(), rel=1e-5, abs=1e-6)


def test_without_another_class_there_is_no_triplet():
    labels = np.zeros(7, "int32")
    np.testing.assert_array_equal(losses.triplet(labels, OTHER, LOGITS, 9.0), np.zeros(7))
    assert not np.any(losses.partners(labels, OTHER, LOGITS).exists)


def test_of_no_example_there_is_no_triplet():
    nothing = np.zeros((0, 3), "float32")
    assert losses.triplet(np.zeros(0, "int32"), nothing, nothing).shape == (0,)


def test_a_class_of_one_is_its_own_positive():
    assert int(losses.partners(LABELS, OTHER, LOGITS).positive[1]) == 1


def test_the_margin_is_checked():
    with pytest.raises(InputError, match="margin must be"):
        losses.Triplet(-1)
