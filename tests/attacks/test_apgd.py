"""Auto-PGD against an oracle written from the paper's algorithm."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_robust.attacks import APGD, APGDTargeted, classify
from keras_robust.attacks.apgd import checkpoints
from keras_robust.noise import Noise

STEPS = 20
EPS = 0.4


def waves(labels, logits):
    """An objective with many hills, on which the climb has to slow down."""
    return ops.sum(ops.sin(3.0 * logits), axis=-1)


def oracle(weights, images, start, norm, steps):
    """Croce & Hein 2020, algorithm 1, on `waves` of x W in float64, all losses kept."""

    def look(x):
        logits = x @ weights
        return np.sin(3 * logits).sum(1), 3 * np.cos(3 * logits) @ weights.T

    def length(x):
        return np.abs(x).max(1, keepdims=True) if norm == "linf" else np.linalg.norm(x, axis=1, keepdims=True)

    def project(x):
        delta = x - images
        if norm == "linf":
            return np.clip(images + np.clip(delta, -EPS, EPS), 0, 1)
        return np.clip(images + delta * np.minimum(1, EPS / np.maximum(length(delta), 1e-12)), 0, 1)

    def steepest(gradient):
        return np.sign(gradient) if norm == "linf" else gradient / length(gradient)

    x, previous = start.copy(), start.copy()
    loss, gradient = look(x)
    best, best_gradient, best_loss = x.copy(), gradient.copy(), loss.copy()
    losses = [np.zeros(len(x))]  # the reference compares the first step with 0
    size = np.full((len(x), 1), 2 * EPS)
    halved, checked = np.ones(len(x), bool), best_loss.copy()
    ends, done = [], 0
    for segment in checkpoints(steps):
        done += segment
        ends.append((done, segment))
    for step in range(steps):
        weight = 0.75 if step else 1.0
        ahead = project(x + size * steepest(gradient))
        moved = project(x + weight * (ahead - x) + (1 - weight) * (x - previous))
        previous, x = x, moved
        loss, gradient = look(x)
        losses.append(loss)
        better = loss > best_loss
        best[better], best_gradient[better], best_loss[better] = x[better], gradient[better], loss[better]
        for end, segment in ends:
            if step + 1 == end:
                rises = sum(losses[end - k] > losses[end - k - 1] for k in range(segment))
                stuck = (rises <= 0.75 * segment) | (~halved & (checked >= best_loss))
                size[stuck] /= 2
                x[stuck], gradient[stuck] = best[stuck], best_gradient[stuck]
                halved, checked = stuck, best_loss.copy()
    return x, size[:, 0], best_loss


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_step_equals_the_oracle(linear, norm):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(12, 3))
    images = rng.uniform(0.3, 0.7, size=(5, 2, 6, 1)).astype("float32")
    model = linear(weights.astype("float32"), (2, 6, 1))
    labels = classify(model, images)
    attack = APGD(eps=EPS, norm=norm, steps=STEPS, loss=waves)
    state = attack._begin(images, Noise((0, 0)))
    start = np.asarray(state.images, "float64").reshape(5, 12)
    first = 0
    for segment in checkpoints(STEPS):
        steps = segment if first else segment + 1
        state = attack._climb(model, images, labels, None, state, np.arange(5), first, steps, segment)
        first += steps
    x, size, best_loss = oracle(weights, images.reshape(5, 12).astype("float64"), start, norm, STEPS)
    np.testing.assert_allclose(np.asarray(state.images).reshape(5, 12), x, atol=1e-4)
    if norm == "linf":  # on the sphere the last gains are below float32, and only the oracle counts them
        np.testing.assert_allclose(state.size, size, rtol=1e-6)
        assert len(set(size)) > 1
    np.testing.assert_allclose(state.best_value, best_loss, rtol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_in_a_training_step_it_gives_the_best_iterate(linear, norm):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(12, 3))
    images = rng.uniform(0.3, 0.7, size=(5, 2, 6, 1)).astype("float32")
    model = linear(weights.astype("float32"), (2, 6, 1))
    attack = APGD(eps=EPS, norm=norm, steps=STEPS, loss=waves)
    start = np.asarray(attack._begin(images, Noise((0, 0))).images, "float64").reshape(5, 12)
    found = tf.function(attack.perturb, autograph=False)(
        model, tf.constant(images), tf.zeros(5, tf.int32), Noise((0, 0))
    )
    values = np.sin(3 * np.asarray(found).reshape(5, 12) @ weights).sum(1)
    *_, best = oracle(weights, images.reshape(5, 12).astype("float64"), start, norm, STEPS)
    np.testing.assert_allclose(values, best, rtol=1e-4)


def test_checkpoints_are_the_published_ones():
    assert list(checkpoints(100)) == [22, 19, 16, 13, 10, 7, 6, 6, 1]


def test_it_is_at_least_as_strong_as_pgd(digits_classifier, digits):
    from keras_robust.attacks import PGD

    images, labels = digits
    left = {
        name: (classify(digits_classifier, attack(digits_classifier, images, labels)) == labels).mean()
        for name, attack in {"pgd": PGD(eps=0.1, steps=20), "apgd": APGD(eps=0.1, steps=50)}.items()
    }
    assert left["apgd"] <= left["pgd"]


def test_what_fools_the_model_nowhere_is_still_its_worst_image_found(linear):
    weights = np.array([[9.0, 0.0], [9.0, 0.0]], "float32")
    model, images = linear(weights, (1, 2, 1)), np.full((1, 1, 2, 1), 0.5, "float32")
    found = APGD(eps=0.1, steps=10)(model, images, np.array([0]))
    np.testing.assert_allclose(found, images - 0.1, rtol=1e-6)


def test_what_fools_the_model_is_found_even_where_the_objective_is_lower(linear):
    """The objective is largest at 0.5, which is class 0; the climb begins or goes beyond 0.55."""
    model = linear(np.array([[0.0, 20.0]], "float32"), (1, 1, 1), bias=[0.0, -11.0])
    images, labels = np.full((4, 1, 1, 1), 0.5, "float32"), np.zeros(4, int)
    attack = APGD(eps=0.1, steps=10, loss=lambda labels, logits: -ops.square(logits[:, 1] + 1.0))
    assert (classify(model, images) == 0).all()
    assert (classify(model, attack(model, images, labels)) == 1).all()


def test_targets_are_the_likeliest_other_classes(linear):
    weights = np.diag([1.0, 2.0, 3.0, 4.0]).astype("float32")
    model = linear(weights, (2, 2, 1))
    images = np.full((2, 2, 2, 1), 0.5, "float32")
    attack = APGDTargeted(eps=0.1, classes=2)
    targets = list(attack._attempts(model, images, np.array([3, 3], "int32"), None, Noise((0, 0))))
    assert [wanted.tolist() for wanted in targets] == [[2, 2], [1, 1]]
